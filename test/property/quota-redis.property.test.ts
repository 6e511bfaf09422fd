/**
 * The scripts in a real Redis against the arithmetic of policies/quota.ts, and what replicas with leases grant against a
 * log of it. The clock of both is set: days and months pass.
 */
import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { after, suite, test } from 'node:test';
import { periodAt, periodStart } from '../../policies/budget.ts';
import type { Charge } from '../../policies/charge.ts';
import {
  createQuotaState,
  KEYS_PER_AGENT_MAX,
  progress,
  type QuotaState,
  type Reservation,
  release,
  reserve,
  settle,
} from '../../policies/quota.ts';
import { RedisStore } from '../../sidecar/quota/redis.ts';
import { type Command, Connection, type RedisConnection } from '../../sidecar/quota/redis-connection.ts';
import { CALENDAR, CLOCK, type Script } from '../../sidecar/quota/redis-script.ts';
import fc from '../support/fast-check.ts';
import { startRedis, whyNoRedis } from '../support/redis-server.ts';
import { CALL, scriptOf } from '../support/shared-quotas.ts';

const DAY_MS = 86_400_000;
/** Beyond the real clock, which alone lets keys expire. The first of these years has no 29 February, the second has. */
const STARTS = ['2100-02-27T23:50:00Z', '2104-02-28T23:50:00Z', '2199-12-30T12:00:00Z'].map((text) => Date.parse(text));

/** The same script by the clock that a key holds. */
const byClock = new Map<string, Script>();
function withSetClock({ text, sha1 }: Script): Script {
  const known =
    byClock.get(sha1) ?? scriptOf(text.replace(CLOCK, "\nlocal now = tonumber(redis.call('GET', 'clock'))\n"));
  byClock.set(sha1, known);
  return known;
}
/** Milliseconds: later than whatever happens here. */
const FOR_GOOD = 1e15;
const FILL = scriptOf("for n = 1, ARGV[1] do redis.call('ZADD', KEYS[1], ARGV[2], n) end return { 1 }");
const SET_CLOCK = scriptOf("redis.call('SET', 'clock', ARGV[1]) return { 1 }");

let stores = 0;

/** Stores of one prefix over one Redis, and the clock of all of them. */
class World {
  now: number;
  readonly #connection: Connection;
  readonly #prefix = `{world ${stores++}}:`;

  constructor(connection: Connection, start: number) {
    this.#connection = connection;
    this.now = start;
  }

  store(leaseShare: number): RedisStore {
    const connection: RedisConnection = {
      isReady: true,
      run: (command) => this.#run(command),
      close: () => {},
    };
    return new RedisStore({
      connection,
      prefix: this.#prefix,
      leaseShare,
      onStoreFailure: 'refuse',
      now: () => this.now,
    });
  }

  /** What the stores have changed is sent before time goes on. */
  async advance(ms: number, ...all: RedisStore[]): Promise<void> {
    for (const store of all) await store.reserve([{ ...CALL, key: 'flushes', surplusKey: undefined, limit: 1e9 }]);
    this.now += ms;
  }

  /** The agent has brought up as many keys as one may, for good: here and in the model. */
  fill(agent: string, state: QuotaState): void {
    const key = `${this.#prefix}agent:${hash('sha256', agent, 'base64url')}`;
    void this.#connection.run({ script: FILL, keys: [key], args: [KEYS_PER_AGENT_MAX, FOR_GOOD].map(String) });
    for (let count = 0; count < KEYS_PER_AGENT_MAX; count++)
      reserve(state, [{ ...CALL, key: `${agent} ${count}`, agent, windowMs: FOR_GOOD }], this.now);
  }

  #run(command: Command) {
    void this.#connection.run({ script: SET_CLOCK, keys: ['clock'], args: [String(this.now)] });
    return this.#connection.run({ ...command, script: withSetClock(command.script) });
  }
}

type Asked = Omit<Charge, 'cost'>;
const CHARGES: readonly Asked[] = [
  { ...CALL, quota: 'calls', key: 'calls', limit: 6, windowMs: 60_000 },
  { ...CALL, quota: 'burst', key: 'burst', limit: 3, windowMs: 7_000 },
  { ...CALL, quota: 'tokens', key: 'tokens', limit: 60, windowMs: 300_000, base: 0, perToken: 1, warnAt: 0.5 },
  { ...CALL, quota: 'daily', key: 'daily', limit: 80, windowMs: 0, period: 'day', base: 3, perToken: 0.25 },
  { ...CALL, quota: 'monthly', key: 'monthly', limit: 100, windowMs: 0, period: 'month', base: 4, perToken: 1 },
  // In this process alone, where nobody's room is full.
  { ...CALL, quota: 'lanes', key: 'lanes', surplusKey: undefined, dimension: 'concurrent', limit: 3, windowMs: 0 },
  { ...CALL, quota: 'shared', key: 'shared', surplusKey: undefined, limit: 5, windowMs: 60_000 },
];
const AGENTS = ['triage', 'writer'];

/** Each agent has some keys, and a surplus for each bound. What is shared is one key for both. */
const costs = (charge: Asked, agent: string, name: number, tokens: number): Charge => ({
  ...charge,
  agent,
  ...(charge.surplusKey && { key: `${agent} ${charge.key} ${name}`, surplusKey: `${agent} ${charge.key}` }),
  cost: Math.ceil(charge.base + charge.perToken * tokens),
});

const step = fc.record({
  act: fc.constantFrom('reserve', 'reserve', 'reserve', 'progress', 'settle', 'release'),
  charges: fc.uniqueArray(fc.nat(CHARGES.length - 1), { minLength: 1, maxLength: 4 }),
  agent: fc.constantFrom(...AGENTS),
  name: fc.nat(1),
  tokens: fc.nat(30),
  which: fc.nat(50),
  // Never just before the end of a slot: what is charged late may lie in the next one.
  waitMs: fc
    .oneof(
      { weight: 6, arbitrary: fc.nat(300) },
      { weight: 2, arbitrary: fc.nat(3_000) },
      { weight: 1, arbitrary: fc.nat((40 * DAY_MS) / 100) },
    )
    .map((hundreds) => 100 * hundreds),
});

type Grant = Extract<Awaited<ReturnType<RedisStore['reserve']>>, { ok: true }>['value'];

suite('quota in Redis, by a clock that is set', { skip: whyNoRedis }, async () => {
  const cleanups: (() => Promise<void> | void)[] = [];
  after(async () => {
    for (const cleanup of cleanups.reverse()) await cleanup();
  });
  if (whyNoRedis !== false) return;
  const redis = await startRedis({ after: (cleanup) => void cleanups.push(cleanup as () => Promise<void>) });
  const connection = new Connection(
    { url: redis.url, username: undefined, password: undefined, timeoutMs: 20_000 },
    { now: () => performance.now(), random: Math.random, probes: [], onChange: () => {} },
  );
  cleanups.push(() => connection.close());

  test('the same verdicts as in memory', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...STARTS),
        fc.subarray(AGENTS),
        fc.array(step, { minLength: 5, maxLength: 40 }),
        async (start, inventive, steps) => {
          const world = new World(connection, start);
          const store = world.store(0);
          const state: QuotaState = createQuotaState();
          for (const agent of inventive) world.fill(agent, state);
          const calls: { readonly grant: Grant; readonly model: Reservation }[] = [];
          /** What turned out later warns at another time. */
          let hasChanged = false;
          for (const { act, charges, agent, name, tokens, which, waitMs } of steps) {
            await world.advance(waitMs, store);
            const call = calls[which % calls.length];
            hasChanged ||= act !== 'reserve' && call !== undefined;
            if (act === 'reserve' || call === undefined) {
              const asked = charges.map((index) => costs(CHARGES[index]!, agent, name, tokens));
              const expected = reserve(state, asked, world.now);
              const found = await store.reserve(asked);
              // Who has to wait for a place has not asked Redis.
              const isCrowded = !found.ok && found.error.quota === 'lanes';
              assert.equal(found.ok, expected.ok);
              if (!found.ok) isCrowded || assert.deepEqual(found, expected);
              else if (expected.ok) {
                const usage = (list: Grant['usage']) =>
                  hasChanged ? list.map((one) => ({ ...one, warned: false })) : list;
                assert.deepEqual(usage(found.value.usage), usage(expected.value.usage));
                calls.push({ grant: found.value, model: expected.value });
              }
            } else if (act === 'progress') {
              progress(state, call.model, tokens, world.now);
              store.progress(call.grant, tokens);
            } else if (act === 'settle') {
              settle(state, call.model, tokens, world.now);
              store.settle(call.grant, tokens);
            } else {
              release(state, call.model, world.now);
              store.release(call.grant);
            }
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  test('replicas with leases never grant more than the limit in a window', async () => {
    const windowMs = 60_000;
    const limit = 50;
    const turn = fc.record({
      replica: fc.nat(2),
      cost: fc.integer({ min: 1, max: 9 }),
      tokens: fc.nat(9),
      settles: fc.boolean(),
      waitMs: fc.oneof(
        { weight: 4, arbitrary: fc.nat(500) },
        { weight: 2, arbitrary: fc.nat(4_000) },
        { weight: 1, arbitrary: fc.nat(40_000) },
      ),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(0, 0.1, 0.3, 0.5),
        fc.array(turn, { minLength: 30, maxLength: 120 }),
        async (share, turns) => {
          const world = new World(connection, STARTS[0]!);
          const replicas = [world.store(share), world.store(share), world.store(share)];
          const log: { at: number; amount: number }[] = [];
          for (const { replica, cost, tokens, settles, waitMs } of turns) {
            await world.advance(waitMs, ...replicas);
            const store = replicas[replica]!;
            const granted = await store.reserve([
              { ...CALL, key: 'shared', base: 0, perToken: 1, limit, windowMs, cost },
            ]);
            if (!granted.ok) continue;
            // A call that cost less; more is not asked about beforehand.
            const amount = settles ? Math.min(cost, tokens) : cost;
            if (settles) store.settle(granted.value, amount);
            log.push({ at: world.now, amount });
          }
          for (const { at: start } of log) {
            const within = log.filter(({ at }) => at >= start && at < start + windowMs);
            const sum = within.reduce((all, { amount }) => all + amount, 0);
            assert.ok(sum <= limit, `${sum} from ${start}`);
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  test('months are those of the calendar', async () => {
    const ask = scriptOf(`${CALENDAR} return { monthAt(tonumber(ARGV[1])), monthStart(tonumber(ARGV[2])) }`);
    await fc.assert(
      fc.asyncProperty(fc.nat(8e12), fc.integer({ min: 0, max: 3_000 }), async (at, month) => {
        const answer = await connection.run({ script: ask, keys: [], args: [String(at), String(month)] });
        assert.deepEqual(answer.ok && answer.value, [periodAt(at, 'month'), periodStart(month, 'month')]);
      }),
      { numRuns: 500 },
    );
  });

  test('a clock that is set back mints nothing', async () => {
    const world = new World(connection, STARTS[0]!);
    const store = world.store(0);
    const two = { ...CALL, key: 'two', limit: 2, windowMs: 60_000 };
    assert.ok((await store.reserve([two])).ok);
    await world.advance(-3_600_000, store);
    assert.ok((await store.reserve([two])).ok);
    assert.equal((await store.reserve([two])).ok, false);
    await world.advance(3_600_000 + 59_000, store);
    assert.equal((await store.reserve([two])).ok, false);
    await world.advance(2_000, store);
    assert.ok((await store.reserve([two])).ok);
  });
});
