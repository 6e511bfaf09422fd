/**
 * The order of the pipeline is a contract (DESIGN.md section 3): to change it is to change this list, on purpose.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { buildPipeline, type House } from '../../sidecar/app.ts';
import { loadConfig } from '../../sidecar/config/load.ts';
import { stack } from '../../sidecar/pipeline/compose.ts';

const ORDER = [
  'observe',
  'rescue',
  'admit',
  'guard',
  'identify',
  'parse',
  'authorize',
  'quota',
  'cache',
  'route',
  'credential',
  'forward',
  'inspect',
];

test('the stages stand in the order of the contract', async (context) => {
  const folder = await mkdtemp(join(tmpdir(), 'pipeline-order-'));
  context.after(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, 'sidecar.yaml');
  await writeFile(file, 'servers: { main: { url: "http://127.0.0.1:9/mcp" } }\npolicy: { version: 1 }\n');
  const loaded = await loadConfig(file);
  assert.ok(loaded.ok);
  // Building it calls next to nothing of the house, so that only what is read while building has to be there.
  const house = {
    config: loaded.value.config,
    identities: { methods: [], sockets: [] },
    upstreams: new Map(),
    credentials: new Map(),
    pins: { onReplaced: () => {} },
  };
  assert.deepEqual(buildPipeline(house as unknown as House).names, ORDER);
});

test('a stack runs its stages outermost first, and a reason comes back through all of them', async () => {
  const seen: string[] = [];
  const stage = (name: string) => async (exchange: object, next: (exchange: object) => unknown) => {
    seen.push(`> ${name}`);
    const outcome = await next(exchange);
    seen.push(`< ${name}`);
    return outcome as undefined;
  };
  const built = stack<object>()
    .push('outer', stage('outer'))
    .push('inner', stage('inner'))
    .push('last', () => ({ kind: 'internal', detail: 'here' }))
    .build();
  assert.deepEqual(await built({}), { kind: 'internal', detail: 'here' });
  assert.deepEqual(seen, ['> outer', '> inner', '< inner', '< outer']);
});
