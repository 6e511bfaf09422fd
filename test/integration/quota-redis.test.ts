/**
 * Quota shared in a real Redis: what replicas grant together, what becomes of calls while it is away, how long, and what
 * is said of it.
 */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import type { Charge } from '../../policies/charge.ts';
import { findTrouble } from '../../sidecar/quota/open-redis.ts';
import { askLegacy, toolCall } from '../support/raw-http.ts';
import { startRedis, whyNoRedis } from '../support/redis-server.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { CALL, CONFIG, now, openStore } from '../support/shared-quotas.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { until } from '../support/until.ts';

const TOKENS: Charge = { ...CALL, quota: 'tokens', key: 'tokens', dimension: 'tokens', base: 0, perToken: 1, cost: 10 };
const LANE: Charge = { ...CALL, quota: 'lanes', key: 'lanes', dimension: 'concurrent', windowMs: 0, limit: 1 };

type Store = ReturnType<typeof openStore>['store'];

async function grantsOf(store: Store, charges: readonly Charge[], count: number): Promise<number> {
  let granted = 0;
  for (let call = 0; call < count; call++) if ((await store.reserve(charges)).ok) granted += 1;
  return granted;
}

const MODES = [
  ['asking for every call', {}],
  ['by leases', { lease: '5%' }],
] as const;

suite('quota in Redis', { skip: whyNoRedis }, () => {
  for (const [name, change] of MODES)
    test(`replicas under load grant the limit and no more, ${name}`, async (context) => {
      const redis = await startRedis(context);
      const stores = [1, 2, 3].map(() => openStore(context, redis, change).store);
      const one = { ...CALL, limit: 400 };
      const granted = await Promise.all(stores.flatMap((store) => [1, 2, 3, 4].map(() => grantsOf(store, [one], 60))));
      const sum = granted.reduce((all, count) => all + count, 0);
      assert.ok(sum <= 400, `${sum} granted`);
      // A slice that another holds is missing until it goes back.
      assert.ok(sum >= 400 - stores.length * 2 * 20, `${sum} granted`);
      await until(async () => (await stores[0]!.reserve([one])).ok || sum === 400);
    });

  for (const [name, change] of [...MODES, ['by large leases', { lease: '50%' }]] as const)
    test(`no window ever sees more than the limit, ${name}`, async (context) => {
      const redis = await startRedis(context);
      const stores = [1, 2].map(() => openStore(context, redis, change).store);
      const limit = 40;
      const windowMs = 1_000;
      const one = { ...CALL, key: 'short', limit, windowMs };
      /** Granted at some time between the two, by one clock: that of Redis is this machine's too. */
      const grants: { from: number; to: number }[] = [];
      const end = now() + 2.5 * windowMs;
      const caller = async (store: Store) => {
        for (let call = 0; call < 50_000 && now() < end; call++) {
          const from = now();
          if ((await store.reserve([one])).ok) grants.push({ from, to: now() });
          else await new Promise((resolve) => setTimeout(resolve, 3));
        }
      };
      await Promise.all(stores.flatMap((store) => [caller(store), caller(store), caller(store)]));
      assert.ok(grants.length > limit, `${grants.length} granted`);
      for (const { to: start } of grants) {
        const surely = grants.filter(({ from, to }) => from >= start && to < start + windowMs).length;
        assert.ok(surely <= limit, `${surely} within a window`);
      }
    });

  test('all of the charges or none, and the wait of the one that has to be waited for longest', async (context) => {
    const { store } = openStore(context, await startRedis(context));
    const short = { ...CALL, quota: 'short', key: 'short', limit: 1, windowMs: 60_000 };
    const long = { ...CALL, quota: 'long', key: 'long', limit: 5 };
    assert.ok((await store.reserve([short, long])).ok);
    const refused = await store.reserve([long, short]);
    assert.ok(!refused.ok);
    assert.equal(refused.error.quota, 'short');
    assert.ok(refused.error.retryAfterMs > 30_000 && refused.error.retryAfterMs <= 61_000);
    const next = await store.reserve([long]);
    assert.equal(next.ok && next.value.usage[0]!.used, 2);
    assert.deepEqual(await store.reserve([long, { ...CALL, quota: 'never', key: 'never', cost: 101 }]), {
      ok: false,
      error: { quota: 'never', retryAfterMs: Number.POSITIVE_INFINITY },
    });
  });

  test('calls at a time are counted here, and take nothing when they are too many', async (context) => {
    const redis = await startRedis(context);
    const { store } = openStore(context, redis);
    const { store: other } = openStore(context, redis);
    const first = await store.reserve([CALL, LANE]);
    assert.deepEqual(first.ok && first.value.usage.map(({ quota, used }) => [quota, used]), [
      ['calls', 1],
      ['lanes', 1],
    ]);
    assert.deepEqual(await store.reserve([CALL, LANE]), { ok: false, error: { quota: 'lanes', retryAfterMs: 1_000 } });
    const beside = await other.reserve([CALL, LANE]);
    assert.equal(beside.ok && beside.value.usage[0]!.used, 2);
    store.release(first.ok ? first.value : assert.fail());
    const again = await store.reserve([CALL, LANE]);
    assert.equal(again.ok && again.value.usage[0]!.used, 2);
  });

  for (const [name, change] of MODES)
    test(`what a call cost in the end is known to all, ${name}`, async (context) => {
      const redis = await startRedis(context);
      const { store } = openStore(context, redis, change);
      const one = await store.reserve([TOKENS]);
      const other = await store.reserve([TOKENS]);
      assert.ok(one.ok && other.ok);
      assert.deepEqual(store.progress(one.value, 95), { over: ['tokens'] });
      assert.deepEqual(
        store.settle(one.value, 70).map(({ used, warned }) => [used, warned]),
        [[80, true]],
      );
      store.release(other.value);
      assert.deepEqual(store.settle(one.value, 1_000), []);
      await store.close();
      const { store: later } = openStore(context, redis);
      const last = await later.reserve([TOKENS]);
      assert.equal(last.ok && last.value.usage[0]!.used, 80);
      await later.close();
    });

  test('a warning is told once for each replica, also of what others have spent', async (context) => {
    const redis = await startRedis(context);
    const [one, other] = [openStore(context, redis).store, openStore(context, redis).store];
    const warned = async (store: Store, cost: number) => {
      const reserved = await store.reserve([{ ...CALL, cost }]);
      return reserved.ok && reserved.value.usage[0]!.warned;
    };
    assert.deepEqual([await warned(one, 50), await warned(other, 20)], [false, false]);
    assert.deepEqual([await warned(other, 10), await warned(one, 1), await warned(one, 1)], [true, true, false]);
  });

  test('what is left of a slice goes back when it ends, and when the store closes', async (context) => {
    const redis = await startRedis(context);
    const { store } = openStore(context, redis, { lease: '50%' });
    const { store: other } = openStore(context, redis);
    const minute = { ...CALL, key: 'minute', windowMs: 1_000, limit: 100 };
    assert.ok((await store.reserve([minute])).ok);
    assert.ok((await store.reserve([{ ...CALL, limit: 100 }])).ok);
    const held = await other.reserve([CALL]);
    assert.equal(held.ok && held.value.usage[0]!.used, 51);
    await store.close();
    const left = await other.reserve([CALL]);
    assert.equal(left.ok && left.value.usage[0]!.used, 3);
  });

  test('spending a slice asks nobody', async (context) => {
    const redis = await startRedis(context);
    const { store } = openStore(context, redis, { lease: '50%' });
    assert.ok((await store.reserve([CALL])).ok);
    redis.freeze();
    context.after(() => redis.thaw());
    const granted = Array.from({ length: 30 }, () => store.reserve([CALL])).map(
      (one) => !(one instanceof Promise) && one.ok,
    );
    assert.deepEqual(new Set(granted), new Set([true]));
    redis.thaw();
  });

  test('an agent that invents keys spends one quota with what is too much', async (context) => {
    const { store } = openStore(context, await startRedis(context));
    const invented = (number: number) => ({ ...CALL, key: `tool ${number}`, limit: 3 });
    for (let start = 0; start < 1_000; start += 100)
      await Promise.all(Array.from({ length: 100 }, (_, index) => store.reserve([invented(start + index)])));
    assert.equal(await grantsOf(store, [invented(1_000)], 1), 1);
    assert.equal(await grantsOf(store, [invented(1_001)], 1), 1);
    assert.equal(await grantsOf(store, [invented(1_002)], 2), 1);
    assert.equal(await grantsOf(store, [invented(7)], 5), 2);
    assert.equal(await grantsOf(store, [{ ...invented(1_003), agent: 'writer', surplusKey: 'other surplus' }], 3), 3);
    // What it shares with others it shares as before, and that takes none of its room.
    const shared = { ...CALL, key: 'server', surplusKey: undefined, limit: 3 };
    assert.equal(await grantsOf(store, [{ ...shared, agent: 'writer' }], 2), 2);
    assert.equal(await grantsOf(store, [shared], 2), 1);
  });

  test('keys are hashed, share a hash tag, and go with their window', async (context) => {
    const redis = await startRedis(context);
    const { store } = openStore(context, redis);
    await store.reserve([{ ...CALL, key: 'secret tool name', windowMs: 60_000 }]);
    const keys = (await redis.command('KEYS', '*')) as string[];
    assert.equal(keys.length, 4);
    for (const key of keys) {
      assert.match(key, /^test:\{support\}:(?:key|agent):[\w-]{5,43}$/);
      const ttl = Number(await redis.command('PTTL', key));
      assert.ok(ttl > 0 && ttl <= 61_000, `${key}: ${ttl}`);
    }
  });

  test('a key that no agent chooses takes none of its room', async (context) => {
    const redis = await startRedis(context);
    const { store } = openStore(context, redis);
    const brought = async () => ((await redis.command('KEYS', 'test:{support}:agent:*')) as string[]).length;
    await store.reserve([{ ...CALL, key: 'server', surplusKey: undefined }]);
    const before = await brought();
    await store.reserve([CALL]);
    assert.equal((await brought()) - before, 1);
  });

  test('a cluster takes the script', async (context) => {
    const redis = await startRedis(context, { cluster: true });
    await redis.command('CLUSTER', 'ADDSLOTSRANGE', '0', '16383');
    await until(async () => String(await redis.command('CLUSTER', 'INFO')).includes('cluster_state:ok'));
    const { store, said } = openStore(context, redis, { lease: '5%' });
    assert.ok((await store.reserve([CALL, TOKENS])).ok, said.join());
  });

  test('scripts that Redis has forgotten are sent again', async (context) => {
    const redis = await startRedis(context);
    const { store } = openStore(context, redis);
    await store.reserve([TOKENS]);
    await redis.command('SCRIPT', 'FLUSH');
    const next = await store.reserve([TOKENS]);
    assert.equal(next.ok && next.value.usage[0]!.used, 20);
    await redis.command('SCRIPT', 'FLUSH');
    store.settle(next.ok ? next.value : assert.fail(), 0);
    await store.close();
    const { store: later } = openStore(context, redis);
    const last = await later.reserve([TOKENS]);
    assert.equal(last.ok && last.value.usage[0]!.used, 20);
  });

  for (const onStoreFailure of ['refuse', 'local'] as const)
    test(`killed and started again: ${onStoreFailure}`, async (context) => {
      const redis = await startRedis(context);
      const { store, said } = openStore(context, redis, { onStoreFailure });
      const two = { ...CALL, limit: 2 };
      const before = await store.reserve([two]);
      assert.ok(before.ok);
      await redis.kill();
      await until(() => !store.figures.isReady);
      const away = [await store.reserve([two]), await store.reserve([two]), await store.reserve([two])];
      if (onStoreFailure === 'refuse')
        for (const one of away)
          assert.deepEqual(one, { ok: false, error: { quota: 'calls', retryAfterMs: 1_000, store: 'away' } });
      else
        assert.deepEqual(
          away.map(({ ok }) => ok),
          [true, true, false],
        );
      // Nobody waits for it, and it is lost.
      store.release(before.value);
      await until(() => store.figures.lost === 1);
      await redis.start();
      await until(() => store.figures.isReady);
      assert.equal(await grantsOf(store, [two], 3), 2);
      if (away[0]!.ok) store.release(away[0]!.value);
      const expected = [/is there$/, /is away \(.+\): until it is back/, /is there$/];
      assert.equal(said.length, expected.length, said.join('\n'));
      for (const [index, pattern] of expected.entries()) assert.match(said[index]!, pattern);
    });

  test('what is given back to a Redis that has lost its data leaves no counter below nothing', async (context) => {
    const redis = await startRedis(context);
    const { store } = openStore(context, redis);
    const reserved = await store.reserve([TOKENS]);
    assert.ok(reserved.ok);
    await redis.command('FLUSHALL');
    store.release(reserved.value);
    const next = await store.reserve([TOKENS]);
    assert.equal(next.ok && next.value.usage[0]!.used, 10);
  });

  test('one that stands still costs one timeout, and is asked again when it goes on', async (context) => {
    const redis = await startRedis(context);
    const { store, said } = openStore(context, redis, { timeout: 200 });
    await until(() => store.figures.isReady);
    redis.freeze();
    context.after(() => redis.thaw());
    const first = await store.reserve([CALL]);
    assert.ok(!first.ok && first.error.store === 'away');
    assert.match(said.at(-1)!, /is away \(no answer within 200 ms\)/);
    const startedAt = performance.now();
    assert.equal(await grantsOf(store, [CALL], 50), 0);
    assert.ok(performance.now() - startedAt < 5_000);
    redis.thaw();
    await until(() => store.figures.isReady);
    await until(async () => (await store.reserve([CALL])).ok);
  });

  for (const onStoreFailure of ['refuse', 'local'] as const)
    test(`away at the start, and used when it comes: ${onStoreFailure}`, async (context) => {
      const redis = await startRedis(context);
      await redis.kill();
      const { store, said } = openStore(context, redis, { onStoreFailure });
      assert.equal((await store.reserve([CALL])).ok, onStoreFailure === 'local');
      assert.match(said.join(), /^the quota store redis:\/\/127\.0\.0\.1:\d+ is away \(.*ECONNREFUSED/);
      await redis.start();
      await until(() => store.figures.isReady);
      const shared = await store.reserve([CALL]);
      assert.equal(shared.ok && shared.value.usage[0]!.used, 1);
    });

  test('a wrong password is told, and not with it', async (context) => {
    const redis = await startRedis(context, { args: ['--requirepass', 'correct-horse'] });
    process.env.QUOTA_PASSWORD = 'battery-staple';
    const { store, said } = openStore(context, redis, { password: { env: 'QUOTA_PASSWORD' } });
    assert.equal((await store.reserve([CALL])).ok, false);
    assert.match(said.join(), /is away \(WRONGPASS invalid username-password pair/);
    assert.doesNotMatch(said.join(), /battery|horse/);
    // Rotated: the next connection takes it.
    process.env.QUOTA_PASSWORD = 'correct-horse';
    await until(() => store.figures.isReady);
    assert.ok((await store.reserve([CALL])).ok);
    const { store: without, said: heard } = openStore(context, redis);
    assert.equal((await without.reserve([CALL])).ok, false);
    assert.match(heard.join(), /NOAUTH/);
  });

  test('a user that may not write, and a server that has no room, are away', async (context) => {
    const redis = await startRedis(context);
    await redis.command('ACL', 'SETUSER', 'reader', 'on', 'nopass', '~*', '+@read', '+eval', '+evalsha', '+time');
    const { store, said } = openStore(context, redis, { username: 'reader', password: { env: 'PATH' } });
    assert.equal((await store.reserve([CALL])).ok, false);
    assert.match(said.join(), /is away \(.*(?:can't run this command|NOPERM)/);
    const { store: roomy, said: heard } = openStore(context, redis);
    assert.ok((await roomy.reserve([CALL])).ok);
    await redis.command('CONFIG', 'SET', 'maxmemory', '1');
    assert.equal((await roomy.reserve([CALL])).ok, false);
    assert.match(heard.at(-1)!, /is away \(OOM/);
    await redis.command('CONFIG', 'SET', 'maxmemory', '0');
    await until(() => roomy.figures.isReady);
    const next = await roomy.reserve([CALL]);
    assert.equal(next.ok && next.value.usage[0]!.used, 2);
  });
});

suite('asked once, as check --connect does', { skip: whyNoRedis }, () => {
  test('one that is there has no trouble, and one that wants a password says so', async (context) => {
    const ask = (redis: { readonly url: string }) =>
      findTrouble(
        { ...CONFIG, redis: redis.url },
        { group: 'support', environment: {}, now: () => performance.now(), random: Math.random },
      );
    const [open, locked] = [
      await startRedis(context),
      await startRedis(context, { args: ['--requirepass', 'correct-horse'] }),
    ];
    assert.equal(await ask(open), undefined);
    assert.match((await ask(locked))!, /^NOAUTH/);
  });
});

suite('sidecars with a Redis', { skip: whyNoRedis }, () => {
  test('share one quota; without it calls are refused and say why, or are let through here', async (context) => {
    const redis = await startRedis(context);
    const upstream = await startScriptedUpstream();
    context.after(() => upstream.close());
    const open = async (onStoreFailure: string) => {
      const sidecar = await startTestSidecar(`
servers: { main: { url: "${upstream.url}" } }
quotaStore: { redis: "${redis.url}/3", timeout: 5s, onStoreFailure: ${onStoreFailure} }
policy: { version: 1, default: allow, quotas: [ { name: five, key: [agent], calls: 5/h } ] }
`);
      context.after(() => sidecar.close());
      return sidecar;
    };
    const [one, other] = [await open('refuse'), await open('local')];
    const ask = (sidecar: typeof one) => askLegacy(sidecar.base, toolCall('any'));
    const answers = await Promise.all([one, other, one, other, one, other, one, other].map(ask));
    assert.deepEqual(answers.map(({ status }) => status).sort(), [200, 200, 200, 200, 200, 429, 429, 429]);
    await redis.kill();
    await until(() => one.logged.some((line) => line.includes('is away')));
    await until(() => other.logged.some((line) => line.includes('is away')));
    const refused = await ask(one);
    assert.deepEqual([refused.status, refused.headers['retry-after']], [429, '1']);
    assert.match(refused.json.error.message, /cannot be counted now; try again in 1 s/);
    assert.equal((await ask(other)).status, 200);
    const lines = (await one.auditLines()).filter(({ decision }) => decision === 'limit');
    assert.match(lines.at(-1).reason, /away/);
    const metrics = await (await fetch(`${one.admin}/metrics`)).text();
    assert.match(metrics, /^mcp_sidecar_quota_store_up 0$/m);
    await redis.start();
    await until(async () => (await ask(one)).status === 200);
    assert.match(await (await fetch(`${one.admin}/metrics`)).text(), /^mcp_sidecar_quota_store_up 1$/m);
  });
});
