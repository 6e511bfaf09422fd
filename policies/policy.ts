/**
 * A compiled policy: what compile.ts makes and decide.ts, quota.ts and redact.ts read. Types only.
 */
import type { Condition } from './cel.ts';
import type { Glob } from './glob.ts';
import type { GrantIndex } from './selector-index.ts';

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

export interface CompiledPolicy {
  /** `mode: audit` for the whole policy: everything is let through. */
  readonly audit: boolean;
  readonly allowByDefault: boolean;
  readonly grants: readonly Grant[];
  /** Of `grants`, by their places. */
  readonly index: GrantIndex;
  /** Agent name, or `*`, to roles. */
  readonly agentRoles: ReadonlyMap<string, readonly string[]>;
  readonly quotas: readonly CompiledQuota[];
  readonly redactions: readonly Redaction[];
  /** The variable `env` of conditions. */
  readonly env: Readonly<Record<string, string>>;
  /** Some condition looks at a tool's annotations: worth knowing them before a call. */
  readonly usesAnnotations: boolean;
  /** Some rule hides tools: then the server's own words for a tool that it does not have would tell the two apart. */
  readonly hidesTools: boolean;
  /** decide.ts remembers here what it found. Bounded there. */
  readonly memo: Map<string, Candidates>;
}

export interface Rate {
  readonly limit: number;
  readonly windowMs: number;
}

export type Dimension = 'calls' | 'tokens';
export type KeyPart = 'agent' | 'user' | 'group' | 'session' | 'server' | 'tool';

export interface CompiledQuota {
  readonly name: string;
  readonly condition: Condition | undefined;
  readonly key: readonly KeyPart[];
  /** How a refusal is told: as an HTTP status, or as a tool result that the model reads. */
  readonly onLimit: 'refuse' | 'toolError';
  /** One for each of calls, tokens and burst that is given. */
  readonly bounds: readonly (Rate & { readonly dimension: Dimension; readonly keyPrefix: string })[];
}

/** Segments of a JSON Pointer, unescaped. */
export type Pointer = readonly string[];

export interface Redaction {
  readonly server: Glob;
  /** `undefined`: all of the server's tools and prompts. */
  readonly tools: readonly Glob[] | undefined;
  readonly pointers: readonly Pointer[];
}
