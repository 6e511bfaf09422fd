/**
 * Where spent quota is kept. In memory for now; the interface is asynchronous where a store needs to be.
 */
import { type Charge, createQuotaState, type Reservation, release, reserve, settle } from '../../policies/quota.ts';
import type { Result } from '../../policies/result.ts';

export interface Spent {
  readonly quota: string;
  readonly retryAfterMs: number;
}

export interface QuotaStore {
  /** All of the charges or none of them. */
  reserve(charges: readonly Charge[]): Result<Reservation, Spent> | Promise<Result<Reservation, Spent>>;
  /** The actual token cost is known: the difference is charged or given back. */
  settle(reservation: Reservation, tokens: number): void;
  /** The server never saw the call. */
  release(reservation: Reservation): void;
}

/** @param now Monotonic clock, milliseconds. */
export function createMemoryQuotaStore(now: () => number): QuotaStore {
  const state = createQuotaState();
  return {
    reserve: (charges) => reserve(state, charges, now()),
    settle: (reservation, tokens) => settle(state, reservation, tokens, now()),
    release: (reservation) => release(state, reservation, now()),
  };
}
