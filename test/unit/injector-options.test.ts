/** injector.yaml: what is wrong with it is said when it is read, and not by each pod. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { loadInjectorConfig, optionsOf } from '../../injector/options.ts';

suite('injector.yaml', () => {
  let folder: string;
  const load = async (text: string) => {
    const file = join(folder, 'injector.yaml');
    await writeFile(file, text);
    return loadInjectorConfig(file);
  };
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'injector-options-'));
  });
  after(() => rm(folder, { recursive: true, force: true }));

  test('gives what the pods do not say', async () => {
    const config = await load('sidecar: { requests: { cpu: "0.7" }, limits: { cpu: 700m, memory: 128Mi } }\n');
    assert.ok(config.ok);
    const { requests, limits } = optionsOf(config.value);
    assert.deepEqual(
      [requests, limits],
      [
        { cpu: '0.7', memory: '128Mi' },
        { cpu: '700m', memory: '128Mi' },
      ],
    );
  });

  const refused: Record<string, [text: string, path: string, message: string]> = {
    'no quantity': ['limits: { cpu: much }', 'limits.cpu', 'must be a quantity such as 250m or 64Mi'],
    'a number': ['limits: { cpu: 1 }', 'limits.cpu', 'must be a quantity such as 250m or 64Mi, in quotes'],
    'thousandths of bytes': ['limits: { memory: 10m }', 'limits.memory', 'must be at least 16Mi'],
    'hardly any cpu': ['limits: { cpu: 1u }', 'limits.cpu', 'must be at least 1m'],
    'the user root': ['runAsUser: 0', 'runAsUser', 'must be at least 1'],
    'a user beyond all': ['runAsUser: 2147483648', 'runAsUser', 'must be at most 2147483647'],
    'a token for a moment': ['tokenSeconds: 599', 'tokenSeconds', 'must be at least 600'],
    'a token for ever': ['tokenSeconds: 86401', 'tokenSeconds', 'must be at most 86400'],
    'half a second': ['tokenSeconds: 600.5', 'tokenSeconds', 'must be a whole number'],
    'a request over its limit': [
      'requests: { cpu: 1001m }',
      'requests.cpu',
      'is more than the limit: give less, or more in limits.cpu',
    ],
    'a limit below the request': [
      'limits: { memory: 64Mi }',
      'requests.memory',
      'is more than the limit: give less, or more in limits.memory',
    ],
  };
  for (const [name, [text, path, message]] of Object.entries(refused))
    test(`${name} is refused`, async () => {
      const config = await load(`sidecar:\n  ${text}\n`);
      assert.ok(!config.ok);
      assert.deepEqual(
        config.error.map((problem) => [problem.path, problem.message]),
        [[`sidecar.${path}`, message]],
      );
    });
});
