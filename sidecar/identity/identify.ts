/**
 * Who is calling. Each method is one file that answers {@link IdentityMethod}; the `identify` stage tries them in
 * the order of the configuration.
 */
import type { IncomingMessage } from 'node:http';

export interface Caller {
  /** The agent's name in policy, quotas and audit. */
  readonly agent: string;
  /** Which method found it: `group` when none is configured. */
  readonly method: 'group' | 'uid' | 'socket' | 'apiKey';
  readonly roles: readonly string[];
  readonly claims: Readonly<Record<string, unknown>>;
  /** The person on whose behalf the agent acts, where the method knows one. */
  readonly user: { readonly sub: string; readonly claims: Readonly<Record<string, unknown>> } | undefined;
}

/**
 * `known`: this is the caller. `absent`: this method sees nothing that it could judge, try the next.
 * `refused`: this method saw a credential and it is wrong; no other method is tried. `detail` goes to the audit only.
 */
export type Identification =
  | { readonly kind: 'known'; readonly caller: Caller }
  | { readonly kind: 'absent' }
  | { readonly kind: 'refused'; readonly detail: string };

export interface IdentityMethod {
  readonly type: Caller['method'];
  /** Answers at once where it can, so that the hot path awaits nothing. */
  identify(request: IncomingMessage): Identification | Promise<Identification>;
}
