/**
 * Where spent quota is kept. The interface hides whether that is this process (memory.ts) or Redis (redis.ts).
 */
import type { Charge, Spent, Usage } from '../../policies/charge.ts';
import type { Result } from '../../policies/result.ts';

/** What was granted to one call. To be settled or released, once: a second time does nothing. */
export interface Grant {
  /** One for each charge, in their order. */
  readonly usage: readonly Usage[];
}

export interface QuotaStore<G extends Grant = Grant> {
  /** All of the charges or none of them. Never rejects: what becomes of a call when the store is away is the store's own matter. */
  reserve(charges: readonly Charge[]): Result<G, Spent> | Promise<Result<G, Spent>>;
  /**
   * An answer goes on: this many tokens are known by now. Charges what goes beyond the reservation, and tells whether
   * some counter is over its limit by it.
   */
  progress(grant: G, tokens: number): { readonly over: readonly string[] };
  /** The call has ended and its tokens are known: the difference is charged or given back. @returns what changed, with warnings. */
  settle(grant: G, tokens: number): readonly Usage[];
  /** The server never saw the call: everything is given back. */
  release(grant: G): void;
  /** Writes what must survive a restart, and lets go of connections. */
  close(): Promise<void>;
}
