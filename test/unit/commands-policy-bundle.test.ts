import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { takeBundle } from '../../sidecar/bundle/open.ts';
import { readPublicKeys } from '../../sidecar/bundle/public-key.ts';
import { makeSigner } from '../support/policy-bundle.ts';

const MAIN = join(import.meta.dirname, '../../sidecar/main.ts');
const signer = makeSigner('ES256');

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'commands-policy-bundle-'));
  writeFileSync(join(folder, 'policy.yaml'), 'version: 1\nextends: [./base.yaml]\n');
  writeFileSync(join(folder, 'base.yaml'), 'version: 1\ndefault: allow\n');
  writeFileSync(join(folder, 'key.pem'), signer.privatePem, { mode: 0o600 });
  writeFileSync(join(folder, 'key.pub.pem'), signer.publicPem);
});
afterEach(() => rmSync(folder, { recursive: true }));

function bundle(...args: string[]) {
  const command = [MAIN, 'policy', 'bundle', '--policy', 'policy.yaml', '--key', 'key.pem', ...args];
  return spawnSync(process.execPath, command, { cwd: folder, encoding: 'utf8', timeout: 60_000 });
}

async function take(text: string, now = Date.now()) {
  const keys = await readPublicKeys([join(folder, 'key.pub.pem')]);
  assert.ok(keys.ok);
  return takeBundle(text, keys.value, { group: 'support', latest: undefined, now }, {});
}

test('what it prints is what a sidecar takes, with all that the policy extends', async () => {
  const { status, stdout, stderr } = bundle('--version', '7');
  assert.equal(status, 0, stderr);
  assert.match(stderr, /^bundle: version 7 for any group, without expiry, signed with ES256 by the key [\w-]{43}\n$/);
  const taken = await take(stdout);
  assert.ok(taken.ok, taken.ok ? '' : taken.error);
  assert.deepEqual(taken.value.bundle.policy, { version: 1, default: 'allow' });
  assert.equal(taken.value.bundle.expiresAt, undefined);
});

test('a file, for a group and for a time, told as JSON', async () => {
  const more = ['--expires', '30d', '--group', 'support', '--key-id', 'release-1', '-o', 'out.jws', '--json'];
  const { status, stdout, stderr } = bundle('--version', '8', ...more);
  assert.equal(status, 0, stderr);
  const { issuedAt, expiresAt, bytes, ...told } = JSON.parse(stdout);
  assert.deepEqual(told, {
    ok: true,
    version: 8,
    group: 'support',
    algorithm: 'ES256',
    keyId: 'release-1',
    output: 'out.jws',
  });
  assert.equal(Date.parse(expiresAt) - Date.parse(issuedAt), 30 * 86_400_000);
  assert.equal(stderr, '');
  const text = readFileSync(join(folder, 'out.jws'), 'utf8');
  assert.equal(text.trim().length, bytes);
  assert.ok((await take(text)).ok);
  assert.ok(!(await take(text, Date.parse(expiresAt))).ok);
});

test('JSON without a file holds the bundle', async () => {
  const { stdout } = bundle('--version', '8', '--json');
  assert.ok((await take(JSON.parse(stdout).bundle)).ok);
});

test('a key that others may read is warned of', { skip: process.platform === 'win32' && 'no modes there' }, () => {
  chmodSync(join(folder, 'key.pem'), 0o640);
  const { status, stderr } = bundle('--version', '7', '-o', 'out.jws');
  assert.equal(status, 0);
  assert.match(stderr, /^warning: key\.pem may be read by others than its owner: chmod 600 key\.pem\n/);
  assert.equal(statSync(join(folder, 'out.jws')).mode & 0o600, 0o600);
});

test('a policy that does not compile is not signed', () => {
  writeFileSync(join(folder, 'base.yaml'), 'version: 1\nrules: [{ name: x }]\n');
  const { status, stdout, stderr } = bundle('--version', '7', '-o', 'out.jws');
  assert.deepEqual([status, stdout], [2, '']);
  assert.match(stderr, /^base\.yaml:2:9 {2}rules\[0\]: needs exactly one of allow and deny\n$/);
  assert.ok(!existsSync(join(folder, 'out.jws')));
});

const WRONG: Record<string, readonly [args: readonly string[], expected: RegExp]> = {
  'no version': [[], /--version/],
  'version 0': [['--version', '0'], /It is not a whole number from 1 on/],
  'a lifetime without its unit': [['--version', '7', '--expires', '30'], /It is not a duration such as 30d/],
  'a public key': [
    ['--version', '7', '--key', 'key.pub.pem'],
    /key\.pub\.pem: the key is neither an unencrypted PEM private key nor a private JWK/,
  ],
  'a key that is not there': [['--version', '7', '--key', 'gone.pem'], /gone\.pem does not exist/],
  'a short RSA key': [['--version', '7', '--key', 'short.pem'], /the key is an RSA key of less than 2048 bits/],
  'a name that is none': [['--version', '7', '--group', ''], /group must/],
};
for (const [what, [args, expected]] of Object.entries(WRONG))
  test(`${what}: nothing is signed, and the exit code is 2`, () => {
    writeFileSync(join(folder, 'short.pem'), makeSigner('RS256', 1024).privatePem);
    const { status, stdout, stderr } = bundle(...args);
    assert.deepEqual([status, stdout], [2, ''], stderr);
    assert.match(stderr, expected);
    assert.ok(!stderr.includes('at file:'), 'no stack');
  });
