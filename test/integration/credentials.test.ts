/** Machine credentials against a real authorization server and a protected server, over real sockets. */
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { decodeJwt } from 'jose';
import { type AuthorizationServer, startAuthorizationServer } from '../../examples/support/authorization-server.ts';
import { protect } from '../../examples/support/protected-server.ts';
import { type ClientCredentialsConfig, createCredential } from '../../sidecar/credentials/create.ts';
import type { Credential } from '../../sidecar/credentials/credential.ts';

const SECRET = 'canary:secret/+ %';
const SCOPES = ['read', 'write'];
const folder = mkdtempSync(join(tmpdir(), 'credentials-'));
const secretFile = join(folder, 'client-secret');
const keyFile = join(folder, 'client-key');
const { privateKey, publicKey } = generateKeyPairSync('ed25519');

const server = createServer();
let url: URL;
let issuing: AuthorizationServer;
let seen: string[] = [];
let logged: string[] = [];
const clock = { ahead: 0 };
const credentials: Credential[] = [];

const startIssuing = (port = 0) =>
  startAuthorizationServer({
    clients: [
      { clientId: 'basic id', method: 'client_secret_basic', secret: SECRET },
      { clientId: 'post', method: 'client_secret_post', secret: SECRET },
      { clientId: 'key', method: 'private_key_jwt', publicKey: { ...publicKey.export({ format: 'jwk' }), kid: 'k1' } },
    ],
    resources: [url.href],
    scopes: SCOPES,
    port,
  });

before(async () => {
  // oidc-provider warns about its in-memory store, which is what this wants.
  console.warn = () => {};
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  url = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`);
  issuing = await startIssuing();
  const guarded = protect((_request, response) => response.end('served'), {
    resource: url,
    issuer: issuing.issuer,
    scopes: SCOPES,
  });
  server.on('request', (request, response) => {
    seen.push(`${request.method} ${request.url}`);
    guarded(request, response);
  });
});

beforeEach(() => {
  writeFileSync(secretFile, `${SECRET}\n`);
  writeFileSync(keyFile, privateKey.export({ type: 'pkcs8', format: 'pem' }));
  [seen, logged, clock.ahead] = [[], [], 0];
});

after(async () => {
  for (const credential of credentials) credential.close();
  server.close();
  server.closeAllConnections();
  await issuing.close();
  rmSync(folder, { recursive: true });
});

const basic = { type: 'client_credentials', clientId: 'basic id', clientSecret: { file: secretFile } } as const;

function create(config: ClientCredentialsConfig): Credential {
  const credential = createCredential(
    config,
    { name: 'github', url: url.href },
    { now: () => Date.now() + clock.ahead, random: () => 0.5, log: (_level, message) => logged.push(message) },
  );
  credentials.push(credential);
  return credential;
}

async function headersOf(credential: Credential) {
  const result = await credential.headers();
  assert.ok(result.ok, JSON.stringify(result));
  return result.value;
}

async function failureOf(credential: Credential) {
  const result = await credential.headers();
  assert.ok(!result.ok);
  assert.ok(!JSON.stringify([result.error, logged]).includes('canary'), 'no secret in any text');
  return result.error;
}

/** As the pipeline does it: one call, and one more when a 401 is worth another try. */
async function call(credential: Credential): Promise<number[]> {
  const statuses: number[] = [];
  for (let attempt = 0; attempt < 2; attempt += 1) {
    const headers = await headersOf(credential);
    const response = await fetch(url, { method: 'POST', headers });
    await response.text();
    statuses.push(response.status);
    if (response.status !== 401) break;
    if (!credential.rejected(headers, response.headers.get('www-authenticate') ?? undefined)) break;
  }
  return statuses;
}

const jwkText = JSON.stringify({ ...privateKey.export({ format: 'jwk' }), kid: 'k1', alg: 'EdDSA' });
const ways: readonly [name: string, config: ClientCredentialsConfig][] = [
  ['client_secret_basic', basic],
  ['client_secret_post', { ...basic, clientId: 'post', authMethod: 'client_secret_post' }],
  ['private_key_jwt, PEM', { type: 'client_credentials', clientId: 'key', privateKey: { file: keyFile } }],
  [
    'private_key_jwt, JWK',
    { type: 'client_credentials', clientId: 'key', privateKey: { env: 'CREDENTIALS_TEST_JWK' } },
  ],
];
for (const [name, config] of ways)
  test(`${name}: a token for this server, with the scopes of its challenge, is served`, async () => {
    process.env.CREDENTIALS_TEST_JWK = jwkText;
    const credential = create(config);
    assert.deepEqual(await call(credential), [401, 200], 'the challenge teaches the scopes');
    assert.deepEqual(await call(credential), [200]);
    const claims = decodeJwt((await headersOf(credential)).authorization!.slice('Bearer '.length));
    assert.equal(claims.aud, url.href);
    assert.equal(claims.client_id, config.clientId);
    assert.equal(claims.scope, 'read write');
  });

test('configured scopes are asked for at once, and a challenge does not widen them', async () => {
  const all = create({ ...basic, scopes: SCOPES });
  assert.deepEqual(await call(all), [200]);
  const fewer = create({ ...basic, scopes: ['read'] });
  assert.deepEqual(await call(fewer), [401, 401]);
  assert.equal(decodeJwt((await headersOf(fewer)).authorization!.slice(7)).scope, 'read');
});

test('issuer or tokenEndpoint configured: the server is not asked', async () => {
  for (const place of [{ issuer: issuing.issuer }, { tokenEndpoint: `${issuing.issuer}/token` }]) {
    await headersOf(create({ ...basic, ...place }));
    assert.deepEqual(seen, []);
  }
});

test('1,000 concurrent callers: one token request; then no promise', async () => {
  const credential = create({ ...basic, scopes: SCOPES });
  const earlier = issuing.tokenRequests();
  const answers = await Promise.all(Array.from({ length: 1000 }, () => headersOf(credential)));
  assert.equal(issuing.tokenRequests() - earlier, 1);
  assert.equal(new Set(answers.map(({ authorization }) => authorization)).size, 1);
  assert.ok(!(credential.headers() instanceof Promise));
});

test('renewed before it expires, in the background', async () => {
  const credential = create({ ...basic, issuer: issuing.issuer });
  const first = await headersOf(credential);
  const earlier = issuing.tokenRequests();
  clock.ahead = 3_000_000;
  const deadline = Date.now() + 5000;
  let current = first;
  while (current.authorization === first.authorization && Date.now() < deadline) {
    const answer = credential.headers();
    assert.ok(!(answer instanceof Promise) && answer.ok, 'no caller ever waits');
    current = answer.value;
    await new Promise((done) => setImmediate(done));
  }
  assert.notEqual(current.authorization, first.authorization);
  assert.equal(issuing.tokenRequests() - earlier, 1);
});

test('a 401 for a token leads to one forced renewal, for all callers together', async () => {
  const credential = create({ ...basic, scopes: SCOPES });
  const used = await headersOf(credential);
  const earlier = issuing.tokenRequests();
  const renewed = await Promise.all(
    Array.from({ length: 100 }, () => {
      assert.equal(credential.rejected(used, 'Bearer error="invalid_token"'), true);
      return headersOf(credential);
    }),
  );
  assert.equal(issuing.tokenRequests() - earlier, 1);
  assert.notEqual(renewed[0]!.authorization, used.authorization);
  assert.equal(credential.rejected(renewed[0]!, undefined), false, 'and not again at once');
});

test('a wrong secret is refused with a reason, without the secret, and picked up when the file is rotated', async () => {
  writeFileSync(secretFile, 'canary-wrong');
  const credential = create({ ...basic, issuer: issuing.issuer });
  const earlier = issuing.tokenRequests();
  const failure = await failureOf(credential);
  assert.equal(failure.kind, 'refused');
  assert.match(failure.detail, /token endpoint at http:\/\/127\.0\.0\.1:\d+ answered 401 invalid_client: check/);
  for (let caller = 0; caller < 100; caller += 1) await failureOf(credential);
  assert.equal(issuing.tokenRequests() - earlier, 1, 'the failure is remembered');

  writeFileSync(secretFile, SECRET);
  clock.ahead = failure.retryAfterMs + 1;
  assert.match((await headersOf(credential)).authorization!, /^Bearer /);
});

test('a missing secret, an unknown resource and an unknown scope say what to do', async () => {
  const cases: readonly [change: Partial<ClientCredentialsConfig>, kind: string, detail: RegExp][] = [
    [{ clientSecret: { file: join(folder, 'absent') } }, 'secretMissing', /absent cannot be read/],
    [{ resource: 'https://elsewhere.example' }, 'refused', /invalid_target.*check resource/],
    [{ authMethod: 'private_key_jwt' }, 'secretMissing', /needs privateKey/],
    [{ tokenEndpoint: `${issuing.issuer}/nowhere` }, 'tokenEndpoint', /answered 404/],
    [{ issuer: `${issuing.issuer}/` }, 'discovery', /names another issuer/],
  ];
  for (const [change, kind, detail] of cases) {
    const failure = await failureOf(create({ ...basic, issuer: issuing.issuer, ...change }));
    assert.equal(failure.kind, kind);
    assert.match(failure.detail, detail);
  }
});

test('the authorization server goes down and comes back', async () => {
  const credential = create({ ...basic, issuer: issuing.issuer });
  const { port } = issuing;
  await issuing.close();
  const failure = await failureOf(credential);
  assert.equal(failure.kind, 'discovery');
  assert.match(failure.detail, /could not be reached \(ECONNREFUSED\)/);
  assert.ok(failure.retryAfterMs > 0 && failure.retryAfterMs <= 1000);

  issuing = await startIssuing(port);
  clock.ahead = failure.retryAfterMs + 1;
  await headersOf(credential);
});
