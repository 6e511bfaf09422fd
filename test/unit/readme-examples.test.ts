/** What the READMEs show as YAML is right: configurations load, policies compile, and their cases hold. */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { parse } from 'yaml';
import { runCase } from '../../policies/cases.ts';
import { loadCases } from '../../sidecar/config/cases-file.ts';
import { loadPolicy } from '../../sidecar/config/policy-source.ts';
import { formatProblems } from '../../sidecar/config/problem.ts';
import { sidecarYaml } from '../../sidecar/config/schema.ts';

const PROJECT = join(import.meta.dirname, '..', '..');

interface Example {
  readonly place: string;
  readonly text: string;
  readonly value: Readonly<Record<string, unknown>>;
}

const EXAMPLES = globSync('{README.md,{policies,sidecar,injector,examples}/**/README.md}', { cwd: PROJECT }).flatMap(
  (file): Example[] => {
    const text = readFileSync(join(PROJECT, file), 'utf8');
    return Array.from(text.matchAll(/^```yaml\n(.*?)^```$/gms), ({ 1: yaml, index }) => ({
      place: `${file}:${text.slice(0, index).split('\n').length}`,
      text: yaml!,
      value: parse(yaml!),
    }));
  },
);
const LANGUAGE = EXAMPLES.find(({ place, value }) => place.startsWith('policies/') && 'agents' in value)!;

/** What the whole file has beside the part that is shown. */
const REST_OF_CONFIGURATION = { servers: { any: { url: 'https://any.example/mcp' } }, policy: { version: 1 } };
const KEYS_OF_CONFIGURATION = Object.keys(sidecarYaml('/').shape);

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'readme-examples-'));
  await writeFile(join(folder, 'team.yaml'), 'version: 1\n');
});
after(() => rm(folder, { recursive: true, force: true }));

describe('examples', () => {
  for (const { place, text, value } of EXAMPLES)
    it(`${place} is right`, async () => {
      if ('apiVersion' in value) return;
      if ('cases' in value) return assertCases(text);
      if (Object.keys(value).every((key) => KEYS_OF_CONFIGURATION.includes(key))) {
        const { error } = sidecarYaml('/').safeParse({ ...REST_OF_CONFIGURATION, ...value });
        assert.equal(error, undefined);
        return;
      }
      const locate = () => assert.fail();
      const policy = { version: 1, ...value };
      const loaded = await loadPolicy({ kind: 'inline', value: policy, folder, locate }, {});
      assert.ok(loaded.ok, loaded.ok ? '' : formatProblems(loaded.error));
    });
});

/** They are about the policy that shows the language. */
async function assertCases(text: string): Promise<void> {
  const virtual = EXAMPLES.find(({ value }) => 'virtualServers' in value)!;
  await writeFile(join(folder, 'policy.yaml'), `${LANGUAGE.text}${virtual.text}`);
  await writeFile(join(folder, 'policy.cases.yaml'), text);
  const loaded = await loadCases(join(folder, 'policy.cases.yaml'));
  assert.ok(loaded.ok, loaded.ok ? '' : formatProblems(loaded.error));
  const { policy, cases } = loaded.value;
  assert.deepEqual(
    cases.flatMap((one) => runCase(policy.policy, one).differences),
    [],
  );
}
