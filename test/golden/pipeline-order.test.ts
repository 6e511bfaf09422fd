/**
 * The order of the pipeline is a contract (DESIGN.md section 3): to change it is to change this list, on purpose.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
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

test('the stages stand in the order of the contract', async () => {
  const source = await readFile(new URL('../../sidecar/app.ts', import.meta.url), 'utf8');
  const pushed = [...source.matchAll(/\.push\(\s*'(\w+)'/g)].map(([, name]) => name);
  assert.deepEqual(pushed, ORDER);
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
