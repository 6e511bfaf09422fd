import assert from 'node:assert/strict';
import { test } from 'node:test';
import { err, ok, type Result } from '../../policies/result.ts';
import type { CredentialFailure } from '../../sidecar/credentials/credential.ts';
import { createTokenCache, type Lease } from '../../sidecar/credentials/token-cache.ts';

type Reply = Result<Lease, CredentialFailure>;

/** A cache whose clock and whose token endpoint the test moves by hand. */
function setUp() {
  const requests: PromiseWithResolvers<Reply>[] = [];
  const logged: string[] = [];
  const clock = { now: 1_000_000 };
  const cache = createTokenCache(
    () => {
      const request = Promise.withResolvers<Reply>();
      requests.push(request);
      return request.promise;
    },
    { now: () => clock.now, random: () => 1, log: (_level, message) => logged.push(message) },
  );
  return { cache, clock, requests, logged };
}

const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
const lease = (token: string, seconds = 100): Reply => ok({ headers: bearer(token), lifetimeMs: seconds * 1000 });
const failure = (retryAfterMs = 0): Reply => err({ kind: 'tokenEndpoint', detail: 'answered 500', retryAfterMs });
const settled = () => new Promise((resolve) => setImmediate(resolve));

test('1,000 callers make one request, and the next is answered without a promise', async () => {
  const { cache, requests } = setUp();
  const callers = Array.from({ length: 1000 }, () => cache.headers());
  assert.equal(requests.length, 1);
  requests[0]!.resolve(lease('a'));
  for (const answer of await Promise.all(callers)) assert.deepEqual(answer, ok(bearer('a')));
  const next = cache.headers();
  assert.ok(!(next instanceof Promise));
  assert.deepEqual(next, ok(bearer('a')));
  assert.equal(requests.length, 1);
});

test('renews in the background ahead of the end; callers go on with the old token meanwhile', async () => {
  const { cache, clock, requests } = setUp();
  void cache.headers();
  requests[0]!.resolve(lease('a'));
  await settled();
  clock.now += 84_999;
  cache.headers();
  assert.equal(requests.length, 1, 'not yet');
  clock.now += 1;
  for (let caller = 0; caller < 100; caller += 1) assert.deepEqual(cache.headers(), ok(bearer('a')));
  assert.equal(requests.length, 2, 'one renewal for 100 callers');
  requests[1]!.resolve(lease('b'));
  await settled();
  assert.deepEqual(cache.headers(), ok(bearer('b')));
});

test('the margin before the end is a tenth of the lifetime, 10 s at most: then callers wait', async () => {
  for (const [seconds, usableMs] of [
    [10, 9_000],
    [3600, 3_590_000],
  ] as const) {
    const { cache, clock, requests } = setUp();
    void cache.headers();
    requests[0]!.resolve(lease('a', seconds));
    await settled();
    clock.now += usableMs - 1;
    assert.deepEqual(cache.headers(), ok(bearer('a')));
    clock.now += 1;
    const waiting = cache.headers();
    assert.ok(waiting instanceof Promise);
    requests[1]!.resolve(lease('b', seconds));
    assert.deepEqual(await waiting, ok(bearer('b')));
  }
});

test('the lifetime counts from when the token was asked for', async () => {
  const { cache, clock, requests } = setUp();
  void cache.headers();
  clock.now += 95_000;
  requests[0]!.resolve(lease('a', 100));
  await settled();
  assert.ok(cache.headers() instanceof Promise);
});

test('a failing endpoint is asked after 1, 2, 4 … 30 s, and callers in between are answered at once', async () => {
  const { cache, clock, requests, logged } = setUp();
  for (const [attempt, waitMs] of [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000].entries()) {
    const first = cache.headers();
    assert.equal(requests.length, attempt + 1);
    requests[attempt]!.resolve(failure());
    assert.equal((await first).ok, false);
    for (let caller = 0; caller < 100; caller += 1) {
      const answer = cache.headers();
      assert.ok(!(answer instanceof Promise) && !answer.ok);
      assert.equal(answer.error.retryAfterMs, waitMs);
    }
    clock.now += waitMs;
  }
  assert.equal(logged.length, 7);
  void cache.headers();
  requests.at(-1)!.resolve(lease('a'));
  await settled();
  assert.deepEqual(cache.headers(), ok(bearer('a')), 'and recovers');
});

test('Retry-After is obeyed, up to five minutes', async () => {
  for (const [askedMs, waitedMs] of [
    [60_000, 60_000],
    [86_400_000, 300_000],
  ] as const) {
    const { cache, clock, requests } = setUp();
    const first = cache.headers();
    requests[0]!.resolve(failure(askedMs));
    const answer = await first;
    assert.equal(!answer.ok && answer.error.retryAfterMs, waitedMs);
    clock.now += waitedMs - 1;
    assert.ok(!(cache.headers() instanceof Promise));
    clock.now += 1;
    assert.ok(cache.headers() instanceof Promise);
  }
});

test('a clock that is put back does not stretch a pause', async () => {
  const { cache, clock, requests } = setUp();
  void cache.headers();
  requests[0]!.resolve(failure());
  await settled();
  clock.now -= 3_600_000;
  assert.ok(cache.headers() instanceof Promise);
});

test('a renewal that fails leaves the token in use and is not repeated at once', async () => {
  const { cache, clock, requests } = setUp();
  void cache.headers();
  requests[0]!.resolve(lease('a'));
  await settled();
  clock.now += 85_000;
  cache.headers();
  requests[1]!.resolve(failure());
  await settled();
  for (let caller = 0; caller < 100; caller += 1) assert.deepEqual(cache.headers(), ok(bearer('a')));
  assert.equal(requests.length, 2);
  clock.now += 1000;
  cache.headers();
  assert.equal(requests.length, 3);
});

test('a rejected token is renewed once, however many callers it was rejected for', async () => {
  const { cache, requests } = setUp();
  void cache.headers();
  requests[0]!.resolve(lease('a'));
  await settled();
  const callers = Array.from({ length: 100 }, () => {
    assert.equal(cache.reject(bearer('a'), false), true);
    return cache.headers();
  });
  assert.equal(requests.length, 2);
  requests[1]!.resolve(lease('b'));
  for (const answer of await Promise.all(callers)) assert.deepEqual(answer, ok(bearer('b')));
  assert.equal(cache.reject(bearer('a'), false), true, 'a straggler: the newer token is worth a try');
  assert.deepEqual(cache.headers(), ok(bearer('b')), 'and stays');
  assert.equal(requests.length, 2);
});

test('a server that rejects every token does not turn calls into token requests', async () => {
  const { cache, clock, requests } = setUp();
  void cache.headers();
  requests[0]!.resolve(lease('token-0'));
  await settled();
  let renewed = 0;
  for (let second = 0; second < 120; second += 1) {
    const current = cache.headers();
    assert.ok(!(current instanceof Promise) && current.ok);
    if (cache.reject(current.value, false)) {
      renewed += 1;
      void cache.headers();
      requests.at(-1)!.resolve(lease(`token-${renewed}`, 3600));
      await settled();
    }
    clock.now += 1000;
  }
  assert.equal(requests.length, renewed + 1);
  assert.ok(renewed >= 4 && renewed <= 10, `${renewed} renewals in two minutes`);
});

test('a grant that changes starts over, and the late reply to the old one is not kept', async () => {
  const { cache, clock, requests } = setUp();
  void cache.headers();
  requests[0]!.resolve(lease('a'));
  await settled();
  clock.now += 85_000;
  cache.headers();
  assert.equal(requests.length, 2, 'a renewal of the old grant is under way');
  assert.equal(cache.reject(bearer('a'), true), true);
  const waiting = cache.headers();
  assert.equal(requests.length, 3);
  requests[2]!.resolve(lease('new'));
  assert.deepEqual(await waiting, ok(bearer('new')));
  requests[1]!.resolve(lease('late'));
  await settled();
  assert.deepEqual(cache.headers(), ok(bearer('new')));
});

test('a throw is a failure like others: nothing hangs, nothing is unhandled, no message leaks', async () => {
  let calls = 0;
  const clock = { now: 0 };
  const cache = createTokenCache(
    () => {
      calls += 1;
      throw new TypeError('canary');
    },
    { now: () => clock.now, random: () => 0, log: () => {} },
  );
  const answer = await cache.headers();
  assert.ok(!answer.ok);
  assert.match(answer.error.detail, /TypeError/);
  assert.ok(!answer.error.detail.includes('canary'));
  clock.now += 1000;
  await cache.headers();
  assert.equal(calls, 2);
});

test('after close nothing is asked and nothing is handed out', async () => {
  const { cache, requests } = setUp();
  void cache.headers();
  requests[0]!.resolve(lease('a'));
  await settled();
  cache.close();
  const answer = cache.headers();
  assert.ok(!(answer instanceof Promise) && !answer.ok);
  assert.equal(requests.length, 1);
});
