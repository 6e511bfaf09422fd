/**
 * An agent's roots, with a real client and the real server for files, which takes them in place of the folders that it
 * was started with; and what of them goes on in 2026-07-28.
 */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, realpath, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { askModern } from '../support/raw-http.ts';
import { sendJson } from '../support/scripted-upstream.ts';
import { startBehind, startTestSidecar } from '../support/sidecar.ts';
import { until } from '../support/until.ts';

const require = createRequire(import.meta.url);
const FILES = join(
  dirname(require.resolve('@modelcontextprotocol/server-filesystem/package.json')),
  'dist',
  'index.js',
);
const DENY = 'rules: [ { name: no roots, deny: [ { server: "*", methods: [roots/list] } ] } ]';

/** The folders that the server keeps to, for an agent whose root is another; and how often it asked for roots. */
async function opened(context: TestContext, policy: string) {
  const folder = await realpath(await mkdtemp(join(tmpdir(), 'roots-')));
  context.after(() => rm(folder, { recursive: true, force: true }));
  const [fence, outside] = [join(folder, 'fence'), join(folder, 'outside')];
  await Promise.all([mkdir(fence), mkdir(outside)]);
  const sidecar = await startTestSidecar(
    `servers: { files: { command: ${JSON.stringify([process.execPath, FILES, fence])} } }\npolicy: ${policy}\n`,
  );
  context.after(() => sidecar.close());
  const client = new Client(
    { name: 'agent', version: '1' },
    { versionNegotiation: { mode: 'legacy' }, capabilities: { roots: { listChanged: true } } },
  );
  let asked = 0;
  client.setRequestHandler('roots/list', () => {
    asked += 1;
    return { roots: [{ uri: pathToFileURL(outside).href }] };
  });
  await client.connect(new StreamableHTTPClientTransport(new URL(`${sidecar.base}/mcp`)));
  context.after(() => client.close());
  const allowed = async () =>
    JSON.stringify(await client.callTool({ name: 'list_allowed_directories', arguments: {} }));
  return { client, fence, outside, allowed, asked: () => asked, sidecar };
}

test('an agent may have roots where nothing denies it', async (context) => {
  const { allowed, outside, asked } = await opened(context, '{ version: 1, default: allow }');
  await until(async () => (await allowed()).includes(outside), 'the roots to be taken');
  assert.equal(asked(), 1);
});

test('library/filesystem keeps the fence: the server hears of no roots, and not that they changed', async (context) => {
  const { client, allowed, fence, outside, asked, sidecar } = await opened(context, 'library/filesystem');
  await assert.rejects(() => client.sendRootsListChanged());
  const folders = await allowed();
  assert.ok(folders.includes(fence) && !folders.includes(outside));
  assert.equal(asked(), 0);
  const lines = await sidecar.auditLines();
  const refused = lines.find(({ method }) => method === 'notifications/roots/list_changed');
  assert.deepEqual([refused?.decision, refused?.rule], ['deny', "filesystem: the agent's roots are no fence"]);
});

for (const [what, policy, expected] of [
  ['denied', `{ version: 1, default: allow, ${DENY} }`, '{"sampling":{},"x":{"roots":1}}'],
  ['denied in audit mode', `{ version: 1, mode: audit, ${DENY} }`, undefined],
  ['not denied', '{ version: 1, default: allow }', undefined],
] as const)
  test(`2026-07-28: roots that are ${what}`, async (context) => {
    const { upstream, sidecar } = await startBehind(
      context,
      (url) => `servers: { main: { url: "${url}" } }\npolicy: ${policy}\n`,
    );
    upstream.answer = (seen, response) => sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: {} });
    const capabilities = { roots: { listChanged: true }, sampling: {}, Roots: {}, x: { roots: 1 } };
    const _meta = { 'io.modelcontextprotocol/clientCapabilities': capabilities };
    const params = { name: 'any', arguments: { roots: 1 }, _meta };
    await askModern(sidecar.base, { id: 1, method: 'tools/call', params });
    const sent = upstream.seen.at(-1)!.json.params;
    assert.equal(
      JSON.stringify(sent._meta['io.modelcontextprotocol/clientCapabilities']),
      expected ?? JSON.stringify(capabilities),
    );
    assert.deepEqual(sent.arguments, { roots: 1 });
  });
