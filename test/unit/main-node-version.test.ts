import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { isNodeSupported, NODE_VERSION_MIN } from '../../sidecar/node-version.ts';

it('knows which Node is new enough', () => {
  for (const version of ['22.19.0', '22.20.1', '23.0.0', '26.10.0']) assert.ok(isNodeSupported(version), version);
  for (const version of ['22.18.9', '20.20.2', '18.0.0', '4.9.1']) assert.ok(!isNodeSupported(version), version);
});

it('says the same as engines in package.json', () => {
  const { engines } = JSON.parse(readFileSync(join(import.meta.dirname, '../../package.json'), 'utf8'));
  assert.equal(`${engines.node}.0`, `>=${NODE_VERSION_MIN}`);
});

it('main.ts imports nothing else before it has looked', () => {
  const source = readFileSync(join(import.meta.dirname, '../../sidecar/main.ts'), 'utf8');
  const imported = [...source.matchAll(/^import .* from '(.+)';$/gm)].map((match) => match[1]!);
  assert.ok(imported.length > 3);
  assert.deepEqual(
    imported.filter((name) => !name.startsWith('node:')),
    ['./node-version.ts'],
  );
});
