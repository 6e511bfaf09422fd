/**
 * The feed by itself, against a real server and with a clock of its own: when it asks, what it asks with, and what it
 * makes of the answers.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { download } from '../../sidecar/bundle/download.ts';
import { BundleFeed, type BundleNotice } from '../../sidecar/bundle/feed.ts';
import { type BundleSource, loadPolicy } from '../../sidecar/config/policy-source.ts';
import { allowing, makeSigner, type Signer, signBundle, startBundleServer } from '../support/policy-bundle.ts';

const signer = makeSigner();
const POLL_MS = 60_000;
const START = Date.parse('2026-06-01T00:00:00Z');
const never = new AbortController().signal;

async function placeOf(context: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'bundle-feed-'));
  const server = await startBundleServer();
  context.after(async () => {
    await server.close();
    rmSync(folder, { recursive: true });
  });
  const pin = (...signers: Signer[]) =>
    signers.map(({ publicPem }, index) => {
      const file = join(folder, `key-${index}.pem`);
      writeFileSync(file, publicPem);
      return file;
    });
  const source: BundleSource = {
    kind: 'bundle',
    url: server.url,
    shownUrl: server.url,
    keys: pin(signer),
    ca: undefined,
    pollMs: POLL_MS,
    group: 'support',
    kept: join(folder, 'state', 'policy-bundle.jws'),
    locate: ({ message, path }) => ({
      file: undefined,
      line: undefined,
      column: undefined,
      path: path.join('.'),
      message,
    }),
  };
  return { folder, server, source, pin };
}

/** The feed as the sidecar starts it. `clock` is only the feed's: a start goes by the real time. */
async function opened(source: BundleSource) {
  const loaded = await loadPolicy(source, {});
  if (!loaded.ok) throw new Error(loaded.error.map(({ message }) => message).join());
  const notices: BundleNotice[] = [];
  const clock = { now: START };
  const feed = await BundleFeed.open(
    source,
    { first: loaded.value, opened: loaded.value.bundle! },
    {},
    { now: () => clock.now, random: () => 0.5, notice: (notice) => notices.push(notice) },
  );
  return { feed, notices, clock, events: () => notices.map(({ event }) => event) };
}

test('it asks with the ETag of the bundle in force, and 304 changes nothing', async (context) => {
  const { server, source } = await placeOf(context);
  server.publish(await signBundle(signer));
  const { feed, clock } = await opened(source);
  clock.now += 5_000;
  const look = await feed.look(never);
  assert.equal(look.kind, 'good');
  assert.deepEqual(
    server.seen.map(({ headers }) => headers['if-none-match']),
    [undefined, '"1"'],
  );
  assert.deepEqual(feed.figures, { version: 7, expiresAt: undefined, answeredAt: START + 5_000 });

  server.publish(await signBundle(signer, { version: 8, policy: allowing('new') }));
  assert.equal((await feed.look(never)).kind, 'good');
  await feed.look(never);
  assert.equal(server.seen.at(-1)!.headers['if-none-match'], '"2"');
  assert.equal(feed.figures.version, 8);
});

test('the copy on disk is for this user alone, and replaced with each bundle', async (context) => {
  const { server, source } = await placeOf(context);
  const [first, second] = [await signBundle(signer), await signBundle(signer, { version: 8 })];
  server.publish(first);
  const { feed } = await opened(source);
  assert.equal(readFileSync(source.kept, 'utf8'), first);
  assert.equal(statSync(source.kept).mode & 0o777, 0o600);
  assert.equal(statSync(join(source.kept, '..')).mode & 0o777, 0o700);
  server.publish(second);
  await feed.look(never);
  assert.equal(readFileSync(source.kept, 'utf8'), second);
});

test('after failures it asks again after ten seconds, then ever later, up to the interval', async (context) => {
  const { server, source } = await placeOf(context);
  server.publish(await signBundle(signer));
  const { feed, events } = await opened(source);
  assert.equal(feed.pauseMs(), POLL_MS);
  await server.close();
  const pauses: number[] = [];
  for (let failure = 0; failure < 5; failure++) {
    assert.equal((await feed.look(never)).kind, 'nothingNew');
    pauses.push(feed.pauseMs());
  }
  assert.deepEqual(pauses, [10_000, 20_000, 40_000, POLL_MS, POLL_MS]);
  assert.deepEqual(events(), ['policy.unreachable'], 'said once');
  await server.open();
  await feed.look(never);
  assert.equal(feed.pauseMs(), POLL_MS);
  assert.deepEqual(events(), ['policy.unreachable', 'policy.reachable']);
});

test('a bundle that expires in force stays, is told once, and the feed looks at that moment', async (context) => {
  const { server, source } = await placeOf(context);
  // Far enough for the start, which goes by the real time.
  const expiresAt = '2999-01-01T00:00:00Z';
  server.publish(await signBundle(signer, { expiresAt }));
  const { feed, clock, notices, events } = await opened(source);
  clock.now = Date.parse(expiresAt) - 1_000;
  assert.equal(feed.pauseMs(), 1_000);
  await feed.look(never);
  assert.deepEqual(events(), []);
  clock.now += 1_000;
  assert.equal((await feed.look(never)).kind, 'good', 'the policy in force');
  await feed.look(never);
  assert.deepEqual(events(), ['policy.expired']);
  assert.equal(notices[0]!.level, 'error');
  assert.match(notices[0]!.sentence, /version 7 of the policy expired at 2999-01-01T00:00:00Z/);
  assert.equal(feed.pauseMs(), POLL_MS);
  assert.equal(feed.figures.expiresAt, Date.parse(expiresAt));

  server.publish(await signBundle(signer, { version: 8 }));
  await feed.look(never);
  assert.equal(feed.figures.expiresAt, undefined);
});

test('a key is rotated without a restart: both pinned, signed anew, the old one dropped', async (context) => {
  const { server, source, pin } = await placeOf(context);
  const next = makeSigner('ES256');
  server.publish(await signBundle(signer));
  const { feed, events } = await opened(source);
  const withBoth = { ...source, keys: pin(signer, next) };
  const both = await opened(withBoth);
  server.publish(await signBundle(next));
  assert.equal((await both.feed.look(never)).kind, 'good', 'the same policy, signed anew');
  const onlyNew = { ...source, keys: pin(next) };
  await server.close();
  const restarted = await opened(onlyNew);
  assert.equal(restarted.feed.figures.version, 7, 'the copy is by the new key');
  // The file of the first feed now holds the new key: what the old one signs no longer counts.
  await server.open();
  server.publish(await signBundle(signer, { version: 8 }));
  assert.equal((await feed.look(never)).kind, 'refused');
  assert.deepEqual(events(), ['policy.unpinned']);
});

test('a stolen key is unpinned without a restart: told once, and any version of a pinned key comes into force', async (context) => {
  const { server, source, pin } = await placeOf(context);
  server.publish(await signBundle(signer, { version: 999_999 }));
  const { feed, events } = await opened(source);
  const next = makeSigner();
  pin(next);
  assert.equal((await feed.look(never)).kind, 'refused', 'the server has nothing else, and is not told an ETag');
  assert.equal((await feed.look(never)).kind, 'refused');
  assert.deepEqual(events(), ['policy.unpinned']);
  server.publish(await signBundle(next, { version: 8 }));
  assert.equal((await feed.look(never)).kind, 'good');
  assert.equal(feed.figures.version, 8);
  server.publish(await signBundle(next, { version: 7 }));
  assert.equal((await feed.look(never)).kind, 'refused', 'versions only grow again');
  assert.deepEqual(events(), ['policy.unpinned']);
});

test('what a key signed is forgotten with its pin: a stolen key cannot block all versions to come', async (context) => {
  const { server, source, pin } = await placeOf(context);
  server.publish(await signBundle(signer, { version: Number.MAX_SAFE_INTEGER }));
  await opened(source);
  const next = makeSigner();
  pin(next);
  server.publish(await signBundle(next, { version: 1 }));
  const { feed, events } = await opened(source);
  assert.equal(feed.figures.version, 1);
  assert.deepEqual(events(), ['policy.copyRefused']);
});

test('a folder that cannot be written is told, and the policy holds', async (context) => {
  const { folder, server, source } = await placeOf(context);
  server.publish(await signBundle(signer));
  writeFileSync(join(folder, 'file'), '');
  const { feed, notices } = await opened({ ...source, kept: join(folder, 'file', 'policy-bundle.jws') });
  assert.equal(feed.figures.version, 7);
  assert.deepEqual(
    notices.map(({ level, event }) => `${level} ${event}`),
    ['error policy.copyFailed'],
  );
});

test('an answer that drips is given up, by the clock and by the one who asked', async (context) => {
  const { server, source } = await placeOf(context);
  server.answer = (_request, response) => void response.writeHead(200).write('ey');
  const slow = await download(source, undefined, never, 200);
  assert.deepEqual(slow, { ok: false, error: `${new URL(server.url).origin} did not answer within 0.2 s` });
  const asker = new AbortController();
  server.answer = (_request, response) => {
    response.writeHead(200).write('ey');
    asker.abort();
  };
  const given = await download(source, undefined, asker.signal);
  assert.ok(!given.ok);
  assert.match(given.error, /was given up/);
});

test('304 to a request without an ETag is no answer', async (context) => {
  const { server, source } = await placeOf(context);
  server.answer = (_request, response) => void response.writeHead(304).end();
  const answer = await download(source, undefined, never);
  assert.ok(!answer.ok);
});
