/**
 * A sidecar in a pod: what the injector tells it in MCP_SIDECAR_POD lies over its group's sidecar.yaml.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { startSidecar } from '../../sidecar/app.ts';
import { loadConfig } from '../../sidecar/config/load.ts';
import { formatProblems } from '../../sidecar/config/problem.ts';
import { createLogger } from '../../sidecar/telemetry/log.ts';

const folder = await mkdtemp(join(tmpdir(), 'pod-overrides-'));
after(() => rm(folder, { recursive: true }));
const POLICY = 'policy: { version: 1 }\nservers: { github: { url: "http://127.0.0.1:9/mcp" } }\n';
const OVERRIDES = {
  listen: { mcp: ['127.0.0.1:0'], admin: '127.0.0.1:0', health: '*:0' },
  state: join(folder, 'state'),
  identify: [{ type: 'uid', agents: { '1000': 'triage' } }],
};

async function load(yaml: string, overrides: string) {
  const file = join(folder, 'sidecar.yaml');
  await writeFile(file, yaml);
  return loadConfig(file, { MCP_SIDECAR_POD: overrides });
}

test('the pod says where to listen, who is who and where state is kept', async () => {
  const loaded = await load(
    `${POLICY}listen: { mcp: 127.0.0.1:4999, allowedHosts: [here] }\n`,
    JSON.stringify(OVERRIDES),
  );
  assert.ok(loaded.ok);
  const { listen, identify, state, audit } = loaded.value.config;
  assert.deepEqual(listen.mcp, [{ kind: 'tcp', host: '127.0.0.1', port: 0, tls: undefined }]);
  assert.deepEqual(listen.allowedHosts, ['here']);
  assert.deepEqual(listen.health, { host: '::', port: 0 });
  assert.deepEqual(identify, [{ type: 'uid', agents: { '1000': 'triage' } }]);
  assert.equal(state, OVERRIDES.state);
  assert.equal(audit.path, '/dev/stdout');
});

test('identify and audit of the group stay', async () => {
  const own = 'identify: [ { type: uid, agents: { 7: writer } } ]\naudit: { path: ./own.jsonl }\n';
  const loaded = await load(POLICY + own, JSON.stringify(OVERRIDES));
  assert.ok(loaded.ok);
  assert.deepEqual(loaded.value.config.identify, [{ type: 'uid', agents: { '7': 'writer' } }]);
  assert.equal(loaded.value.config.audit.path, join(folder, 'own.jsonl'));
});

for (const [name, text, words] of [
  ['what is not JSON', '{', 'MCP_SIDECAR_POD: is not JSON'],
  ['what the injector does not write', '{"servers":{}}', 'MCP_SIDECAR_POD: is not what the injector writes'],
] as const) {
  test(`${name} is refused`, async () => {
    const loaded = await load(POLICY, text);
    assert.ok(!loaded.ok);
    assert.equal(formatProblems(loaded.error), words);
  });
}

test('the health listener has probes and metrics, and neither MCP nor a page', async () => {
  // A port that was free a moment ago: the listener does not tell which one it got.
  const { createServer } = await import('node:net');
  const taken = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => taken.once('listening', resolve));
  const { port } = taken.address() as { port: number };
  await new Promise((resolve) => taken.close(resolve));

  const listen = { ...OVERRIDES.listen, health: `127.0.0.1:${port}` };
  const loaded = await load(`${POLICY}audit: { path: ./own.jsonl }\n`, JSON.stringify({ ...OVERRIDES, listen }));
  assert.ok(loaded.ok);
  const log = createLogger({ level: 'error', json: true, write: () => {}, now: Date.now });
  const started = await startSidecar(loaded.value, { log });
  assert.ok(started.ok, started.ok ? '' : started.error);
  try {
    const status = async (path: string) => (await fetch(`http://127.0.0.1:${port}${path}`)).status;
    assert.deepEqual(
      await Promise.all(['/livez', '/readyz', '/metrics', '/', '/mcp'].map(status)),
      [200, 200, 200, 404, 404],
    );
  } finally {
    await started.value.close();
  }
});
