/**
 * The arithmetic of quotas and budgets. Pure over a state that is handed in; `now` is milliseconds since the epoch by a
 * clock that is not set while it runs.
 *
 * Guarantee of a sliding window: what was granted in any window, wherever it starts, is never more than the limit. A
 * window is cut into 60 slots, and a grant counts until its whole slot has left: so 61 slots are summed, the present one
 * and the 60 before, and a grant is given back at most 1/60 of the window late. A calendar window starts anew with the
 * day or month, UTC. `concurrent` counts from the reservation to its end. Only `progress` and `settle` may go over, since
 * the tokens are spent by then; later calls wait that out. A clock that jumps back is held where it was, and mints nothing.
 *
 * Bounded: 61 numbers a key, {@link KEYS_MAX} keys, of which one agent brings up {@link KEYS_PER_AGENT_MAX}; keys whose
 * window has passed make room. Beyond that an agent's new keys share one counter a bound, so that whoever invents names
 * spends his own quota and nobody else's. They share it until all of it has left the window: no quota starts anew.
 */
import { type Period, periodAt, periodStart } from './budget.ts';
import type { Charge, Spent, Usage } from './charge.ts';
import { amountFor } from './charges.ts';
import { err, ok, type Result } from './result.ts';

const SLOTS = 60;
export const RING = SLOTS + 1;
export const KEYS_MAX = 10_000;
export const KEYS_PER_AGENT_MAX = 1000;
/** Nobody knows when a call that is under way will end. */
const CONCURRENT_RETRY_MS = 1000;

/** When something counts: a sliding window, a calendar one, or as long as the call is under way. */
export interface Window {
  readonly windowMs: number;
  readonly period: Period | undefined;
}

export interface Counter extends Window {
  /** Who brought up the key; `undefined` for a counter of a surplus. */
  readonly agent: string | undefined;
  /** What was granted in slot n lies at `n % RING`, for the last RING slots. `undefined` where the window does not slide. */
  readonly ring: Float64Array | undefined;
  /** The latest slot, day or month that was looked at, counted from the epoch. */
  slot: number;
  total: number;
}

export interface QuotaState {
  /** Keys in all; and as many counters of surpluses. */
  readonly keysMax: number;
  readonly keysPerAgentMax: number;
  readonly counters: Map<string, Counter>;
  /** How many of the counters each agent brought up; those of surpluses are under `undefined`. */
  readonly brought: Map<string | undefined, number>;
  /** The latest time seen. */
  clock: number;
  /** No key expires before: until then a full state need not be swept again. */
  nextExpiry: number;
}

export function createQuotaState(keysMax = KEYS_MAX, keysPerAgentMax = KEYS_PER_AGENT_MAX): QuotaState {
  return {
    keysMax,
    keysPerAgentMax,
    counters: new Map(),
    brought: new Map(),
    clock: 0,
    nextExpiry: Number.POSITIVE_INFINITY,
  };
}

interface Entry {
  readonly charge: Charge;
  readonly key: string;
  readonly counter: Counter;
  readonly slot: number;
  /** What has been charged by now. */
  charged: number;
}

/** What was granted to one call. Opaque; to be settled or released, once: a second time does nothing. */
export interface Reservation {
  readonly entries: readonly Entry[];
  /** One for each charge, in their order. */
  readonly usage: readonly Usage[];
  open: boolean;
}

/**
 * All of the charges, or none.
 *
 * @returns otherwise the quota that has to be waited for longest, and the milliseconds after which this very request
 * would pass if no other came: `Infinity` when its cost alone is more than the limit.
 */
export function reserve(state: QuotaState, charges: readonly Charge[], now: number): Result<Reservation, Spent> {
  tick(state, now);
  let spent: Spent | undefined;
  const keyed = charges.map((charge) => ({ charge, key: keyOf(state, charge, charges.length) }));
  for (const { charge, key } of keyed) {
    const retryAfterMs =
      key === undefined ? state.nextExpiry - state.clock : waitFor(state.counters.get(key), charge, state.clock);
    if (retryAfterMs > (spent?.retryAfterMs ?? 0)) spent = { quota: charge.quota, retryAfterMs };
  }
  if (spent !== undefined) return err(spent);

  const entries: Entry[] = [];
  const usage: Usage[] = [];
  for (const { charge, key } of keyed) {
    const counter = counterFor(state, charge, key!);
    const before = counter.total;
    change(counter, counter.slot, charge.cost);
    entries.push({ charge, key: key!, counter, slot: counter.slot, charged: charge.cost });
    usage.push(usageOf(charge, before, counter.total));
  }
  return ok({ entries, usage, open: true });
}

/**
 * So many tokens are known by now: what goes beyond the reservation is charged.
 *
 * @returns the quotas and budgets that are over their limit by it.
 */
export function progress(state: QuotaState, reservation: Reservation, tokens: number, now: number): readonly string[] {
  if (!reservation.open) return [];
  tick(state, now);
  const over: string[] = [];
  for (const entry of reservation.entries) {
    const { charge, counter, slot } = entry;
    if (charge.perToken === 0) continue;
    advance(counter, state.clock);
    const amount = amountFor(charge.base, charge.perToken, tokens);
    if (amount > entry.charged) {
      change(counter, slot, amount - entry.charged);
      entry.charged = amount;
    }
    if (counter.total > charge.limit) over.push(charge.quota);
  }
  return over;
}

/** The tokens are known: the difference goes to the slot of the reservation, while that is still in its window. */
export function settle(state: QuotaState, reservation: Reservation, tokens: number, now: number): readonly Usage[] {
  return amend(state, reservation, now, ({ dimension, base, perToken }) =>
    dimension === 'concurrent' ? 0 : amountFor(base, perToken, tokens),
  );
}

/** The server never saw the call: everything is given back. */
export function release(state: QuotaState, reservation: Reservation, now: number): void {
  amend(state, reservation, now, () => 0);
}

function amend(
  state: QuotaState,
  reservation: Reservation,
  now: number,
  amountOf: (charge: Charge) => number,
): readonly Usage[] {
  if (!reservation.open) return [];
  reservation.open = false;
  tick(state, now);
  return reservation.entries.map(({ charge, key, counter, slot, charged }) => {
    advance(counter, state.clock);
    const before = counter.total;
    change(counter, slot, amountOf(charge) - charged);
    if (charge.dimension === 'concurrent' && counter.total === 0) forget(state, key, counter);
    return usageOf(charge, before, counter.total);
  });
}

function usageOf({ quota, dimension, limit, warnAt }: Charge, before: number, used: number): Usage {
  return { quota, dimension, used, limit, warned: before < warnAt * limit && used >= warnAt * limit };
}

function tick(state: QuotaState, now: number): void {
  if (now > state.clock) state.clock = now;
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

/** Milliseconds until the charge fits. */
function waitFor(counter: Counter | undefined, { cost, limit }: Charge, time: number): number {
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

function indexOf(slot: number): number {
  return ((slot % RING) + RING) % RING;
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

export function change(counter: Counter, slot: number, difference: number): void {
  const oldest = counter.ring === undefined ? counter.slot : counter.slot - SLOTS;
  if (slot < oldest) return;
  if (counter.ring !== undefined) counter.ring[indexOf(slot)]! += difference;
  counter.total += difference;
}

/** What lies in the slots of a counter, oldest first, without the empty ones. */
export function* grantsIn({ ring, slot, total }: Counter): Generator<readonly [slot: number, amount: number]> {
  if (ring === undefined) yield [slot, total];
  else
    for (let at = slot - SLOTS; at <= slot; at++) {
      const amount = ring[indexOf(at)]!;
      if (amount !== 0) yield [at, amount];
    }
}

function counterFor(state: QuotaState, { agent, windowMs, period, surplusKey }: Charge, key: string): Counter {
  const owner = key === surplusKey ? undefined : agent;
  return state.counters.get(key) ?? addCounter(state, key, owner, { windowMs, period });
}

export function addCounter(
  state: QuotaState,
  key: string,
  agent: string | undefined,
  { windowMs, period }: Window,
): Counter {
  const slides = windowMs > 0 && period === undefined;
  const slot = slotAt(state.clock, { windowMs, period });
  const ring = slides ? new Float64Array(RING) : undefined;
  const counter: Counter = { agent, windowMs, period, ring, slot, total: 0 };
  state.counters.set(key, counter);
  state.brought.set(agent, broughtBy(state, agent) + 1);
  state.nextExpiry = Math.min(state.nextExpiry, expiryOf(slot, counter));
  return counter;
}

/**
 * Under which key a charge is counted; `undefined` when there is room for none.
 *
 * @param count Charges of this call: at most so many new keys.
 */
function keyOf(state: QuotaState, { key, surplusKey, agent }: Charge, count: number): string | undefined {
  if (state.counters.has(key)) return key;
  const surplus = state.counters.get(surplusKey);
  if (surplus !== undefined) {
    advance(surplus, state.clock);
    // Some of it may be this key's.
    if (surplus.total > 0) return surplusKey;
  }
  if (makeRoom(state, () => hasRoom(state, agent, count))) return key;
  if (state.counters.has(surplusKey)) return surplusKey;
  return makeRoom(state, () => broughtBy(state, undefined) + count <= state.keysMax) ? surplusKey : undefined;
}

function broughtBy(state: QuotaState, agent: string | undefined): number {
  return state.brought.get(agent) ?? 0;
}

function hasRoom(state: QuotaState, agent: string, count: number): boolean {
  const keys = state.counters.size - broughtBy(state, undefined);
  return keys + count <= state.keysMax && broughtBy(state, agent) + count <= state.keysPerAgentMax;
}

/** Whether there is room, if need be after dropping the keys in whose window nothing can be any more. */
function makeRoom(state: QuotaState, isRoom: () => boolean): boolean {
  if (isRoom()) return true;
  if (state.clock < state.nextExpiry) return false;
  state.nextExpiry = Number.POSITIVE_INFINITY;
  for (const [key, counter] of state.counters) {
    const expiry = expiryOf(counter.slot, counter);
    if (expiry <= state.clock) forget(state, key, counter);
    else state.nextExpiry = Math.min(state.nextExpiry, expiry);
  }
  return isRoom();
}

function forget(state: QuotaState, key: string, { agent }: Counter): void {
  if (!state.counters.delete(key)) return;
  const left = broughtBy(state, agent) - 1;
  if (left === 0) state.brought.delete(agent);
  else state.brought.set(agent, left);
}
