/**
 * What the server does not have, answered as what policy hides: its own words would tell the two apart. Only where
 * policy may hide something of that kind from that agent, and only when the answer is an error.
 *
 * A tool is known by its server's list, which is asked for before an error is taken for its absence. Of prompts and
 * resources nothing is known but what the error says: so an error about the arguments of a prompt stays the server's own.
 */
import type { Target } from '../../policies/decision.ts';
import { mayHide } from '../../policies/hides.ts';
import { idOf } from '../../policies/methods.ts';
import type { JsonObject } from '../protocol/message.ts';
import type { Catalog } from '../upstream/catalog.ts';
import type { Permitted } from './exchange.ts';
import type { Reason } from './reason.ts';

/** The answer may be that there is no such thing, and the agent must not hear it in the server's words. */
export function mayBeAbsent({ message, policy, subject, targets, route }: Permitted, catalog: Catalog): boolean {
  const [target] = targets;
  // Of subscriptions, which are many at once, the server tells which it took.
  if (target === undefined || target.kind === 'method' || message?.method === 'subscriptions/listen') return false;
  if (target.kind === 'tool' && catalog.knows(route.server, target.name)) return false;
  return mayHide(policy, subject.agent, route.server, target.kind);
}

/**
 * The refusal that something hidden would have had, when the server says that it has no such thing.
 *
 * @returns `undefined` at once for all but errors.
 */
export function findAbsent(
  exchange: Permitted,
  catalog: Catalog,
  read: JsonObject,
): Promise<Reason | undefined> | undefined {
  const error = errorIn(read);
  if (error === undefined || !mayBeAbsent(exchange, catalog) || !saysAbsent(exchange, error)) return undefined;
  return asHidden(exchange, catalog);
}

async function asHidden(exchange: Permitted, catalog: Catalog): Promise<Reason | undefined> {
  const { server } = exchange.route;
  const target = exchange.targets[0]!;
  if (target.kind === 'tool') {
    await catalog.ensureKnown(server, target.name);
    if (catalog.knows(server, target.name)) return undefined;
  }
  return hiddenLike(target, 'the server says that it has no such thing');
}

/**
 * The refusal of a tool that its server does not list, as far as that is known without asking. Before all that looks at
 * the call: arguments and quotas must not tell it from a hidden one either.
 */
export function findUnlisted(exchange: Permitted, catalog: Catalog): Reason | undefined {
  const [target] = exchange.targets;
  if (target?.kind !== 'tool' || catalog.stateOf(target.server, target.name) !== 'absent') return undefined;
  if (!mayBeAbsent(exchange, catalog)) return undefined;
  return hiddenLike(target, 'the server does not list it');
}

function hiddenLike(target: Target, detail: string): Reason {
  return { kind: 'hidden', what: target.kind, name: idOf(target), rule: undefined, detail };
}

interface ErrorSaid {
  readonly code: number | undefined;
  readonly text: string;
}

/** More of an error is not looked at. */
const TEXT_MAX = 4096;

/** An error, or a tool's result that is one. */
function errorIn({ error, result }: JsonObject): ErrorSaid | undefined {
  if (typeof error === 'object' && error !== null) {
    const { code, message } = error as { code?: unknown; message?: unknown };
    return { code: typeof code === 'number' ? code : undefined, text: String(message).slice(0, TEXT_MAX) };
  }
  const { isError, content } = (result ?? {}) as { isError?: unknown; content?: readonly { text?: unknown }[] };
  if (isError !== true || !Array.isArray(content) || content.length !== 1) return undefined;
  return { code: undefined, text: String(content[0]?.text).slice(0, TEXT_MAX) };
}

const METHOD_NOT_FOUND = -32601;
const INVALID_PARAMS = -32602;
/** Up to 2025-11-25. */
const RESOURCE_NOT_FOUND = -32002;
/** That of SDKs for a session that is gone: clients open another then. */
const SESSION_NOT_FOUND = -32001;

const SAYS_ABSENT = /unknown|not found|no such|does not exist/i;
/** About the thing itself, once its name is taken out, and not about something that it needs. */
const IS_ABSENT =
  /\b(?:unknown|no such|nonexistent) (?:prompt|resource)\b(?! (?:arg|param|option|variable))|\b(?:prompt|resource)(?: template)?(?: (?:with )?(?:name|uri))?[\s"'`:()]*(?:(?:is|was|does|could|can) ?)?(?:not found|not exist|unknown|not be found)\b|\binvalid prompt name\b/i;

function saysAbsent({ message, targets }: Permitted, { code, text }: ErrorSaid): boolean {
  const target = targets[0]!;
  const name = idOf(target);
  if (code === SESSION_NOT_FOUND) return false;
  if (target.kind === 'tool')
    return code === INVALID_PARAMS || code === METHOD_NOT_FOUND || (text.includes(name) && SAYS_ABSENT.test(text));
  const method = message!.method;
  // About completion or subscriptions as such it would be.
  if (code === METHOD_NOT_FOUND) return method === 'prompts/get' || method === 'resources/read';
  // The URI is all that they are given: what is wrong with the params is wrong with it.
  if (method.startsWith('resources/'))
    return code === INVALID_PARAMS || code === RESOURCE_NOT_FOUND || SAYS_ABSENT.test(text);
  return code === RESOURCE_NOT_FOUND || IS_ABSENT.test(name === '' ? text : text.replaceAll(name, ''));
}
