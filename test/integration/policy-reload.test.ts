/**
 * The policy follows its files, in every way that files are replaced; a broken one is refused with its place and the
 * last good one stays; an exchange keeps the policy that it began with.
 */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { callable } from '../support/callable.ts';
import { askLegacy, toolCall } from '../support/raw-http.ts';
import { type ScriptedUpstream, sendJson, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';
import { until } from '../support/until.ts';

let upstream: ScriptedUpstream;
before(async () => {
  upstream = await startScriptedUpstream();
});
after(() => upstream.close());

const allowing = (...tools: string[]) =>
  `version: 1\nrules:\n  - { name: some tools, allow: [ { server: main, tools: [${tools.join(', ')}] } ] }\n`;

async function folderOf(context: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'reload-'));
  context.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function started(context: TestContext, policy: string): Promise<TestSidecar> {
  const sidecar = await startTestSidecar(`servers: { main: { url: "${upstream.url}" } }\npolicy: ${policy}\n`);
  context.after(() => sidecar.close());
  return sidecar;
}

async function eventsOf(sidecar: TestSidecar) {
  return (await sidecar.auditLines()).filter((line) => line.event?.startsWith('policy.'));
}

test('a file that is replaced is followed within seconds, without being told', async (context) => {
  const file = join(await folderOf(context), 'policy.yaml');
  await writeFile(file, allowing('old'));
  const sidecar = await started(context, file);
  assert.deepEqual(await callable(sidecar, 'old', 'new'), ['old']);
  const [before] = (await sidecar.auditLines()).filter((line) => line.tool === 'old');

  await writeFile(`${file}.new`, allowing('new'));
  await rename(`${file}.new`, file);
  await until(async () => (await callable(sidecar, 'new')).length === 1, 'the new policy');
  assert.deepEqual(await callable(sidecar, 'old', 'new'), ['new']);

  const [reloaded, ...more] = await eventsOf(sidecar);
  assert.equal(more.length, 0);
  assert.equal(reloaded.event, 'policy.reloaded');
  const after = (await sidecar.auditLines()).at(-1);
  assert.equal(after.policy, reloaded.policy);
  assert.notEqual(after.policy, before.policy);
});

test('a file that is edited in place is followed', async (context) => {
  const file = join(await folderOf(context), 'policy.yaml');
  await writeFile(file, allowing('old'));
  const sidecar = await started(context, file);
  await writeFile(file, allowing('new'));
  await sidecar.reloadPolicy();
  assert.deepEqual(await callable(sidecar, 'old', 'new'), ['new']);
});

for (const [what, path] of [
  ['a folder', ''],
  ['one file of a folder', '/policy.yaml'],
] as const) {
  test(`${what} that is mounted as Kubernetes mounts a ConfigMap is followed`, async (context) => {
    const folder = await folderOf(context);
    const write = async (version: string, text: string) => {
      await mkdir(join(folder, version));
      await writeFile(join(folder, version, 'policy.yaml'), text);
      await symlink(version, join(folder, '..data_tmp'));
      await rename(join(folder, '..data_tmp'), join(folder, '..data'));
    };
    const [first, second] = ['..2026_01_02_03_04_05.678901234', '..2026_01_02_03_05_06.789012345'] as const;
    await write(first, allowing('old'));
    await symlink('..data/policy.yaml', join(folder, 'policy.yaml'));
    // No policy of anybody's: it would be a second one, and then one too many.
    await writeFile(join(folder, '..data.yaml'), allowing('hidden'));
    const sidecar = await started(context, `${folder}${path}`);
    assert.deepEqual(await callable(sidecar, 'old', 'new'), ['old']);

    await write(second, allowing('new'));
    await rm(join(folder, first), { recursive: true });
    await sidecar.reloadPolicy();
    assert.deepEqual(await callable(sidecar, 'old', 'new', 'hidden'), ['new']);
    assert.deepEqual(
      (await eventsOf(sidecar)).map(({ event }) => event),
      ['policy.reloaded'],
    );
  });
}

test('a file that comes into a folder, or leaves it, counts', async (context) => {
  const folder = await folderOf(context);
  await writeFile(join(folder, 'a.yaml'), allowing('a'));
  const sidecar = await started(context, folder);
  await writeFile(join(folder, 'b.yaml'), allowing('b').replace('some tools', 'more tools'));
  await sidecar.reloadPolicy();
  assert.deepEqual(await callable(sidecar, 'a', 'b'), ['a', 'b']);
  await rm(join(folder, 'a.yaml'));
  await sidecar.reloadPolicy();
  assert.deepEqual(await callable(sidecar, 'a', 'b'), ['b']);
});

for (const [what, text, place] of [
  ['that is no YAML', 'version: 1\nrules: [', /policy\.yaml:\d+/],
  ['with an unknown key', `${allowing('new')}rulez: []\n`, /policy\.yaml:4/],
  [
    'with a condition that does not compile',
    `${allowing('new')}  - { name: bad, deny: [ { tools: [x] } ], when: "args. <" }\n`,
    /policy\.yaml:4/,
  ],
  ['with an unknown role', `${allowing('new')}agents: { triage: { roles: [nobody] } }\n`, /policy\.yaml:4/],
  ['that is empty', '', /policy\.yaml/],
] as const) {
  test(`a new policy ${what} is refused with its place, and the last good one stays`, async (context) => {
    const file = join(await folderOf(context), 'policy.yaml');
    await writeFile(file, allowing('old'));
    const sidecar = await started(context, file);
    await writeFile(file, text);
    await sidecar.reloadPolicy();
    assert.deepEqual(await callable(sidecar, 'old', 'new'), ['old']);

    const [refused, ...more] = await eventsOf(sidecar);
    assert.equal(more.length, 0);
    assert.equal(refused.event, 'policy.refused');
    assert.match(refused.reason, place);
    assert.match(sidecar.logged.filter((line) => line.includes('the changed policy is refused')).join(), place);
    const metrics = await (await fetch(`${sidecar.admin}/metrics`)).text();
    assert.match(metrics, /^mcp_sidecar_policy_reloads_total\{outcome="refused"\} 1$/m);
    // What is wrong and stays so is said once.
    await sidecar.reloadPolicy();
    assert.equal((await eventsOf(sidecar)).length, 1);

    await writeFile(file, allowing('old', 'newer'));
    await sidecar.reloadPolicy();
    assert.deepEqual(await callable(sidecar, 'old', 'newer'), ['old', 'newer']);
    assert.deepEqual(
      (await eventsOf(sidecar)).map((line) => line.event),
      ['policy.refused', 'policy.reloaded'],
    );
  });
}

test('a policy file that is gone leaves the last good one in force, and counts again when it is back', async (context) => {
  const file = join(await folderOf(context), 'policy.yaml');
  await writeFile(file, allowing('old'));
  const sidecar = await started(context, file);
  await rm(file);
  await sidecar.reloadPolicy();
  assert.deepEqual(await callable(sidecar, 'old', 'new'), ['old']);
  await writeFile(file, allowing('new'));
  await sidecar.reloadPolicy();
  assert.deepEqual(await callable(sidecar, 'old', 'new'), ['new']);
});

test('an exchange under way keeps the policy that it began with', async (context) => {
  const file = join(await folderOf(context), 'policy.yaml');
  await writeFile(file, allowing('saw', 'drill'));
  const sidecar = await started(context, file);
  const waiting: { id: number; response: ServerResponse }[] = [];
  upstream.answer = (seen, response) => waiting.push({ id: seen.json.id, response });
  context.after(() => {
    upstream.answer = (seen, response) => sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: {} });
  });
  const tools = [{ name: 'saw' }, { name: 'drill' }];
  const answerAll = () => {
    for (const { id, response } of waiting.splice(0)) sendJson(response, { jsonrpc: '2.0', id, result: { tools } });
  };

  const listed = askLegacy(sidecar.base, { jsonrpc: '2.0', id: 1, method: 'tools/list' });
  const called = askLegacy(sidecar.base, toolCall('drill', {}, 2));
  await until(() => waiting.length === 2, 'both at the server');
  await writeFile(file, allowing('saw'));
  await sidecar.reloadPolicy();
  answerAll();
  assert.deepEqual((await listed).json.result.tools, tools);
  assert.ok((await called).json.result);

  const later = askLegacy(sidecar.base, { jsonrpc: '2.0', id: 3, method: 'tools/list' });
  await until(() => waiting.length === 1, 'the later list at the server');
  answerAll();
  assert.deepEqual((await later).json.result.tools, [{ name: 'saw' }]);

  const lines = (await sidecar.auditLines()).filter((line) => line.requestId !== undefined);
  const versionOf = new Map(lines.map((line) => [line.requestId, line.policy]));
  assert.equal(versionOf.get('1'), versionOf.get('2'));
  assert.notEqual(versionOf.get('1'), versionOf.get('3'));
});
