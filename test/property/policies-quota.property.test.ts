/**
 * The sliding window against a model that keeps a log of every grant and adds up what is in the window, slot by slot;
 * and the promise itself: no window of that length, wherever it starts, holds more than the limit.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Charge } from '../../policies/charge.ts';
import { createQuotaState, type Reservation, release, reserve, settle } from '../../policies/quota.ts';
import fc from '../support/fast-check.ts';

interface Grant {
  readonly key: string;
  readonly at: number;
  cost: number;
}

interface Entry extends Grant {
  readonly windowMs: number;
}

const WINDOWS = [1000, 10_000, 60_000, 300_000];
const slotOf = (time: number, windowMs: number) => Math.floor((time * 60) / windowMs);

/** A charge that is one call. */
const CALL = { period: undefined, base: 1, perToken: 0, warnAt: 0.8 };

/** A log and a sum: slow and plain. */
function createModel() {
  const log: Entry[] = [];
  const inWindow = (charge: Charge, now: number) =>
    log
      .filter(({ key, at }) => key === charge.key && slotOf(at, charge.windowMs) >= slotOf(now, charge.windowMs) - 60)
      .reduce((sum, { cost }) => sum + cost, 0);
  return {
    log,
    fits: (charges: readonly Charge[], now: number) =>
      charges.every((charge) => inWindow(charge, now) + charge.cost <= charge.limit),
    /** What turns out once the grant has left its window counts from now. */
    settle: (entry: Entry, cost: number, now: number) => {
      const hasLeft = slotOf(entry.at, entry.windowMs) < slotOf(now, entry.windowMs) - 60;
      if (hasLeft && cost > entry.cost) log.push({ ...entry, at: now, cost: cost - entry.cost });
      else entry.cost = cost;
    },
    grant: (charges: readonly Charge[], now: number) =>
      charges.map(({ key, cost, windowMs }) => {
        const entry = { key, cost, windowMs, at: now };
        log.push(entry);
        return entry;
      }),
  };
}

const bound = fc.record({ limit: fc.integer({ min: 1, max: 12 }), windowMs: fc.constantFrom(...WINDOWS) });
const act = fc.oneof(
  { weight: 6, arbitrary: fc.record({ act: fc.constant('reserve'), cost: fc.integer({ min: 0, max: 5 }) }) },
  { weight: 1, arbitrary: fc.record({ act: fc.constant('release'), cost: fc.nat(50) }) },
  { weight: 2, arbitrary: fc.record({ act: fc.constant('settle'), cost: fc.nat(20) }) },
);
const step = fc.record({
  what: act,
  which: fc.nat(1),
  waitMs: fc.oneof(fc.nat(300), fc.nat(70_000), fc.integer({ min: -5000, max: 0 })),
});

const plan = fc.record({
  bounds: fc.array(bound, { minLength: 1, maxLength: 3 }),
  steps: fc.array(step, { maxLength: 120 }),
});

function chargesFor(bounds: readonly { limit: number; windowMs: number }[], which: number, cost: number): Charge[] {
  return bounds.map(({ limit, windowMs }, index) => {
    const dimension = index % 2 === 0 ? 'calls' : 'tokens';
    return {
      quota: `q${index}`,
      key: `${which} ${index}`,
      surplusKey: `surplus ${index}`,
      agent: 'a',
      dimension,
      limit,
      windowMs,
      period: undefined,
      base: dimension === 'calls' ? 1 : 0,
      perToken: dimension === 'calls' ? 0 : 1,
      warnAt: 0.8,
      cost: dimension === 'calls' ? 1 : cost,
    };
  });
}

describe('the sliding window', () => {
  it('grants exactly what the log of grants leaves room for, and the wait is exact', () => {
    fc.assert(
      fc.property(plan, ({ bounds, steps }) => {
        const state = createQuotaState();
        const model = createModel();
        const open: { reservation: Reservation; entries: Entry[]; charges: Charge[] }[] = [];
        let clock = 0;
        let latest = 0;
        for (const { what, which, waitMs } of steps) {
          clock = Math.max(0, clock + waitMs);
          if (what.act === 'reserve') {
            latest = Math.max(latest, clock);
            const charges = chargesFor(bounds, which, what.cost);
            const granted = reserve(state, charges, clock);
            assert.equal(granted.ok, model.fits(charges, latest));
            if (granted.ok) open.push({ reservation: granted.value, entries: model.grant(charges, latest), charges });
            else if (granted.error.retryAfterMs === Number.POSITIVE_INFINITY)
              assert.ok(charges.some(({ cost, limit }) => cost > limit));
            else {
              assert.equal(model.fits(charges, latest + granted.error.retryAfterMs), true);
              assert.equal(model.fits(charges, latest + granted.error.retryAfterMs - 1), false);
            }
            continue;
          }
          const [taken] = open.splice(what.cost % Math.max(1, open.length), 1);
          if (taken === undefined) continue;
          latest = Math.max(latest, clock);
          if (what.act === 'release') release(state, taken.reservation, clock);
          else settle(state, taken.reservation, what.cost, clock);
          for (const [index, entry] of taken.entries.entries()) {
            if (what.act === 'release') entry.cost = 0;
            else if (taken.charges[index]!.dimension === 'tokens') model.settle(entry, what.cost, latest);
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  it('never grants more than the limit in any window', () => {
    fc.assert(
      fc.property(
        bound,
        fc.array(fc.record({ waitMs: fc.nat(4000), cost: fc.integer({ min: 1, max: 4 }) }), { maxLength: 200 }),
        ({ limit, windowMs }, asked) => {
          const state = createQuotaState();
          const granted: { at: number; cost: number }[] = [];
          let clock = 0;
          for (const { waitMs, cost } of asked) {
            clock += waitMs;
            const charge: Charge = {
              quota: 'q',
              key: 'k',
              surplusKey: 's',
              agent: 'a',
              dimension: 'calls',
              limit,
              windowMs,
              ...CALL,
              cost,
            };
            if (reserve(state, [charge], clock).ok) granted.push({ at: clock, cost });
          }
          for (const { at } of granted) {
            const inWindow = granted.filter((other) => other.at >= at && other.at < at + windowMs);
            assert.ok(inWindow.reduce((sum, { cost }) => sum + cost, 0) <= limit);
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  it('of an agent with too many keys never grants a key more than its limit, and takes nothing of others', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 6 }),
        fc.array(
          fc.record({
            who: fc.constantFrom('inventive', 'plain'),
            key: fc.nat(6),
            isShared: fc.boolean(),
            waitMs: fc.oneof(fc.nat(300), fc.nat(12_000)),
          }),
          { maxLength: 200 },
        ),
        (limit, asked) => {
          const windowMs = 10_000;
          const state = createQuotaState(100, 3);
          const model = createModel();
          let clock = 0;
          for (const { who, key, isShared, waitMs } of asked) {
            clock += waitMs;
            const own = who === 'plain' ? `plain ${key % 3}` : `inventive ${key}`;
            const name = isShared ? `shared ${key % 2}` : own;
            const charge: Charge = {
              quota: 'q',
              key: name,
              surplusKey: isShared ? undefined : `${who} surplus`,
              agent: who,
              dimension: 'calls',
              limit,
              windowMs,
              ...CALL,
              cost: 1,
            };
            const { ok } = reserve(state, [charge], clock);
            const fits = model.fits([charge], clock);
            if (who === 'plain' || isShared)
              assert.equal(ok, fits, 'exact for who has few keys, and for what is shared');
            else if (ok) assert.equal(fits, true, 'never more than the limit of the key');
            if (ok) model.grant([charge], clock);
            assert.ok(state.counters.size <= 10);
          }
        },
      ),
      { numRuns: 500 },
    );
  });
});
