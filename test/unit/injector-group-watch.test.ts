/**
 * The groups of a cluster in which others have ConfigMaps as large as they may be. The API here pages as the API server
 * does, and writes watch events in pieces.
 */
import assert from 'node:assert/strict';
import { createServer, type ServerResponse } from 'node:http';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { GroupWatch } from '../../injector/group-watch.ts';
import { Kubernetes } from '../../injector/kubernetes.ts';
import { detectMode } from '../../injector/native-support.ts';
import type { Raw } from '../../injector/raw-object.ts';
import { CONFIG_MAP } from '../support/injector.ts';

const MIB = 1024 * 1024;
const large = (bytes: number): Raw => ({
  metadata: { name: 'large', namespace: 'tenant' },
  data: { text: 'x'.repeat(bytes) },
});
const group = (name: string): Raw => ({ ...CONFIG_MAP, metadata: { ...(CONFIG_MAP.metadata as Raw), name } });

test('seventy ConfigMaps of a MiB each hide no group, before or behind them', async (context) => {
  const many = Array.from({ length: 70 }, () => large(MIB));
  const api = await openApi(context, [group('mcp-sidecar-first'), ...many, group('mcp-sidecar-last')]);
  await api.until(() => api.groups.isReady);
  assert.deepEqual(namesOf(api.groups), ['first', 'last']);
  assert.deepEqual(api.warnings, []);
});

test('a page that was too large does not make all later ones small', async (context) => {
  const small = Array.from({ length: 2_000 }, () => large(1));
  const api = await openApi(context, [...Array.from({ length: 40 }, () => large(MIB)), ...small]);
  await api.until(() => api.groups.isReady);
  assert.ok(api.pages.at(-1)! === 500, String(api.pages));
  assert.ok(api.pages.length < 30, String(api.pages));
});

test('one object that is larger than any may be is told of, and not passed over', async (context) => {
  const api = await openApi(context, [group('mcp-sidecar-first'), large(17 * MIB)]);
  await api.until(() => api.warnings.length > 0);
  assert.match(api.warnings[0]!, /the groups cannot be read: the answer is too large/);
  assert.equal(api.groups.isReady, false);
});

test('events of a watch come in any pieces, one of them large', async (context) => {
  const api = await openApi(context, []);
  const watcher = await api.watched;
  const events = [
    { type: 'ADDED', object: group('mcp-sidecar-één') },
    { type: 'ADDED', object: large(9 * MIB) },
    { type: 'ADDED', object: group('mcp-sidecar-two') },
  ];
  const bytes = Buffer.from(events.map((event) => `${JSON.stringify(event)}\n`).join(''));
  // The last newline alone, and a character of two bytes in two pieces.
  const cuts = [bytes.indexOf('é') + 1, 10 * 1024, 5 * MIB, bytes.length - 1, bytes.length];
  let start = 0;
  for (const end of cuts) {
    watcher.write(bytes.subarray(start, end));
    start = end;
  }
  await api.until(() => namesOf(api.groups).includes('two'));
  assert.deepEqual(namesOf(api.groups), ['één', 'two']);
  assert.deepEqual(api.warnings, []);
});

test('one old kubelet behind thousands makes the sidecar classic', async (context) => {
  const node = (kubeletVersion: string): Raw => ({
    status: { nodeInfo: { kubeletVersion }, pad: 'x'.repeat(8 * 1024) },
  });
  const young = Array.from({ length: 3_000 }, () => node('v1.33.0'));
  const api = await openApi(context, young);
  assert.equal(await detectMode(api.kubernetes), 'native');
  api.items.push(node('v1.28.0'));
  assert.equal(await detectMode(api.kubernetes), 'classic');
});

function namesOf(groups: GroupWatch): string[] {
  return (groups.groupsIn('agents') ?? []).map((one) => (one.ok ? one.value.name : one.error));
}

/** @param items of whatever collection is asked for. */
async function openApi(context: TestContext, items: Raw[]) {
  const pages: number[] = [];
  const watchers = Promise.withResolvers<ServerResponse>();
  const server = createServer((request, response) => {
    const { searchParams } = new URL(request.url!, 'http://api');
    response.setHeader('content-type', 'application/json');
    if (searchParams.has('watch')) {
      response.flushHeaders();
      return watchers.resolve(response);
    }
    const limit = Number(searchParams.get('limit'));
    const start = Number(searchParams.get('continue') ?? 0);
    const end = Math.min(start + limit, items.length);
    pages.push(limit);
    const metadata = { resourceVersion: '1', ...(end < items.length ? { continue: String(end) } : {}) };
    response.end(JSON.stringify({ metadata, items: items.slice(start, end) }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const kubernetes = new Kubernetes({ server: `http://127.0.0.1:${port}`, ca: '', token: async () => 'token' });
  const warnings: string[] = [];
  const groups = new GroupWatch(kubernetes, { warn: (message) => void warnings.push(message) });
  groups.start();
  context.after(async () => {
    await groups.close();
    await kubernetes.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return {
    items,
    pages,
    warnings,
    groups,
    kubernetes,
    /** The answer to the watch, once it is asked for. */
    watched: watchers.promise,
    until: async (isSo: () => boolean) => {
      for (let attempt = 0; attempt < 3_000 && !isSo(); attempt++) await delay(10);
      assert.ok(isSo(), `not within 30 s: ${warnings.join('; ')}`);
    },
  };
}
