/**
 * Quotas: which apply to a call, and the arithmetic of a sliding window. Pure over a state that is handed in; `now`
 * comes from a monotonic clock, in milliseconds.
 *
 * Guarantee: what was granted in any window, wherever it starts, is never more than the limit. A window is cut into 60
 * slots, and a grant counts until its whole slot has left: so 61 slots are summed, the present one and the 60 before,
 * and a grant is given back at most 1/60 of the window late. Only `settle` may go over, since the tokens are spent by
 * then; later calls wait that out. A clock that jumps back is held where it was, and mints nothing.
 *
 * Bounded: 61 numbers a key, {@link KEYS_MAX} keys, of which one agent brings up {@link KEYS_PER_AGENT_MAX}; keys whose
 * window has passed make room. Beyond that an agent's new keys share one counter a bound, so that whoever invents names
 * spends his own quota and nobody else's. They share it until all of it has left the window: no quota starts anew.
 */
import { type Predicate, variablesOf } from './cel.ts';
import { rolesOf } from './decide.ts';
import type { Call, Subject, Target } from './decision.ts';
import type { CompiledPolicy, Dimension, KeyPart, Rate } from './policy.ts';
import { err, ok, type Result } from './result.ts';

const SLOTS = 60;
const RING = SLOTS + 1;
export const KEYS_MAX = 10_000;
export const KEYS_PER_AGENT_MAX = 1000;
/** A count beyond this is cut: sums stay exact integers. */
const AMOUNT_MAX = 1e12;

/** What one call costs under one bound of one quota. Plain data: a store elsewhere can be handed it. */
export interface Charge extends Rate {
  readonly quota: string;
  readonly dimension: Dimension;
  /** Names the counter: two different sets of quota, bound and key values never share it. */
  readonly key: string;
  /** Names the counter that the agent's keys share when it has too many. */
  readonly surplusKey: string;
  /** Who brings the key up. */
  readonly agent: string;
  readonly cost: number;
}

const COUNTED = new Set(['tools/call', 'prompts/get', 'resources/read']);

/**
 * What a call costs, by every quota that applies. Empty for every method but tools/call, prompts/get and resources/read.
 * A quota whose `when` cannot be judged applies.
 *
 * @param tokens The estimate to reserve; the difference is settled.
 */
export function chargesOf(
  policy: CompiledPolicy,
  subject: Subject,
  target: Target,
  call: Call,
  tokens: number,
): Charge[] {
  if (policy.quotas.length === 0 || !COUNTED.has(call.method)) return [];
  const conditional = policy.quotas.some(({ condition }) => condition !== undefined);
  const variables = conditional
    ? variablesOf(subject, rolesOf(policy, subject.agent), target, policy.env, call)
    : undefined;
  const excluded = (predicate: Predicate | undefined): boolean => {
    const verdict = predicate?.(variables!);
    return verdict?.ok === true && !verdict.value;
  };
  return policy.quotas.flatMap(({ name, condition, key, bounds }) => {
    if (excluded(condition?.stable) || excluded(condition?.perCall)) return [];
    // An object, which no list of values is.
    const surplus = JSON.stringify({ agent: subject.agent.name });
    const values = JSON.stringify(key.map((part) => keyValue(part, subject, target, call)));
    return bounds.map(({ limit, windowMs, dimension, keyPrefix }) => ({
      quota: name,
      dimension,
      key: keyPrefix + values,
      surplusKey: keyPrefix + surplus,
      agent: subject.agent.name,
      limit,
      windowMs,
      cost: dimension === 'calls' ? 1 : amount(tokens),
    }));
  });
}

/** No user or session is a value of its own. What is not a tool shares one key: else each URI would have its own quota. */
function keyValue(part: KeyPart, subject: Subject, target: Target, call: Call): string | null {
  switch (part) {
    case 'agent':
      return subject.agent.name;
    case 'group':
      return subject.agent.group;
    case 'user':
      return subject.user?.sub ?? null;
    case 'session':
      return call.sessionId ?? null;
    case 'server':
      return target.server;
    case 'tool':
      return target.kind === 'tool' ? target.name : null;
  }
}

interface Counter {
  /** Who brought up the key; `undefined` for a counter of a surplus. */
  readonly agent: string | undefined;
  readonly windowMs: number;
  /** What was granted in slot n lies at `n % RING`, for the last RING slots. */
  readonly ring: Float64Array;
  /** The latest slot that was looked at, counted from the clock's zero. */
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

/** What was granted to one call. Opaque; to be settled or released, once: a second time does nothing. */
export interface Reservation {
  readonly entries: readonly { readonly charge: Charge; readonly counter: Counter; readonly slot: number }[];
  open: boolean;
}

/**
 * All of the charges, or none.
 *
 * @returns otherwise the quota that has to be waited for longest, and the milliseconds after which this very request
 * would pass if no other came: `Infinity` when its cost alone is more than the limit.
 */
export function reserve(
  state: QuotaState,
  charges: readonly Charge[],
  now: number,
): Result<Reservation, { readonly quota: string; readonly retryAfterMs: number }> {
  tick(state, now);
  let spent: { readonly quota: string; readonly retryAfterMs: number } | undefined;
  const keyed = charges.map((charge) => ({ charge, key: keyOf(state, charge, charges.length) }));
  for (const { charge, key } of keyed) {
    const retryAfterMs =
      key === undefined ? state.nextExpiry - state.clock : waitFor(state.counters.get(key), charge, state.clock);
    if (retryAfterMs > (spent?.retryAfterMs ?? 0)) spent = { quota: charge.quota, retryAfterMs };
  }
  if (spent !== undefined) return err(spent);

  const entries = keyed.map(({ charge, key }) => {
    const counter = counterFor(state, charge, key!);
    change(counter, counter.slot, charge.cost);
    return { charge, counter, slot: counter.slot };
  });
  return ok({ entries, open: true });
}

/** The tokens are known: the difference goes to the slot of the reservation, while that is still in its window. */
export function settle(state: QuotaState, reservation: Reservation, actualTokens: number, now: number): void {
  amend(state, reservation, now, ({ dimension, cost }) => (dimension === 'tokens' ? amount(actualTokens) - cost : 0));
}

/** The server never saw the call: everything is given back. */
export function release(state: QuotaState, reservation: Reservation, now: number): void {
  amend(state, reservation, now, ({ cost }) => -cost);
}

function amend(
  state: QuotaState,
  reservation: Reservation,
  now: number,
  differenceOf: (charge: Charge) => number,
): void {
  if (!reservation.open) return;
  reservation.open = false;
  tick(state, now);
  for (const { charge, counter, slot } of reservation.entries) {
    advance(counter, state.clock);
    change(counter, slot, differenceOf(charge));
  }
}

function amount(count: number): number {
  return count > 0 ? Math.min(Math.ceil(count), AMOUNT_MAX) : 0;
}

function tick(state: QuotaState, now: number): void {
  if (now > state.clock) state.clock = now;
}

function slotAt(time: number, windowMs: number): number {
  return Math.floor((time * SLOTS) / windowMs);
}

/** The first whole millisecond at which a slot no longer counts. */
function expiryOf(slot: number, windowMs: number): number {
  return Math.ceil(((slot + RING) * windowMs) / SLOTS);
}

/** Milliseconds until the charge fits. */
function waitFor(counter: Counter | undefined, { cost, limit }: Charge, time: number): number {
  if (cost > limit) return Number.POSITIVE_INFINITY;
  if (counter === undefined) return 0;
  advance(counter, time);
  let excess = counter.total + cost - limit;
  if (excess <= 0) return 0;
  let slot = counter.slot - SLOTS;
  for (; slot < counter.slot; slot++) {
    excess -= counter.ring[indexOf(slot)]!;
    if (excess <= 0) break;
  }
  return expiryOf(slot, counter.windowMs) - time;
}

function indexOf(slot: number): number {
  return ((slot % RING) + RING) % RING;
}

/** Empties the slots that have left the window. */
function advance(counter: Counter, time: number): void {
  const present = slotAt(time, counter.windowMs);
  for (let step = Math.min(present - counter.slot, RING); step > 0; step--) {
    const index = indexOf(present - step + 1);
    counter.total -= counter.ring[index]!;
    counter.ring[index] = 0;
  }
  counter.slot = Math.max(counter.slot, present);
}

function change(counter: Counter, slot: number, difference: number): void {
  if (slot < counter.slot - SLOTS) return;
  counter.ring[indexOf(slot)]! += difference;
  counter.total += difference;
}

function counterFor(state: QuotaState, { agent, windowMs, surplusKey }: Charge, key: string): Counter {
  const known = state.counters.get(key);
  if (known !== undefined) return known;
  const slot = slotAt(state.clock, windowMs);
  const owner = key === surplusKey ? undefined : agent;
  const counter: Counter = { agent: owner, windowMs, ring: new Float64Array(RING), slot, total: 0 };
  state.counters.set(key, counter);
  state.brought.set(owner, broughtBy(state, owner) + 1);
  state.nextExpiry = Math.min(state.nextExpiry, expiryOf(slot, windowMs));
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
  for (const [key, { agent, slot, windowMs }] of state.counters) {
    const expiry = expiryOf(slot, windowMs);
    if (expiry > state.clock) {
      state.nextExpiry = Math.min(state.nextExpiry, expiry);
      continue;
    }
    state.counters.delete(key);
    const left = broughtBy(state, agent) - 1;
    if (left === 0) state.brought.delete(agent);
    else state.brought.set(agent, left);
  }
  return isRoom();
}
