import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import { decodeProtectedHeader, jwtVerify } from 'jose';
import { ok } from '../../policies/result.ts';
import { type Client, chooseAuthMethod, proveClient } from '../../sidecar/credentials/client-authentication.ts';

const NOW = 1_800_000_000_123;
const secretOf = (value: string) => ({ read: () => ok(value) });
const bare: Client = {
  clientId: 'agents',
  clientSecret: undefined,
  privateKey: undefined,
  keyId: undefined,
  algorithm: undefined,
};
const withSecret = { ...bare, clientSecret: secretOf('s') };
const withKey = { ...bare, privateKey: secretOf('k') };

test('client_secret_basic: id and secret are form-encoded before base64', async () => {
  const client = { ...bare, clientId: 'a:b c', clientSecret: secretOf('p%:+/&ä') };
  const proof = await proveClient('client_secret_basic', client, '', NOW);
  assert.ok(proof.ok);
  const decoded = Buffer.from(proof.value.headers.authorization!.replace('Basic ', ''), 'base64').toString();
  assert.equal(decoded, 'a%3Ab+c:p%25%3A%2B%2F%26%C3%A4');
  assert.deepEqual(proof.value.parameters, {});
});

test('client_secret_post: in the form, and nowhere else', async () => {
  const proof = await proveClient('client_secret_post', withSecret, '', NOW);
  assert.deepEqual(proof, ok({ headers: {}, parameters: { client_id: 'agents', client_secret: 's' } }));
});

const keys: readonly [name: string, algorithm: string, pair: ReturnType<typeof generateKeyPairSync>][] = [
  ['RSA', 'RS256', generateKeyPairSync('rsa', { modulusLength: 2048 }) as never],
  ['P-256', 'ES256', generateKeyPairSync('ec', { namedCurve: 'P-256' }) as never],
  ['P-384', 'ES384', generateKeyPairSync('ec', { namedCurve: 'P-384' }) as never],
  ['Ed25519', 'EdDSA', generateKeyPairSync('ed25519') as never],
];
for (const [name, algorithm, { privateKey, publicKey }] of keys as never as [string, string, KeyPair][])
  test(`private_key_jwt with ${name}: ${algorithm}, from PEM and from JWK`, async () => {
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
    const jwk = JSON.stringify({ ...privateKey.export({ format: 'jwk' }), kid: 'of-the-jwk' });
    for (const [text, keyId] of [
      [pem, undefined],
      [jwk, 'of-the-jwk'],
    ] as const) {
      const proof = await proveClient(
        'private_key_jwt',
        { ...bare, privateKey: secretOf(text) },
        'https://as.example',
        NOW,
      );
      assert.ok(proof.ok, JSON.stringify(proof));
      const { client_assertion: assertion, client_assertion_type: type } = proof.value.parameters;
      assert.equal(type, 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer');
      const { payload } = await jwtVerify(assertion!, publicKey, {
        algorithms: [algorithm],
        audience: 'https://as.example',
        issuer: 'agents',
        subject: 'agents',
        currentDate: new Date(NOW),
      });
      assert.equal(payload.iat, 1_800_000_000);
      assert.equal(payload.exp, 1_800_000_060);
      assert.match(payload.jti!, /^[0-9a-f-]{36}$/);
      assert.equal(decodeProtectedHeader(assertion!).kid, keyId);
    }
  });
type KeyPair = { privateKey: import('node:crypto').KeyObject; publicKey: import('node:crypto').KeyObject };

test('algorithm and keyId of the configuration win', async () => {
  const [, , { privateKey }] = keys[0] as never as [string, string, KeyPair];
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  const client = { ...bare, privateKey: secretOf(pem), algorithm: 'PS256', keyId: 'mine' };
  const proof = await proveClient('private_key_jwt', client, 'https://as.example', NOW);
  assert.ok(proof.ok);
  assert.deepEqual(decodeProtectedHeader(proof.value.parameters.client_assertion!), { alg: 'PS256', kid: 'mine' });
});

test('a key that cannot be used is refused without its content', async () => {
  const [, , { privateKey, publicKey }] = keys[1] as never as [string, string, KeyPair];
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  const attempts: readonly [text: string, algorithm: string | undefined][] = [
    ['canary', undefined],
    ['{"kty":"canary"}', undefined],
    ['{canary', undefined],
    [publicKey.export({ type: 'spki', format: 'pem' }).toString(), undefined],
    [pem, 'RS256'],
    [pem, 'HS256'],
    [pem, 'none'],
  ];
  for (const [text, algorithm] of attempts) {
    const client = { ...bare, privateKey: secretOf(text), algorithm };
    const proof = await proveClient('private_key_jwt', client, 'https://as.example', NOW);
    assert.ok(!proof.ok, text);
    assert.ok(!proof.error.includes('canary') && !proof.error.includes(text), proof.error);
  }
});

const choices: readonly [client: Client, supported: readonly string[] | undefined, chosen: string | undefined][] = [
  [withSecret, undefined, 'client_secret_basic'],
  [withSecret, ['client_secret_post', 'client_secret_basic'], 'client_secret_basic'],
  [withSecret, ['client_secret_post'], 'client_secret_post'],
  [withSecret, ['private_key_jwt', 'none'], undefined],
  [withKey, undefined, 'private_key_jwt'],
  [withKey, ['client_secret_basic', 'private_key_jwt'], 'private_key_jwt'],
  [withKey, ['client_secret_basic'], undefined],
  [bare, undefined, undefined],
];
for (const [client, supported, chosen] of choices)
  test(`with ${client.privateKey ? 'a key' : client.clientSecret ? 'a secret' : 'nothing'}, of ${supported} takes ${chosen}`, () => {
    const result = chooseAuthMethod(client, supported);
    assert.equal(result.ok ? result.value : undefined, chosen);
  });
