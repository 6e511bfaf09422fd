/**
 * One test for each fault that a reading of the pipeline found.
 */
import assert from 'node:assert/strict';
import * as http from 'node:http';
import { connect } from 'node:net';
import { describe, test } from 'node:test';
import { ask, askLegacy, askModern, toolCall } from '../support/raw-http.ts';
import { type ScriptedUpstream, sendJson } from '../support/scripted-upstream.ts';
import { ALLOW_ALL, startBehind, type TestSidecar } from '../support/sidecar.ts';
import { until } from '../support/until.ts';

const open =
  (more = '') =>
  (url: string) =>
    `servers: { main: { url: "${url}" } }\n${more}${ALLOW_ALL}`;

test('an agent that left while its token was being had is noticed: nothing is sent', async (context) => {
  // A token endpoint that takes its time.
  let answerToken: (() => void) | undefined;
  const endpoint = http.createServer((_request, response) => {
    answerToken = () => {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ access_token: 'token', token_type: 'Bearer', expires_in: 60 }));
    };
  });
  await new Promise<void>((resolve) => endpoint.listen(0, '127.0.0.1', resolve));
  context.after(() => endpoint.close());
  const { port } = endpoint.address() as { port: number };
  process.env.REGRESS_CLIENT_SECRET = 'any secret at all';
  const { upstream, sidecar } = await startBehind(
    context,
    (url) => `servers:
  main:
    url: "${url}"
    auth: { type: client_credentials, clientId: a, clientSecret: { env: REGRESS_CLIENT_SECRET }, tokenEndpoint: "http://127.0.0.1:${port}/token" }
${ALLOW_ALL}`,
  );
  const request = http.request(`${sidecar.base}/mcp`, { method: 'GET', headers: { accept: 'text/event-stream' } });
  request.on('error', () => undefined);
  request.end();
  await until(() => answerToken !== undefined, 'the token endpoint to be asked');
  request.destroy();
  await until(async () => (await metric(sidecar, 'mcp_sidecar_streams_open')) === 1, 'the stream to be inside');
  answerToken!();
  await until(async () => (await metric(sidecar, 'mcp_sidecar_streams_open')) === 0, 'the stream to be gone');
  assert.equal(upstream.seen.length, 0);
});

async function metric(sidecar: TestSidecar, name: string): Promise<number> {
  const { text } = await ask(sidecar.admin, { method: 'GET', path: '/metrics' });
  return Number(new RegExp(`^${name} (\\d+)`, 'm').exec(text)?.[1]);
}

describe('the breaker', () => {
  test('a probe whose agent leaves makes room for the next probe', async (context) => {
    const { upstream, sidecar } = await startBehind(
      context,
      open('breaker: { failures: 1, open: 100ms, openMax: 100ms }\n'),
    );
    upstream.answer = (_seen, response) => response.writeHead(503).end();
    await askLegacy(sidecar.base, toolCall('any'));
    upstream.answer = () => undefined;
    await until(async () => {
      const probe = http.get(`${sidecar.base}/mcp`, { headers: { accept: 'text/event-stream' }, agent: false });
      const refused = new Promise<boolean>((resolve) => {
        probe.on('response', () => resolve(true));
        probe.on('error', () => resolve(true));
      });
      const reached = until(() => upstream.seen.length > 1, 'the probe', 500).then(
        () => false,
        () => true,
      );
      const again = await Promise.race([refused, reached]);
      probe.destroy();
      return !again;
    }, 'the breaker to let a probe through');
    upstream.answer = (seen, response) => sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: {} });
    await until(
      async () => (await askLegacy(sidecar.base, { jsonrpc: '2.0', id: 1, method: 'ping' })).status === 200,
      'the server to be used again',
    );
  });

  test('counts answers that break off and answers that are none', async (context) => {
    const { upstream, sidecar } = await startBehind(
      context,
      open('breaker: { failures: 2, open: 60s, openMax: 60s }\n'),
    );
    upstream.answer = (_seen, response) => {
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': '100' });
      response.write('{', () => response.destroy());
    };
    await askLegacy(sidecar.base, toolCall('any'));
    upstream.answer = (_seen, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<p>');
    await askLegacy(sidecar.base, toolCall('any'));
    const before = upstream.seen.length;
    assert.equal((await askLegacy(sidecar.base, toolCall('any'))).json.error.code, -31503);
    assert.equal(upstream.seen.length, before);
  });
});

describe('a hidden tool cannot be told from one that does not exist', () => {
  const HIDING = (url: string) => `servers: { main: { url: "${url}" } }
policy:
  version: 1
  rules:
    - { name: all, allow: [ { tools: ["*"] } ] }
    - { name: hide, deny: [ { tools: [secret] } ] }
`;
  const answers: Readonly<Record<string, ScriptedUpstream['answer']>> = {
    'as an error': (seen, response) =>
      sendJson(response, {
        jsonrpc: '2.0',
        id: seen.json.id,
        error: { code: -32602, message: 'Tool nothing not found' },
      }),
    'as a result': (seen, response) =>
      sendJson(response, {
        jsonrpc: '2.0',
        id: seen.json.id,
        result: { isError: true, content: [{ type: 'text', text: 'MCP error -32602: Tool nothing not found' }] },
      }),
    'on a stream, behind a priming event': (seen, response) => {
      const error = { code: -32602, message: 'Tool nothing not found' };
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write('id: 1\ndata:\n\n');
      response.end(`data: ${JSON.stringify({ jsonrpc: '2.0', id: seen.json.id, error })}\n\n`);
    },
  };
  for (const [how, answer] of Object.entries(answers)) {
    test(`whose absence the server tells ${how}`, async (context) => {
      const { upstream, sidecar } = await startBehind(context, HIDING);
      upstream.answer = answer;
      const hidden = await askLegacy(sidecar.base, toolCall('secret'));
      const absent = await askLegacy(sidecar.base, toolCall('nothing'));
      assert.equal(absent.text.replace('nothing', 'secret'), hidden.text);
      assert.equal(absent.status, hidden.status);
      assert.deepEqual(Object.keys(absent.headers), Object.keys(hidden.headers));
    });
  }

  test('while an error of a tool that the server has listed is its own', async (context) => {
    const { upstream, sidecar } = await startBehind(context, HIDING);
    upstream.answer = (seen, response) =>
      sendJson(
        response,
        seen.json.method === 'tools/list'
          ? { jsonrpc: '2.0', id: seen.json.id, result: { tools: [{ name: 'real' }] } }
          : { jsonrpc: '2.0', id: seen.json.id, error: { code: -32602, message: 'real: issue 7 not found' } },
      );
    await askLegacy(sidecar.base, { jsonrpc: '2.0', id: 1, method: 'tools/list' });
    const answer = await askLegacy(sidecar.base, toolCall('real'));
    assert.equal(answer.json.error.message, 'real: issue 7 not found');
  });
});

test('a stranger who sends a body slowly is answered at once', async (context) => {
  process.env.REGRESS_KEY = 'a key that nobody shows here';
  const { sidecar } = await startBehind(
    context,
    (url) => `identify: [ { type: apiKey, agents: { a: { env: REGRESS_KEY } } } ]\n${open()(url)}`,
  );
  const { hostname, port } = new URL(sidecar.base);
  const socket = connect(Number(port), hostname);
  context.after(() => socket.destroy());
  const started = performance.now();
  const answer = new Promise<string>((resolve) => socket.once('data', (chunk: Buffer) => resolve(chunk.toString())));
  socket.write(
    'POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{',
  );
  assert.match(await answer, /^HTTP\/1\.1 401 /);
  assert.ok(performance.now() - started < 1_500);
});

test('a stream that breaks is on record, also where its events can be resumed', async (context) => {
  const { upstream, sidecar } = await startBehind(context, open());
  upstream.answer = (_seen, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write('id: 1\ndata: {"jsonrpc":"2.0","method":"notifications/message","params":{}}\n\n', () =>
      response.destroy(),
    );
  };
  await askLegacy(sidecar.base, toolCall('any'));
  const line = (await sidecar.auditLines()).find((one) => one.tool === 'any');
  assert.equal(line.decision, 'error');
  assert.match(line.errorId, /^[0-9a-f]+$/);
});

test('timeouts.total bounds the wait for the head as well', async (context) => {
  const { upstream, sidecar } = await startBehind(context, open('timeouts: { headers: 20s, total: 200ms }\n'));
  upstream.answer = () => undefined;
  const started = performance.now();
  assert.equal((await askLegacy(sidecar.base, toolCall('any'))).status, 504);
  assert.ok(performance.now() - started < 5_000);
});

test('a baggage header goes into _meta, unless there is one already', async (context) => {
  const { upstream, sidecar } = await startBehind(context, open());
  await askLegacy(sidecar.base, toolCall('any'), { baggage: 'user=7' });
  assert.equal(upstream.seen.at(-1)!.json.params._meta.baggage, 'user=7');
  await askModern(
    sidecar.base,
    { id: 1, method: 'ping', params: { _meta: { baggage: 'own=1' } } },
    { baggage: 'user=7' },
  );
  assert.equal(upstream.seen.at(-1)!.json.params._meta.baggage, 'own=1');
});

test('tracestate of one place is not joined to traceparent of another', async (context) => {
  const { upstream, sidecar } = await startBehind(context, open());
  const _meta = { traceparent: `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01` };
  await askLegacy(
    sidecar.base,
    { jsonrpc: '2.0', id: 1, method: 'ping', params: { _meta } },
    { tracestate: 'other=1' },
  );
  assert.equal(upstream.seen.at(-1)!.json.params._meta.tracestate, undefined);
});

test('the resource metadata names only resources that there are', async (context) => {
  process.env.REGRESS_KEY = 'a key that nobody shows here';
  const { sidecar } = await startBehind(
    context,
    (url) => `identify: [ { type: apiKey, agents: { a: { env: REGRESS_KEY } } } ]\n${open()(url)}`,
  );
  const metadata = (suffix: string) =>
    ask(sidecar.base, { method: 'GET', path: `/.well-known/oauth-protected-resource${suffix}` });
  assert.equal((await metadata('/mcp')).json.resource, `${sidecar.base}/mcp`);
  assert.equal((await metadata('')).status, 200);
  assert.equal((await metadata('XYZ')).status, 404);
  assert.equal((await metadata('/servers/other/mcp')).status, 404);
});

test('a media type in capitals is the same media type', async (context) => {
  const { upstream, sidecar } = await startBehind(context, open());
  upstream.answer = (seen, response) =>
    sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: {} }, 200, { 'content-type': 'Application/JSON' });
  assert.equal((await askLegacy(sidecar.base, toolCall('any'))).status, 200);
});

test('an element of a batch whose answer is cut off is answered all the same', async (context) => {
  const { upstream, sidecar } = await startBehind(context, open());
  upstream.answer = (seen, response) => {
    if (seen.json.id === 1) return sendJson(response, { jsonrpc: '2.0', id: 1, result: {} });
    response.writeHead(200, { 'content-type': 'application/json' });
    response.write(`{"jsonrpc":"2.0","id":2,"result":{"text":"${'x'.repeat(200_000)}`, () => response.destroy());
  };
  const batch = [toolCall('any', {}, 1), toolCall('any', {}, 2)];
  const answer = await askLegacy(sidecar.base, batch, { 'mcp-protocol-version': '2025-03-26' });
  const byId = new Map(answer.json.map((one: { id: number }) => [one.id, one]));
  assert.deepEqual(byId.get(1), { jsonrpc: '2.0', id: 1, result: {} });
  assert.equal((byId.get(2) as { error: { code: number } }).error.code, -31502);
});
