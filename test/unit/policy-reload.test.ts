import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type LoadedPolicy, loadPolicy, type PolicySource } from '../../sidecar/config/policy-source.ts';
import { PolicyReload } from '../../sidecar/policy-reload.ts';

test('a load that throws is a refused policy: the last good one stays, and the process lives', async (context) => {
  const folder = await mkdtemp(join(tmpdir(), 'policy-reload-'));
  context.after(() => rm(folder, { recursive: true }));
  const file = join(folder, 'policy.yaml');
  await writeFile(file, 'version: 1\n');
  const first = await loadPolicy({ kind: 'path', path: file }, {});
  assert.ok(first.ok);
  const broken: PolicySource = {
    kind: 'inline',
    get value(): LoadedPolicy {
      throw new RangeError('a bug');
    },
    locate: () => assert.fail(),
  };
  const refused: string[] = [];
  const reload = await PolicyReload.start(
    first.value,
    broken,
    {},
    {
      onReloaded: () => assert.fail('nothing was loaded'),
      onRefused: (problems) => refused.push(problems),
    },
  );
  context.after(() => reload.close());
  const { active } = reload;
  await writeFile(file, 'version: 1\ndefault: allow\n');
  await reload.check();
  assert.deepEqual(refused, ['loading the policy failed unexpectedly (RangeError)']);
  assert.equal(reload.active, active);
  assert.equal(reload.figures.refused, 1);
});
