/**
 * Virtual servers over the wire: what they list is what can be called there, and nothing of a virtual server (a session,
 * a kept answer) reaches further than its endpoint.
 */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { askLegacy, askModern, toolCall } from '../support/raw-http.ts';
import { type ScriptedUpstream, sendJson, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';

const POLICY = `version: 1
rules:
  - { name: main, allow: [ { server: main, tools: ["*"] } ] }
  - { name: no drops, deny: [ { tools: [drop_*] } ] }
virtualServers:
  support: { tools: [main.list_*, main.drop_all] }
  sales: { tools: [main.find_*] }
  everything: { tools: ["main.*", "other.*"] }
  away: { tools: ["gone.*"] }
`;

let upstream: ScriptedUpstream;
let sidecar: TestSidecar;
before(async () => {
  upstream = await startScriptedUpstream();
  upstream.answer = ({ json }, response) => {
    const id = json?.id;
    if (json?.method === 'initialize')
      return sendJson(response, { jsonrpc: '2.0', id, result: {} }, 200, { 'mcp-session-id': 'upstream-session' });
    const tools = ['list_a', 'find_a', 'drop_all'].map((name) => ({ name, inputSchema: { type: 'object' } }));
    const result =
      json?.method === 'tools/list'
        ? { tools, ttlMs: 60_000, cacheScope: 'private', resultType: 'complete' }
        : { content: [{ type: 'text', text: 'ok' }] };
    sendJson(response, id === undefined ? undefined : { jsonrpc: '2.0', id, result });
  };
  sidecar = await startTestSidecar(
    `servers: { main: { url: "${upstream.url}" }, other: { url: "${upstream.url}" } }\npolicy: ./policy.yaml\n`,
    { 'policy.yaml': POLICY },
  );
});
after(async () => {
  await sidecar.close();
  await upstream.close();
});

const pathOf = (virtual: string) => `/virtual/${virtual}/mcp`;
const MAIN = '/servers/main/mcp';
const LIST = { jsonrpc: '2.0', id: 1, method: 'tools/list' };

async function listed(path: string): Promise<string[]> {
  const { json } = await askLegacy(sidecar.base, LIST, {}, path);
  return json.result.tools.map(({ name }: { name: string }) => name);
}

test('lists what is in it and allowed, and that is what can be called', async () => {
  assert.deepEqual(await listed(MAIN), ['list_a', 'find_a']);
  assert.deepEqual(await listed(pathOf('support')), ['list_a']);
  assert.deepEqual(await listed(pathOf('sales')), ['find_a']);
  for (const [path, called] of [
    [MAIN, ['list_a', 'find_a']],
    [pathOf('support'), ['list_a']],
    [pathOf('sales'), ['find_a']],
  ] as const) {
    for (const name of ['list_a', 'find_a', 'drop_all', 'unknown']) {
      const { json } = await askLegacy(sidecar.base, toolCall(name), {}, path);
      if ((called as readonly string[]).includes(name)) assert.equal(json.result.content[0].text, 'ok', path + name);
      else if (path !== MAIN || name === 'drop_all') assert.equal(json.error.code, -32602, path + name);
    }
  }
});

test('a kept list is not shown at another endpoint', async () => {
  const names = async (path: string) =>
    (await askModern(sidecar.base, { id: 1, method: 'tools/list' }, {}, path)).json.result.tools.map(
      ({ name }: { name: string }) => name,
    );
  assert.deepEqual(await names(MAIN), ['list_a', 'find_a']);
  assert.deepEqual(await names(pathOf('support')), ['list_a']);
  assert.deepEqual(await names(pathOf('sales')), ['find_a']);
  assert.deepEqual(await names(MAIN), ['list_a', 'find_a']);
});

test('a session is good at the endpoint where it was opened, and nowhere else', async () => {
  const initialize = {
    ...LIST,
    method: 'initialize',
    params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 't', version: '1' } },
  };
  const paths = [pathOf('support'), pathOf('sales'), MAIN];
  for (const opened of paths) {
    const { headers } = await askLegacy(sidecar.base, initialize, {}, opened);
    const session = { 'mcp-session-id': String(headers['mcp-session-id']) };
    for (const used of paths) {
      const { status } = await askLegacy(sidecar.base, LIST, session, used);
      assert.equal(status, used === opened ? 200 : 404, `${opened} → ${used}`);
    }
  }
});

test('the audit names the virtual server', async () => {
  await askLegacy(sidecar.base, toolCall('find_a', {}, 'audited'), {}, pathOf('support'));
  await askLegacy(sidecar.base, toolCall('find_a', {}, 'audited'), {}, MAIN);
  const records = (await sidecar.auditLines()).filter(({ requestId }) => requestId === 'audited');
  assert.deepEqual(
    records.map(({ server, virtual, decision, rule }) => [server, virtual, decision, rule]),
    [
      ['main', 'support', 'deny', 'virtual server support'],
      ['main', undefined, 'allow', 'main'],
    ],
  );
});

for (const [what, name, text] of [
  ['is unknown', 'nobody', /^No such endpoint$/],
  ['has a name of JavaScript', 'constructor', /^No such endpoint$/],
  ['spans several servers', 'everything', /spans the servers main, other, and serving several under one endpoint/],
  ['is of a server that is not configured', 'away', /is of server gone, which is not configured/],
] as const)
  test(`one that ${what} has no endpoint`, async () => {
    const { status, json } = await askLegacy(sidecar.base, LIST, {}, pathOf(name));
    assert.equal(status, 404);
    assert.match(json.error.message, text);
  });

test('those without an endpoint are told at the start', () => {
  const warned = sidecar.logged.filter((line) => line.includes('virtual server'));
  assert.deepEqual(warned.map((line) => /virtual server \w+/.exec(line)?.[0]).sort(), [
    'virtual server away',
    'virtual server everything',
  ]);
});

test('a reload takes effect with the next request', async () => {
  const write = async (policy: string) => {
    await writeFile(join(sidecar.folder, 'policy.yaml'), policy);
    await sidecar.reloadPolicy();
  };
  await write(POLICY.replace('main.list_*', 'main.find_*').replace(/ {2}sales:.*\n/, ''));
  assert.deepEqual(await listed(pathOf('support')), ['find_a']);
  const gone = await askLegacy(sidecar.base, LIST, {}, pathOf('sales'));
  assert.equal(gone.status, 404);
  await write(POLICY);
  assert.deepEqual(await listed(pathOf('sales')), ['find_a']);
});
