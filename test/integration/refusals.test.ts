/**
 * DESIGN.md 2.6 over real sockets: what a refusal looks like, and that nothing of it reaches the server.
 */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { ask, askLegacy, askModern, sendRaw } from '../support/raw-http.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';

const POLICY = `
policy:
  version: 1
  default: deny
  roles:
    reader: { allow: [ { server: main, tools: [get_*, query], prompts: [greet], resources: ["file:///open/*"] } ] }
  agents:
    triage: { roles: [reader] }
  rules:
    - name: small queries only
      deny: [ { server: main, tools: [query] } ]
      when: size(args.text) > 10
  quotas:
    - { name: few, key: [agent], calls: 3/min, when: 'body.params.name == "get_limited"' }
`;

let upstream: ScriptedUpstream;
let sidecar: TestSidecar;

before(async () => {
  process.env.REFUSALS_TRIAGE_KEY = `triage-${process.pid}-key-of-sufficient-length`;
  upstream = await startScriptedUpstream();
  sidecar = await startTestSidecar(`
group: support
identify: [ { type: apiKey, agents: { triage: { env: REFUSALS_TRIAGE_KEY } } } ]
servers: { main: { url: "${upstream.url}" } }
limits: { body: 64KiB, depth: 32 }
${POLICY}`);
});
after(async () => {
  await sidecar.close();
  await upstream.close();
});
beforeEach(() => {
  upstream.seen.length = 0;
});

const key = () => ({ authorization: `Bearer ${process.env.REFUSALS_TRIAGE_KEY}` });
const call = (name: string, args: unknown = {}, id: string | number = 7) => ({
  jsonrpc: '2.0',
  id,
  method: 'tools/call',
  params: { name, arguments: args },
});

describe('who', () => {
  test('a caller without a key is 401 with a challenge and the id of its request', async () => {
    const answer = await askLegacy(sidecar.base, call('get_x'));
    assert.equal(answer.status, 401);
    assert.match(
      answer.headers['www-authenticate'] ?? '',
      /^Bearer .*resource_metadata="http:\/\/127\.0\.0\.1:\d+\/\.well-known\/oauth-protected-resource\/mcp"/,
    );
    assert.equal(answer.json.id, 7);
    assert.equal(answer.json.error.code, -31401);
    assert.equal(upstream.seen.length, 0);
  });

  test('a wrong key is 401, and is in no reply and no audit line', async () => {
    const answer = await askLegacy(sidecar.base, call('get_x'), { authorization: 'Bearer canary-wrong-key' });
    assert.equal(answer.status, 401);
    assert.doesNotMatch(answer.text, /canary/);
    assert.doesNotMatch(JSON.stringify(await sidecar.auditLines()), /canary/);
  });

  for (const [what, headers] of [
    ['a foreign Host', { host: 'evil.example' }],
    ['a rebinding Host', { host: '127.0.0.1.evil.example:4180' }],
    ['a foreign Origin', { origin: 'https://evil.example' }],
    ['a null Origin', { origin: 'null' }],
    ['an Origin that only begins like loopback', { origin: 'http://localhost.evil.example' }],
  ] as const) {
    test(`${what} is 403 before anything else`, async () => {
      const answer = await askLegacy(sidecar.base, call('get_x'), { ...key(), ...headers });
      assert.equal(answer.status, 403);
      assert.equal(upstream.seen.length, 0);
    });
  }

  test('loopback origins and hosts pass', async () => {
    for (const headers of [
      { origin: 'http://localhost:3000' },
      { origin: 'http://127.0.0.1:8080' },
      { host: 'localhost:1' },
      { host: '[::1]:9' },
    ]) {
      assert.equal((await askLegacy(sidecar.base, call('get_x'), { ...key(), ...headers })).status, 200);
    }
  });
});

describe('what', () => {
  test('a hidden tool answers exactly as an unknown one', async () => {
    const hidden = await askLegacy(sidecar.base, call('delete_all'), key());
    const unknown = await askLegacy(sidecar.base, call('no_such_tool'), key());
    assert.equal(hidden.status, 200);
    assert.deepEqual(hidden.json, {
      jsonrpc: '2.0',
      id: 7,
      error: { code: -32602, message: 'Unknown tool: delete_all' },
    });
    assert.deepEqual(JSON.parse(unknown.text.replace('no_such_tool', 'delete_all')), hidden.json);
    assert.deepEqual(Object.keys(unknown.headers), Object.keys(hidden.headers));
    assert.equal(upstream.seen.length, 0);
  });

  test('a visible tool with arguments that a rule refuses is -31403 with the rule', async () => {
    const answer = await askLegacy(sidecar.base, call('query', { text: 'much longer than ten' }, 'q'), key());
    assert.equal(answer.status, 200);
    assert.equal(answer.json.id, 'q');
    assert.equal(answer.json.error.code, -31403);
    assert.equal(answer.json.error.data.rule, 'small queries only');
    const line = (await sidecar.auditLines()).find((one) => one.errorId === answer.json.error.data.errorId);
    assert.equal(line.decision, 'deny');
    assert.equal(line.rule, 'small queries only');
    assert.deepEqual(line.arguments, { text: 'much longer than ten' });
    assert.equal(upstream.seen.length, 0);
  });

  test('a rule that cannot be evaluated refuses', async () => {
    const answer = await askLegacy(sidecar.base, call('query', { other: 1 }), key());
    assert.equal(answer.json.error.code, -31403);
    assert.equal(upstream.seen.length, 0);
  });

  test('hidden prompts, resources and unknown methods', async () => {
    const prompt = await askLegacy(
      sidecar.base,
      { jsonrpc: '2.0', id: 1, method: 'prompts/get', params: { name: 'secret' } },
      key(),
    );
    assert.equal(prompt.json.error.message, 'Unknown prompt: secret');
    const resource = await askLegacy(
      sidecar.base,
      { jsonrpc: '2.0', id: 1, method: 'resources/read', params: { uri: 'file:///closed/a' } },
      key(),
    );
    assert.equal(resource.json.error.code, -32002);
    const method = await askLegacy(sidecar.base, { jsonrpc: '2.0', id: 1, method: 'vendor/thing' }, key());
    assert.equal(method.json.error.code, -32601);
    const modern = await askModern(sidecar.base, { id: 1, method: 'vendor/thing' }, key());
    assert.equal(modern.status, 404);
    assert.equal(modern.json.error.code, -32601);
    assert.equal(upstream.seen.length, 0);
  });

  test('a spent quota is 429 with Retry-After before the server sees anything; initialize, lists and ping do not spend it', async () => {
    for (const method of ['initialize', 'tools/list', 'ping', 'tools/list', 'ping']) {
      assert.notEqual(
        (await askLegacy(sidecar.base, { jsonrpc: '2.0', id: 1, method, params: {} }, key())).status,
        429,
      );
    }
    upstream.seen.length = 0;
    for (let index = 0; index < 3; index += 1)
      assert.equal((await askLegacy(sidecar.base, call('get_limited'), key())).status, 200);
    const answer = await askLegacy(sidecar.base, call('get_limited', {}, 'again'), key());
    assert.equal(answer.status, 429);
    assert.equal(answer.json.id, 'again');
    assert.equal(answer.json.error.code, -31429);
    assert.equal(answer.json.error.data.quota, 'few');
    assert.ok(answer.json.error.data.retryAfterMs > 0 && answer.json.error.data.retryAfterMs <= 61_000);
    assert.ok(Number(answer.headers['retry-after']) >= 1);
    assert.equal(upstream.seen.length, 3);
  });
});

describe('malformed input never reaches the server', () => {
  const legacyHeaders = () => ({ ...key(), accept: 'application/json, text/event-stream' });
  const deep = `${'['.repeat(100_000)}${']'.repeat(100_000)}`;
  const cases: readonly (readonly [string, string, number, number])[] = [
    ['not JSON', '{', 400, -32700],
    ['not UTF-8', Buffer.from([0x22, 0xff, 0x22]).toString('latin1'), 400, -32700],
    ['100,000 levels', `{"jsonrpc":"2.0","id":7,"method":"ping","params":{"a":${deep}}}`, 413, -32600],
    [
      '50 levels',
      `{"jsonrpc":"2.0","id":7,"method":"ping","params":{"a":${'['.repeat(50)}${']'.repeat(50)}}}`,
      400,
      -32600,
    ],
    ['a duplicate key', '{"jsonrpc":"2.0","id":7,"method":"ping","method":"tools/call"}', 400, -32600],
    [
      'a duplicate key in the arguments',
      '{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"get_x","arguments":{"a":1,"a":2}}}',
      400,
      -32600,
    ],
    ['Method', '{"jsonrpc":"2.0","id":7,"method":"ping","Method":"tools/call"}', 400, -32600],
    ['param\u017f', '{"jsonrpc":"2.0","id":7,"method":"tools/call","param\u017f":{"name":"get_x"}}', 400, -32600],
    ['a null id', '{"jsonrpc":"2.0","id":null,"method":"ping"}', 400, -32600],
    ['jsonrpc 1.0', '{"jsonrpc":"1.0","id":7,"method":"ping"}', 400, -32600],
    ['an empty batch', '[]', 400, -32600],
  ];
  for (const [what, body, status, code] of cases) {
    test(what, async () => {
      const answer = await ask(sidecar.base, {
        headers: legacyHeaders(),
        body: what === 'not UTF-8' ? Buffer.from(body, 'latin1') : body,
      });
      assert.equal(answer.status, status);
      assert.equal(answer.json.error.code, code);
      assert.equal(answer.json.id, /duplicate|ethod|param|jsonrpc/.test(what) ? 7 : null);
      assert.equal(upstream.seen.length, 0);
    });
  }

  test('a 100 MB body is 413 without being read', async () => {
    const answer = await sendRaw(
      sidecar.base,
      `POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: ${key().authorization}\r\nContent-Type: application/json\r\nContent-Length: 100000000\r\n\r\n{"jsonrpc":`,
    );
    assert.match(answer, /^HTTP\/1\.1 413 /);
    assert.match(answer, /-32600/);
  });

  test('an endless chunked body is 413 when it passes the limit', async () => {
    const chunk = `4000\r\n${'x'.repeat(0x4000)}\r\n`;
    const answer = await sendRaw(
      sidecar.base,
      `POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: ${key().authorization}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n${chunk.repeat(8)}`,
    );
    assert.match(answer, /^HTTP\/1\.1 413 /);
  });

  for (const [what, extra] of [
    ['Content-Length with Transfer-Encoding', 'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n'],
    ['two Content-Lengths', 'Content-Length: 5\r\nContent-Length: 6\r\n'],
    ['an underscore in a header name', 'Mcp_Method: tools/call\r\nContent-Length: 2\r\n'],
    ['a repeated Mcp-Method', 'Mcp-Method: ping\r\nMcp-Method: tools/call\r\nContent-Length: 2\r\n'],
    ['a repeated Authorization', 'Authorization: Bearer other\r\nContent-Length: 2\r\n'],
  ] as const) {
    test(`${what} is refused`, async () => {
      const answer = await sendRaw(
        sidecar.base,
        `POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: ${key().authorization}\r\nContent-Type: application/json\r\nConnection: close\r\n${extra}\r\n{}`,
      );
      assert.match(answer, /^HTTP\/1\.1 400 /);
      assert.equal(upstream.seen.length, 0);
    });
  }

  test('a header that contradicts the body is -32020', async () => {
    for (const headers of [
      { 'mcp-name': 'get_other' },
      { 'mcp-method': 'tools/list' },
      { 'mcp-protocol-version': '2025-11-25' },
    ]) {
      const answer = await askModern(
        sidecar.base,
        { id: 3, method: 'tools/call', params: { name: 'get_x', arguments: {} } },
        { ...key(), ...headers },
      );
      assert.equal(answer.status, 400);
      assert.equal(answer.json.error.code, -32020);
    }
    assert.equal(upstream.seen.length, 0);
  });

  test('wrong media types, methods and paths', async () => {
    assert.equal(
      (await ask(sidecar.base, { headers: { ...key(), 'content-type': 'text/plain' }, body: '{}' })).status,
      415,
    );
    assert.equal(
      (await ask(sidecar.base, { headers: { ...key(), 'content-encoding': 'gzip' }, body: '{}' })).status,
      415,
    );
    assert.equal((await ask(sidecar.base, { method: 'PUT', headers: key(), body: '{}' })).status, 405);
    assert.equal((await ask(sidecar.base, { path: '/nowhere', headers: key(), body: '{}' })).status, 404);
    assert.equal((await ask(sidecar.base, { path: '/servers/other/mcp', headers: key(), body: '{}' })).status, 404);
    assert.equal(upstream.seen.length, 0);
  });
});

test('every refusal has its audit line, and every line says why', async () => {
  const lines = await sidecar.auditLines();
  const refused = lines.filter((line) => line.status >= 400 || line.errorId !== undefined);
  assert.ok(refused.length > 20);
  for (const line of refused) {
    assert.match(line.errorId, /^[0-9a-f]{12,}$/);
    assert.ok(line.reason.length > 0);
    assert.match(line.traceId, /^[0-9a-f]{32}$/);
  }
});
