/**
 * Spent quota as data that outlives the process. Pure.
 *
 * Restored, nothing that was spent is forgotten while it still counts, and no quota is frozen: where the data come from
 * the future, since the clock was ahead, what they hold counts as spent now. Calls that were under way are over.
 */
import type { Period } from './budget.ts';
import { advance, amountsIn, change, RING, slotAt, type Window } from './counter.ts';
import { addCounter, createQuotaState, type QuotaState } from './quota.ts';
import { WINDOW_MAX_MS } from './rate.ts';

const VERSION = 1;

/** As JSON has it, where `counters` is a list. */
export interface QuotaSnapshot {
  readonly version: typeof VERSION;
  /** The latest time that was seen, in milliseconds since the epoch. */
  readonly clock: number;
  readonly counters: Iterable<SavedCounter>;
}

interface SavedCounter {
  readonly key: string;
  /** `null` for a counter that is nobody's: of a surplus, or of a key that no agent chooses. */
  readonly agent: string | null;
  readonly windowMs: number;
  readonly period: Period | null;
  /** Slot and amount. */
  readonly grants: readonly (readonly [number, number])[];
}

/** Its counters are read one by one, since there may be many: what is spent meanwhile may be in the later ones or not. */
export function snapshot(state: QuotaState): QuotaSnapshot {
  return { version: VERSION, clock: state.clock, counters: countersOf(state) };
}

function* countersOf(state: QuotaState): Generator<SavedCounter> {
  for (const [key, counter] of state.counters) {
    const { agent = null, windowMs, period = null } = counter;
    if (windowMs === 0 && period === null) continue;
    advance(counter, state.clock);
    if (counter.total > 0) yield { key, agent, windowMs, period, grants: [...amountsIn(counter)] };
  }
}

/** @returns the state, and how many of the counters could not be read. `undefined`: this is no snapshot. */
export function restore(
  data: unknown,
  now: number,
): { readonly state: QuotaState; readonly dropped: number } | undefined {
  const { version, clock, counters } = Object(data) as Partial<Record<keyof QuotaSnapshot, unknown>>;
  if (version !== VERSION || !isTime(clock) || !Array.isArray(counters)) return undefined;
  const state = createQuotaState();
  state.clock = now;
  let dropped = 0;
  for (const saved of counters) {
    const isRoom = state.counters.size < 2 * state.keysMax;
    if (!isRoom || !isSaved(saved) || state.counters.has(saved.key)) {
      dropped += 1;
      continue;
    }
    const window: Window = { windowMs: saved.windowMs, period: saved.period ?? undefined };
    const shift = Math.min(0, slotAt(now, window) - slotAt(clock, window));
    const counter = addCounter(state, saved.key, saved.agent ?? undefined, window);
    for (const [slot, amount] of saved.grants) change(counter, Math.min(slot + shift, counter.slot), amount);
  }
  return { state, dropped };
}

function isSaved(value: unknown): value is SavedCounter {
  const { key, agent, windowMs, period, grants } = Object(value) as Partial<Record<keyof SavedCounter, unknown>>;
  return (
    typeof key === 'string' &&
    (agent === null || typeof agent === 'string') &&
    (period === null ? isWindow(windowMs) : windowMs === 0 && (period === 'day' || period === 'month')) &&
    Array.isArray(grants) &&
    grants.length <= RING &&
    grants.every((grant) => Array.isArray(grant) && Number.isSafeInteger(grant[0]) && isAmount(grant[1]))
  );
}

function isAmount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isWindow(value: unknown): boolean {
  return isAmount(value) && value > 0 && value <= WINDOW_MAX_MS;
}

/** The last moment that has a date (ECMA-262, section 21.4.1.1). */
const TIME_MAX = 8.64e15;

/** Clocks have fractions of a millisecond. */
function isTime(value: unknown): value is number {
  return typeof value === 'number' && value >= 0 && value <= TIME_MAX;
}
