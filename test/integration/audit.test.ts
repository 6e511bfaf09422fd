/**
 * The audit through the whole sidecar: one line for each request whatever became of it, no secret anywhere, and what
 * happens when it cannot be written.
 */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import * as http from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { openStream } from '../support/event-stream.ts';
import { ACCEPT_BOTH, ask, askLegacy, askModern, sendRaw, toolCall } from '../support/raw-http.ts';
import { type ScriptedUpstream, sendJson, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { ALLOW_ALL, startTestSidecar, type TestSidecar } from '../support/sidecar.ts';
import { until } from '../support/until.ts';

const agentKey = randomBytes(24).toString('base64url');
const key = { authorization: `Bearer ${agentKey}` };

let upstream: ScriptedUpstream;
let usual: ScriptedUpstream['answer'];
before(async () => {
  process.env.AUDIT_TRIAGE_KEY = agentKey;
  upstream = await startScriptedUpstream();
  usual = upstream.answer;
});
after(() => upstream.close());
afterEach(() => {
  upstream.answer = usual;
});

// biome-ignore lint/suspicious/noExplicitAny: a test reads records by field
async function exchangesOf(sidecar: TestSidecar): Promise<any[]> {
  return (await sidecar.auditLines()).filter((line) => line.event === undefined);
}

describe('one line for each request', () => {
  let sidecar: TestSidecar;
  before(async () => {
    const gone = await startScriptedUpstream();
    await gone.close();
    sidecar = await startTestSidecar(`
group: support
identify: [ { type: apiKey, agents: { triage: { env: AUDIT_TRIAGE_KEY } } } ]
servers: { main: { url: "${upstream.url}" }, dead: { url: "${gone.url}" } }
limits: { body: 4KiB, depth: 16 }
breaker: { failures: 1000 }
policy:
  version: 1
  default: allow
  rules:
    - { name: never, deny: [ { tools: [hidden], prompts: [hidden], resources: ["file:///hidden"] } ] }
    - { name: small only, deny: [ { tools: [query] } ], when: size(args.text) > 3 }
  quotas: [ { name: once, key: [agent], calls: 1/h, when: 'tool.name == "limited"' } ]
  redact: [ { server: "*", tools: [secretive], arguments: [/password, /people/*/email] } ]
`);
  });
  after(() => sidecar.close());

  const legacy = (message: unknown, headers = {}) =>
    askLegacy(sidecar.base, message, { ...key, ...headers }, '/servers/main/mcp');

  interface Case {
    readonly what: string;
    readonly send: () => Promise<unknown>;
    readonly line: Record<string, unknown>;
  }
  const cases: readonly Case[] = [
    {
      what: 'an allowed call',
      send: () => legacy(toolCall('any', { text: 'hello' }, 'a-1')),
      line: {
        group: 'support',
        agent: 'triage',
        server: 'main',
        method: 'tools/call',
        tool: 'any',
        arguments: { text: 'hello' },
        decision: 'allow',
        status: 200,
        requestId: 'a-1',
        era: 'legacy',
        protocolVersion: '2025-11-25',
        attempts: 1,
        aborted: undefined,
        errorId: undefined,
      },
    },
    {
      what: 'a call of 2026-07-28',
      send: () => askModern(sidecar.base, toolCall('any'), key, '/servers/main/mcp'),
      line: { decision: 'allow', status: 200, era: 'modern', protocolVersion: '2026-07-28', session: undefined },
    },
    {
      what: 'a hidden tool',
      send: () => legacy(toolCall('hidden', { a: 1 })),
      line: { decision: 'deny', rule: 'never', rpcCode: -32602, status: 200, tool: 'hidden', arguments: { a: 1 } },
    },
    {
      what: 'a hidden resource',
      send: () => legacy({ jsonrpc: '2.0', id: 1, method: 'resources/read', params: { uri: 'file:///hidden' } }),
      line: { decision: 'deny', rule: 'never', rpcCode: -32002, resource: 'file:///hidden' },
    },
    {
      what: 'arguments that a rule refuses',
      send: () => legacy(toolCall('query', { text: 'much too long' })),
      line: { decision: 'deny', rule: 'small only', rpcCode: -31403, arguments: { text: 'much too long' } },
    },
    {
      what: 'a spent quota',
      send: async () => {
        await legacy(toolCall('limited', {}, 1));
        await legacy(toolCall('limited', {}, 2));
      },
      line: { decision: 'limit', rule: 'once', rpcCode: -31429, status: 429, requestId: '2', attempts: undefined },
    },
    {
      what: 'a body that is no JSON',
      send: () => ask(sidecar.base, { path: '/servers/main/mcp', headers: { ...key, accept: ACCEPT_BOTH }, body: '{' }),
      line: { decision: 'deny', rpcCode: -32700, status: 400, agent: 'triage', method: undefined },
    },
    {
      what: 'a body that is too big',
      send: () => legacy(toolCall('any', { text: 'x'.repeat(5000) })),
      line: { decision: 'deny', status: 413, rpcCode: -32600, arguments: undefined },
    },
    {
      what: 'a body that is too deep',
      send: () => legacy(toolCall('any', { deep: JSON.parse('['.repeat(20) + ']'.repeat(20)) })),
      line: { decision: 'deny', status: 400, rpcCode: -32600 },
    },
    {
      what: 'a header that contradicts the body',
      send: () => askModern(sidecar.base, toolCall('any'), { ...key, 'mcp-name': 'other' }, '/servers/main/mcp'),
      line: { decision: 'deny', status: 400, rpcCode: -32020, method: 'tools/call' },
    },
    {
      what: 'a caller whom nobody knows',
      send: () => askLegacy(sidecar.base, toolCall('any'), { 'x-api-key': 'wrong' }, '/servers/main/mcp'),
      line: { decision: 'deny', status: 401, rpcCode: -31401, agent: undefined, server: 'main' },
    },
    {
      what: 'a foreign Host',
      send: () => legacy(toolCall('any'), { host: 'evil.example' }),
      line: { decision: 'deny', status: 403, agent: undefined, reason: 'hostNotAllowed: evil.example' },
    },
    {
      what: 'a foreign Origin',
      send: () => legacy(toolCall('any'), { origin: 'https://evil.example' }),
      line: { decision: 'deny', status: 403, reason: 'originNotAllowed: https://evil.example' },
    },
    {
      what: 'a path that leads nowhere',
      send: () => askLegacy(sidecar.base, toolCall('any'), key, '/nowhere'),
      line: { decision: 'error', status: 404, rpcCode: -31404, server: undefined },
    },
    {
      what: 'an HTTP method that MCP has not',
      send: () => ask(sidecar.base, { method: 'PUT', path: '/servers/main/mcp', headers: key, body: '{}' }),
      line: { decision: 'error', status: 405, method: 'PUT' },
    },
    {
      what: 'a media type that is not JSON',
      send: () =>
        ask(sidecar.base, { path: '/servers/main/mcp', headers: { ...key, 'content-type': 'text/plain' }, body: 'x' }),
      line: { decision: 'error', status: 415 },
    },
    {
      what: 'a session that nobody opened',
      send: () => legacy(toolCall('any'), { 'mcp-session-id': 'forged' }),
      line: { decision: 'error', status: 404, rpcCode: -32001, session: undefined },
    },
    {
      what: 'a server that is dead',
      send: () => askLegacy(sidecar.base, toolCall('any'), key, '/servers/dead/mcp'),
      line: { decision: 'error', status: 503, rpcCode: -31503, server: 'dead', tool: 'any' },
    },
    {
      what: 'a server that answers garbage',
      send: () => {
        upstream.answer = (_seen, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<p>');
        return legacy(toolCall('any'));
      },
      line: { decision: 'error', status: 502, rpcCode: -31502 },
    },
    {
      what: 'an error of the server’s own',
      send: () => {
        upstream.answer = (seen, response) =>
          sendJson(response, { jsonrpc: '2.0', id: seen.json.id, error: { code: -32050, message: 'no' } });
        return legacy(toolCall('any'));
      },
      line: { decision: 'allow', status: 200, rpcCode: -32050, errorId: undefined },
    },
    {
      what: 'a tool that failed',
      send: () => {
        upstream.answer = (seen, response) =>
          sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: { content: [], isError: true } });
        return legacy(toolCall('any'));
      },
      line: { decision: 'allow', status: 200, toolError: true },
    },
    {
      what: 'a notification',
      send: () => legacy({ jsonrpc: '2.0', method: 'notifications/initialized' }),
      line: { decision: 'allow', status: 202, method: 'notifications/initialized', requestId: undefined },
    },
    {
      what: 'an answer to a request of the server',
      send: () => {
        upstream.answer = (_seen, response) => sendJson(response, undefined);
        return legacy({ jsonrpc: '2.0', id: 'srv-1', result: { roots: [] } });
      },
      line: { decision: 'allow', status: 202, method: 'response', requestId: 'srv-1' },
    },
    {
      what: 'a DELETE',
      send: () => ask(sidecar.base, { method: 'DELETE', path: '/servers/main/mcp', headers: key }),
      line: { decision: 'allow', method: 'DELETE', agent: 'triage', server: 'main' },
    },
    {
      what: 'a stream of a GET',
      send: async () => {
        upstream.answer = (_seen, response) => {
          response.writeHead(200, { 'content-type': 'text/event-stream' });
          response.end('data: {"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n\n');
        };
        const stream = await openStream(`${sidecar.base}/servers/main/mcp`, { method: 'GET', headers: key });
        await stream.ended;
      },
      line: { decision: 'allow', status: 200, method: 'GET', era: 'legacy' },
    },
    {
      what: 'the metadata of the resource',
      send: () => ask(sidecar.base, { method: 'GET', path: '/.well-known/oauth-protected-resource/servers/main/mcp' }),
      line: { decision: 'allow', status: 200, method: 'GET', server: undefined },
    },
    {
      what: 'an agent that leaves before its request is whole',
      send: async () => {
        const socket = connect(Number(new URL(sidecar.base).port), '127.0.0.1');
        const head = `POST /servers/main/mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: ${key.authorization}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"jsonrpc"`;
        await new Promise<void>((resolve) => socket.write(head, () => resolve()));
        // The line tells when the sidecar has seen the half request; before that there is nothing to break off.
        await until(async () => /in_flight 1$/m.test(await metricsOf(sidecar)), 'the half request');
        socket.destroy();
      },
      line: { decision: 'error', status: 499, aborted: true, agent: 'triage' },
    },
    {
      what: 'an agent that leaves before its answer',
      send: async () => {
        const seen = new Promise<void>((resolve) => {
          upstream.answer = () => resolve();
        });
        const stream = new AbortController();
        const asked = fetch(`${sidecar.base}/servers/main/mcp`, {
          method: 'POST',
          signal: stream.signal,
          headers: {
            ...key,
            accept: ACCEPT_BOTH,
            'content-type': 'application/json',
            'mcp-protocol-version': '2026-07-28',
            'mcp-method': 'tools/call',
            'mcp-name': 'any',
          },
          body: JSON.stringify({
            ...toolCall('any'),
            params: {
              name: 'any',
              arguments: {},
              _meta: {
                'io.modelcontextprotocol/protocolVersion': '2026-07-28',
                'io.modelcontextprotocol/clientCapabilities': {},
              },
            },
          }),
        });
        await seen;
        stream.abort();
        await assert.rejects(asked);
      },
      line: { status: 499, aborted: true, tool: 'any', attempts: 1 },
    },
  ];

  for (const { what, send, line } of cases) {
    test(what, async () => {
      const before = (await exchangesOf(sidecar)).length;
      await send();
      const expected = what === 'a spent quota' ? 2 : 1;
      // An agent that has left does not see when its exchange is over.
      await until(async () => (await exchangesOf(sidecar)).length >= before + expected, 'the line');
      const lines = await exchangesOf(sidecar);
      assert.equal(lines.length, before + expected);
      const found = lines.at(-1);
      for (const [field, value] of Object.entries(line)) assert.deepEqual(found[field], value, field);
      assert.match(found.time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
      assert.match(found.traceId, /^[0-9a-f]{32}$/);
      assert.ok(found.latencyMs > 0 && found.latencyMs < 10_000);
      if (found.decision !== 'allow') assert.ok(found.reason.length > 0);
    });
  }

  test('a batch is one line for each of its messages', async () => {
    const before = (await exchangesOf(sidecar)).length;
    await legacy(
      [
        toolCall('any', {}, 1),
        toolCall('hidden', {}, 2),
        { jsonrpc: '2.0', method: 'notifications/progress', params: { progressToken: 1, progress: 1 } },
      ],
      { 'mcp-protocol-version': '2025-03-26' },
    );
    const lines = (await exchangesOf(sidecar)).slice(before);
    assert.deepEqual(lines.map((line) => `${line.requestId} ${line.method} ${line.decision}`).sort(), [
      '1 tools/call allow',
      '2 tools/call deny',
      'undefined notifications/progress allow',
    ]);
    assert.equal(new Set(lines.map((line) => line.traceId)).size, 3);
  });

  test('a batch that is refused as a whole is one line', async () => {
    const before = (await exchangesOf(sidecar)).length;
    await legacy([toolCall('any')], { 'mcp-protocol-version': '2025-06-18' });
    const lines = (await exchangesOf(sidecar)).slice(before);
    assert.deepEqual(
      lines.map((line) => [line.decision, line.status]),
      [['deny', 400]],
    );
  });

  test('arguments are redacted as the policy says, in what is allowed and in what is refused', async () => {
    const args = { password: 'canary-1', people: [{ name: 'Ada', email: 'canary-2' }], note: 'plain' };
    await legacy(toolCall('secretive', args));
    const { arguments: written } = (await exchangesOf(sidecar)).at(-1);
    assert.equal(written.note, 'plain');
    assert.equal(written.people[0].name, 'Ada');
    assert.doesNotMatch(JSON.stringify(written), /canary/);
    assert.deepEqual(upstream.seen.at(-1)!.json.params.arguments, args);
    await askLegacy(sidecar.base, toolCall('secretive', args), key, '/servers/dead/mcp');
    assert.doesNotMatch(await readFile(join(sidecar.folder, 'audit.jsonl'), 'utf8'), /canary-[12]/);
  });

  test('a session is named by a hash, the same for all of its requests', async () => {
    upstream.answer = (seen, response) =>
      sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: {} }, 200, { 'mcp-session-id': 'inner-canary' });
    const opened = await legacy({ jsonrpc: '2.0', id: 1, method: 'initialize', params: {} });
    const session = String(opened.headers['mcp-session-id']);
    await legacy(toolCall('any'), { 'mcp-session-id': session });
    await legacy({ jsonrpc: '2.0', id: 2, method: 'ping' }, { 'mcp-session-id': session });
    const hash = createHash('sha256').update(session).digest('hex').slice(0, 16);
    const lines = await exchangesOf(sidecar);
    assert.deepEqual(
      lines.slice(-2).map((line) => line.session),
      [hash, hash],
    );
    const text = JSON.stringify(lines) + sidecar.logged.join('');
    assert.ok(!text.includes(session) && !text.includes('inner-canary'));
  });

  test('the lines are numbered without a gap, and the text of a refusal is found by its error id', async () => {
    const refused = await legacy(toolCall('query', { text: 'much too long' }));
    const all = await sidecar.auditLines();
    assert.deepEqual(
      all.map((line) => line.sequence),
      all.map((_line, index) => index + 1),
    );
    const { errorId } = refused.json.error.data;
    assert.deepEqual(
      all.filter((line) => line.errorId === errorId).map((line) => line.rule),
      ['small only'],
    );
  });

  async function metricsOf({ admin }: TestSidecar): Promise<string> {
    return (await fetch(`${admin}/metrics`)).text();
  }
});

test('what is shed, and what comes while the sidecar drains, has its line too', async (context) => {
  const folder = await mkdtemp(join(tmpdir(), 'drain-'));
  context.after(() => rm(folder, { recursive: true, force: true }));
  const path = join(folder, 'audit.jsonl');
  const sidecar = await startTestSidecar(`
servers: { main: { url: "${upstream.url}" } }
limits: { inFlight: 1 }
audit: { path: ${path} }
${ALLOW_ALL}`);
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    upstream.answer = (seen, response, request) => {
      release = () => usual(seen, response, request);
      resolve();
    };
  });
  const first = askLegacy(sidecar.base, toolCall('any', {}, 'first'));
  await held;
  const shed = await askLegacy(sidecar.base, toolCall('any', {}, 'shed'));
  assert.deepEqual([shed.status, shed.json.id, shed.json.error.code], [503, 'shed', -31503]);

  // A connection on which a request has begun outlives the listener. That it has, its neighbour in the same packet shows.
  const late = connect(Number(new URL(sidecar.base).port), '127.0.0.1').setEncoding('utf8');
  context.after(() => late.destroy());
  let text = '';
  late.on('data', (chunk: string) => {
    text += chunk;
  });
  late.write('DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n\r\nDELETE /mcp HTTP/1.1\r\n');
  await until(() => text.includes('overloaded'), 'the neighbour’s answer');
  const closed = sidecar.close();
  late.write('Host: localhost\r\n\r\n');
  await until(() => text.includes('shutting down'), 'the late answer');
  assert.equal(text.match(/HTTP\/1\.1 503 /g)?.length, 2);
  release();
  assert.equal((await first).status, 200);
  await closed;

  const lines = (await readFile(path, 'utf8'))
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    lines.map((line) => line.event ?? `${line.status} ${line.reason?.split(':')[0] ?? ''}`),
    ['sidecar.started', '503 shedding', '503 shedding', '503 draining', '200 ', 'sidecar.stopped'],
  );
});

test('no secret is in the audit, the log, the metrics or a reply', async (context) => {
  const canaries = {
    agentKey: randomBytes(18).toString('base64url'),
    clientSecret: randomBytes(18).toString('base64url'),
    accessToken: randomBytes(18).toString('base64url'),
    fixedToken: randomBytes(18).toString('base64url'),
    headerKey: randomBytes(18).toString('base64url'),
    childToken: randomBytes(18).toString('base64url'),
  };
  const issuer = http.createServer((request, response) => {
    request.resume().on('end', () => {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ access_token: canaries.accessToken, token_type: 'Bearer', expires_in: 3600 }));
    });
  });
  await new Promise<void>((resolve) => issuer.listen(0, '127.0.0.1', resolve));
  context.after(() => issuer.close());
  const origin = `http://127.0.0.1:${(issuer.address() as { port: number }).port}`;
  const child = fileURLToPath(new URL('../support/stdio-server.ts', import.meta.url));
  const sidecar = await startTestSidecar(
    `
identify: [ { type: apiKey, agents: { triage: { file: agentKey } } } ]
servers:
  oauth: { url: "${upstream.url}", auth: { type: client_credentials, clientId: us, clientSecret: { file: clientSecret }, issuer: "${origin}", tokenEndpoint: "${origin}/token" } }
  fixed: { url: "${upstream.url}", auth: { type: bearer, token: { file: fixedToken } } }
  header: { url: "${upstream.url}", auth: { type: headers, headers: { X-Their-Key: { file: headerKey } } } }
  child: { command: ["${process.execPath}", "${child}", --secret-on-stderr], env: { SCRIPT_TOKEN: { file: childToken } } }
audit: { flush: 10ms }
${ALLOW_ALL}`,
    canaries,
  );
  context.after(() => sidecar.close());

  const replies: string[] = [];
  const own = { 'x-api-key': canaries.agentKey };
  const answers: ScriptedUpstream['answer'][] = [
    usual,
    // Servers that say back what they were told, in every place where that can be.
    (seen, response) => response.writeHead(401, { 'www-authenticate': `Bearer error="${credentialOf(seen)}"` }).end(),
    (seen, response) => response.writeHead(403, { 'www-authenticate': `Bearer scope="${credentialOf(seen)}"` }).end(),
    (seen, response) => response.writeHead(500, { 'x-debug': credentialOf(seen) }).end(credentialOf(seen)),
    (seen, response) => response.writeHead(302, { location: `http://127.0.0.1:1/?${credentialOf(seen)}` }).end(),
    (seen, response) => response.writeHead(200, { 'content-type': credentialOf(seen) }).end(),
    (seen, response) => response.socket?.end(`${credentialOf(seen)} is not HTTP\r\n\r\n`),
  ];
  for (const server of ['oauth', 'fixed', 'header']) {
    for (const answer of answers) {
      upstream.answer = answer;
      const reply = await askLegacy(sidecar.base, toolCall('any'), own, `/servers/${server}/mcp`);
      replies.push(JSON.stringify(reply.headers) + reply.text);
    }
  }
  assert.deepEqual(new Set(upstream.seen.map(credentialOf).filter(isCanary)).size, 3);
  const opened = await askLegacy(
    sidecar.base,
    { jsonrpc: '2.0', id: 1, method: 'initialize', params: {} },
    own,
    '/servers/child/mcp',
  );
  assert.equal(opened.status, 200);
  await until(() => sidecar.logged.some((line) => line.includes('the token is')), 'what the child says');
  for (const refused of [
    await askLegacy(sidecar.base, toolCall('any'), { 'x-api-key': `${canaries.agentKey}x` }, '/servers/fixed/mcp'),
    await askLegacy(sidecar.base, toolCall('any'), { ...own, host: 'evil.example' }, '/servers/fixed/mcp'),
    await askLegacy(sidecar.base, toolCall('any'), own, `/nowhere?key=${canaries.agentKey}`),
    await askLegacy(sidecar.base, { jsonrpc: '1.0', id: 1, method: 'x' }, own, '/servers/fixed/mcp'),
  ]) {
    assert.ok(refused.status >= 400);
    replies.push(JSON.stringify(refused.headers) + refused.text);
  }
  // A header that node cannot take: the answer is the parser's.
  const port = new URL(sidecar.base).port;
  replies.push(
    await sendRaw(
      sidecar.base,
      `POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nX-Api-Key: ${canaries.agentKey}\u0000\r\n\r\n`,
    ),
  );

  const places = {
    audit: JSON.stringify(await sidecar.auditLines()),
    log: sidecar.logged.join(''),
    metrics: await (await fetch(`${sidecar.admin}/metrics`)).text(),
    page: await (await fetch(sidecar.admin)).text(),
    replies: replies.join('\n'),
  };
  for (const [place, text] of Object.entries(places)) {
    assert.ok(text.length > 100, place);
    for (const [name, value] of Object.entries(canaries))
      assert.ok(!text.includes(value), `${name} is in the ${place}`);
  }

  function credentialOf(seen: { headers: http.IncomingHttpHeaders }): string {
    return `${seen.headers.authorization ?? ''}${seen.headers['x-their-key'] ?? ''}`;
  }
  function isCanary(text: string): boolean {
    return Object.values(canaries).some((value) => text.includes(value));
  }
});

describe('a log that cannot be written', { skip: !existsSync('/dev/full') && 'needs /dev/full' }, () => {
  async function withFullDisk(context: TestContext, onFailure: 'refuse' | 'continue') {
    const folder = await mkdtemp(join(tmpdir(), 'full-'));
    context.after(() => rm(folder, { recursive: true, force: true }));
    const path = join(folder, 'audit.jsonl');
    await symlink('/dev/full', path);
    const sidecar = await startTestSidecar(`
servers: { main: { url: "${upstream.url}" } }
audit: { path: ${path}, onFailure: ${onFailure}, flush: 10ms }
${ALLOW_ALL}`);
    context.after(() => sidecar.close());
    const failing = async () => /audit_failing 1$/m.test(await (await fetch(`${sidecar.admin}/metrics`)).text());
    await until(failing, 'the failure to be seen');
    return {
      sidecar,
      path,
      async makeRoom() {
        await writeFile(`${path}.new`, '');
        await rename(`${path}.new`, path);
        await until(async () => !(await failing()), 'the recovery');
      },
    };
  }

  test('refuse: 503 until it can be written again, and nothing of it is lost', async (context) => {
    const { sidecar, path, makeRoom } = await withFullDisk(context, 'refuse');
    upstream.seen.length = 0;
    const refused = await askLegacy(sidecar.base, toolCall('any', {}, 'refused'));
    assert.deepEqual([refused.status, refused.json.id, refused.json.error.code], [503, 'refused', -31503]);
    assert.match(refused.json.error.message, /audit log cannot be written/);
    assert.doesNotMatch(refused.text, new RegExp(path));
    assert.ok(Number(refused.headers['retry-after']) >= 1);
    assert.equal(upstream.seen.length, 0);
    assert.equal((await fetch(`${sidecar.admin}/readyz`)).status, 503);
    assert.ok(sidecar.logged.some((line) => line.includes('the disk is full')));

    await makeRoom();
    assert.equal((await fetch(`${sidecar.admin}/readyz`)).status, 200);
    assert.equal((await askLegacy(sidecar.base, toolCall('any', {}, 'allowed'))).status, 200);
    await sidecar.flushAudit();
    const lines = (await readFile(path, 'utf8')).trimEnd().split('\n');
    assert.deepEqual(
      lines.map((line) => JSON.parse(line)).map((line) => line.event ?? `${line.status} ${line.decision}`),
      ['sidecar.started', '503 error', '200 allow'],
    );
  });

  test('continue: calls go on, it is said, and what was kept is written later', async (context) => {
    const { sidecar, path, makeRoom } = await withFullDisk(context, 'continue');
    assert.equal((await askLegacy(sidecar.base, toolCall('any', {}, 'meanwhile'))).status, 200);
    assert.equal((await fetch(`${sidecar.admin}/readyz`)).status, 200);
    assert.ok(sidecar.logged.some((line) => /the disk is full.*onFailure: continue/.test(line)));
    await makeRoom();
    await sidecar.flushAudit();
    assert.match(await readFile(path, 'utf8'), /"requestId":"meanwhile"/);
  });
});
