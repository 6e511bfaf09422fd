import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type LoadedPolicy, loadPolicy, type PolicySource } from '../../sidecar/config/policy-source.ts';
import { PolicyFiles } from '../../sidecar/policy-files.ts';
import { PolicyReload } from '../../sidecar/policy-reload.ts';

async function fileIn(context: TestContext) {
  const folder = await mkdtemp(join(tmpdir(), 'policy-reload-'));
  context.after(() => rm(folder, { recursive: true }));
  return { folder, file: join(folder, 'policy.yaml') };
}

/** The smallest policy there is. */
async function loadedFile(context: TestContext) {
  const { folder, file } = await fileIn(context);
  await writeFile(file, 'version: 1\n');
  const source: PolicySource = { kind: 'path', path: file };
  const loaded = await loadPolicy(source, {});
  assert.ok(loaded.ok);
  return { folder, file, source, policy: loaded.value };
}

async function reloadOf(
  context: TestContext,
  policy: LoadedPolicy,
  source: PolicySource,
  ports: ConstructorParameters<typeof PolicyReload>[2],
) {
  const reload = new PolicyReload(policy, await PolicyFiles.open(policy, source, {}), ports);
  context.after(() => reload.close());
  return reload;
}

test('a load that throws is a refused policy: the last good one stays, and the process lives', async (context) => {
  const { folder, file, policy } = await loadedFile(context);
  const broken: PolicySource = {
    kind: 'inline',
    get value(): LoadedPolicy {
      throw new RangeError('a bug');
    },
    folder,
    locate: () => assert.fail(),
  };
  const refused: string[] = [];
  const reload = await reloadOf(context, policy, broken, {
    onReloaded: () => assert.fail('nothing was loaded'),
    onRefused: (problems) => refused.push(problems),
  });
  const { active } = reload;
  await writeFile(file, 'version: 1\ndefault: allow\n');
  await reload.check();
  assert.deepEqual(refused, ['loading the policy failed unexpectedly (RangeError)']);
  assert.equal(reload.active, active);
  assert.equal(reload.figures.refused, 1);
});

test('a policy that was broken and is as before again is told, so that whoever mends it knows', async (context) => {
  const { file, source, policy } = await loadedFile(context);
  const told: string[] = [];
  const reload = await reloadOf(context, policy, source, {
    onReloaded: ({ version }) => told.push(version),
    onRefused: () => told.push('refused'),
  });
  const { version } = reload.active;
  await writeFile(file, 'version: 2\n');
  await reload.check();
  await writeFile(file, 'version: 1\n');
  await reload.check();
  await reload.check();
  assert.deepEqual(told, ['refused', version]);
});

test('a file that is extended and comes later is noticed, and its absence is told once', async (context) => {
  const { folder, file, source, policy } = await loadedFile(context);
  const refused: string[] = [];
  const ports = { onReloaded: () => {}, onRefused: (problems: string) => refused.push(problems) };
  const reload = await reloadOf(context, policy, source, ports);

  await writeFile(file, 'version: 1\nextends: ./later.yaml\n');
  await reload.check();
  await reload.check();
  assert.equal(refused.length, 1);
  assert.match(refused[0]!, /later\.yaml does not exist/);

  await writeFile(join(folder, 'later.yaml'), 'version: 1\ndefault: allow\n');
  await reload.check();
  assert.equal(reload.active.policy.allowByDefault, true);

  await writeFile(join(folder, 'later.yaml'), 'version: 1\ndefault: deny\n# longer\n');
  await reload.check();
  assert.equal(reload.active.policy.allowByDefault, false);
});

test('files that change again while they are read are not taken half and half, but at rest', async (context) => {
  const { folder, file } = await fileIn(context);
  await writeFile(file, 'first');
  let isSwapped = false;
  const source: PolicySource = {
    kind: 'inline',
    get value(): unknown {
      if (!isSwapped) writeFileSync(file, 'third version');
      isSwapped = true;
      return { version: 1 };
    },
    folder,
    locate: () => assert.fail(),
  };
  const files = await PolicyFiles.open({ watch: [file] }, source, {});
  await writeFile(file, 'second');
  assert.equal((await files.look()).kind, 'nothingNew');
  assert.equal((await files.look()).kind, 'good');
});
