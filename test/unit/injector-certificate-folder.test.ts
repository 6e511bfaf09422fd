/**
 * Certificates from a folder that is swapped as the kubelet does it: `tls.crt` leads to `..data/tls.crt`, and `..data`
 * to a folder of its own for each version, by a link that is renamed into its place.
 */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readlink, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, suite, type TestContext, test } from 'node:test';
import { type KeyPair, makeAuthority, makeLeaf } from '../../injector/certificate.ts';
import { CertificateFolder } from '../../injector/certificate-folder.ts';

const HOUR_MS = 3_600_000;
const NOW = Date.UTC(2026, 0, 1);

suite('a mounted certificate', () => {
  let one: KeyPair;
  let two: KeyPair;
  let ended: KeyPair;
  let future: KeyPair;
  before(async () => {
    const authority = await makeAuthority('test', NOW - HOUR_MS, 100 * HOUR_MS);
    [one, two, ended, future] = (await Promise.all(
      [NOW, NOW, NOW - HOUR_MS, NOW + HOUR_MS].map((from) => makeLeaf(authority, ['test'], from, HOUR_MS)),
    )) as [KeyPair, KeyPair, KeyPair, KeyPair];
  });

  test('is there as soon as it is mounted, and told of once', async (context) => {
    const { source, changes, warnings, mount } = await opened(context);
    await source.refresh();
    assert.equal(source.current, undefined);
    await mount(one);
    await source.refresh();
    await source.refresh();
    assert.deepEqual(source.current, one);
    assert.deepEqual(changes, [one]);
    assert.equal(warnings.length, 1);
    assert.match(warnings[0]!, /cannot be read \(ENOENT\); there is none to serve yet$/);
  });
  test('is followed by the next', async (context) => {
    const { source, changes, mount } = await opened(context);
    await mount(one);
    await source.refresh();
    await mount(two);
    await source.refresh();
    assert.deepEqual(changes, [one, two]);
  });

  const bad: Record<string, [pair: () => Partial<KeyPair>, words: RegExp]> = {
    'the key of another': [() => ({ ...two, key: one.key }), /the key is not the key of the certificate/],
    'one that has ended': [() => ended, /the certificate ended at 2026-01-01T00:00:00.000Z/],
    'one that has not begun': [() => future, /the certificate begins at 2026-01-01T00:55:00.000Z/],
    'no certificate': [() => ({ ...two, certificate: 'nothing of the kind' }), /the certificate cannot be read/],
    'no key': [() => ({ ...two, key: 'nothing of the kind' }), /the key cannot be read/],
    'a missing file': [() => ({ certificate: two.certificate }), /it cannot be read \(ENOENT\)/],
  };
  for (const [name, [pair, words]] of Object.entries(bad))
    test(`serves on while the next is ${name}, says so once, and takes the one after it`, async (context) => {
      const { source, changes, warnings, mount } = await opened(context);
      await mount(one);
      await source.refresh();
      await mount(pair());
      await source.refresh();
      await source.refresh();
      assert.deepEqual(source.current, one);
      assert.equal(warnings.length, 1);
      assert.match(warnings[0]!, words);
      assert.match(warnings[0]!, /the last good one is served on$/);
      assert.equal(warnings[0]!.includes('PRIVATE KEY'), false);
      await mount(two);
      await source.refresh();
      assert.deepEqual(changes, [one, two]);
      // A second time is a new fault.
      await mount(pair());
      await source.refresh();
      assert.equal(warnings.length, 2);
    });

  test('is never read half before and half after a swap', async (context) => {
    const { source, changes, warnings, mount } = await opened(context);
    await mount(one);
    let isDone = false;
    const reading = (async () => {
      while (!isDone) await source.refresh();
    })();
    for (let turn = 0; turn < 60; turn++) await mount(turn % 2 === 0 ? two : one);
    isDone = true;
    await reading;
    assert.ok(changes.length > 1);
    // The folder may go while it is read, as it does in a pod: then the next look finds the new one.
    assert.deepEqual(
      warnings.filter((text) => !text.includes('(ENOENT)')),
      [],
    );
  });
});

async function opened(context: TestContext) {
  const folder = await mkdtemp(join(tmpdir(), 'certificate-folder-'));
  context.after(() => rm(folder, { recursive: true, force: true }));
  const changes: KeyPair[] = [];
  const warnings: string[] = [];
  const source = new CertificateFolder(folder, {
    changed: (pair) => changes.push(pair),
    warn: (message) => warnings.push(message),
    now: () => NOW,
  });
  let version = 0;
  return { source, changes, warnings, mount: (pair: Partial<KeyPair>) => mount(folder, pair, ++version) };
}

/** One update of a mounted Secret. Source: kubernetes, pkg/volume/util/atomic_writer.go. */
async function mount(folder: string, { certificate, key }: Partial<KeyPair>, version: number): Promise<void> {
  const versionFolder = `..2026_${version}`;
  await mkdir(join(folder, versionFolder));
  for (const [name, content] of [
    ['tls.crt', certificate],
    ['tls.key', key],
  ] as const)
    if (content !== undefined) await writeFile(join(folder, versionFolder, name), content, { mode: 0o600 });
  const old = await readlink(join(folder, '..data')).catch(() => undefined);
  await symlink(versionFolder, join(folder, '..data_tmp'));
  await rename(join(folder, '..data_tmp'), join(folder, '..data'));
  for (const name of ['tls.crt', 'tls.key'])
    await symlink(join('..data', name), join(folder, name)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    });
  if (old !== undefined) await rm(join(folder, old), { recursive: true });
}
