/**
 * Groups from ConfigMaps that anybody in a cluster may write: bounded before they are read, and refused with a sentence
 * that tells nothing of what they hold.
 */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { readGroup } from '../../injector/group.ts';
import { type Raw, rawAt } from '../../injector/raw-object.ts';
import { parseYaml } from '../../sidecar/config/yaml-document.ts';
import { CONFIG_MAP } from '../support/injector.ts';

const KIB = 1024;
const withText = (text: string): Raw => ({ ...CONFIG_MAP, data: { 'sidecar.yaml': text } });
const SERVERS = 'servers: { github: { url: "https://mcp.example/mcp" } }\n';
const keys = (count: number) => Array.from({ length: count }, (_, index) => `k${index}: 1\n`).join('');

suite('the sidecar.yaml of a group', () => {
  test('gives the names of its servers', () => {
    const group = readGroup(withText(`x: &x [1]\ny: *x\n${SERVERS}`));
    assert.deepEqual(group.ok && group.value.servers, ['github']);
  });
  test('may have 64 KiB, and no byte more', () => {
    const filled = (bytes: number) => `${SERVERS}#${'é'.repeat((bytes - SERVERS.length - 1) / 2)}`;
    const size = 64 * KIB + ((64 * KIB - SERVERS.length - 1) % 2);
    assert.equal(readGroup(withText(filled(size - 2))).ok, true);
    const larger = readGroup(withText(filled(size + 2)));
    assert.match(larger.ok ? '' : larger.error, /mcp-sidecar-support has a sidecar.yaml larger than 64 KiB/);
  });

  const refused: Record<string, string> = {
    'a key twice': `${SERVERS}a: 1\na: 2\n`,
    'the same key as number and as text': `${SERVERS}1: a\n"1": b\n`,
    'anchors that multiply': `a: &a [${'x,'.repeat(20)}]\nb: &b [${'*a,'.repeat(20)}]\nc: [${'*b,'.repeat(20)}]\n${SERVERS}`,
    'more aliases than anybody writes': `a: &a 1\nb: [${'*a,'.repeat(1_001)}]\n${SERVERS}`,
    'too many levels': `a: ${'['.repeat(10_000)}${']'.repeat(10_000)}\n${SERVERS}`,
    'two documents': `${SERVERS}---\n${SERVERS}`,
    'no servers': 'servers: []\n',
  };
  for (const [name, text] of Object.entries(refused))
    test(`is refused: ${name}`, () => {
      const group = readGroup(withText(text));
      assert.match(group.ok ? '' : group.error, /is not YAML with servers/);
    });
});

test('the names in its annotations are not told to whoever is refused', () => {
  for (const annotation of ['mcp-sidecar.io/service-accounts', 'mcp-sidecar.io/secrets']) {
    const group = readGroup({
      ...CONFIG_MAP,
      metadata: { ...rawAt(CONFIG_MAP, 'metadata'), annotations: { [annotation]: 'one,Payroll_Key' } },
    });
    const said = group.ok ? '' : group.error;
    assert.equal(said.includes('Payroll'), false);
    assert.match(said, new RegExp(`mcp-sidecar-support has in ${annotation} what is no name of Kubernetes`));
  }
});

/** Compared each with all before it, as many keys take minutes. */
const LONGEST_MS = 45_000;

test('the work of reading YAML grows with the text and no faster', () => {
  const texts = [keys(60_000), `a: {${'b, '.repeat(60_000)}}`, `${keys(60_000)}a: "`];
  const started = performance.now();
  for (const text of texts) parseYaml(text, 'sidecar.yaml');
  assert.ok(performance.now() - started < LONGEST_MS);
});
