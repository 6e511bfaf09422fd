/** One valid bundle; each case changes one thing. */
import assert from 'node:assert/strict';
import { createPublicKey } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { takeBundle } from '../../sidecar/bundle/open.ts';
import { parsePublicKey, readPublicKeys } from '../../sidecar/bundle/public-key.ts';
import type { Situation } from '../../sidecar/bundle/verify.ts';
import { forge, makeSigner, PAYLOAD, signBundle, TYP } from '../support/policy-bundle.ts';

const signer = makeSigner();
const other = makeSigner();
const NOW = Date.parse('2026-06-01T00:00:00Z');

async function pinned(...pems: string[]) {
  const keys = await Promise.all(pems.map(parsePublicKey));
  return keys.map((key) => {
    assert.ok(key.ok, key.ok ? '' : key.error);
    return key.value;
  });
}

async function take(text: string, situation: Partial<Situation> = {}, pems = [signer.publicPem]) {
  const keys = await pinned(...pems);
  return takeBundle(text, keys, { group: 'support', latest: undefined, now: NOW, ...situation }, {});
}

async function refusal(...args: Parameters<typeof take>): Promise<string> {
  const taken = await take(...args);
  assert.ok(!taken.ok, 'should be refused');
  return taken.error;
}

const valid = await signBundle(signer);
const [head, payload, signature] = valid.split('.') as [string, string, string];
const [thumbprint] = (await pinned(signer.publicPem))[0]!.ids;
const FOREIGN = 'is not signed by a pinned key, or is not what was signed';
const CHANGED = 'has a signature that does not fit: it is not what was signed';
const NOT_WHOLE = 'is not whole, or not a bundle at all: a compact JWS is three parts with dots between them';
const HEADER = 'has a header that is not that of a bundle: alg, typ and kid, and nothing else';
const TYPE = `has not the typ ${TYP}: it was signed for something else`;
const WEAK = (alg: string) =>
  `is signed with ${alg}, which is refused: only asymmetric signatures (EdDSA, ES, RS, PS) count`;

test('a valid bundle is taken, with a line end behind it too', async () => {
  for (const text of [valid, `${valid}\n`]) {
    const taken = await take(text);
    assert.ok(taken.ok);
    assert.equal(taken.value.bundle.version, 7);
    assert.equal(taken.value.bundle.text, valid);
    assert.equal(taken.value.loaded.policy.grants.length, 1);
  }
});

describe('every kind of key that can be pinned', () => {
  for (const algorithm of ['EdDSA', 'ES256', 'ES384', 'ES512', 'RS256', 'RS512', 'PS256', 'PS384'])
    test(algorithm, async () => {
      const one = makeSigner(algorithm);
      const text = await signBundle(one);
      assert.ok((await take(text, {}, [one.publicPem])).ok);
      assert.ok((await take(text, {}, [signer.publicPem, one.publicPem])).ok, 'the second of two');
      assert.ok(!(await take(text, {}, [makeSigner(algorithm).publicPem])).ok, 'another key of its kind');
    });
});

describe('what is not signed as it must be', () => {
  const forged = { ...PAYLOAD, version: 8 };
  const cases: Record<string, readonly [text: string | Promise<string>, expected: string]> = {
    nothing: ['', NOT_WHOLE],
    'something else': ['<html>not found</html>', NOT_WHOLE],
    'cut off in the payload': [`${head}.${payload.slice(0, 20)}`, NOT_WHOLE],
    'cut off before the signature': [`${head}.${payload}.`, FOREIGN],
    'cut off in the signature': [valid.slice(0, -9), FOREIGN],
    'more parts': [`${valid}.x`, NOT_WHOLE],
    'another payload': [`${head}.${Buffer.from(JSON.stringify(forged)).toString('base64url')}.${signature}`, FOREIGN],
    'another key': [signBundle(other), FOREIGN],
    'another key, named': [
      signBundle(other, {}, { kid: 'release-2' }),
      'is not signed by a pinned key (it names the key release-2), or is not what was signed',
    ],
    'another key that is named in a way to mislead': [
      signBundle(other, {}, { kid: 'x\n{"event":"forged"}' }),
      'is not signed by a pinned key (it names the key (unprintable)), or is not what was signed',
    ],
    'another key under the name of the pinned one': [signBundle(other, {}, { kid: thumbprint }), CHANGED],
    'alg none': [forge({ alg: 'none', typ: TYP }, forged), WEAK('none')],
    'HS256 with the public key as the secret': [
      forge({ alg: 'HS256', typ: TYP }, forged, signer.publicPem),
      WEAK('HS256'),
    ],
    'an algorithm that the key is not for': [
      signBundle(makeSigner('ES256')),
      'is signed with ES256, and no pinned key is for that',
    ],
    'no typ': [signBundle(signer, {}, { typ: undefined }), TYPE],
    'the typ of something else': [signBundle(signer, {}, { typ: 'JWT' }), TYPE],
    'a key of its own in the header': [
      signBundle(other, {}, { jwk: createPublicKey(other.privateKey).export({ format: 'jwk' }) }),
      HEADER,
    ],
    'a header that is no JSON': [`${Buffer.from('{').toString('base64url')}.${payload}.${signature}`, HEADER],
  };
  for (const [what, [text, expected]] of Object.entries(cases))
    test(what, async () => assert.equal(await refusal(await text), expected));
});

describe('what is signed and still no bundle', () => {
  const shape = 'has not the shape of one: ';
  const cases: Record<string, readonly [payload: object | string, expected: string | RegExp]> = {
    'no JSON': ['version: 7', 'holds no JSON'],
    'a list': ['[]', `${shape}it must be a mapping`],
    'no version': [{ version: undefined }, `${shape}version must be a whole number`],
    'version 0': [{ version: 0 }, `${shape}version must be at least 1`],
    'half a version': [{ version: 7.5 }, `${shape}version must be a whole number`],
    'a version beyond what counts exactly': [{ version: 2 ** 60 }, /^has not the shape of one: version /],
    'a version in text': [{ version: '7' }, `${shape}version must be a whole number`],
    'an unknown member': [{ expires: 1 }, /^has not the shape of one: expires is not a known key/],
    'a time without its zone': [
      { expiresAt: '2026-07-01T00:00:00' },
      `${shape}expiresAt must be a time in UTC, such as 2026-03-01T12:00:00Z`,
    ],
    'a time as a number': [
      { issuedAt: 1_700_000_000 },
      `${shape}issuedAt must be a time in UTC, such as 2026-03-01T12:00:00Z`,
    ],
    'no policy': [{ policy: undefined }, `${shape}policy must be a policy`],
  };
  for (const [what, [change, expected]] of Object.entries(cases))
    test(what, async () => {
      const error = await refusal(await signBundle(signer, change));
      if (typeof expected === 'string') assert.equal(error, expected);
      else assert.match(error, expected);
    });
});

describe('what may not come into force here and now', () => {
  const latest = { version: 7, digest: 'another' };
  const cases: Record<string, readonly [change: object, situation: Partial<Situation>, expected: string]> = {
    'for another group': [{ group: 'sales' }, {}, 'is for the group sales, and this is support'],
    'an older version': [
      { version: 6 },
      { latest },
      'has version 6, and version 7 was in force before: to go back, sign the older policy under a higher version',
    ],
    'the same version with other content': [
      {},
      { latest },
      'has version 7 like the one before it, and differs from that: each change needs a higher version',
    ],
    expired: [{ expiresAt: '2026-05-31T23:59:59Z' }, {}, '(version 7) expired at 2026-05-31T23:59:59Z'],
    'expired this very moment': [
      { expiresAt: '2026-06-01T00:00:00Z' },
      {},
      '(version 7) expired at 2026-06-01T00:00:00Z',
    ],
    'with a policy that does not compile': [
      { policy: { version: 1, rules: [{ name: 'x', allow: [{ tools: ['*'] }], when: 'args. <' }], more: 1 } },
      {},
      '(version 7) holds a policy that does not compile:',
    ],
  };
  for (const [what, [change, situation, expected]] of Object.entries(cases))
    test(what, async () => {
      const error = await refusal(await signBundle(signer, change), situation);
      assert.equal(error.split('\n', 1)[0], expected);
    });

  test('every problem of its policy is told with its path', async () => {
    const policy = { version: 1, extends: 'library/observe', rules: [{ name: 'x', allow: [{ tools: [''] }] }] };
    const error = await refusal(await signBundle(signer, { policy }));
    assert.match(error, /\n {2}policy\.rules\[0\]\.allow\[0\]\.tools\[0\]: /);
    assert.match(error, /\n {2}policy.*extends/);
  });

  test('the same again, one newer, one for this group and one that expires later are taken', async () => {
    const again = await take(valid);
    assert.ok(again.ok);
    const { digest } = again.value.bundle;
    assert.ok((await take(valid, { latest: { version: 7, digest } })).ok);
    for (const change of [
      { version: 8 },
      { version: 8, group: 'support' },
      { version: 8, expiresAt: '2026-06-01T00:00:01Z' },
    ])
      assert.ok((await take(await signBundle(signer, change), { latest })).ok, JSON.stringify(change));
  });
});

describe('keys to pin', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bundle-keys-'));
  after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'key');
  const read = async (text: string) => {
    writeFileSync(file, text);
    return readPublicKeys([file]);
  };
  const jwk = (change: object = {}) =>
    JSON.stringify({ ...createPublicKey(signer.privateKey).export({ format: 'jwk' }), ...change });

  test('a JWK is as good as PEM, and its alg binds it', async () => {
    const keys = await read(jwk({ kid: 'release-1', alg: 'EdDSA' }));
    assert.ok(keys.ok);
    assert.deepEqual(keys.value[0]!.ids, [thumbprint, 'release-1']);
    assert.deepEqual(keys.value[0]!.algorithms, ['EdDSA']);
  });

  const isPrivate = 'holds a private key: name its public half here, and keep the private one with whoever signs';
  const neither = 'is neither a public key in PEM (-----BEGIN PUBLIC KEY-----) nor a public JWK';
  const noKind = 'is of no kind that a bundle can be signed with: Ed25519, P-256, P-384, P-521 or RSA';
  const bad: Record<string, readonly [text: string, expected: string]> = {
    'a private key': [signer.privatePem, isPrivate],
    'a private JWK': [JSON.stringify(signer.privateKey.export({ format: 'jwk' })), isPrivate],
    'a secret': [JSON.stringify({ kty: 'oct', k: 'c2VjcmV0' }), isPrivate],
    'a JWK for another algorithm': [jwk({ alg: 'ES256' }), noKind],
    'no key': ['hello', neither],
    'PEM of nothing': ['-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n', neither],
    'JSON of nothing': ['{}', neither],
    'a short RSA key': [makeSigner('RS256', 1024).publicPem, 'is an RSA key of less than 2048 bits'],
  };
  for (const [what, [text, expected]] of Object.entries(bad))
    test(`${what} is refused`, async () =>
      assert.deepEqual(await read(text), { ok: false, error: `${file} ${expected}` }));

  test('a file that is not there is named', async () => {
    const missing = join(folder, 'missing');
    assert.deepEqual(await readPublicKeys([missing]), { ok: false, error: `${missing} does not exist` });
  });
});
