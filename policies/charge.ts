/**
 * What a call is charged, as plain data: the arithmetic in memory (quota.ts) and a store elsewhere (Redis) are handed
 * the same. Types only.
 */
import type { Period } from './budget.ts';

/** `calls`, `tokens`, `cost` (millionths of the unit that prices are in), `concurrent` (calls under way). */
export type Dimension = 'calls' | 'tokens' | 'cost' | 'concurrent';

/** What one call costs under one bound of one quota or budget. */
export interface Charge {
  /** The quota's or the budget's name. */
  readonly quota: string;
  readonly dimension: Dimension;
  /** Names the counter: two different sets of quota, bound and key values never share it. */
  readonly key: string;
  /**
   * Names the counter that the agent's keys share when it has too many. `undefined`: no part of the key is the agent's to
   * choose, so that there cannot be too many, and it always has its own.
   */
  readonly surplusKey: string | undefined;
  /** Who brings the key up. */
  readonly agent: string;
  readonly limit: number;
  /** A sliding window, in milliseconds; 0 where `period` says otherwise, and for `concurrent`. */
  readonly windowMs: number;
  /** A calendar window in UTC, for budgets. */
  readonly period: Period | undefined;
  /** What the call costs whatever it brings back. */
  readonly base: number;
  /** And what each token costs: 1 for `tokens`, the price in millionths for `cost`, 0 otherwise. */
  readonly perToken: number;
  /** Reserved before the call: `base + perToken × the estimate`, rounded up. */
  readonly cost: number;
  /** Share of the limit (0 to 1) at which a warning is due. */
  readonly warnAt: number;
}

/** How full a counter is, this call's reservation or settlement included. */
export interface Usage {
  readonly quota: string;
  readonly dimension: Dimension;
  readonly used: number;
  readonly limit: number;
  /** This call took it from below `warnAt` to it or beyond. */
  readonly warned: boolean;
}

/** Why a reservation was refused. */
export interface Spent {
  readonly quota: string;
  /** After which this very request would pass if no other came; `Infinity` when its cost alone is more than the limit. */
  readonly retryAfterMs: number;
  /** It is not spent: where it is kept cannot be reached. */
  readonly store?: 'away';
}
