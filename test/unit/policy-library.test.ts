/** The library of policies: its own cases hold and cover it, its policies go together, and they fit the real servers. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { coverageOf, runCase } from '../../policies/cases.ts';
import { type LoadedCases, loadCases } from '../../sidecar/config/cases-file.ts';
import { libraryFolder, loadPolicy, policyPath } from '../../sidecar/config/policy-source.ts';
import { formatProblems } from '../../sidecar/config/problem.ts';

const PROJECT = join(import.meta.dirname, '..', '..');
const NAMES = readdirSync(libraryFolder())
  .filter((name) => !name.endsWith('.cases.yaml'))
  .map((name) => name.replace(/\.yaml$/, ''));

async function casesOf(name: string): Promise<LoadedCases> {
  const loaded = await loadCases(join(libraryFolder(), `${name}.cases.yaml`));
  assert.ok(loaded.ok, loaded.ok ? '' : formatProblems(loaded.error));
  return loaded.value;
}

for (const name of NAMES)
  describe(`library/${name}`, () => {
    it('says what it is for, what it does not do, and how it is used', () => {
      const [comment] = /^(?:#.*\n)+/.exec(readFileSync(policyPath(`library/${name}`, '.'), 'utf8')) ?? [''];
      assert.ok(comment.length > 200);
      assert.match(comment, /What it does not do: /);
      assert.match(comment, new RegExp(`Use: .*library/${name}`));
    });

    it('its cases hold, and cover every role, rule and quota', async () => {
      const { policy, cases } = await casesOf(name);
      const results = cases.map((one) => runCase(policy.policy, one));
      assert.deepEqual(
        results.flatMap((result) => result.differences.map((difference) => ({ case: result.name, ...difference }))),
        [],
      );
      assert.ok(results.length > 0);
      const missing = coverageOf(policy.policy, results).filter(({ covered }) => !covered);
      assert.deepEqual(missing, []);
    });

    it('loads by its name', async () => {
      const loaded = await loadPolicy({ kind: 'path', path: policyPath(`library/${name}`, '.') }, {});
      assert.ok(loaded.ok, loaded.ok ? '' : formatProblems(loaded.error));
      // What is not to be enforced, or open by default, is only what says so by its name.
      assert.equal(loaded.value.policy.audit, name === 'observe');
      assert.equal(loaded.value.policy.allowByDefault, false);
    });
  });

it('all of them go together: no name stands in two', async () => {
  const value = { version: 1, default: 'deny', mode: 'enforce', extends: NAMES.map((name) => `library/${name}`) };
  const locate = () => assert.fail();
  const loaded = await loadPolicy({ kind: 'inline', value, folder: '/', locate }, {});
  assert.ok(loaded.ok, loaded.ok ? '' : formatProblems(loaded.error));
  assert.equal(loaded.value.watch.length, NAMES.length);
});

it('all of them are in the package', () => {
  const { files } = JSON.parse(readFileSync(join(PROJECT, 'package.json'), 'utf8'));
  assert.ok(files.includes('policies/library'));
});

it('the tools that library/filesystem names are those of the server, each on its side of reading and writing', () => {
  const server = readFileSync(
    join(PROJECT, 'node_modules/@modelcontextprotocol/server-filesystem/dist/index.js'),
    'utf8',
  );
  const tools = Array.from(
    server.matchAll(/registerTool\("(\w+)"[\s\S]*?readOnlyHint: (true|false)/g),
    ([, name, readOnly]) => ({ name: name!, readOnly: readOnly === 'true' }),
  );
  assert.ok(tools.length >= 14);
  const policy = readFileSync(policyPath('library/filesystem', '.'), 'utf8');
  const [, reading = ''] = /tools: &reading\n((?: +- \w+\n)+)/.exec(policy) ?? [];
  const [, writing = ''] = /filesystem-writer:[\s\S]*?tools: \[([^\]]+)\]/.exec(policy) ?? [];
  const namesIn = (text: string) => (text.match(/\w+/g) ?? []).sort();
  const namesOf = (readOnly: boolean) => tools.filter((tool) => tool.readOnly === readOnly).map(({ name }) => name);
  assert.deepEqual(namesIn(reading), namesOf(true).sort());
  assert.deepEqual(namesIn(writing), namesOf(false).sort());
});
