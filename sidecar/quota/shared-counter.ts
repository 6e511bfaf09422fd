/**
 * What this process knows of a counter that lives elsewhere: how full it was by the last answer, what it has changed
 * since, and the slices of it that it may spend by itself (lease.ts).
 */
import type { Charge, Usage } from '../../policies/charge.ts';
import type { Window } from '../../policies/counter.ts';
import type { Slice } from './lease.ts';

const FRESH_SHARE = 1 / 10;
const FRESH_MS = 10_000;

export interface SharedCounter extends Window {
  /** Its name there. */
  readonly key: string;
  /** By the last answer; slices are in it. */
  used: number;
  /** When that came, by the clock of this process. */
  answeredAt: number;
  /** What has changed since and is not in an answer yet. */
  unsent: number;
  /** How full it was when somebody was told last: a warning is due for what others have spent meanwhile, too. */
  told: number | undefined;
  slice: Slice | undefined;
  /** Fetched before the slice was used up. */
  next: Slice | undefined;
  isFetching: boolean;
  /** There was none to be had: it is not asked for ahead of time. */
  isDry: boolean;
}

export function createSharedCounter(key: string, { windowMs, period }: Window): SharedCounter {
  return {
    key,
    windowMs,
    period,
    used: 0,
    answeredAt: Number.NEGATIVE_INFINITY,
    unsent: 0,
    told: undefined,
    slice: undefined,
    next: undefined,
    isFetching: false,
    isDry: false,
  };
}

/** As the scripts have it. */
export function windowOf({ windowMs, period }: Window): string {
  return period ?? String(windowMs);
}

/** Without what is at hand here and not spent. */
export function usedOf({ used, unsent, slice, next }: SharedCounter): number {
  return used + unsent - (slice?.left ?? 0) - (next?.left ?? 0);
}

export function noteAnswer(counter: SharedCounter, used: number, now: number): void {
  counter.used = used;
  counter.answeredAt = now;
}

/** Not so much can have left the window since the last answer. */
export function isFresh({ answeredAt, windowMs, period }: SharedCounter, now: number): boolean {
  return now - answeredAt < (period === undefined ? windowMs * FRESH_SHARE : FRESH_MS);
}

/** @param before How full it was without what has just been charged. */
export function usageOf(counter: SharedCounter, charge: Charge, before: number): Usage {
  const { quota, dimension, limit, warnAt } = charge;
  const used = usedOf(counter);
  const lowest = Math.min(before, counter.told ?? before);
  counter.told = used;
  return { quota, dimension, used, limit, warned: lowest < warnAt * limit && used >= warnAt * limit };
}
