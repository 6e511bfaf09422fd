/**
 * Why an exchange was not served, and what the agent is told of it.
 *
 * One tagged union of reasons, one exhaustive switch to the wire (DESIGN.md 2.6). The rich reason goes to the audit
 * under the error id; the public text names the rule and that id, never a secret, an upstream body or an inner host.
 * Pure.
 */
import { longestWaitOf } from '../../policies/charges.ts';
import type { CompiledQuota } from '../../policies/policy.ts';
import type { Era, MalformedReason } from '../protocol/message.ts';

export type Reason =
  | { readonly kind: 'hostNotAllowed'; readonly value: string }
  | { readonly kind: 'originNotAllowed'; readonly value: string }
  | { readonly kind: 'crossSite'; readonly value: string }
  | { readonly kind: 'pathUnknown'; readonly detail: string }
  | { readonly kind: 'methodNotAllowed'; readonly allow: string }
  | { readonly kind: 'badHeader'; readonly detail: string }
  | { readonly kind: 'unsupportedMediaType'; readonly value: string }
  | { readonly kind: 'unidentified'; readonly challenge: string; readonly detail: string }
  | { readonly kind: 'malformed'; readonly reason: MalformedReason }
  | { readonly kind: 'sessionUnknown'; readonly detail: string }
  | {
      readonly kind: 'hidden';
      readonly what: 'tool' | 'prompt' | 'resource' | 'method';
      readonly name: string;
      readonly rule: string | undefined;
      readonly detail: string;
    }
  /** A tool that sidecar.lock does not let through; `detail` says why. */
  | { readonly kind: 'drifted'; readonly detail: string }
  | { readonly kind: 'forbidden'; readonly rule: string; readonly detail: string }
  /** By an entry of the policy's `arguments`. The agent is told the same as of a rule; a replay has to tell them apart. */
  | {
      readonly kind: 'argumentsRefused';
      readonly rule: string;
      readonly detail: string;
      /** What the agent may know, so that it can do better. */
      readonly told?: string;
    }
  | {
      readonly kind: 'quota';
      readonly what: 'quota' | 'budget';
      readonly quota: string;
      readonly retryAfterMs: number;
      readonly asToolError: boolean;
      /** It is not spent: where it is kept cannot be reached. */
      readonly isStoreAway?: boolean;
    }
  | { readonly kind: 'noCredential'; readonly detail: string; readonly retryAfterMs: number }
  /** The server said 401 to our credential. `route` turns it into another try, or into `noCredential`. */
  | { readonly kind: 'upstreamUnauthorized'; readonly challenge: string | undefined; readonly detail: string }
  | {
      readonly kind: 'unavailable';
      readonly why: 'breaker' | 'unreachable' | 'busy' | 'shedding' | 'draining' | 'auditFailing';
      readonly detail: string;
      readonly retryAfterMs: number;
    }
  | { readonly kind: 'upstreamTimeout'; readonly phase: string; readonly afterMs: number }
  | { readonly kind: 'upstreamGarbage'; readonly detail: string }
  | {
      readonly kind: 'upstreamRefused';
      readonly status: number;
      readonly detail: string;
      readonly retryAfter: string | undefined;
    }
  | { readonly kind: 'aborted'; readonly detail: string }
  | { readonly kind: 'internal'; readonly detail: string };

/** What an answer brings is more than the quota has left. It came, and so it counts until it has left the window. */
export function spentMeanwhile(quota: CompiledQuota, method: string, now: number): Reason {
  return spentReason(quota, method, longestWaitOf(quota, now));
}

export function spentReason({ kind, name, onLimit }: CompiledQuota, method: string, retryAfterMs: number) {
  const asToolError = method === 'tools/call' && onLimit === 'toolError';
  return { kind: 'quota', what: kind, quota: name, retryAfterMs: Math.ceil(retryAfterMs), asToolError } as const;
}

/** Stands where otherwise the name of a policy's rule stands. */
const PIN_RULE = 'pin';

/** The rule or quota that decided, for the record. */
export function ruleOf(reason: Reason): string | undefined {
  switch (reason.kind) {
    case 'hidden':
    case 'forbidden':
    case 'argumentsRefused':
      return reason.rule;
    case 'drifted':
      return PIN_RULE;
    case 'quota':
      return reason.quota;
    default:
      return undefined;
  }
}

/** A refusal as it goes over the wire. */
export interface Wire {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly error: { readonly code: number; readonly message: string; readonly data?: unknown };
  /** Answer as a tools/call result with `isError: true` instead of an error. */
  readonly asToolError: boolean;
}

export interface WireContext {
  readonly errorId: string;
  readonly era: Era | undefined;
  /** JSON-RPC method of the refused request, when known. */
  readonly method: string | undefined;
}

/** DESIGN.md 2.6, row by row. */
export function toWire(reason: Reason, context: WireContext): Wire {
  const wire = wireOf(reason, context);
  // A 2026-07-28 client takes any 4xx or JSON-RPC error on its probe as «legacy server» and stays there. Only what the
  // probe itself got wrong may say so; everything of ours is a passing condition.
  const isProbe = context.method === 'server/discover';
  const isProtocolError = reason.kind === 'malformed' || reason.kind === 'upstreamRefused';
  return isProbe && !isProtocolError && wire.status < 500
    ? { ...wire, status: 503, headers: { ...wire.headers, 'retry-after': '1' } }
    : wire;
}

function wireOf(reason: Reason, { errorId, era }: WireContext): Wire {
  switch (reason.kind) {
    case 'hostNotAllowed':
      return refusal(403, -31403, 'Host not allowed', { errorId });
    case 'originNotAllowed':
      return refusal(403, -31403, 'Origin not allowed', { errorId });
    case 'crossSite':
      return refusal(403, -31403, 'Not for web pages of other sites', { errorId });
    case 'pathUnknown':
      return refusal(404, -31404, reason.detail, { errorId });
    case 'methodNotAllowed':
      return refusal(405, -31405, 'Method not allowed', { errorId }, { allow: reason.allow });
    case 'badHeader':
      return refusal(400, -32600, `Invalid request: ${reason.detail}`, { errorId });
    case 'unsupportedMediaType':
      return refusal(415, -32600, 'Unsupported Media Type: Content-Type must be application/json', { errorId });
    case 'unidentified':
      return refusal(401, -31401, 'Caller not identified', { errorId }, { 'www-authenticate': reason.challenge });
    case 'malformed':
      return malformed(reason.reason);
    case 'sessionUnknown':
      // The words and the code of the SDK's own server: clients re-initialize on this status.
      return refusal(404, -32001, 'Session not found');
    case 'hidden':
      return hidden(reason.what, reason.name, era);
    case 'forbidden':
      return refusedByPolicy(reason.rule, undefined, errorId);
    case 'argumentsRefused':
      return refusedByPolicy(reason.rule, reason.told, errorId);
    case 'drifted':
      return refusal(200, -31403, `Blocked: ${reason.detail} (error ${errorId})`, { rule: PIN_RULE, errorId });
    case 'quota': {
      const data = { quota: reason.quota, retryAfterMs: reason.retryAfterMs, errorId };
      const what = reason.what === 'budget' ? 'Budget' : 'Quota';
      const state = reason.isStoreAway ? 'cannot be counted now' : 'is spent';
      const text = `${what} "${reason.quota}" ${state}; ${whenAgain(reason.retryAfterMs)} (error ${errorId})`;
      if (reason.asToolError) return { ...refusal(200, -31429, text, data), asToolError: true };
      return refusal(429, -31429, text, data, retryAfter(reason.retryAfterMs));
    }
    case 'noCredential':
    case 'upstreamUnauthorized':
      return refusal(502, -31502, `The sidecar could not get its credential for this server (error ${errorId})`, {
        errorId,
      });
    case 'unavailable':
      return refusal(
        503,
        -31503,
        `${unavailableText(reason.why)} (error ${errorId})`,
        { errorId, retryAfterMs: Math.ceil(reason.retryAfterMs) },
        retryAfter(reason.retryAfterMs),
      );
    case 'upstreamTimeout':
      return refusal(504, -31504, `The server did not answer in time (error ${errorId})`, { errorId });
    case 'upstreamGarbage':
      return refusal(502, -31502, `The server answered something that is not MCP (error ${errorId})`, { errorId });
    case 'upstreamRefused': {
      const headers = reason.retryAfter === undefined ? {} : { 'retry-after': reason.retryAfter };
      return refusal(
        reason.status,
        -31502,
        `The server answered with HTTP status ${reason.status} (error ${errorId})`,
        { errorId },
        headers,
      );
    }
    case 'aborted':
      return refusal(499, -31499, 'The agent has gone', { errorId });
    case 'internal':
      return refusal(500, -32603, `Internal error (error ${errorId})`, { errorId });
  }
}

function refusedByPolicy(rule: string, told: string | undefined, errorId: string): Wire {
  const text = `Refused by policy rule "${rule}"${told === undefined ? '' : `: ${told}`} (error ${errorId})`;
  return refusal(200, -31403, text, { rule, errorId });
}

function malformed(reason: MalformedReason): Wire {
  switch (reason.kind) {
    case 'notJson':
      return refusal(400, -32700, `Parse error: ${reason.detail}`);
    case 'tooDeep':
      return refusal(400, -32600, `Invalid request: nested deeper than ${reason.depthMax} levels`);
    case 'tooManyMembers':
      return refusal(400, -32600, `Invalid request: more than ${reason.membersMax} members of objects`);
    case 'tooLarge':
      return refusal(413, -32600, `Invalid request: larger than ${reason.bytesMax} bytes`);
    case 'duplicateKey':
      return refusal(400, -32600, `Invalid request: duplicate key ${reason.path}`);
    case 'lookalikeKey':
      return refusal(
        400,
        -32600,
        `Invalid request: the key ${JSON.stringify(reason.key)} looks like ${JSON.stringify(reason.looksLike)}`,
      );
    case 'notJsonRpc':
    case 'batchRefused':
      return refusal(400, -32600, `Invalid request: ${reason.detail}`);
    case 'methodUnknown':
      return refusal(200, -32601, `Method not found: ${reason.method} is of revision 2026-07-28`);
    case 'headerMismatch':
      return refusal(400, -32020, `Header mismatch: ${reason.detail}`);
    case 'unsupportedVersion':
      return reason.era === 'modern'
        ? refusal(400, -32022, `Unsupported protocol version: ${reason.requested}`, {
            supported: reason.supported,
            requested: reason.requested,
          })
        : refusal(
            400,
            -32000,
            `Bad Request: Unsupported protocol version: ${reason.requested} (supported versions: ${reason.supported.join(', ')})`,
          );
    case 'envelopeMissing':
      return refusal(400, -32602, `Invalid params: ${reason.detail}`);
  }
}

/** Answers exactly as a server does that has no such thing, so that what is hidden cannot be told from what is not there. */
function hidden(what: 'tool' | 'prompt' | 'resource' | 'method', name: string, era: Era | undefined): Wire {
  switch (what) {
    case 'tool':
      return refusal(200, -32602, `Unknown tool: ${name}`);
    case 'prompt':
      return refusal(200, -32602, `Unknown prompt: ${name}`);
    case 'resource':
      // 2026-07-28 moved «resource not found» from -32002 to -32602.
      return refusal(200, era === 'modern' ? -32602 : -32002, `Resource not found: ${name}`);
    case 'method':
      return refusal(era === 'modern' ? 404 : 200, -32601, 'Method not found');
  }
}

function unavailableText(why: Extract<Reason, { kind: 'unavailable' }>['why']): string {
  switch (why) {
    case 'breaker':
      return 'The server has failed repeatedly and is given time to recover';
    case 'unreachable':
      return 'The server cannot be reached';
    case 'busy':
      return 'The server has no room for another session or request';
    case 'shedding':
      return 'The sidecar is overloaded';
    case 'draining':
      return 'The sidecar is shutting down';
    case 'auditFailing':
      return 'The audit log cannot be written, and the configuration says to refuse then';
  }
}

/** Infinity: the cost alone is over the limit, so that waiting does not help. */
function whenAgain(retryAfterMs: number): string {
  return Number.isFinite(retryAfterMs)
    ? `try again in ${Math.ceil(retryAfterMs / 1000)} s`
    : 'this call alone costs more than the limit';
}

/** RFC 9110 section 10.2.3: whole seconds, rounded up. */
function retryAfter(ms: number): Record<string, string> {
  return Number.isFinite(ms) ? { 'retry-after': String(Math.max(1, Math.ceil(ms / 1000))) } : {};
}

function refusal(
  status: number,
  code: number,
  message: string,
  data?: unknown,
  headers: Readonly<Record<string, string>> = {},
): Wire {
  return {
    status,
    headers,
    error: data === undefined ? { code, message } : { code, message, data },
    asToolError: false,
  };
}

/** The whole reason in one line, for the audit. */
export function describeReason(reason: Reason): string {
  switch (reason.kind) {
    case 'hostNotAllowed':
    case 'originNotAllowed':
    case 'crossSite':
    case 'unsupportedMediaType':
      return `${reason.kind}: ${reason.value}`;
    case 'methodNotAllowed':
      return `${reason.kind}: only ${reason.allow}`;
    case 'malformed':
      return `malformed: ${JSON.stringify(reason.reason)}`;
    case 'quota':
      if (reason.isStoreAway)
        return `${reason.what}: the store of ${reason.quota} is away (quotaStore.onStoreFailure: refuse)`;
      return `${reason.what}: ${reason.quota} is spent for ${Math.ceil(reason.retryAfterMs)} ms`;
    case 'upstreamTimeout':
      return `upstreamTimeout: ${reason.phase} after ${reason.afterMs} ms`;
    case 'unavailable':
      return `${reason.why}: ${reason.detail}`;
    case 'upstreamRefused':
      return `upstreamRefused: ${reason.status} ${reason.detail}`;
    default:
      return `${reason.kind}: ${reason.detail}`;
  }
}
