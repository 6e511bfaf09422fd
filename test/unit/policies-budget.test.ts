import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { amountOf, parseCost, periodAt, periodStart, priceOf } from '../../policies/budget.ts';
import type { Charge } from '../../policies/charge.ts';
import { amountFor, chargesOf, longestWaitOf } from '../../policies/charges.ts';
import { compilePolicy } from '../../policies/compile.ts';
import type { CompiledQuota } from '../../policies/policy.ts';
import { createQuotaState, progress, type Reservation, release, reserve, settle } from '../../policies/quota.ts';
import { restore } from '../../policies/quota-snapshot.ts';
import { agent, callOf, policyOf, tool } from '../support/policies.ts';
import { savedOf } from '../support/quotas.ts';

const PRICES = [
  { server: 'github', tools: ['search_*'], perCall: 0.01, perThousandTokens: 0.002 },
  { tools: ['*'], perCall: 0.001 },
];
const BUDGET = { name: 'daily', key: ['agent'], cost: '5/day' };
const at = (text: string) => Date.parse(text);
const chargesFor = (document: object, name = 'search_code', tokens = 1000, args: object = {}) =>
  chargesOf(policyOf(document), agent('triage'), tool(name), callOf(name, args as Record<string, unknown>), tokens);
const take = (state: ReturnType<typeof createQuotaState>, charges: readonly Charge[], now: number): Reservation => {
  const granted = reserve(state, charges, now);
  assert.ok(granted.ok, granted.ok ? '' : JSON.stringify(granted.error));
  return granted.value;
};

describe('money', () => {
  const COSTS: [text: string, limit: number, period: string][] = [
    ['5/day', 5_000_000, 'day'],
    ['0.000001/day', 1, 'day'],
    ['100.50/month', 100_500_000, 'month'],
  ];
  for (const [text, limit, period] of COSTS)
    it(text, () => assert.deepEqual(parseCost(text), { ok: true, value: { limit, period } }));
  for (const text of ['5', '5/week', '-1/day', '0/day', '0.0000001/day', '1e3/day', '5 / day'])
    it(`not ${text}`, () => assert.equal(parseCost(text).ok, false));

  it('adds up the prices that match', () => {
    const { prices } = policyOf({ prices: PRICES });
    assert.deepEqual(priceOf(prices, tool('search_code')), { perCall: 11_000, perToken: 2 });
    assert.deepEqual(priceOf(prices, tool('get_issue')), { perCall: 1000, perToken: 0 });
    assert.deepEqual(priceOf(prices, { kind: 'resource', server: 'github', uri: 'x:y' }), { perCall: 0, perToken: 0 });
  });
  it('rounds what a call costs up to a millionth, once', () => {
    assert.equal(amountFor(0, 0.1, 3), 1);
    assert.equal(amountFor(0, 0.1, 30), 3);
    assert.equal(amountFor(0, 0.0001, 0), 0);
    assert.equal(amountOf(amountFor(11_000, 2, 1000)), 0.013);
  });
});

describe('the calendar, in UTC', () => {
  const TIMES: [period: 'day' | 'month', time: string, start: string, next: string][] = [
    ['day', '2026-11-21T23:59:59.999Z', '2026-11-21T00:00:00Z', '2026-11-22T00:00:00Z'],
    ['day', '2026-11-22T00:00:00Z', '2026-11-22T00:00:00Z', '2026-11-23T00:00:00Z'],
    ['month', '2026-12-31T23:59:59.999Z', '2026-12-01T00:00:00Z', '2027-01-01T00:00:00Z'],
    ['month', '2028-02-29T12:00:00Z', '2028-02-01T00:00:00Z', '2028-03-01T00:00:00Z'],
    ['month', '1970-01-01T00:00:00Z', '1970-01-01T00:00:00Z', '1970-02-01T00:00:00Z'],
  ];
  for (const [period, time, start, next] of TIMES)
    it(`${time} is in the ${period} of ${start}`, () => {
      const number = periodAt(at(time), period);
      assert.equal(periodStart(number, period), at(start));
      assert.equal(periodStart(number + 1, period), at(next));
    });
});

describe('the longest wait', () => {
  const bound = (windowMs: number, period?: 'day' | 'month') => ({ windowMs, period });
  const waitOf = (...bounds: object[]) =>
    longestWaitOf({ bounds } as unknown as CompiledQuota, at('2026-12-30T18:00:00Z'));
  it('is a sliding window, of several the longest', () => {
    assert.equal(waitOf(bound(60_000), bound(10_000)), 60_000);
  });
  it('is what is left of the day or month', () => {
    assert.equal(waitOf(bound(0, 'day')), 6 * 3_600_000);
    assert.equal(waitOf(bound(0, 'month')), 30 * 3_600_000);
  });
});

describe('a budget', () => {
  const document = { budgets: [BUDGET], prices: PRICES };
  it('is charged the price of the call and of its tokens', () => {
    const [charge] = chargesFor(document);
    assert.deepEqual(
      [charge!.dimension, charge!.limit, charge!.base, charge!.perToken, charge!.cost, charge!.period],
      ['cost', 5_000_000, 11_000, 2, 13_000, 'day'],
    );
  });
  it('is spent, waits for midnight, and begins anew', () => {
    const state = createQuotaState();
    const charges = chargesFor({ ...document, budgets: [{ ...BUDGET, cost: '0.02/day' }] });
    take(state, charges, at('2026-11-21T22:00:00Z'));
    const refused = reserve(state, charges, at('2026-11-21T23:00:00Z'));
    assert.deepEqual(refused, { ok: false, error: { quota: 'daily', retryAfterMs: 3_600_000 } });
    take(state, charges, at('2026-11-22T00:00:00Z'));
  });
  it('does not begin anew when the clock jumps back over midnight', () => {
    const state = createQuotaState();
    const charges = chargesFor({ ...document, budgets: [{ ...BUDGET, cost: '0.02/day' }] });
    take(state, charges, at('2026-11-22T00:00:01Z'));
    assert.equal(reserve(state, charges, at('2026-11-21T23:59:59Z')).ok, false);
    assert.equal(reserve(state, charges, at('2026-11-22T00:00:02Z')).ok, false);
  });
  it('settles what the tokens cost in the day of the call, and in that of its end what came over midnight', () => {
    const state = createQuotaState();
    const reservation = take(state, chargesFor(document), at('2026-11-21T23:59:00Z'));
    assert.equal(settle(state, reservation, 2000, at('2026-11-21T23:59:30Z'))[0]!.used, 15_000);
    const late = take(state, chargesFor(document), at('2026-11-21T23:59:40Z'));
    assert.equal(settle(state, late, 1_000_000, at('2026-11-22T00:00:10Z'))[0]!.used, 1_998_000);
  });
});

describe('calls under way', () => {
  const document = { quotas: [{ name: 'lanes', key: ['server'], concurrent: 2 }] };
  it('are counted from the reservation to its end', () => {
    const state = createQuotaState();
    const charges = chargesFor(document);
    const [first, second] = [take(state, charges, 0), take(state, charges, 0)];
    assert.deepEqual(reserve(state, charges, 1_000_000), { ok: false, error: { quota: 'lanes', retryAfterMs: 1000 } });
    settle(state, first, 10, 1_000_001);
    const third = take(state, charges, 1_000_001);
    release(state, second, 1_000_002);
    release(state, third, 1_000_002);
    assert.equal(state.counters.size, 0);
    assert.equal(state.brought.size, 0);
  });
  it('are given back once', () => {
    const state = createQuotaState();
    const charges = chargesFor(document);
    const first = take(state, charges, 0);
    take(state, charges, 0);
    for (let time = 0; time < 3; time++) release(state, first, 0);
    take(state, charges, 0);
    assert.equal(reserve(state, charges, 0).ok, false);
  });
});

describe('a stream', () => {
  const document = { quotas: [{ name: 'tokens', key: ['agent'], tokens: '100/min', hard: true }] };
  it('is charged as it goes, never less than was reserved, and is told when it is over', () => {
    const state = createQuotaState();
    const reservation = take(state, chargesFor(document, 'x', 40), 0);
    assert.deepEqual(progress(state, reservation, 10, 0), []);
    assert.deepEqual(progress(state, reservation, 100, 0), []);
    assert.deepEqual(progress(state, reservation, 101, 0), ['tokens']);
    assert.equal(settle(state, reservation, 60, 0)[0]!.used, 60);
    assert.deepEqual(progress(state, reservation, 1000, 0), []);
  });
  it('that outlasts the window is charged when the tokens come', () => {
    const state = createQuotaState();
    const charges = chargesFor(document, 'x', 40);
    const reservation = take(state, charges, 0);
    assert.deepEqual(progress(state, reservation, 140, 50_000), ['tokens']);
    assert.deepEqual(progress(state, reservation, 140, 61_000), [], 'the reservation has left');
    assert.deepEqual(progress(state, reservation, 141, 61_000), ['tokens']);
    // 120 in the end: of the 101 that still count, the newest 21 are given back.
    assert.equal(settle(state, reservation, 120, 100_000)[0]!.used, 80);
    assert.equal(
      take(
        state,
        charges.map((one) => ({ ...one, cost: 20 })),
        100_000,
      ).usage[0]!.used,
      100,
    );
    assert.equal(take(state, charges, 111_000).usage[0]!.used, 60, 'and what came at 50 s has left');
  });
  it('is charged although its counter made room for others meanwhile', () => {
    const state = createQuotaState(2, 2);
    const [charge] = chargesFor(document, 'x', 40);
    const reservation = take(state, [charge!], 0);
    for (const key of ['b', 'c']) take(state, [{ ...charge!, key, agent: 'other' }], 61_000);
    assert.equal(state.counters.has(charge!.key), false);
    assert.deepEqual(progress(state, reservation, 150, 61_000), ['tokens']);
    assert.equal(settle(state, reservation, 160, 61_000)[0]!.used, 120);
    assert.equal(reserve(state, [charge!], 61_000).ok, false);
  });
  it('brings no counter back for what is already paid', () => {
    const state = createQuotaState(2, 2);
    const [charge] = chargesFor(document, 'x', 40);
    const reservation = take(state, [charge!], 0);
    for (const key of ['b', 'c']) take(state, [{ ...charge!, key, agent: 'other' }], 61_000);
    assert.equal(settle(state, reservation, 40, 61_000)[0]!.warned, false);
    assert.equal(state.counters.size, 2);
  });
});

describe('warnings', () => {
  const document = { quotas: [{ name: 'calls', key: ['agent'], calls: '10/min' }] };
  it('come once on the way up, at 80 % or where the quota says', () => {
    for (const [warnAt, warned] of [
      [undefined, [8]],
      ['50%', [5]],
      ['100%', [10]],
    ] as const) {
      const state = createQuotaState();
      const charges = chargesFor({ quotas: [{ ...document.quotas[0], ...(warnAt === undefined ? {} : { warnAt }) }] });
      const said = Array.from(
        { length: 10 },
        (_, index) => [index + 1, take(state, charges, 0).usage[0]!.warned] as const,
      );
      assert.deepEqual(
        said.filter(([, isWarned]) => isWarned).map(([count]) => count),
        warned,
      );
    }
  });
});

describe('a warning of a stream', () => {
  const document = { quotas: [{ name: 'tokens', key: ['agent'], tokens: '100/min' }] };
  for (const [tokens, warned] of [
    [79, false],
    [80, true],
  ] as const)
    it(`is told at its end: ${tokens} tokens`, () => {
      const state = createQuotaState();
      const reservation = take(state, chargesFor(document, 'x', 10), 0);
      progress(state, reservation, tokens, 0);
      progress(state, reservation, tokens, 0);
      assert.equal(settle(state, reservation, tokens, 0)[0]!.warned, warned);
    });
});

describe('keys by an expression', () => {
  const keyFor = (cel: string, args: object) =>
    chargesFor({ quotas: [{ name: 'q', key: [{ cel }], calls: '1/min' }] }, 't', 0, args)[0]!.key;
  it('tell values apart, and their types', () => {
    const keys = [
      { owner: 'a' },
      { owner: 'b' },
      { owner: '1' },
      { owner: 1 },
      { owner: true },
      { owner: 'true' },
      {},
    ].map((args) => keyFor('args.owner', args));
    assert.equal(new Set(keys).size, keys.length);
    assert.equal(keyFor('args.owner', { owner: 'a' }), keys[0]);
  });
  it('share one counter where they cannot be told', () => {
    assert.equal(keyFor('args.owner', {}), keyFor('args.owner', { owner: { deep: 1 } }));
  });
});

describe('refused at load', () => {
  const CASES: Record<string, [document: object, path: string, words: RegExp]> = {
    'a budget without prices': [{ budgets: [BUDGET] }, 'budgets', /without prices/],
    'a price that is none': [{ prices: [{ tools: ['x'] }] }, 'prices.0', /needs perCall or perThousandTokens/],
    'two of one name': [
      { quotas: [{ name: 'daily', key: ['agent'], calls: '1/min' }], budgets: [BUDGET], prices: PRICES },
      'budgets.0.name',
      /another entry is named daily/,
    ],
    'a quota of nothing': [
      { quotas: [{ name: 'q', key: ['agent'] }] },
      'quotas.0',
      /needs calls, tokens or concurrent/,
    ],
    'a burst of nothing': [
      { quotas: [{ name: 'q', key: ['agent'], concurrent: 1, burst: '1/s' }] },
      'quotas.0.burst',
      /second bound/,
    ],
    'a share that is none': [
      { quotas: [{ name: 'q', key: ['agent'], calls: '1/s', warnAt: '0%' }] },
      'quotas.0.warnAt',
      /share of the limit/,
    ],
    'a key that is no value': [
      { quotas: [{ name: 'q', key: [{ cel: 'args' }], calls: '1/s' }] },
      'quotas.0.key.0.cel',
      /must be text, a number/,
    ],
    'a key that is no expression': [
      { quotas: [{ name: 'q', key: [{ cel: 'args.' }], calls: '1/s' }] },
      'quotas.0.key.0.cel',
      /./,
    ],
  };
  for (const [name, [document, path, words]] of Object.entries(CASES))
    it(name, () => {
      const compiled = compilePolicy({ version: 1, ...document }, { env: {} });
      assert.ok(!compiled.ok);
      const found = compiled.error.find((problem) => problem.path.join('.') === path);
      assert.ok(found, JSON.stringify(compiled.error));
      assert.match(found.message, words);
    });
});

describe('a snapshot', () => {
  const charges = chargesFor({
    quotas: [
      { name: 'calls', key: ['agent'], calls: '10/min' },
      { name: 'lanes', key: ['agent'], concurrent: 9 },
    ],
    budgets: [BUDGET],
    prices: PRICES,
  });
  const NOW = at('2026-11-21T12:00:00Z');
  const spent = () => {
    const state = createQuotaState();
    for (let count = 0; count < 7; count++) take(state, charges, NOW + count * 1000);
    return savedOf(state);
  };
  const usedAt = (data: unknown, now: number) => {
    const restored = restore(data, now);
    assert.ok(restored !== undefined);
    assert.equal(restored.dropped, 0);
    return take(restored.state, charges, now).usage.map(({ used }) => used);
  };
  it('holds what was spent, and not the calls under way', () => {
    assert.deepEqual(usedAt(spent(), NOW + 7000), [8, 1, 8 * 13_000]);
  });
  it('forgets what has left its window while nobody ran', () => {
    assert.deepEqual(usedAt(spent(), NOW + 64_000), [4, 1, 8 * 13_000]);
    assert.deepEqual(usedAt(spent(), NOW + 86_400_000), [1, 1, 13_000]);
  });
  it('from a clock that was ahead counts as spent now, and freezes nothing', () => {
    const earlier = NOW - 40 * 86_400_000;
    assert.deepEqual(usedAt(spent(), earlier), [8, 1, 8 * 13_000]);
    const restored = restore(spent(), earlier)!;
    assert.deepEqual(
      take(restored.state, charges, earlier + 86_400_000).usage.map(({ used }) => used),
      [1, 1, 13_000],
    );
  });
  const BROKEN: Record<string, unknown> = {
    nothing: undefined,
    text: 'x',
    'another version': { version: 2, clock: 0, counters: [] },
    'no clock': { version: 1, counters: [] },
    'no counters': { version: 1, clock: 0, counters: {} },
    'a clock before all dates': { version: 1, clock: -1, counters: [] },
    'a clock after all dates': { version: 1, clock: 8.64e15 + 1, counters: [] },
    'a clock of letters': { version: 1, clock: '0', counters: [] },
  };
  for (const [name, data] of Object.entries(BROKEN))
    it(`is none: ${name}`, () => assert.equal(restore(data, 0), undefined));
  const whole = { key: 'k', agent: 'a', windowMs: 60_000, period: null, grants: [[0, 1]] };
  const COUNTERS: Record<string, unknown> = {
    'no object': null,
    'no key': { ...whole, key: 1 },
    'an agent that is none': { ...whole, agent: undefined },
    'an agent that is a number': { ...whole, agent: 5 },
    'a window that is none': { ...whole, windowMs: -1 },
    'half a window': { ...whole, windowMs: 0.5 },
    'a window longer than any': { ...whole, windowMs: 31 * 86_400_000 + 1 },
    'two windows': { ...whole, period: 'day' },
    'no grants': { ...whole, grants: undefined },
    'more grants than slots': { ...whole, grants: Array.from({ length: 62 }, (_, slot) => [slot - 61, 1]) },
    'half an amount': { ...whole, grants: [[0, 0.5]] },
    'no window at all': { ...whole, windowMs: 0 },
    'another period': { ...whole, period: 'week' },
    'grants that are none': { ...whole, grants: [[0, 'x']] },
    'an amount below 0': { ...whole, grants: [[0, -1]] },
    'a slot that is none': { ...whole, grants: [[0.5, 1]] },
  };
  for (const [name, counter] of Object.entries(COUNTERS))
    it(`drops a counter with ${name}`, () => {
      const restored = restore({ version: 1, clock: 0, counters: [whole, counter] }, 0)!;
      assert.deepEqual([restored.dropped, restored.state.counters.size], [1, 1]);
    });
  it('takes whatever can be spent', () => {
    const counters = [
      { ...whole, key: 'surplus', agent: null },
      { ...whole, key: 'long', windowMs: 31 * 86_400_000 },
      { ...whole, key: 'day', windowMs: 0, period: 'day' },
      { ...whole, key: 'month', windowMs: 0, period: 'month' },
      { ...whole, key: 'full', grants: Array.from({ length: 61 }, (_, slot) => [slot - 60, 1]) },
    ];
    const restored = restore({ version: 1, clock: 8.64e15, counters }, 0)!;
    assert.equal(restored.dropped, 0);
    assert.deepEqual(
      [...restored.state.brought],
      [
        [undefined, 1],
        ['a', 4],
      ],
    );
  });
  it('has no counters in which nothing is spent', () => {
    const state = createQuotaState();
    settle(
      state,
      take(state, chargesFor({ quotas: [{ name: 't', key: ['agent'], tokens: '9/min' }] }, 'x', 5), 0),
      0,
      0,
    );
    assert.deepEqual([state.counters.size, savedOf(state).counters], [1, []]);
  });
  it('is taken as far as there is room', () => {
    const counters = Array.from({ length: 20_001 }, (_, number) => ({ ...whole, key: `k${number}` }));
    const restored = restore({ version: 1, clock: 0, counters }, 0)!;
    assert.deepEqual([restored.state.counters.size, restored.dropped], [20_000, 1]);
  });
  it('takes a counter once', () => {
    assert.equal(restore({ version: 1, clock: 0, counters: [whole, whole] }, 0)!.dropped, 1);
  });
});
