/**
 * A compiled policy: what compile.ts makes and decide.ts, quota.ts and redact.ts read. Types only.
 */
import type { Period } from './budget.ts';
import type { Condition, ValueExpression } from './cel.ts';
import type { Dimension } from './charge.ts';
import type { Glob } from './glob.ts';
import type { GrantIndex, SelectorIndex } from './selector-index.ts';

/** One list of selectors with its effect: a rule, or a side of a role. */
export interface Grant {
  /** What a decision names: the rule's name, or `role <name>`. */
  readonly label: string;
  /** Applies to subjects with this role only; `undefined` for a rule. */
  readonly role: string | undefined;
  readonly effect: 'allow' | 'deny';
  /** Decided and reported, but without effect. */
  readonly audit: boolean;
  readonly selectors: readonly CompiledSelector[];
  readonly condition: Condition | undefined;
}

/** Globs, checked. */
export interface CompiledSelector {
  readonly server: string;
  /** By the target's kind. */
  readonly tool: readonly string[];
  readonly prompt: readonly string[];
  readonly resource: readonly string[];
  readonly method: readonly string[];
}

/** The grants that concern one target and one set of roles. */
export interface Candidates {
  readonly roles: readonly string[];
  readonly denies: readonly Grant[];
  readonly allows: readonly Grant[];
  /** Those in audit mode as well; `undefined` when there are none. */
  readonly withAudit: { readonly denies: readonly Grant[]; readonly allows: readonly Grant[] } | undefined;
  readonly conditional: boolean;
}

/** A named subset of what some servers offer. */
export interface VirtualServer {
  /** What a decision names. */
  readonly label: string;
  readonly members: SelectorIndex;
  /** Those that its members are of. */
  readonly servers: ReadonlySet<string>;
}

export interface CompiledPolicy {
  /** `mode: audit` for the whole policy: everything is let through. */
  readonly audit: boolean;
  readonly allowByDefault: boolean;
  readonly grants: readonly Grant[];
  /** Of `grants`, by their places. */
  readonly index: GrantIndex;
  /** Agent name, or `*`, to roles. */
  readonly agentRoles: ReadonlyMap<string, readonly string[]>;
  /** Budgets too. */
  readonly quotas: readonly CompiledQuota[];
  readonly prices: readonly CompiledPrice[];
  /** Some quota, budget or price depends on how many tokens a call has. */
  readonly countsTokens: boolean;
  readonly redactions: readonly Redaction[];
  readonly argumentRules: readonly ArgumentRule[];
  /** The variable `env` of conditions. */
  readonly env: Readonly<Record<string, string>>;
  /** Some condition looks at a tool's annotations: worth knowing them before a call. */
  readonly usesAnnotations: boolean;
  readonly virtualServers: ReadonlyMap<string, VirtualServer>;
  /** Whatever is outside of it is hidden; `undefined` at a server's own endpoint. See virtual.ts. */
  readonly within: VirtualServer | undefined;
  /** decide.ts remembers here what it found. Bounded there. */
  readonly memo: Map<string, Candidates>;
  /** As hides.ts does. Bounded there. */
  readonly hiding: Map<string, boolean>;
}

export interface Rate {
  readonly limit: number;
  readonly windowMs: number;
}

/** What tells the counters of a quota apart; `of`: the value of an expression. */
export type KeyPart = 'agent' | 'user' | 'group' | 'session' | 'server' | 'tool' | { readonly of: ValueExpression };

/** A quota, or a budget. */
export interface CompiledQuota {
  readonly name: string;
  readonly kind: 'quota' | 'budget';
  readonly condition: Condition | undefined;
  readonly key: readonly KeyPart[];
  /** Some part of the key is the agent's to choose: it may bring up as many as it likes. */
  readonly isKeyChosen: boolean;
  /** How a refusal is told: as an HTTP status, or as a tool result that the model reads. */
  readonly onLimit: 'refuse' | 'toolError';
  /** A stream may be cut off when what it brings is too much. */
  readonly hard: boolean;
  /** Share of the limit, 0 to 1. */
  readonly warnAt: number;
  /** One for each of calls, tokens, burst, concurrent and cost that is given. */
  readonly bounds: readonly Bound[];
}

/** See charge.ts. */
export interface Bound extends Rate {
  readonly period: Period | undefined;
  readonly dimension: Dimension;
  readonly keyPrefix: string;
}

/** In millionths. */
export interface CompiledPrice {
  readonly server: Glob;
  readonly tools: readonly Glob[];
  readonly perCall: number;
  readonly perToken: number;
}

/** Segments of a JSON Pointer, unescaped. In redactions `*` is every key or index, `**` any depth. */
export type Pointer = readonly string[];

export interface Redaction {
  readonly server: Glob;
  /** `undefined`: all of the server's tools and prompts. */
  readonly tools: readonly Glob[] | undefined;
  /** Into the arguments; and into the result. */
  readonly pointers: readonly Pointer[];
  readonly result: readonly Pointer[];
}

/** See arguments.ts. */
export interface ArgumentRule {
  readonly name: string;
  readonly server: Glob;
  readonly tools: readonly Glob[];
  readonly remove: readonly Pointer[];
  readonly set: readonly { readonly pointer: Pointer; readonly value: unknown }[];
  readonly validate: boolean;
}
