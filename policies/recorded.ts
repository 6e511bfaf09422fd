/**
 * A request as the audit has recorded it, and what of it can be asked again. Pure.
 *
 * A record does not hold everything that a condition may look at: claims are never recorded, arguments may be redacted or
 * left out, and of the message only what names and what is passed on. Such a value is there when the request is judged
 * again, and whoever looks at it is told that it is not known (see `Unknowns`), so that nothing is decided by a guess.
 */
import type { Call, Subject, Target } from './decision.ts';
import { targetsOf } from './methods.ts';
import { REDACTED } from './redact.ts';
import type { Result } from './result.ts';

type Mapping = Readonly<Record<string, unknown>>;

/** `omitted`: there was one, and the record does not hold it. */
export type Recorded<T> = T | undefined | 'omitted';

export interface RecordedRequest {
  readonly sequence: number;
  /** When it arrived, milliseconds since the epoch. */
  readonly time: number;
  readonly group: string;
  readonly agent: string;
  /** Those that the identity brought. */
  readonly roles: Recorded<readonly string[]>;
  /** No claims could be brought by the way in which the agent was known. */
  readonly isWithoutClaims: boolean;
  readonly user: string | undefined;
  readonly server: string;
  /** The virtual server at whose endpoint it came. */
  readonly virtual: string | undefined;
  readonly method: string;
  readonly isNotification: boolean;
  readonly tool: string | undefined;
  readonly prompt: string | undefined;
  /** More than one of a subscriptions/listen. */
  readonly resources: readonly string[];
  /** How many of them are not recorded. */
  readonly resourcesOmitted: number;
  readonly args: Recorded<unknown>;
  readonly annotations: Recorded<Mapping>;
  /** As policy's `session.id`. */
  readonly sessionId: string | undefined;
  /** The first of its texts that was too long to be recorded whole. */
  readonly cut: string | undefined;
  /** The policy of then let it go on, whatever became of it: a quota that was spent, or a server that failed. */
  readonly wasLetThrough: boolean;
  /** Which policy that was. */
  readonly policy: string;
  /** The rule, role or quota that decided. */
  readonly rule: string | undefined;
  /** That is an entry of its `arguments`. */
  readonly wasRefusedByArguments: boolean;
  /** The arguments are those that its `arguments` have made of what the agent sent. */
  readonly hasChangedArguments: boolean;
  /** By a quota or budget. */
  readonly wasLimited: boolean;
  /** The server may have seen it, or its answer came from the cache: so it was counted. */
  readonly hasReached: boolean;
  /** As they were counted or estimated. */
  readonly tokensIn: number;
  readonly tokensOut: number;
  /** Its answer was an error of the server's, or there was none. */
  readonly hasFailed: boolean;
}

/** Counts the looks at values that are not known, and remembers why they are not. */
export class Unknowns {
  #looks = 0;
  readonly #why = new Set<string>();

  get looks(): number {
    return this.#looks;
  }

  /** Why, for all looks since the last call. */
  takeReasons(): string[] {
    const reasons = [...this.#why].sort();
    this.#why.clear();
    return reasons;
  }

  look(why: string): never {
    this.#looks += 1;
    this.#why.add(why);
    throw new Error(`not known: ${why}`);
  }
}

/** What it asks for, as people name it. Of several resources, the first. */
export interface Matter {
  readonly kind: 'tool' | 'prompt' | 'resource' | 'method';
  readonly name: string;
}

export function matterOf({ tool, prompt, resources, method }: RecordedRequest): Matter {
  if (tool !== undefined) return { kind: 'tool', name: tool };
  if (prompt !== undefined) return { kind: 'prompt', name: prompt };
  const [uri] = resources;
  return uri === undefined ? { kind: 'method', name: method } : { kind: 'resource', name: uri };
}

export interface RecordedQuestion {
  readonly subject: Subject;
  readonly virtual: string | undefined;
  readonly targets: Result<readonly Target[], string>;
  readonly call: Call;
}

export function questionOf(recorded: RecordedRequest, unknowns: Unknowns): RecordedQuestion {
  const { agent: name, group, roles, user, server, method, isNotification, sessionId, time } = recorded;
  const claims = recorded.isWithoutClaims ? {} : unknown('claims are not recorded', unknowns);
  const params = paramsOf(recorded);
  const args = argumentsOf(recorded.args, unknowns);
  const annotations =
    recorded.annotations === 'omitted' || recorded.annotations === undefined
      ? unknown('the annotations of the tool are not recorded', unknowns)
      : recorded.annotations;
  const body = {
    jsonrpc: '2.0',
    method,
    ...(isNotification ? { id: undefined } : undefined),
    params: partlyKnown({ ...params, arguments: args }, 'only a part of the message is recorded', unknowns),
  };
  return {
    subject: {
      agent: { name, group, roles: roles === 'omitted' ? [] : (roles ?? []), claims },
      user: user === undefined ? undefined : { sub: user, claims },
    },
    virtual: recorded.virtual,
    targets: targetsOf(
      server,
      { kind: isNotification ? 'notification' : 'request', method, params },
      () => annotations,
    ),
    call: {
      method,
      args,
      body: partlyKnown(body, 'only a part of the message is recorded', unknowns),
      sessionId,
      now: time,
    },
  };
}

/** What params named, as the method wants it. */
function paramsOf({ method, tool, prompt, resources }: RecordedRequest): Mapping {
  const [uri] = resources;
  switch (method) {
    case 'completion/complete':
      return { ref: prompt === undefined ? { type: 'ref/resource', uri } : { type: 'ref/prompt', name: prompt } };
    case 'subscriptions/listen':
      return { notifications: { resourceSubscriptions: resources } };
    default:
      return { name: tool ?? prompt, uri };
  }
}

function argumentsOf(args: Recorded<unknown>, unknowns: Unknowns): Mapping | undefined {
  if (args === undefined) return undefined;
  if (args === 'omitted') return unknown('the arguments were too long to be recorded', unknowns);
  const value = withoutRedacted(args, 0, unknowns);
  return typeof value === 'object' && value !== null ? (value as Mapping) : unknown(REDACTED_WHY, unknowns);
}

const REDACTED_WHY = 'arguments are redacted';
/** Deeper than the sidecar takes. What lies beyond is not known. */
const DEPTH_MAX = 256;

/** The same value where nothing is redacted. */
function withoutRedacted(value: unknown, depth: number, unknowns: Unknowns): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (depth === DEPTH_MAX) return unknown('arguments are nested too deeply', unknowns);
  let copy: object | undefined;
  for (const [key, inner] of Object.entries(value)) {
    const known = inner === REDACTED ? undefined : withoutRedacted(inner, depth + 1, unknowns);
    if (inner !== REDACTED && known === inner) continue;
    copy ??= Array.isArray(value) ? [...value] : Object.fromEntries(Object.entries(value));
    const get = inner === REDACTED ? () => unknowns.look(REDACTED_WHY) : () => known;
    Object.defineProperty(copy, key, { get, enumerable: true, configurable: true });
  }
  return copy ?? value;
}

/** Of which nothing is known but that it is an object. */
function unknown(why: string, unknowns: Unknowns): Mapping {
  return partlyKnown({}, why, unknowns);
}

/** An object of which only these members are known; `undefined` for one that is known not to be there. */
function partlyKnown(known: Mapping, why: string, unknowns: Unknowns): Mapping {
  const look = () => unknowns.look(why);
  const isKnown = (key: string | symbol) => typeof key === 'symbol' || Object.hasOwn(known, key);
  return new Proxy(known, {
    // CEL asks for the constructor to see that it is a map.
    get: (_known, key) => (key === 'constructor' ? Object : isKnown(key) ? known[key as string] : look()),
    has: (_known, key) => (isKnown(key) ? key in known : look()),
    getOwnPropertyDescriptor: (_known, key) => (isKnown(key) ? Reflect.getOwnPropertyDescriptor(known, key) : look()),
    ownKeys: look,
  });
}
