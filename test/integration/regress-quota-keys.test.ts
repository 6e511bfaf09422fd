/**
 * What an agent names may be megabytes long; what is remembered of it, for as long as a window lasts, is not.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { askLegacy, toolCall } from '../support/raw-http.ts';
import { startBehind } from '../support/sidecar.ts';
import { until } from '../support/until.ts';

test('long names of tools and long values of expressions count apart, under short keys', async (context) => {
  const { sidecar } = await startBehind(
    context,
    (url) => `
servers: { main: { url: "${url}" } }
state: ./state
policy:
  version: 1
  default: allow
  quotas:
    - { name: tools, key: [agent, tool], calls: 1/h, when: 'args.owner == ""' }
    - { name: owners, key: [ { cel: args.owner } ], calls: 1/h, when: 'args.owner != ""' }
`,
  );
  const long = 'x'.repeat(100_000);
  const statusesOf = async (calls: [tool: string, owner: string][]) => {
    const statuses: number[] = [];
    for (const [tool, owner] of calls) statuses.push((await askLegacy(sidecar.base, toolCall(tool, { owner }))).status);
    return statuses;
  };
  assert.deepEqual(
    await statusesOf([
      [`${long}1`, ''],
      [`${long}2`, ''],
      [`${long}1`, ''],
      ['any', `${long}1`],
      ['any', `${long}2`],
      ['any', `${long}1`],
    ]),
    [200, 200, 429, 200, 200, 429],
  );
  const file = join(sidecar.folder, 'state', 'quota.json');
  const saved = async () => (existsSync(file) ? JSON.parse(await readFile(file, 'utf8')).counters : []);
  await until(async () => (await saved()).length === 4, 'the file of what was spent');
  for (const { key } of await saved()) assert.ok(key.length <= 256, `${key.length}`);
});
