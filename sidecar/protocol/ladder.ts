/**
 * Era of a POST, and whether its headers agree with its body (2026-07-28, basic/transports/streamable-http).
 *
 * The body is the source of truth; a header is only ever checked against it. The ladder is data: what it refuses, in
 * which order, with which code and why. The order is that of the TypeScript SDK's own server, so that a request which
 * is wrong in two ways is answered alike with and without the sidecar.
 *
 * Left to the server, deliberately: methods it may not know, capabilities it may need, `Accept`, and the values inside
 * the envelope that the sidecar does not act on. But `subscriptions/listen` is refused to the era that does not have it:
 * it opens a stream, and what is known of such a stream (how it ends, that it ends with its agent) is only true of the
 * era that does.
 */
import { err, ok, type Result } from '../../policies/result.ts';
import {
  ASSUMED_VERSION,
  BATCH_VERSION,
  CAPABILITIES_KEY,
  hasClaim,
  isModernVersion,
  LEGACY_VERSIONS,
  LISTEN_METHOD,
  MODERN_VERSIONS,
  VERSION_KEY,
} from './eras.ts';
import { decodeHeader, trimHeader } from './header-value.ts';
import type { Era, MalformedReason, Message, ParsedBody } from './message.ts';

/** Request headers as they came. */
export interface ProtocolHeaders {
  readonly protocolVersion?: string | undefined;
  readonly method?: string | undefined;
  readonly name?: string | undefined;
}

export interface Classified {
  readonly era: Era;
  /** What the message says it speaks; `undefined` for an `initialize` that does not say. */
  readonly protocolVersion: string | undefined;
}

/** One message and the headers that came with it, without white space around them. */
interface Inbound {
  readonly message: Message;
  /** The revision that the envelope names; `undefined` without one, or when it is not a string. */
  readonly claimed: string | undefined;
  readonly version: string | undefined;
  readonly method: string | undefined;
  readonly name: string | undefined;
}

export interface Rung {
  readonly rung: string;
  readonly code: -32602 | -32020 | -32022;
  readonly rationale: string;
  /** Why the message is refused here, or `undefined` to climb on. */
  readonly refuse: (inbound: Inbound) => MalformedReason | undefined;
}

/** Where the body says what `Mcp-Name` must repeat. The tasks methods are of the tasks extension. */
const NAME_SOURCE: ReadonlyMap<string, 'name' | 'uri' | 'taskId'> = new Map([
  ['tools/call', 'name'],
  ['prompts/get', 'name'],
  ['resources/read', 'uri'],
  ['tasks/get', 'taskId'],
  ['tasks/update', 'taskId'],
  ['tasks/cancel', 'taskId'],
]);

/** Every check of a message of the modern era, first to last. */
export const MODERN_LADDER: readonly Rung[] = [
  {
    rung: 'envelope',
    code: -32602,
    rationale:
      'A claim that is not whole is an error, never a silent fall back to the legacy era, where other rules would hold.',
    refuse: ({ message, claimed, version }) => {
      // A notification without an envelope is modern by its header: it has nothing else to say so with.
      if (message.kind === 'notification' && !hasClaim(message.meta)) return undefined;
      const missing = missingKeys(message);
      if (missing.length > 0) {
        const why =
          version === undefined || hasClaim(message.meta) ? '' : `MCP-Protocol-Version names ${quote(version)}, but `;
        return { kind: 'envelopeMissing', detail: `${why}params._meta lacks ${missing.join(' and ')}`, id: message.id };
      }
      return claimed === undefined
        ? { kind: 'envelopeMissing', detail: `${VERSION_KEY} must be a string`, id: message.id }
        : undefined;
    },
  },
  {
    rung: 'version header agrees',
    code: -32020,
    rationale: 'Intermediaries judge by the header and the server by the body: they must not see two revisions.',
    refuse: ({ message, claimed, version }) =>
      version !== undefined && claimed !== undefined && version !== claimed
        ? mismatch(message, `MCP-Protocol-Version is ${quote(version)}, but the body says ${quote(claimed)}`)
        : undefined,
  },
  {
    rung: 'method header agrees',
    code: -32020,
    rationale: 'A policy on Mcp-Method would otherwise judge another method than the one that runs.',
    refuse: ({ message, method }) =>
      method !== undefined && method !== message.method
        ? mismatch(message, `Mcp-Method is ${quote(method)}, but the body says ${quote(message.method)}`)
        : undefined,
  },
  {
    rung: 'version is known',
    code: -32022,
    rationale:
      'Before the headers that this revision requires: the list of revisions helps a client of another one more.',
    refuse: ({ message, claimed, version }) => {
      const requested = claimed ?? version ?? '';
      return MODERN_VERSIONS.includes(requested)
        ? undefined
        : { kind: 'unsupportedVersion', requested, supported: MODERN_VERSIONS, id: message.id, era: 'modern' };
    },
  },
  {
    rung: 'version header is there',
    code: -32020,
    rationale: 'Required on every request; the specification does not say it of notifications.',
    refuse: ({ message, version }) =>
      message.kind === 'request' && version === undefined
        ? mismatch(message, 'the header MCP-Protocol-Version is missing')
        : undefined,
  },
  {
    rung: 'method header is there',
    code: -32020,
    rationale: 'Required on every request.',
    refuse: ({ message, method }) =>
      message.kind === 'request' && method === undefined
        ? mismatch(message, 'the header Mcp-Method is missing')
        : undefined,
  },
  {
    rung: 'name header',
    code: -32020,
    rationale:
      'Required where the body names something, and compared decoded. A body that names nothing is for the server to refuse.',
    refuse: ({ message, name }) => {
      const source = NAME_SOURCE.get(message.method);
      if (message.kind !== 'request' || source === undefined) return undefined;
      const named = message.params?.[source];
      if (name === undefined)
        return typeof named === 'string' ? mismatch(message, 'the header Mcp-Name is missing') : undefined;
      const decoded = decodeHeader(name);
      if (decoded === undefined) return mismatch(message, 'Mcp-Name is not valid base64 of UTF-8');
      return typeof named === 'string' && decoded !== named
        ? mismatch(message, `Mcp-Name is ${quote(decoded)}, but params.${source} is ${quote(named)}`)
        : undefined;
    },
  },
];

/** Finds the era of a body and climbs its ladder. */
export function classify(parsed: ParsedBody, headers: ProtocolHeaders): Result<Classified, MalformedReason> {
  const version = headers.protocolVersion === undefined ? undefined : trimHeader(headers.protocolVersion);
  if (parsed.kind === 'batch') return classifyBatch(parsed.messages, version);

  const { message } = parsed;
  const isModernHeader = version !== undefined && isModernVersion(version);
  if (message.kind === 'response') return classifyLegacy(message, version);
  if (message.method === 'initialize' && !claimsModern(message)) {
    // The legacy handshake, whatever it says about versions: the server answers with one of its own.
    if (isModernHeader)
      return err(
        mismatch(message, `initialize belongs to the legacy era, but MCP-Protocol-Version is ${quote(version)}`),
      );
    return ok({ era: 'legacy', protocolVersion: textOf(message.params?.protocolVersion) });
  }
  if (!hasClaim(message.meta) && !isModernHeader) return classifyLegacy(message, version);

  const inbound: Inbound = {
    message,
    claimed: textOf(message.meta?.[VERSION_KEY]),
    version,
    method: headers.method === undefined ? undefined : trimHeader(headers.method),
    name: headers.name === undefined ? undefined : trimHeader(headers.name),
  };
  for (const { refuse } of MODERN_LADDER) {
    const reason = refuse(inbound);
    if (reason !== undefined) return err(reason);
  }
  return ok({ era: 'modern', protocolVersion: inbound.claimed ?? version });
}

function classifyLegacy({ id, method }: Message, version: string | undefined): Result<Classified, MalformedReason> {
  if (version !== undefined && !LEGACY_VERSIONS.includes(version)) {
    return err({ kind: 'unsupportedVersion', requested: version, supported: LEGACY_VERSIONS, id, era: 'legacy' });
  }
  if (method === LISTEN_METHOD) return err({ kind: 'methodUnknown', method, id });
  return ok({ era: 'legacy', protocolVersion: version ?? ASSUMED_VERSION });
}

function classifyBatch(messages: readonly Message[], version: string | undefined): Result<Classified, MalformedReason> {
  if (messages.some(({ meta, method }) => hasClaim(meta) || method === LISTEN_METHOD)) {
    return err({ kind: 'batchRefused', detail: 'a batch must not hold messages of revision 2026-07-28 or later' });
  }
  if (version !== undefined && version !== BATCH_VERSION) {
    return err({
      kind: 'batchRefused',
      detail: `revision ${quote(version)} has no batches; only ${BATCH_VERSION} has`,
    });
  }
  return ok({ era: 'legacy', protocolVersion: BATCH_VERSION });
}

/** Only a whole and modern envelope makes an `initialize` modern (where no server knows the method). */
function claimsModern(message: Message): boolean {
  const claimed = textOf(message.meta?.[VERSION_KEY]);
  return claimed !== undefined && isModernVersion(claimed) && missingKeys(message).length === 0;
}

/** What the envelope of a request must have (2026-07-28, basic/index). A notification need only say its version. */
function missingKeys({ kind, meta }: Message): string[] {
  const missing: string[] = [];
  if (!hasClaim(meta)) missing.push(VERSION_KEY);
  const capabilities = meta?.[CAPABILITIES_KEY];
  if (kind === 'request' && (typeof capabilities !== 'object' || capabilities === null)) missing.push(CAPABILITIES_KEY);
  return missing;
}

function mismatch({ id }: Message, detail: string): MalformedReason {
  return { kind: 'headerMismatch', detail, id };
}

/** Part of what the agent sent, bounded, for its own error message. */
function quote(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text);
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}
