import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Charge } from '../../policies/charge.ts';
import { chargesOf } from '../../policies/charges.ts';
import type { Call, Subject, Target } from '../../policies/decision.ts';
import { createQuotaState, release, reserve, settle } from '../../policies/quota.ts';
import { parseRate } from '../../policies/rate.ts';
import { agent, callOf, policyOf, tool } from '../support/policies.ts';

describe('a rate', () => {
  const RATES: [text: string, limit: number, windowMs: number][] = [
    ['60/min', 60, 60_000],
    ['5/s', 5, 1000],
    ['5/sec', 5, 1000],
    ['25/10s', 25, 10_000],
    ['7/5m', 7, 300_000],
    ['1/h', 1, 3_600_000],
    ['1/hour', 1, 3_600_000],
    ['1/2h', 1, 7_200_000],
    ['1/744h', 1, 2_678_400_000],
    ['20000/day', 20_000, 86_400_000],
  ];
  for (const [text, limit, windowMs] of RATES)
    it(text, () => assert.deepEqual(parseRate(text), { ok: true, value: { limit, windowMs } }));
});

const calls = { name: 'calls', key: ['agent'], calls: '60/min', burst: '25/10s' };
const tokens = { name: 'tokens', key: ['agent', 'tool'], tokens: '100/min', burst: '40/10s' };
const subject: Subject = agent('triage');

function names(
  quotas: object[],
  { target = tool('t'), call = callOf('t', { n: 1 }) }: { target?: Target; call?: Call } = {},
): string[] {
  return chargesOf(policyOf({ quotas }), subject, target, call, 7).map(
    ({ quota, dimension, limit, cost }) => `${quota} ${dimension} ${cost}/${limit}`,
  );
}

describe('which quotas apply', () => {
  it('one charge for each bound', () => {
    assert.deepEqual(names([calls, tokens]), [
      'calls calls 1/60',
      'calls calls 1/25',
      'tokens tokens 7/100',
      'tokens tokens 7/40',
    ]);
  });

  for (const method of ['tools/call', 'prompts/get', 'resources/read'])
    it(`counts ${method}`, () => assert.equal(names([calls], { call: callOf('t', {}, { method }) }).length, 2));
  for (const method of [
    'initialize',
    'tools/list',
    'ping',
    'completion/complete',
    'resources/subscribe',
    'vendor/thing',
  ])
    it(`does not count ${method}`, () => assert.equal(names([calls], { call: callOf('t', {}, { method }) }).length, 0));

  const WHEN: [when: string, applies: boolean][] = [
    ['body.method == "tools/call" && body.params.name == "t"', true],
    ['body.params.name == "other"', false],
    ['agent.name == "other"', false],
    ['agent.name == "triage" && args.n == 1', true],
    ['args.missing == 1', true],
    ['args.missing == 1 && args.n == 2', false],
    ['agent.claims.missing == 1', true],
  ];
  for (const [when, applies] of WHEN)
    it(`${applies ? 'applies' : 'does not apply'} when ${when}`, () =>
      assert.equal(names([{ ...calls, when }]).length, applies ? 2 : 0));

  it('applies each by its own condition', () => {
    assert.deepEqual(names([{ ...calls, when: 'args.n == 2' }, tokens]), ['tokens tokens 7/100', 'tokens tokens 7/40']);
  });

  it('keeps every combination of key values apart', () => {
    const quota = { ...calls, burst: undefined, key: ['agent', 'group', 'user', 'session', 'server', 'tool'] };
    const keyOf = (who: Subject, target: Target, sessionId: string | undefined, name = 'calls') =>
      chargesOf(policyOf({ quotas: [{ ...quota, name }] }), who, target, callOf('t', {}, { sessionId }), 0)[0]!.key;
    const user = (sub: string): Subject => ({ ...agent('a'), user: { sub, claims: {} } });
    const keys = [
      keyOf(agent('a'), tool('t'), undefined),
      keyOf(agent('a'), tool('t'), 'null'),
      keyOf(agent('a'), tool('t'), ''),
      keyOf(agent('a', { group: 'other' }), tool('t'), undefined),
      keyOf(user(''), tool('t'), undefined),
      keyOf(user('null'), tool('t'), undefined),
      keyOf(agent('a"'), tool('t'), undefined),
      keyOf(agent('a'), tool('t', 'other'), undefined),
      keyOf(agent('a'), tool('","t'), undefined),
      keyOf(agent('a'), tool(''), undefined),
      keyOf(agent('a'), { kind: 'prompt', server: 'github', name: 't' }, undefined),
      keyOf(agent('a'), tool('t'), undefined, 'calls"'),
    ];
    assert.equal(new Set(keys).size, keys.length, keys.join('\n'));
    const resource = (uri: string): Target => ({ kind: 'resource', server: 'github', uri });
    assert.equal(keyOf(agent('a'), resource('u:1'), 's'), keyOf(agent('a'), resource('u:2'), 's'));
  });

  const KEYS: [key: unknown[], isChosen: boolean][] = [
    [['agent'], false],
    [['group'], false],
    [['user'], false],
    [['server'], false],
    [['agent', 'group', 'user', 'server'], false],
    [['tool'], true],
    [['session'], true],
    [['agent', 'tool'], true],
    [[{ cel: 'args.n' }], true],
    [['server', { cel: 'agent.name' }], true],
  ];
  for (const [key, isChosen] of KEYS)
    it(`${isChosen ? 'has a surplus' : 'always has its own counter'}: ${JSON.stringify(key)}`, () => {
      const charges = chargesOf(
        policyOf({ quotas: [{ ...calls, key }] }),
        subject,
        tool('t'),
        callOf('t', { n: 1 }),
        7,
      );
      assert.deepEqual(
        charges.map(({ surplusKey }) => surplusKey !== undefined),
        [isChosen, isChosen],
      );
    });
});

const charge = (change: Partial<Charge> = {}): Charge => ({
  quota: 'q',
  dimension: 'calls',
  key: 'k',
  surplusKey: 'a surplus',
  agent: 'a',
  limit: 3,
  windowMs: 60_000,
  period: undefined,
  cost: 1,
  base: change.dimension === 'tokens' ? 0 : (change.cost ?? 1),
  perToken: change.dimension === 'tokens' ? 1 : 0,
  warnAt: 0.8,
  ...change,
});

describe('the window', () => {
  it('grants the limit, then says exactly when the next one fits', () => {
    const state = createQuotaState();
    for (const at of [0, 500, 1500]) assert.equal(reserve(state, [charge()], at).ok, true);
    // The first two lie in slot 0 (0 to 999 ms), which has left when slot 61 begins.
    assert.deepEqual(reserve(state, [charge()], 2000), { ok: false, error: { quota: 'q', retryAfterMs: 59_000 } });
    assert.equal(reserve(state, [charge()], 60_999).ok, false);
    assert.equal(reserve(state, [charge({ cost: 2 })], 61_000).ok, true);
    assert.deepEqual(reserve(state, [charge()], 61_000), { ok: false, error: { quota: 'q', retryAfterMs: 1000 } });
  });

  it('says that a cost beyond the limit never fits', () => {
    const refused = reserve(createQuotaState(), [charge({ cost: 4 })], 0);
    assert.deepEqual(refused, { ok: false, error: { quota: 'q', retryAfterMs: Number.POSITIVE_INFINITY } });
  });

  it('charges all or nothing, and names what has to be waited for longest', () => {
    const state = createQuotaState();
    const minute = charge();
    const hour = charge({ quota: 'hour', key: 'h', windowMs: 3_600_000, limit: 1 });
    assert.equal(reserve(state, [minute, hour], 0).ok, true);
    for (let time = 0; time < 5; time++)
      assert.deepEqual(reserve(state, [minute, hour], 1), {
        ok: false,
        error: { quota: 'hour', retryAfterMs: 3_660_000 - 1 },
      });
    assert.equal(reserve(state, [charge({ cost: 2 })], 1).ok, true, 'the refused ones cost nothing');
  });

  it('mints nothing when the clock jumps back', () => {
    const state = createQuotaState();
    for (let count = 0; count < 3; count++) reserve(state, [charge()], 100_000);
    for (const at of [50_000, 0, -1, Number.NaN, 100_000, 159_999])
      assert.equal(reserve(state, [charge()], at).ok, false, `${at}`);
    assert.equal(reserve(state, [charge()], 161_000).ok, true);
  });

  const spend = { key: 't', dimension: 'tokens', limit: 100, cost: 10 } as const;

  it('settles the difference of tokens, not of calls', () => {
    const state = createQuotaState();
    const granted = reserve(state, [charge({ limit: 1 }), charge(spend)], 0);
    assert.ok(granted.ok);
    settle(state, granted.value, 95, 1000);
    assert.equal(reserve(state, [charge({ ...spend, cost: 6 })], 1000).ok, false);
    assert.equal(reserve(state, [charge({ ...spend, cost: 5 })], 1000).ok, true);
    assert.equal(reserve(state, [charge({ limit: 1 })], 1000).ok, false);
  });

  it('gives back what was estimated too high', () => {
    const state = createQuotaState();
    const granted = reserve(state, [charge({ ...spend, cost: 100 })], 0);
    assert.ok(granted.ok);
    settle(state, granted.value, 0, 1000);
    assert.equal(reserve(state, [charge({ ...spend, cost: 100 })], 1000).ok, true);
  });

  it('lets an overdraft be waited out', () => {
    const state = createQuotaState();
    const granted = reserve(state, [charge(spend)], 0);
    assert.ok(granted.ok);
    settle(state, granted.value, 250, 5000);
    assert.deepEqual(reserve(state, [charge({ ...spend, cost: 0 })], 5000), {
      ok: false,
      error: { quota: 'q', retryAfterMs: 56_000 },
    });
    assert.equal(reserve(state, [charge(spend)], 61_000).ok, true);
  });

  it('settles to the last moment of the window, and rounds a fraction up', () => {
    const state = createQuotaState();
    const granted = reserve(state, [charge(spend)], 0);
    assert.ok(granted.ok);
    settle(state, granted.value, 94.2, 60_999);
    assert.equal(reserve(state, [charge({ ...spend, cost: 6 })], 60_999).ok, false);
    assert.equal(reserve(state, [charge({ ...spend, cost: 5 })], 60_999).ok, true);
  });

  it('charges now what turns out when the reservation has left the window, and no sooner', () => {
    for (const [tokens, left] of [
      [1000, 0],
      [60, 50],
      [10, 100],
      [0, 100],
    ] as const) {
      const state = createQuotaState();
      const granted = reserve(state, [charge(spend)], 0);
      assert.ok(granted.ok);
      settle(state, granted.value, tokens, 61_000);
      assert.equal(reserve(state, [charge({ ...spend, cost: left + 1 })], 61_000).ok, false);
      if (left > 0) assert.equal(reserve(state, [charge({ ...spend, cost: left })], 61_000).ok, true);
      assert.equal(reserve(state, [charge({ ...spend, cost: 100 })], 122_000).ok, true);
    }
  });

  it('takes no count that is none', () => {
    for (const count of [Number.NaN, Number.POSITIVE_INFINITY, -5]) {
      const state = createQuotaState();
      const granted = reserve(state, [charge(spend)], 0);
      assert.ok(granted.ok);
      settle(state, granted.value, count, 0);
      assert.equal(reserve(state, [charge({ ...spend, cost: 100 })], 61_000).ok, true, `${count}`);
    }
  });

  it('gives a released reservation back, once', () => {
    const state = createQuotaState();
    const first = reserve(state, [charge({ limit: 2 })], 0);
    assert.ok(first.ok);
    assert.equal(reserve(state, [charge({ limit: 2 })], 0).ok, true);
    release(state, first.value, 10);
    release(state, first.value, 10);
    settle(state, first.value, 0, 10);
    assert.equal(reserve(state, [charge({ limit: 2 })], 10).ok, true);
    assert.equal(reserve(state, [charge({ limit: 2 })], 10).ok, false);
  });

  it('counts new keys of an agent that has too many together, and lets others go on', () => {
    const state = createQuotaState(10, 2);
    const ask = (key: string, who = 'a', now = 0) =>
      reserve(state, [charge({ key: `${who} ${key}`, surplusKey: `${who} surplus`, agent: who })], now).ok;
    for (let call = 0; call < 3; call++) assert.equal(ask('1'), true);
    assert.equal(ask('2'), true);
    for (let call = 0; call < 3; call++) assert.equal(ask(`new ${call}`), true);
    for (let call = 0; call < 100; call++) assert.equal(ask(`newer ${call}`), false, 'the surplus is spent');
    assert.equal(ask('1'), false);
    assert.equal(ask('2'), true, 'known keys go on');
    assert.equal(ask('1', 'b'), true);
    assert.equal(state.counters.size, 4);
    assert.equal(ask('new 0', 'a', 60_000), false, 'also when other keys have gone');
    assert.equal(ask('new 0', 'a', 61_000), true);
    assert.equal(state.counters.has('a new 0'), true);
  });

  it('starts no quota anew when an agent has room again', () => {
    const state = createQuotaState(10, 1);
    const ask = (key: string, now: number) => reserve(state, [charge({ key })], now).ok;
    assert.equal(ask('first', 0), true);
    for (let call = 0; call < 3; call++) assert.equal(ask('new', 30_000), true);
    assert.equal(ask('new', 61_000), false, 'the first key has gone, but what was granted to the new one has not');
    assert.equal(ask('new', 91_000), true);
  });

  it('refuses nobody who comes late because others have filled it', () => {
    const state = createQuotaState(4, 2);
    const ask = (key: string, who: string, now: number) =>
      reserve(state, [charge({ key: `${who} ${key}`, surplusKey: `${who} surplus`, agent: who })], now);
    for (const who of ['a', 'b']) for (const key of ['1', '2']) assert.equal(ask(key, who, 0).ok, true);
    for (const who of ['c', 'd', 'e', 'f']) assert.equal(ask('1', who, 30_000).ok, true, who);
    assert.equal(state.counters.size, 8, 'keys, and as many surpluses');
    assert.deepEqual(ask('1', 'g', 40_000), { ok: false, error: { quota: 'q', retryAfterMs: 21_000 } });
    assert.equal(ask('1', 'g', 61_000).ok, true, 'the first four have expired');
    assert.equal(state.counters.size, 5);
    ask('2', 'g', 200_000);
    ask('3', 'g', 200_000);
    ask('4', 'h', 400_000);
    assert.ok([...state.brought.values()].every((count) => count > 0));
  });

  it('gives agents no more of what they share, whatever each has invented', () => {
    const state = createQuotaState(10, 2);
    const ask = (who: string, key: string, surplusKey?: string) =>
      reserve(state, [charge({ key, surplusKey, agent: who })], 0).ok;
    for (const who of ['a', 'b', 'c', 'd'])
      for (let call = 0; call < 5; call++) ask(who, `${who} ${call}`, `${who} surplus`);
    const granted = ['a', 'b', 'c', 'd'].flatMap((who) => [ask(who, 'server'), ask(who, 'server')]);
    assert.deepEqual(granted, [true, true, true, false, false, false, false, false]);
    for (const server of ['1', '2', '3', '4']) assert.equal(ask('e', server), true);
    for (const key of ['own 1', 'own 2']) assert.equal(ask('e', key, 'e surplus'), true);
    assert.deepEqual([state.brought.get('e'), state.counters.has('e surplus')], [2, false], 'all of its room is left');
  });

  it('forgets the keys that no agent chooses when their window has passed', () => {
    const state = createQuotaState(3, 2);
    for (let minute = 0; minute < 20; minute += 2)
      for (const key of ['x', 'y', 'z'])
        assert.equal(
          reserve(state, [charge({ key: `${key} ${minute}`, surplusKey: undefined })], minute * 60_000).ok,
          true,
        );
    assert.equal(state.counters.size, 3);
  });

  it('is the same counter for no two bounds, and not that of a key', () => {
    const quotas = [{ ...calls, key: ['agent', 'session'] }, tokens];
    const charges = chargesOf(policyOf({ quotas }), subject, tool('t'), callOf('t'), 7);
    const keys = charges.flatMap(({ key, surplusKey }) => [key, surplusKey]);
    assert.equal(new Set(keys).size, keys.length, keys.join('\n'));
    assert.ok(charges.every((each) => each.agent === 'triage'));
  });
});
