/**
 * One counter of spent quota: what lies in its window, and when that leaves. Pure but for the counter it is handed;
 * times are milliseconds since the epoch.
 *
 * A sliding window is cut into 60 slots, and what was spent counts until its whole slot has left: so 61 are summed, the
 * present one and the 60 before. A calendar window is one slot, a day or month of UTC. What has no window counts until
 * it is given back. A counter only moves forward.
 */
import { type Period, periodAt, periodStart } from './budget.ts';
import type { Charge } from './charge.ts';

const SLOTS = 60;
export const RING = SLOTS + 1;
/** Nobody knows when a call that is under way will end. */
const CONCURRENT_RETRY_MS = 1000;

/** When something counts: a sliding window, a calendar one, or as long as the call is under way. */
export interface Window {
  /** 0 where it does not slide. */
  readonly windowMs: number;
  readonly period: Period | undefined;
}

export interface Counter extends Window {
  /** Who brought up the key; `undefined` for a counter of a surplus, and for a key that no agent chooses. */
  readonly agent: string | undefined;
  /** What was spent in slot n lies at `n % RING`, for the last RING slots. `undefined` where the window does not slide. */
  readonly ring: Float64Array | undefined;
  /** The latest slot, day or month that was looked at, counted from the epoch. */
  slot: number;
  total: number;
}

export function createCounter(agent: string | undefined, { windowMs, period }: Window, time: number): Counter {
  const ring = windowMs > 0 ? new Float64Array(RING) : undefined;
  return { agent, windowMs, period, ring, slot: slotAt(time, { windowMs, period }), total: 0 };
}

/** The slot, day or month of a moment. What lasts as long as its call has but one. */
export function slotAt(time: number, { windowMs, period }: Window): number {
  if (period !== undefined) return periodAt(time, period);
  return windowMs === 0 ? 0 : Math.floor((time * SLOTS) / windowMs);
}

/** The first whole millisecond at which a slot no longer counts. */
export function expiryOf(slot: number, { windowMs, period }: Window): number {
  if (period !== undefined) return periodStart(slot + 1, period);
  return windowMs === 0 ? Number.POSITIVE_INFINITY : Math.ceil(((slot + RING) * windowMs) / SLOTS);
}

/** Milliseconds until the charge fits: `Infinity` when it never does. */
export function waitFor(counter: Counter | undefined, { cost, limit }: Charge, time: number): number {
  if (cost > limit) return Number.POSITIVE_INFINITY;
  if (counter === undefined) return 0;
  advance(counter, time);
  let excess = counter.total + cost - limit;
  if (excess <= 0) return 0;
  let { slot } = counter;
  if (counter.ring !== undefined)
    for (slot -= SLOTS; slot < counter.slot; slot++) {
      excess -= counter.ring[indexOf(slot)]!;
      if (excess <= 0) break;
    }
  const expiry = expiryOf(slot, counter);
  return expiry === Number.POSITIVE_INFINITY ? CONCURRENT_RETRY_MS : expiry - time;
}

/** Empties the slots that have left the window. */
export function advance(counter: Counter, time: number): void {
  const present = slotAt(time, counter);
  if (present <= counter.slot) return;
  if (counter.ring === undefined) counter.total = 0;
  else
    for (let step = Math.min(present - counter.slot, RING); step > 0; step--) {
      const index = indexOf(present - step + 1);
      counter.total -= counter.ring[index]!;
      counter.ring[index] = 0;
    }
  counter.slot = present;
}

/** Whether what lies in a slot still counts. */
export function isInWindow({ ring, slot: present }: Counter, slot: number): boolean {
  return slot >= (ring === undefined ? present : present - SLOTS);
}

/** What has left the window is left alone. */
export function change(counter: Counter, slot: number, difference: number): void {
  if (!isInWindow(counter, slot)) return;
  if (counter.ring !== undefined) counter.ring[indexOf(slot)]! += difference;
  counter.total += difference;
}

/** What lies in the slots of a counter, oldest first, without the empty ones. */
export function* amountsIn({ ring, slot, total }: Counter): Generator<readonly [slot: number, amount: number]> {
  if (ring === undefined) yield [slot, total];
  else
    for (let at = slot - SLOTS; at <= slot; at++) {
      const amount = ring[indexOf(at)]!;
      if (amount !== 0) yield [at, amount];
    }
}

function indexOf(slot: number): number {
  return ((slot % RING) + RING) % RING;
}
