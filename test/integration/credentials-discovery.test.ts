/** Discovery against metadata servers that are hostile, broken or merely different. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, beforeEach, test } from 'node:test';
import { type ClientCredentialsConfig, createCredential } from '../../sidecar/credentials/create.ts';
import type { Credential } from '../../sidecar/credentials/credential.ts';
import { createEgress } from '../../sidecar/credentials/egress.ts';

process.env.CREDENTIALS_DISCOVERY_SECRET = 'canary';
const config = {
  type: 'client_credentials',
  clientId: 'agents',
  clientSecret: { env: 'CREDENTIALS_DISCOVERY_SECRET' },
} as const;
const servers: Server[] = [];
const credentials: Credential[] = [];
after(() => {
  for (const credential of credentials) credential.close();
  for (const server of servers) {
    server.close();
    server.closeAllConnections();
  }
});

type Page = object | RequestListener;

/** A server that has these pages (an object is sent as JSON) and notes what it is asked for. */
async function serve(pages: (origin: string) => Record<string, Page>) {
  const asked: string[] = [];
  const bodies: URLSearchParams[] = [];
  const server = createServer(async (request, response) => {
    asked.push(`${request.method} ${request.url}`);
    let body = '';
    for await (const chunk of request) body += chunk;
    bodies.push(new URLSearchParams(body));
    const page = pages(origin)[request.url ?? ''];
    if (typeof page === 'function') (page as RequestListener)(request, response);
    else response.writeHead(page === undefined ? 404 : 200).end(JSON.stringify(page));
  });
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { origin, asked, bodies };
}

/** Moved by tests; back to nothing before each. */
const clock = { ahead: 0 };
beforeEach(() => {
  clock.ahead = 0;
});

function create(url: string, change: Partial<ClientCredentialsConfig> = {}, logged: string[] = []): Credential {
  const credential = createCredential(
    { ...config, ...change },
    { name: 'github', url },
    { now: () => Date.now() + clock.ahead, random: () => 0, log: (_level, message) => logged.push(message) },
  );
  credentials.push(credential);
  return credential;
}

async function refusalOf(credential: Credential): Promise<string> {
  const result = await credential.headers();
  assert.ok(!result.ok, 'should be refused');
  assert.equal(result.error.kind, 'discovery');
  assert.ok(!result.error.detail.includes('canary'));
  return result.error.detail;
}

const token: Page = { access_token: 'token', token_type: 'Bearer', expires_in: 600 };
const PRM = '/.well-known/oauth-protected-resource';
const ASM = '/.well-known/oauth-authorization-server';
const OIDC = '/.well-known/openid-configuration';

test('the order: by path, root; then RFC 8414, OIDC inserted, OIDC appended; then one token request', async () => {
  const at = await serve((origin) => ({
    [PRM]: { resource: origin, authorization_servers: [`${origin}/t`] },
    [`/t${OIDC}`]: { issuer: `${origin}/t`, token_endpoint: `${origin}/token` },
    '/token': token,
  }));
  const result = await create(`${at.origin}/mcp`).headers();
  assert.deepEqual(result, { ok: true, value: { authorization: 'Bearer token' } });
  assert.deepEqual(at.asked, [
    `GET ${PRM}/mcp`,
    `GET ${PRM}`,
    `GET ${ASM}/t`,
    `GET ${OIDC}/t`,
    `GET /t${OIDC}`,
    'POST /token',
  ]);
  assert.deepEqual(Object.fromEntries(at.bodies.at(-1)!), { grant_type: 'client_credentials', resource: at.origin });
});

test('a server of 2025-03-26 is its own authorization server', async () => {
  const at = await serve((origin) => ({
    [ASM]: { issuer: origin, token_endpoint: `${origin}/token` },
    '/token': token,
  }));
  assert.equal((await create(`${at.origin}/mcp`).headers()).ok, true);
  assert.equal(at.bodies.at(-1)!.get('resource'), `${at.origin}/mcp`);
});

test('nothing known: called without a token once; a challenge with the metadata of another server is refused', async () => {
  const other = await serve((origin) => ({
    '/metadata': { resource: `${origin}/mcp`, authorization_servers: [origin] },
  }));
  const at = await serve(() => ({}));
  const credential = create(`${at.origin}/mcp`);
  assert.deepEqual(await credential.headers(), { ok: true, value: {} });
  assert.equal(credential.rejected({}, `Bearer resource_metadata="${other.origin}/metadata"`), true);
  assert.match(await refusalOf(credential), /names another resource/);
});

test('the challenge teaches place and scope; a later one cannot lead to another authorization server', async () => {
  const thief = await serve((origin) => ({
    [ASM]: { issuer: origin, token_endpoint: `${origin}/token` },
    '/token': token,
  }));
  const at = await serve((origin) => ({
    '/first': { resource: origin, authorization_servers: [`${origin}/t`] },
    '/second': { resource: origin, authorization_servers: [thief.origin] },
    [`${ASM}/t`]: { issuer: `${origin}/t`, token_endpoint: `${origin}/token` },
    '/token': token,
  }));
  const logged: string[] = [];
  const credential = create(`${at.origin}/mcp`, {}, logged);
  assert.deepEqual(await credential.headers(), { ok: true, value: {} });
  assert.equal(credential.rejected({}, `Bearer resource_metadata="${at.origin}/first", scope="a b"`), true);
  const headers = { authorization: 'Bearer token' };
  assert.deepEqual(await credential.headers(), { ok: true, value: headers });
  assert.equal(at.bodies.at(-1)!.get('scope'), 'a b');
  assert.equal(logged.length, 1);
  assert.match(logged[0]!, /tokens come from http:\/\/127\.0\.0\.1:\d+, on the server's word/);

  const again = create(`${at.origin}/mcp`);
  await again.headers();
  again.rejected({}, `Bearer resource_metadata="${at.origin}/first"`);
  await again.headers();
  clock.ahead = 1000;
  assert.equal(again.rejected(headers, `Bearer resource_metadata="${at.origin}/second"`), true);
  assert.match(await refusalOf(again), /names another authorization server than before/);
  assert.ok(!thief.asked.includes('POST /token'), 'the thief never sees the secret');
});

test('an authorization server that moves its token endpoint is looked up again', async () => {
  let path = '/old';
  const at = await serve((origin) => ({
    [ASM]: { issuer: origin, token_endpoint: `${origin}${path}` },
    [path]: token,
  }));
  const credential = create(`${at.origin}/mcp`, { issuer: at.origin });
  assert.equal((await credential.headers()).ok, true);
  path = '/new';
  clock.ahead = 600_000;
  assert.equal((await credential.headers()).ok, false);
  clock.ahead = 602_000;
  assert.equal((await credential.headers()).ok, true);
  assert.equal(at.asked.at(-1), 'POST /new');
});

test('discovery that was under way when a challenge named another place does not outlive its token', async () => {
  const asked = Promise.withResolvers<void>();
  const released = Promise.withResolvers<void>();
  let isDescribed = false;
  const at = await serve((origin) => ({
    ...(isDescribed && {
      [PRM]: async (_request: IncomingMessage, response: ServerResponse) => {
        asked.resolve();
        await released.promise;
        response.end(JSON.stringify({ resource: origin, authorization_servers: [origin] }));
      },
      [ASM]: { issuer: origin, token_endpoint: `${origin}/token` },
    }),
    '/named': { resource: `${origin}/mcp`, authorization_servers: [origin] },
    '/token': token,
  }));
  const credential = create(`${at.origin}/mcp`);
  assert.deepEqual(await credential.headers(), { ok: true, value: {} });
  isDescribed = true;
  clock.ahead = 30_000;
  const answer = credential.headers();
  await asked.promise;
  assert.equal(credential.rejected({}, `Bearer resource_metadata="${at.origin}/named"`), true);
  released.resolve();
  assert.equal((await answer).ok, true);
  clock.ahead = 640_000;
  assert.equal((await credential.headers()).ok, true);
  assert.equal(at.bodies.at(-1)!.get('resource'), `${at.origin}/mcp`);
});

test('without a usable word the refusal says what to configure', async () => {
  const at = await serve(() => ({}));
  const credential = create(`${at.origin}/mcp`);
  await credential.headers();
  credential.rejected({}, undefined);
  assert.match(await refusalOf(credential), /configure issuer/);
});

const redirect: RequestListener = (_request, response) => response.writeHead(302, { location: '/canary' }).end();
const huge: RequestListener = (_request, response) => response.end(' '.repeat(70_000));
const broken: RequestListener = (_request, response) => response.writeHead(500).end('canary');
const cut: RequestListener = (_request, response) => {
  response.writeHead(200, { 'content-length': '100' }).write('{');
  setImmediate(() => response.destroy());
};

const refused: readonly [why: string, pages: (origin: string) => Record<string, Page>, detail: RegExp][] = [
  ['a redirect', () => ({ [`${PRM}/mcp`]: redirect }), /answered a redirect, which is not followed/],
  ['a huge document', () => ({ [`${PRM}/mcp`]: huge }), /answered more than 64 KiB/],
  [
    'a server error, even where the next place has a document',
    (origin) => ({ [`${PRM}/mcp`]: broken, [PRM]: { resource: origin, authorization_servers: [origin] } }),
    /answered 500/,
  ],
  ['a document cut short', () => ({ [`${PRM}/mcp`]: cut }), /could not be reached/],
  [
    'another issuer',
    (origin) => ({
      [`${PRM}/mcp`]: { resource: origin, authorization_servers: [origin] },
      [ASM]: { issuer: 'https://evil.example', token_endpoint: `${origin}/token` },
    }),
    /names another issuer/,
  ],
  [
    'plain http beyond loopback',
    () => ({
      [`${PRM}/mcp`]: (request: IncomingMessage, response: ServerResponse) =>
        response.end(
          JSON.stringify({
            resource: `http://${request.headers.host}/mcp`,
            authorization_servers: ['http://192.0.2.1'],
          }),
        ),
    }),
    /plain http beyond loopback/,
  ],
  [
    'cloud metadata as issuer',
    (origin) => ({ [`${PRM}/mcp`]: { resource: origin, authorization_servers: ['http://169.254.169.254'] } }),
    /inner address/,
  ],
  [
    'cloud metadata in other spelling',
    (origin) => ({ [`${PRM}/mcp`]: { resource: origin, authorization_servers: ['https://[::ffff:a9fe:a9fe]'] } }),
    /inner address/,
  ],
  [
    'a file as issuer',
    (origin) => ({ [`${PRM}/mcp`]: { resource: origin, authorization_servers: ['file:///etc/passwd'] } }),
    /issuer is not an https URL/,
  ],
  [
    'a password in the issuer',
    (origin) => ({ [`${PRM}/mcp`]: { resource: origin, authorization_servers: [origin.replace('//', '//a:b@')] } }),
    /and user name/,
  ],
  [
    'no URL as issuer',
    (origin) => ({ [`${PRM}/mcp`]: { resource: origin, authorization_servers: ['canary'] } }),
    /issuer is not an https URL/,
  ],
];
for (const [why, pages, detail] of refused)
  test(`refused: ${why}`, async () => {
    const at = await serve(pages);
    assert.match(await refusalOf(create(`${at.origin}/mcp`)), detail);
    assert.ok(!at.asked.some((line) => line.includes('canary') || line.startsWith('POST')));
  });

test('a token endpoint that redirects gets the secret once, its target never', async () => {
  const target = await serve(() => ({ '/token': token }));
  const at = await serve((origin) => ({
    [ASM]: { issuer: origin, token_endpoint: `${origin}/token` },
    '/token': (_request: IncomingMessage, response: ServerResponse) =>
      response.writeHead(307, { location: `${target.origin}/token` }).end(),
  }));
  const result = await create(`${at.origin}/mcp`, { issuer: at.origin }).headers();
  assert.ok(!result.ok);
  assert.match(result.error.detail, /answered 307, a redirect, which is not followed/);
  assert.deepEqual(target.asked, []);
});

test('addresses nearer than the configured server are not connected to, by name or by number', async () => {
  const at = await serve(() => ({ '/': {} }));
  const { port } = new URL(at.origin);
  const signal = new AbortController().signal;
  const egress = createEgress([new URL('https://192.0.2.10/mcp')], undefined);
  for (const host of [
    '127.0.0.1',
    'localhost',
    '[::1]',
    '127.1',
    '2130706433',
    '0x7f000001',
    '[::ffff:127.0.0.1]',
    '0.0.0.0',
  ])
    for (const scheme of ['http', 'https']) {
      const result = await egress.get(new URL(`${scheme}://${host}:${port}/`), signal);
      assert.ok(!result.ok);
      assert.match(result.error, /inner address/, host);
    }
  assert.deepEqual(at.asked, []);
  const local = createEgress([new URL(at.origin)], undefined);
  assert.equal(
    (await local.get(new URL(`http://localhost:${port}/`), signal)).ok,
    true,
    'a local server may name local ones',
  );
});

test('closing gives up what is under way', async () => {
  const arrived = Promise.withResolvers<void>();
  const at = await serve(() => ({ [`${PRM}/mcp`]: () => arrived.resolve() }));
  const credential = create(`${at.origin}/mcp`);
  const answer = credential.headers();
  await arrived.promise;
  credential.close();
  const result = await answer;
  assert.ok(!result.ok);
  assert.match(result.error.detail, /given up/);
});
