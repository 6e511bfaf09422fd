/**
 * A policy by URL, from a real https server to a governed call: whatever the URL answers, the last good policy is the
 * one that holds, and what was wrong is told in the log, the audit and the metrics.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { RequestListener } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { makeCertificate } from '../bench/certificate.ts';
import { callable } from '../support/callable.ts';
import {
  allowing,
  type BundleServer,
  makeSigner,
  type Signer,
  signBundle,
  startBundleServer,
} from '../support/policy-bundle.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';
import { until } from '../support/until.ts';

const signer = makeSigner();
const tls = makeCertificate(new Date());
let upstream: ScriptedUpstream;
before(async () => {
  upstream = await startScriptedUpstream();
});
after(() => upstream.close());

interface Place {
  readonly folder: string;
  readonly server: BundleServer;
  readonly kept: string;
  start(settings?: string): Promise<TestSidecar>;
}

/** A server of bundles, and a folder that outlives each of the sidecars that it starts. */
async function placeOf(context: TestContext, pinned: Signer = signer): Promise<Place> {
  const folder = mkdtempSync(join(tmpdir(), 'policy-bundle-'));
  const server = await startBundleServer(tls);
  const running: TestSidecar[] = [];
  context.after(async () => {
    for (const sidecar of running) await sidecar.close();
    await server.close();
    rmSync(folder, { recursive: true });
  });
  writeFileSync(join(folder, 'ca.pem'), tls.certificate);
  writeFileSync(join(folder, 'key.pub.pem'), pinned.publicPem);
  const trust = `ca: ${folder}/ca.pem`;
  return {
    folder,
    server,
    kept: join(folder, 'state', 'policy-bundle.jws'),
    async start(settings = trust) {
      const sidecar = await startTestSidecar(`group: support
servers: { main: { url: "${upstream.url}" } }
policy: ${server.url}
bundle: { keys: [${folder}/key.pub.pem], ${settings} }
state: ${folder}/state
`);
      running.push(sidecar);
      return sidecar;
    },
  };
}

/** Version 7, which allows `old`. */
const first = await signBundle(signer, { policy: allowing('old') });
/** What each bad bundle would bring into force. */
const next = { version: 8, policy: allowing('new') };
const good = await signBundle(signer, next);
const past = '2020-01-01T00:00:00Z';

async function eventsOf(sidecar: TestSidecar) {
  return (await sidecar.auditLines()).filter((line) => line.event?.startsWith('policy.'));
}

async function metricsOf({ admin }: TestSidecar): Promise<string> {
  return (await fetch(`${admin}/metrics`)).text();
}

test('a newer bundle is fetched, comes into force and is recorded with its version', async (context) => {
  const { server, start, kept } = await placeOf(context);
  server.publish(first);
  const sidecar = await start();
  assert.deepEqual(await callable(sidecar, 'old', 'new'), ['old']);
  server.publish(good);
  await sidecar.reloadPolicy();
  assert.deepEqual(await callable(sidecar, 'old', 'new'), ['new']);
  const [reloaded, ...more] = await eventsOf(sidecar);
  assert.deepEqual([reloaded.event, reloaded.bundleVersion, more.length], ['policy.reloaded', 8, 0]);
  assert.match(await metricsOf(sidecar), /^mcp_sidecar_policy_bundle_version 8$/m);
  assert.equal(readFileSync(kept, 'utf8'), good);

  await sidecar.reloadPolicy();
  assert.equal(server.seen.at(-1)!.headers['if-none-match'], '"2"', 'and 304 is the answer');
  assert.deepEqual(await callable(sidecar, 'old', 'new'), ['new']);
  assert.equal((await eventsOf(sidecar)).length, 1);
});

const answering =
  (text: string | Promise<string>): RequestListener =>
  async (_request, response) =>
    void response.end(await text);

const REFUSED: Record<string, readonly [answer: RequestListener, reason: RegExp]> = {
  'of another key': [answering(signBundle(makeSigner(), next)), /is not signed by a pinned key/],
  'of an older version': [
    answering(signBundle(signer, { ...next, version: 6 })),
    /has version 6, and version 7 was in force before/,
  ],
  'of the same version with other content': [
    answering(signBundle(signer, { ...next, version: 7 })),
    /has version 7 like the one before it, and differs/,
  ],
  'that is truncated': [answering(good.slice(0, good.length / 2)), /is not whole/],
  'that lacks the end of its signature': [answering(good.slice(0, -4)), /is not what was signed/],
  'that has expired': [answering(signBundle(signer, { ...next, expiresAt: past })), /\(version 8\) expired at 2020/],
  'for another group': [answering(signBundle(signer, { ...next, group: 'sales' })), /is for the group sales/],
  'whose policy does not compile': [
    answering(signBundle(signer, { version: 8, policy: { version: 1, rules: [{ name: 'x' }] } })),
    /version 8\) holds a policy that does not compile:\s+policy\.rules\[0\]: needs exactly one of allow and deny/,
  ],
  'that is a page': [answering('<html>login</html>'), /is not whole, or not a bundle at all/],
};
const UNREACHABLE: Record<string, readonly [answer: RequestListener, reason: RegExp]> = {
  'is not there': [
    (_request, response) => void response.writeHead(404).end(),
    /answered 404; version 7 of the policy stays/,
  ],
  'redirects to a good one': [
    (request, response) =>
      void (request.url === '/good'
        ? response.end(good)
        : response.writeHead(302, { location: '/good', 'content-length': 0 }).end()),
    /answered 302: redirects are not followed/,
  ],
  'answers without end': [
    (_request, response) => {
      const more = () => {
        while (response.write('A'.repeat(64 * 1024)));
        response.once('drain', more);
      };
      more();
    },
    /answered more than 4096 KiB/,
  ],
  'breaks off': [
    (_request, response) => {
      response.writeHead(200, { 'content-length': good.length }).write(good.slice(0, 50), () => response.destroy());
    },
    /could not be reached \(ECONNRESET\)/,
  ],
};
for (const [event, group] of [
  ['policy.refused', REFUSED],
  ['policy.unreachable', UNREACHABLE],
] as const)
  for (const [what, [answer, reason]] of Object.entries(group))
    test(`${event === 'policy.refused' ? 'a bundle' : 'a URL that'} ${what} changes nothing, and is told once`, async (context) => {
      const { server, start, kept } = await placeOf(context);
      server.publish(first);
      const sidecar = await start();
      server.answer = answer;
      await sidecar.reloadPolicy();
      await sidecar.reloadPolicy();
      assert.deepEqual(await callable(sidecar, 'old', 'new'), ['old']);
      const events = await eventsOf(sidecar);
      assert.deepEqual(
        events.map((line) => line.event),
        [event],
      );
      assert.match(events[0].reason, reason);
      const level = event === 'policy.refused' ? 'error' : 'warn';
      const logged = sidecar.logged.map((line) => JSON.parse(line)).filter(({ message }) => reason.test(message));
      assert.deepEqual(
        logged.map((line) => line.level),
        [level],
      );
      assert.equal(readFileSync(kept, 'utf8'), first);

      server.publish(good);
      await sidecar.reloadPolicy();
      assert.deepEqual(await callable(sidecar, 'old', 'new'), ['new']);
    });

test('a URL that goes away, and comes back with a newer one', async (context) => {
  const { server, start } = await placeOf(context);
  server.publish(first);
  const sidecar = await start();
  await server.close();
  await sidecar.reloadPolicy();
  assert.deepEqual(await callable(sidecar, 'old', 'new'), ['old']);
  await server.open();
  server.publish(good);
  await sidecar.reloadPolicy();
  assert.deepEqual(await callable(sidecar, 'old', 'new'), ['new']);
  assert.deepEqual(
    (await eventsOf(sidecar)).map((line) => line.event),
    ['policy.unreachable', 'policy.reachable', 'policy.reloaded'],
  );
});

test('a body that drips holds up neither calls nor the end', async (context) => {
  const { server, start } = await placeOf(context);
  server.publish(first);
  const sidecar = await start();
  let isClosed = false;
  server.answer = (request, response) => {
    request.socket.once('close', () => {
      isClosed = true;
    });
    response.writeHead(200).write('ey');
  };
  const asked = server.seen.length;
  const looking = sidecar.reloadPolicy();
  await until(() => server.seen.length > asked, 'the request for the bundle');
  assert.deepEqual(await callable(sidecar, 'old', 'new'), ['old']);
  await sidecar.close();
  await looking;
  await until(() => isClosed, 'the end of the request');
  assert.deepEqual(
    sidecar.logged.filter((line) => line.includes('given up')),
    [],
    'what we gave up ourselves is no failure',
  );
});

test('at a start, without the URL, the copy is used, and the URL is followed again', async (context) => {
  const { server, start } = await placeOf(context);
  server.publish(first);
  await (await start()).close();
  await server.close();
  const sidecar = await start();
  assert.deepEqual(await callable(sidecar, 'old', 'new'), ['old']);
  const [used] = await eventsOf(sidecar);
  assert.equal(used.event, 'policy.copyUsed');
  assert.match(used.reason, /could not be reached \(ECONNREFUSED\); the copy kept of version 7 is in force/);
  assert.doesNotMatch(await metricsOf(sidecar), /^mcp_sidecar_policy_bundle_answered_timestamp_seconds \d/m);
  await server.open();
  server.publish(good);
  await sidecar.reloadPolicy();
  assert.deepEqual(await callable(sidecar, 'old', 'new'), ['new']);
});

for (const [what, [answer, reason]] of Object.entries(REFUSED))
  test(`at a start, a bundle ${what} is refused, and the copy is used`, async (context) => {
    const { server, start } = await placeOf(context);
    server.publish(first);
    await (await start()).close();
    server.answer = answer;
    const sidecar = await start();
    assert.deepEqual(await callable(sidecar, 'old', 'new'), ['old']);
    await sidecar.reloadPolicy();
    const events = await eventsOf(sidecar);
    assert.deepEqual(
      events.map((line) => line.event),
      ['policy.copyUsed', 'policy.reachable', 'policy.refused'],
    );
    assert.match(events[0].reason, reason);
  });

test('without a copy there is no start', async (context) => {
  const { server, start, kept } = await placeOf(context);
  await server.close();
  await assert.rejects(start(), (error: Error) => {
    assert.match(
      error.message,
      /sidecar\.yaml:4:9 {2}policy: https:\/\/127\.0\.0\.1:\d+ could not be reached \(ECONNREFUSED\); and no copy of an earlier one lies at /,
    );
    assert.ok(error.message.endsWith(kept));
    return true;
  });
});

test('an authority that is not trusted is no answer', async (context) => {
  const { server, start } = await placeOf(context);
  server.publish(first);
  await assert.rejects(start('poll: 1m'), /could not be reached \((?:DEPTH_ZERO_)?SELF_SIGNED_CERT/);
});

const COPIES: Record<string, readonly [copy: Promise<string>, reason: RegExp]> = {
  'that has expired': [
    signBundle(signer, { ...next, expiresAt: past }),
    /the copy at .*policy-bundle\.jws \(version 8\) expired at 2020/,
  ],
  'of another key': [signBundle(makeSigner(), next), /the copy at .*policy-bundle\.jws is not signed by a pinned key/],
  'of another group': [signBundle(signer, { ...next, group: 'sales' }), /no copy of an earlier one lies at/],
};
for (const [what, [copy, reason]] of Object.entries(COPIES))
  test(`without the URL, a copy ${what} is not started with`, async (context) => {
    const { folder, server, start, kept } = await placeOf(context);
    mkdirSync(join(folder, 'state'));
    writeFileSync(kept, await copy);
    await server.close();
    await assert.rejects(start(), reason);
  });
