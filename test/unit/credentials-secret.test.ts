import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, symlinkSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { createSecret } from '../../sidecar/credentials/secret.ts';
import { createStaticHeaders } from '../../sidecar/credentials/static-headers.ts';

const folder = mkdtempSync(join(tmpdir(), 'credentials-'));
after(() => rmSync(folder, { recursive: true }));
let files = 0;
function fileWith(content: string): string {
  files += 1;
  const path = join(folder, `secret-${files}`);
  writeFileSync(path, content);
  return path;
}
const readFile = (file: string) => createSecret({ file }).read();

test('a file is read without one trailing newline', () => {
  for (const [content, value] of [
    ['abc', 'abc'],
    ['abc\n', 'abc'],
    ['abc\r\n', 'abc'],
    ['abc\n\n', 'abc\n'],
    [' abc ', ' abc '],
  ] as const)
    assert.deepEqual(readFile(fileWith(content)), { ok: true, value });
});

test('a changed file is read again: other content, same size and time, and a swapped link', () => {
  const file = fileWith('old');
  const secret = createSecret({ file });
  assert.deepEqual(secret.read(), { ok: true, value: 'old' });
  writeFileSync(file, 'newer');
  assert.deepEqual(secret.read(), { ok: true, value: 'newer' });

  const link = join(folder, 'link');
  const [first, second] = [fileWith('one'), fileWith('two')];
  const { atime, mtime } = statSync(first);
  utimesSync(second, atime, mtime);
  symlinkSync(first, link);
  const linked = createSecret({ file: link });
  assert.deepEqual(linked.read(), { ok: true, value: 'one' });
  unlinkSync(link);
  symlinkSync(second, link);
  assert.deepEqual(linked.read(), { ok: true, value: 'two' });
  unlinkSync(link);
  assert.equal(linked.read().ok, false);
});

test('what is wrong is said by name, never by content', () => {
  const big = fileWith('canary'.repeat(20_000));
  for (const [path, expected] of [
    [fileWith(''), /secret-\d+ is empty/],
    [fileWith('\n'), /secret-\d+ is empty/],
    [big, /larger than 65536 bytes/],
    [folder, /is not a regular file/],
    [join(folder, 'absent'), /absent cannot be read \(ENOENT\)/],
  ] as const) {
    const result = readFile(path);
    assert.ok(!result.ok);
    assert.match(result.error, expected);
    assert.ok(!result.error.includes('canary'));
  }
});

test('a variable is read; missing and empty are told apart', () => {
  process.env.CREDENTIALS_TEST_SECRET = 'abc';
  const secret = createSecret({ env: 'CREDENTIALS_TEST_SECRET' });
  assert.deepEqual(secret.read(), { ok: true, value: 'abc' });
  process.env.CREDENTIALS_TEST_SECRET = '';
  assert.deepEqual(secret.read(), { ok: false, error: 'the environment variable CREDENTIALS_TEST_SECRET is empty' });
  delete process.env.CREDENTIALS_TEST_SECRET;
  assert.deepEqual(secret.read(), { ok: false, error: 'the environment variable CREDENTIALS_TEST_SECRET is not set' });
});

test('static headers: prefix, names in lower case, renewed within a second of a rotation', () => {
  let now = 0;
  const file = fileWith('k1');
  const header = { name: 'X-Api-Key', prefix: 'Key ', secret: createSecret({ file }) };
  const credential = createStaticHeaders([header], () => now);
  assert.deepEqual(credential.headers(), { ok: true, value: { 'x-api-key': 'Key k1' } });
  writeFileSync(file, 'k2-longer');
  now = 999;
  assert.deepEqual(credential.headers(), { ok: true, value: { 'x-api-key': 'Key k1' } });
  now = 1000;
  assert.deepEqual(credential.headers(), { ok: true, value: { 'x-api-key': 'Key k2-longer' } });
});

test('rejected static headers are worth another try only when the file has changed', () => {
  const file = fileWith('k1');
  const credential = createStaticHeaders([{ name: 'x-key', prefix: '', secret: createSecret({ file }) }], () => 0);
  const used = { 'x-key': 'k1' };
  assert.equal(credential.rejected(used, undefined), false);
  writeFileSync(file, 'k2-longer');
  assert.equal(credential.rejected(used, undefined), true);
  assert.deepEqual(credential.headers(), { ok: true, value: { 'x-key': 'k2-longer' } });
});

test('a secret that would break out of its header is refused, without its content', () => {
  for (const content of ['canary\r\nx-admin: 1', 'canary\0', 'canaryä']) {
    const secret = createSecret({ file: fileWith(content) });
    const result = createStaticHeaders([{ name: 'x-key', prefix: '', secret }], () => 0).headers();
    assert.ok(!(result instanceof Promise) && !result.ok);
    assert.equal(result.error.kind, 'secretMissing');
    assert.ok(!result.error.detail.includes('canary'));
  }
});
