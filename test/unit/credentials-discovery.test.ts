import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Zone, zoneOf } from '../../sidecar/credentials/address-zone.ts';
import {
  authorizationServerMetadataUrls,
  canonicalResource,
  processAuthorizationServerMetadata,
  processResourceMetadata,
  resourceMetadataUrls,
} from '../../sidecar/credentials/discovery.ts';

const server = new URL('https://mcp.example/a/mcp');
const text = (urls: readonly URL[]) => urls.map(({ href }) => href);

test('protected-resource metadata: by path, then at the root', () => {
  assert.deepEqual(text(resourceMetadataUrls(server)), [
    'https://mcp.example/.well-known/oauth-protected-resource/a/mcp',
    'https://mcp.example/.well-known/oauth-protected-resource',
  ]);
  assert.deepEqual(text(resourceMetadataUrls(new URL('https://mcp.example/'))), [
    'https://mcp.example/.well-known/oauth-protected-resource',
  ]);
});

test('authorization-server metadata: RFC 8414, OIDC inserted, OIDC appended', () => {
  const expected = [
    'https://as.example/.well-known/oauth-authorization-server/t',
    'https://as.example/.well-known/openid-configuration/t',
    'https://as.example/t/.well-known/openid-configuration',
  ];
  assert.deepEqual(text(authorizationServerMetadataUrls(new URL('https://as.example/t'))), expected);
  assert.deepEqual(text(authorizationServerMetadataUrls(new URL('https://as.example/t/'))), expected);
  assert.deepEqual(text(authorizationServerMetadataUrls(new URL('https://as.example'))), [
    'https://as.example/.well-known/oauth-authorization-server',
    'https://as.example/.well-known/openid-configuration',
  ]);
});

test('the canonical resource has no fragment and no trailing slash', () => {
  for (const [url, expected] of [
    ['https://MCP.example', 'https://mcp.example'],
    ['https://mcp.example/a/', 'https://mcp.example/a'],
    ['https://mcp.example:443/a#x', 'https://mcp.example/a'],
    ['https://mcp.example/a?b=c/', 'https://mcp.example/a?b=c/'],
  ] as const)
    assert.equal(canonicalResource(new URL(url)), expected);
});

const resourceMetadata = { resource: server.href, authorization_servers: ['https://as.example'] };
const resourceCases: readonly [change: object, accepted: boolean][] = [
  [{}, true],
  [{ resource: 'https://mcp.example' }, true],
  [{ resource: 'https://mcp.example/a/' }, true],
  [{ resource: 'https://mcp.example/a/mcp/' }, true],
  [{ resource: 'https://mcp.example/a/mc' }, false],
  [{ resource: 'https://mcp.example/b/mcp' }, false],
  [{ resource: 'https://evil.example/a/mcp' }, false],
  [{ resource: 'http://mcp.example/a/mcp' }, false],
  [{ resource: 'https://mcp.example:444/a/mcp' }, false],
  [{ resource: 'https://mcp.example@evil.example/a/mcp' }, false],
  [{ resource: `${server.href}#x` }, false],
  [{ resource: `${server.href}?tenant=1` }, false],
  [{ resource: undefined }, false],
  [{ resource: 7 }, false],
  [{ authorization_servers: undefined }, false],
  [{ authorization_servers: [] }, false],
  [{ authorization_servers: [{}] }, false],
  [{ authorization_servers: 'https://as.example' }, false],
];
for (const [change, accepted] of resourceCases)
  test(`protected-resource metadata with ${JSON.stringify(change)} is ${accepted ? 'accepted' : 'refused'}`, () => {
    assert.equal(processResourceMetadata(server, JSON.stringify({ ...resourceMetadata, ...change })).ok, accepted);
  });

const serverMetadata = { issuer: 'https://as.example', token_endpoint: 'https://as.example/token' };
const serverCases: readonly [change: object, accepted: boolean][] = [
  [{}, true],
  [{ token_endpoint: 'https://elsewhere.example/token' }, true],
  [{ issuer: 'https://as.example/' }, false],
  [{ issuer: 'https://AS.example' }, false],
  [{ issuer: 'https://evil.example' }, false],
  [{ issuer: undefined }, false],
  [{ token_endpoint: undefined }, false],
  [{ token_endpoint: '/token' }, false],
  [{ token_endpoint: 'https://as.example/token#x' }, false],
  [{ token_endpoint_auth_methods_supported: 'all' }, false],
];
for (const [change, accepted] of serverCases)
  test(`authorization-server metadata with ${JSON.stringify(change)} is ${accepted ? 'accepted' : 'refused'}`, () => {
    const body = JSON.stringify({ ...serverMetadata, ...change });
    assert.equal(processAuthorizationServerMetadata('https://as.example', body).ok, accepted);
  });

test('what is not a JSON object is refused', () => {
  for (const body of ['', 'null', '[]', '1', '"x"', '{', '<html>']) {
    assert.equal(processResourceMetadata(server, body).ok, false);
    assert.equal(processAuthorizationServerMetadata('https://as.example', body).ok, false);
  }
});

test('the default of token_endpoint_auth_methods_supported is client_secret_basic', () => {
  const result = processAuthorizationServerMetadata('https://as.example', JSON.stringify(serverMetadata));
  assert.deepEqual(result.ok && result.value.authMethods, ['client_secret_basic']);
});

const zones: readonly [zone: Zone, addresses: string][] = [
  [Zone.PUBLIC, '8.8.8.8 172.32.0.1 100.128.0.1 169.253.0.1 2606:4700::1111 ::ffff:8.8.8.8'],
  [Zone.PRIVATE, '10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 198.19.0.1 fd00::1 fc00::1'],
  [Zone.PRIVATE, '::ffff:10.0.0.1 64:ff9b::a00:1 2002:a00:1::1 ::10.0.0.1'],
  [Zone.LOOPBACK, '127.0.0.1 127.255.255.254 ::1 ::ffff:127.0.0.1 ::ffff:7f00:1'],
  [Zone.NEVER, '0.0.0.0 169.254.169.254 ::ffff:169.254.169.254 100.100.100.200 fd00:ec2::254 fe80::1 :: ff02::1'],
  [Zone.NEVER, '255.255.255.255 224.0.0.1 not-an-address'],
];
for (const [zone, addresses] of zones)
  for (const address of addresses.split(' '))
    test(`${address} is in zone ${zone}`, () => assert.equal(zoneOf(address), zone));
