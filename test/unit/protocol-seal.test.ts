import assert from 'node:assert/strict';
import { createCipheriv, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { createSealer, type SealedSession } from '../../sidecar/protocol/seal.ts';

const SESSION: SealedSession = {
  server: 'github',
  agent: 'triage',
  upstreamSessionId: 'a1b2-c3d4',
  protocolVersion: '2025-06-18',
  virtual: undefined,
};
const KEY = randomBytes(32);
const sealer = createSealer(KEY, randomBytes);

test('what was sealed opens', () => {
  for (const session of [
    SESSION,
    { ...SESSION, protocolVersion: undefined },
    { ...SESSION, virtual: 'support' },
    { ...SESSION, upstreamSessionId: '~!"\\{}'.repeat(100) },
    { ...SESSION, agent: 'é😀' },
  ]) {
    assert.deepEqual(sealer.open(sealer.seal(session)), session);
  }
});

test('a sealed id is visible ASCII, shows nothing, and differs each time', () => {
  const sealed = sealer.seal(SESSION);
  assert.match(sealed, /^[A-Za-z0-9_-]+$/);
  assert.ok(sealed.length < 160, `${sealed.length} characters`);
  assert.doesNotMatch(Buffer.from(sealed, 'base64url').toString('latin1'), /github|triage|a1b2/);
  assert.notEqual(sealed, sealer.seal(SESSION));
});

test('whatever was not sealed with this key opens to nothing', () => {
  const sealed = sealer.seal(SESSION);
  const bytes = Buffer.from(sealed, 'base64url');
  for (let index = 0; index < bytes.length; index++) {
    const flipped = Buffer.from(bytes);
    flipped[index]! ^= 1;
    assert.equal(sealer.open(flipped.toString('base64url')), undefined, `byte ${index}`);
  }
  for (let length = 0; length < sealed.length; length++)
    assert.equal(sealer.open(sealed.slice(0, length)), undefined, `${length} characters`);
  assert.equal(createSealer(randomBytes(32), randomBytes).open(sealed), undefined);
});

test('one session has one id: other spellings of the same bytes open to nothing', () => {
  const sealed = sealer.seal(SESSION);
  const others = [
    `${sealed}=`,
    `${sealed} `,
    ` ${sealed}`,
    `${sealed.slice(0, 9)}\n${sealed.slice(9)}`,
    `${sealed.slice(0, 9)}.${sealed.slice(9)}`,
    `${sealed}A`,
    sealed.replaceAll('-', '+').replaceAll('_', '/').concat('=='),
  ];
  for (const text of others) assert.equal(sealer.open(text), undefined, text);
  // Two of the sessions below end in a group whose last bits are not used.
  for (const agent of ['a', 'ab', 'abc']) {
    const text = sealer.seal({ ...SESSION, agent });
    const last = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'.indexOf(text.at(-1)!);
    const neighbour = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'[last ^ 1]!;
    assert.equal(sealer.open(text.slice(0, -1) + neighbour), undefined);
  }
});

test('noise of any length opens to nothing', () => {
  for (const text of ['', 'a', '-', 'x'.repeat(8192), 'x'.repeat(1_000_000), '\u{1f600}', '../../etc'])
    assert.equal(sealer.open(text), undefined);
  for (let length = 0; length < 200; length++)
    assert.equal(sealer.open(randomBytes(length).toString('base64url')), undefined);
});

test('an id longer than any header is not looked at', () => {
  assert.equal(sealer.open(sealer.seal({ ...SESSION, upstreamSessionId: 'x'.repeat(8192) })), undefined);
});

test('what the same key sealed for another purpose opens to nothing', () => {
  const nonce = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', KEY, nonce);
  const sealed = Buffer.concat([
    nonce,
    cipher.update(JSON.stringify(['github', 'triage', 'x', null])),
    cipher.final(),
    cipher.getAuthTag(),
  ]);
  assert.equal(sealer.open(sealed.toString('base64url')), undefined);
});
