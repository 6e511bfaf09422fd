/**
 * The arithmetic of quotas and budgets. Pure over a state that is handed in; `now` is milliseconds since the epoch by a
 * clock that is not set while it runs.
 *
 * Guarantee of a sliding window: what was granted in any window, wherever it starts, is never more than the limit, and a
 * grant is given back at most 1/60 of the window late (counter.ts). A calendar window starts anew with the day or month,
 * UTC. `concurrent` counts from the reservation to its end. Only `progress` and `settle` may go over, since the tokens
 * are spent by then; later calls wait that out. A clock that jumps back is held where it was, and mints nothing.
 *
 * What a stream brings counts from when it comes. What turns out at the end counts from where the call was charged last;
 * once that has left the window, what is too little counts from now, and what is too much is nobody's any more.
 *
 * Bounded: 61 numbers a key, {@link KEYS_MAX} keys that agents choose, of which one brings up {@link KEYS_PER_AGENT_MAX};
 * keys whose window has passed make room. Beyond that an agent's new keys share one counter a bound, so that whoever
 * invents names spends his own quota and nobody else's. They share it until all of it has left the window: no quota starts
 * anew. Keys that no agent chooses are as many as the configuration makes them, and always have their own counters: what
 * agents share they share whatever each has invented.
 */
import type { Charge, Spent, Usage } from './charge.ts';
import { amountFor } from './charges.ts';
import {
  advance,
  type Counter,
  change,
  createCounter,
  expiryOf,
  isInWindow,
  RING,
  type Window,
  waitFor,
} from './counter.ts';
import { err, ok, type Result } from './result.ts';

export const KEYS_MAX = 10_000;
export const KEYS_PER_AGENT_MAX = 1000;

export interface QuotaState {
  /** Keys that agents choose, in all; and as many counters that are nobody's, unless keys that none chooses are more. */
  readonly keysMax: number;
  readonly keysPerAgentMax: number;
  readonly counters: Map<string, Counter>;
  /** How many of the counters each agent brought up; those that are nobody's (see counter.ts) are under `undefined`. */
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

interface Part {
  readonly slot: number;
  amount: number;
}

interface Entry {
  readonly charge: Charge;
  key: string;
  counter: Counter;
  /** What has been charged by now, whether it still counts or not. */
  charged: number;
  /** Where that lies, oldest first: one part, and one more for each slot in which a stream went on. */
  readonly parts: Part[];
  /** A stream has taken the counter to its warning share. */
  warned: boolean;
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
    const entry: Entry = { charge, key: key!, counter, charged: 0, parts: [], warned: false };
    spend(entry, counter.slot, charge.cost);
    entries.push(entry);
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
    const { charge } = entry;
    if (charge.perToken === 0) continue;
    const more = amountFor(charge.base, charge.perToken, tokens) - entry.charged;
    const counter = presentCounter(state, entry, more);
    const before = counter.total;
    if (more > 0) spend(entry, counter.slot, more);
    entry.warned ||= isWarning(charge, before, counter.total);
    if (counter.total > charge.limit) over.push(charge.quota);
  }
  return over;
}

/** The tokens are known: what was charged too much is given back, and what is missing is charged. */
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
  return reservation.entries.map((entry) => {
    const { charge, parts, warned } = entry;
    const difference = amountOf(charge) - entry.charged;
    const counter = presentCounter(state, entry, difference);
    const before = counter.total;
    const { slot } = parts.at(-1)!;
    if (difference < 0) giveBack(entry, -difference);
    else if (difference > 0) spend(entry, isInWindow(counter, slot) ? slot : counter.slot, difference);
    if (charge.dimension === 'concurrent' && counter.total === 0) forget(state, entry.key, counter);
    const usage = usageOf(charge, before, counter.total);
    return warned ? { ...usage, warned } : usage;
  });
}

/**
 * The entry's counter, at this moment. One that was dropped meanwhile, to make room, comes back for what is charged yet.
 *
 * @param more What is about to be charged.
 */
function presentCounter(state: QuotaState, entry: Entry, more: number): Counter {
  const { charge } = entry;
  if (more > 0 && !state.counters.has(entry.key)) {
    const key = keyOf(state, charge, 1);
    if (key !== undefined) {
      entry.key = key;
      counterFor(state, charge, key);
    }
  }
  entry.counter = state.counters.get(entry.key) ?? entry.counter;
  advance(entry.counter, state.clock);
  return entry.counter;
}

function spend(entry: Entry, slot: number, amount: number): void {
  const { counter, parts } = entry;
  change(counter, slot, amount);
  entry.charged += amount;
  const last = parts.at(-1);
  if (last?.slot === slot) last.amount += amount;
  else parts.push({ slot, amount });
  // The oldest has left the window by now.
  if (parts.length > RING) parts.shift();
}

/** The newest first: it would count the longest. */
function giveBack({ counter, parts }: Entry, amount: number): void {
  let left = amount;
  for (let part = parts.pop(); part !== undefined && left > 0; part = parts.pop()) {
    change(counter, part.slot, -Math.min(part.amount, left));
    left -= part.amount;
  }
}

function usageOf(charge: Charge, before: number, used: number): Usage {
  const { quota, dimension, limit } = charge;
  return { quota, dimension, used, limit, warned: isWarning(charge, before, used) };
}

function isWarning({ limit, warnAt }: Charge, before: number, used: number): boolean {
  return before < warnAt * limit && used >= warnAt * limit;
}

function tick(state: QuotaState, now: number): void {
  if (now > state.clock) state.clock = now;
}

function counterFor(state: QuotaState, { agent, windowMs, period, surplusKey }: Charge, key: string): Counter {
  const owner = surplusKey === undefined || key === surplusKey ? undefined : agent;
  return state.counters.get(key) ?? addCounter(state, key, owner, { windowMs, period });
}

export function addCounter(state: QuotaState, key: string, agent: string | undefined, window: Window): Counter {
  const counter = createCounter(agent, window, state.clock);
  state.counters.set(key, counter);
  state.brought.set(agent, broughtBy(state, agent) + 1);
  state.nextExpiry = Math.min(state.nextExpiry, expiryOf(counter.slot, counter));
  return counter;
}

/**
 * Under which key a charge is counted; `undefined` when there is room for none.
 *
 * @param count Charges of this call: at most so many new keys.
 */
function keyOf(state: QuotaState, { key, surplusKey, agent }: Charge, count: number): string | undefined {
  if (state.counters.has(key)) return key;
  if (surplusKey === undefined) {
    // Whether or not there is: those whose window has passed go.
    makeRoom(state, () => broughtBy(state, undefined) + count <= state.keysMax);
    return key;
  }
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
