/**
 * Quotas and budgets of every dimension against a model that keeps a log of all that was ever spent and adds it up:
 * calls that overlap, streams, clocks that jump, and a process that ends and starts again from what it saved.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Charge, Usage } from '../../policies/charge.ts';
import {
  createQuotaState,
  progress,
  type QuotaState,
  type Reservation,
  release,
  reserve,
  settle,
} from '../../policies/quota.ts';
import { restore } from '../../policies/quota-snapshot.ts';
import fc from '../support/fast-check.ts';
import { savedOf } from '../support/quotas.ts';

/** A few minutes before a day and a month end. */
const START = Date.parse('2026-11-30T23:50:00Z');
const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;

type Bound = Pick<Charge, 'dimension' | 'limit' | 'windowMs' | 'period' | 'base' | 'perToken'>;

const sliding = fc.constantFrom(1000, 7000, MINUTE_MS, 5 * MINUTE_MS);
const share = { warnAt: fc.constantFrom(0.5, 0.8, 1) };
const bound: fc.Arbitrary<Bound & Pick<Charge, 'warnAt'>> = fc.oneof(
  fc.record({
    ...share,
    dimension: fc.constant('calls' as const),
    limit: fc.integer({ min: 1, max: 8 }),
    windowMs: sliding,
    period: fc.constant(undefined),
    base: fc.constant(1),
    perToken: fc.constant(0),
  }),
  fc.record({
    ...share,
    dimension: fc.constant('tokens' as const),
    limit: fc.integer({ min: 1, max: 60 }),
    windowMs: sliding,
    period: fc.constant(undefined),
    base: fc.constant(0),
    perToken: fc.constant(1),
  }),
  fc.record({
    ...share,
    dimension: fc.constant('cost' as const),
    limit: fc.integer({ min: 1, max: 60 }),
    windowMs: fc.constant(0),
    period: fc.constantFrom('day' as const, 'month' as const),
    base: fc.nat(4),
    // Quarters are exact in binary: the model needs no rounding of its own.
    perToken: fc.nat(6).map((quarters) => quarters / 4),
  }),
  fc.record({
    ...share,
    dimension: fc.constant('concurrent' as const),
    limit: fc.integer({ min: 1, max: 4 }),
    windowMs: fc.constant(0),
    period: fc.constant(undefined),
    base: fc.constant(1),
    perToken: fc.constant(0),
  }),
);

const waitMs = fc.oneof(
  { weight: 6, arbitrary: fc.nat(400) },
  { weight: 3, arbitrary: fc.nat(2 * MINUTE_MS) },
  { weight: 1, arbitrary: fc.nat(40 * DAY_MS) },
  { weight: 2, arbitrary: fc.integer({ min: -10 * MINUTE_MS, max: 0 }) },
);
const step = fc.record({
  act: fc.oneof(
    { weight: 8, arbitrary: fc.constant('reserve' as const) },
    { weight: 4, arbitrary: fc.constant('progress' as const) },
    { weight: 3, arbitrary: fc.constant('settle' as const) },
    { weight: 1, arbitrary: fc.constant('release' as const) },
    { weight: 1, arbitrary: fc.constant('restart' as const) },
  ),
  tokens: fc.nat(25),
  /** Of two agents; and of the calls under way. */
  which: fc.nat(50),
  waitMs,
});

/** Which slot, day or month a moment is in, by other means than the code's. */
function slotOf(time: number, { windowMs, period }: Bound): number {
  const date = new Date(time);
  if (period === 'month') return date.getUTCFullYear() * 12 + date.getUTCMonth();
  if (period === 'day') return Date.parse(`${date.toISOString().slice(0, 10)}T00:00:00Z`) / DAY_MS;
  return windowMs === 0 ? 0 : Number((BigInt(time) * 60n) / BigInt(windowMs));
}

interface Spending {
  readonly charge: Charge;
  slot: number;
  amount: number;
}

interface ModelCall {
  readonly charges: readonly Charge[];
  /** For each charge: all that it was ever charged. */
  readonly spent: readonly Spending[][];
  readonly hasWarned: boolean[];
}

/** A log and a sum: slow and plain. */
class Model {
  log: Spending[] = [];
  now = 0;

  counts({ slot, charge }: Spending, time = this.now): boolean {
    const age = slotOf(time, charge) - slot;
    return charge.windowMs > 0 ? age <= 60 : age <= 0;
  }

  used({ key }: Charge, time = this.now): number {
    return this.log
      .filter((one) => one.charge.key === key && this.counts(one, time))
      .reduce((sum, { amount }) => sum + amount, 0);
  }

  fits(charges: readonly Charge[], time = this.now): boolean {
    return charges.every((charge) => this.used(charge, time) + charge.cost <= charge.limit);
  }

  spend(charge: Charge, slot: number, amount: number): Spending {
    const one = { charge, slot, amount };
    this.log.push(one);
    return one;
  }

  reserve(charges: readonly Charge[]): { call: ModelCall; usage: Usage[] } {
    const usage: Usage[] = [];
    const spent = charges.map((charge) => {
      const before = this.used(charge);
      const one = this.spend(charge, slotOf(this.now, charge), charge.cost);
      usage.push(this.usage(charge, before));
      return [one];
    });
    return { call: { charges, spent, hasWarned: charges.map(() => false) }, usage };
  }

  usage(charge: Charge, before: number): Usage {
    const { quota, dimension, limit, warnAt } = charge;
    const used = this.used(charge);
    return { quota, dimension, used, limit, warned: before < warnAt * limit && used >= warnAt * limit };
  }

  progress({ charges, spent, hasWarned }: ModelCall, tokens: number): string[] {
    const over: string[] = [];
    for (const [index, charge] of charges.entries()) {
      if (charge.perToken === 0) continue;
      const before = this.used(charge);
      const more = costOf(charge, tokens) - sum(spent[index]!);
      if (more > 0) spent[index]!.push(this.spend(charge, slotOf(this.now, charge), more));
      if (this.usage(charge, before).warned) hasWarned[index] = true;
      if (this.used(charge) > charge.limit) over.push(charge.quota);
    }
    return over;
  }

  end({ charges, spent, hasWarned }: ModelCall, amountOf: (charge: Charge) => number): Usage[] {
    return charges.map((charge, index) => {
      const before = this.used(charge);
      const parts = spent[index]!;
      let missing = amountOf(charge) - sum(parts);
      for (const part of parts.toReversed()) {
        if (missing >= 0) break;
        const back = Math.min(part.amount, -missing);
        part.amount -= back;
        missing += back;
      }
      const last = parts.at(-1)!;
      if (missing > 0) this.spend(charge, this.counts(last) ? last.slot : slotOf(this.now, charge), missing);
      const usage = this.usage(charge, before);
      return { ...usage, warned: usage.warned || hasWarned[index]! };
    });
  }

  /** What was spent counts as before; where the clock was ahead, as if it had been the time it is now. */
  restart(now: number): void {
    this.log = this.log.filter((one) => one.charge.dimension !== 'concurrent' && this.counts(one));
    if (now < this.now) for (const one of this.log) one.slot += slotOf(now, one.charge) - slotOf(this.now, one.charge);
    this.now = now;
  }
}

function costOf({ base, perToken }: Bound, tokens: number): number {
  return Math.ceil(base + perToken * tokens);
}

function sum(spent: readonly Spending[]): number {
  return spent.reduce((total, { amount }) => total + amount, 0);
}

function chargesFor(bounds: readonly (Bound & Pick<Charge, 'warnAt'>)[], agent: string, tokens: number): Charge[] {
  return bounds.map((one, index) => ({
    ...one,
    quota: `q${index}`,
    key: `${agent} ${index}`,
    surplusKey: `${agent} surplus ${index}`,
    agent,
    cost: costOf(one, tokens),
  }));
}

/** The promise of `retryAfterMs`; when calls under way will end is nobody's to know. */
function checkWait(model: Model, charges: readonly Charge[], retryAfterMs: number): void {
  if (retryAfterMs === Number.POSITIVE_INFINITY) {
    assert.ok(charges.some(({ cost, limit }) => cost > limit));
    return;
  }
  const [underWay, windowed] = [true, false].map((is) =>
    charges.filter(({ dimension }) => (dimension === 'concurrent') === is),
  );
  const isFull = !model.fits(underWay!);
  assert.ok(retryAfterMs > 0 && (!isFull || retryAfterMs >= 1000));
  assert.equal(model.fits(windowed!, model.now + retryAfterMs), true, 'by then it fits');
  if (!isFull) assert.equal(model.fits(windowed!, model.now + retryAfterMs - 1), false, 'and no sooner');
}

const plan = fc.record({
  bounds: fc.array(bound, { minLength: 1, maxLength: 4 }),
  steps: fc.array(step, { maxLength: 120 }),
});

interface Run {
  readonly state: QuotaState;
  readonly model: Model;
  readonly clock: number;
}

function play({ bounds, steps }: typeof plan extends fc.Arbitrary<infer Plan> ? Plan : never): Run {
  let state = createQuotaState();
  const model = new Model();
  let open: { reservation: Reservation; call: ModelCall }[] = [];
  let clock = START;
  for (const { act, tokens, which, waitMs: wait } of steps) {
    clock += wait;
    if (act === 'restart') {
      const restored = restore(savedOf(state), clock);
      assert.equal(restored?.dropped, 0);
      state = restored.state;
      model.restart(clock);
      open = [];
      continue;
    }
    if (act === 'reserve') {
      model.now = Math.max(model.now, clock);
      const charges = chargesFor(bounds, `agent ${which % 2}`, tokens);
      const granted = reserve(state, charges, clock);
      assert.equal(granted.ok, model.fits(charges));
      if (granted.ok) {
        const { call, usage } = model.reserve(charges);
        assert.deepEqual(granted.value.usage, usage);
        open.push({ reservation: granted.value, call });
      } else checkWait(model, charges, granted.error.retryAfterMs);
      continue;
    }
    const one = open[which % Math.max(1, open.length)];
    if (one === undefined) continue;
    model.now = Math.max(model.now, clock);
    const { reservation, call } = one;
    if (act === 'progress') {
      assert.deepEqual(progress(state, reservation, tokens, clock), model.progress(call, tokens));
      continue;
    }
    open = open.filter((other) => other !== one);
    if (act === 'release') {
      release(state, reservation, clock);
      model.end(call, () => 0);
    } else {
      const usage = settle(state, reservation, tokens, clock);
      assert.deepEqual(
        usage,
        model.end(call, (charge) => (charge.dimension === 'concurrent' ? 0 : costOf(charge, tokens))),
      );
    }
    // Whoever ends a call twice changes nothing.
    release(state, reservation, clock);
    assert.deepEqual(settle(state, reservation, tokens, clock), []);
    assert.deepEqual(progress(state, reservation, 1000, clock), []);
  }
  return { state, model, clock };
}

describe('spending', () => {
  it('is what the log says, in every dimension, over jumps of the clock and restarts', () => {
    fc.assert(
      fc.property(plan, (chosen) => void play(chosen)),
      { numRuns: 400 },
    );
  });

  it('a snapshot of what was restored from a snapshot is that snapshot', () => {
    fc.assert(
      fc.property(plan, (chosen) => {
        const { state } = play(chosen);
        const data = savedOf(state);
        const restored = restore(data, state.clock)!;
        assert.equal(restored.dropped, 0);
        assert.deepEqual(savedOf(restored.state), data);
      }),
      { numRuns: 200 },
    );
  });

  it('no data make the restoring throw, freeze a quota, or count less than nothing', () => {
    const number = fc.oneof(fc.integer(), fc.double(), fc.constantFrom(0, 1, 1000, 1e15, 1e16, 1e300));
    const counter = fc.record(
      {
        key: fc.oneof(fc.string(), fc.constant('agent 0 0'), fc.anything()),
        agent: fc.oneof(fc.string(), fc.constant(null), fc.anything()),
        windowMs: fc.oneof(number, fc.constant(MINUTE_MS)),
        period: fc.constantFrom(null, 'day', 'month', 'year'),
        grants: fc.oneof(fc.array(fc.tuple(number, number), { maxLength: 70 }), fc.anything()),
      },
      { requiredKeys: [] },
    );
    const data = fc.oneof(
      fc.anything(),
      fc.record({ version: fc.constant(1), clock: number, counters: fc.array(fc.oneof(counter, fc.anything())) }),
    );
    fc.assert(
      fc.property(data, (given) => {
        const restored = restore(given, START);
        if (restored === undefined) return;
        const { state } = restored;
        const { counters } = given as { counters: unknown[] };
        assert.equal(state.counters.size + restored.dropped, counters.length);
        for (const { total } of state.counters.values()) assert.ok(total >= 0);
        const later = START + 63 * DAY_MS;
        const [charge] = chargesFor(
          [{ dimension: 'calls', limit: 1, windowMs: MINUTE_MS, period: undefined, base: 1, perToken: 0, warnAt: 1 }],
          'agent 0',
          0,
        );
        assert.equal(reserve(state, [charge!], later).ok, true);
      }),
      { numRuns: 500 },
    );
  });
});
