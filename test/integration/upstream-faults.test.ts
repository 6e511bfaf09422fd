/**
 * Servers that refuse, break, hang or answer garbage: each becomes a clear error, nothing of theirs leaks, and the
 * sidecar goes on.
 */
import assert from 'node:assert/strict';
import type { AddressInfo } from 'node:net';
import { createServer, type Server, type Socket } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { askLegacy, askModern } from '../support/raw-http.ts';
import { type ScriptedUpstream, sendJson, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { ALLOW_ALL, startTestSidecar, type TestSidecar } from '../support/sidecar.ts';

const call = (id = 7, name = 'any') => ({ jsonrpc: '2.0', id, method: 'tools/call', params: { name, arguments: {} } });
const settings = (url: string) => `
servers: { main: { url: "${url}" } }
timeouts: { connect: 500ms, headers: 300ms, idle: 300ms, total: 600ms }
breaker: { failures: 3, open: 200ms, openMax: 400ms }
limits: { response: 128KiB }
${ALLOW_ALL}`;

describe('over HTTP', () => {
  let upstream: ScriptedUpstream;
  let sidecar: TestSidecar;
  before(async () => {
    upstream = await startScriptedUpstream();
    sidecar = await startTestSidecar(settings(upstream.url).replace('failures: 3', 'failures: 1000'));
  });
  after(async () => {
    await sidecar.close();
    await upstream.close();
  });

  const cases: readonly { what: string; answer: ScriptedUpstream['answer']; status: number; code: number }[] = [
    {
      what: 'HTML',
      answer: (_seen, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<p>canary-body</p>'),
      status: 502,
      code: -31502,
    },
    {
      what: 'JSON that is none',
      answer: (_seen, response) => response.writeHead(200, { 'content-type': 'application/json' }).end('{"canary-body'),
      status: 502,
      code: -31502,
    },
    {
      what: 'JSON that is no JSON-RPC',
      answer: (_seen, response) => sendJson(response, { canary: 'canary-body' }),
      status: 502,
      code: -31502,
    },
    {
      what: 'the answer of another request',
      answer: (_seen, response) => sendJson(response, { jsonrpc: '2.0', id: 999, result: { canary: 'canary-body' } }),
      status: 502,
      code: -31502,
    },
    {
      what: 'a redirect',
      answer: (_seen, response) => response.writeHead(307, { location: 'http://127.0.0.1:1/canary-body' }).end(),
      status: 502,
      code: -31502,
    },
    {
      what: 'a body nobody asked to be compressed',
      answer: (_seen, response) =>
        response.writeHead(200, { 'content-type': 'application/json', 'content-encoding': 'gzip' }).end('canary-body'),
      status: 502,
      code: -31502,
    },
    {
      what: '500 with a page',
      answer: (_seen, response) =>
        response.writeHead(500, { 'content-type': 'text/plain' }).end('canary-body at /srv/app.js:1'),
      status: 502,
      code: -31502,
    },
    {
      what: '503',
      answer: (_seen, response) => response.writeHead(503, { 'retry-after': '7' }).end('canary-body'),
      status: 503,
      code: -31503,
    },
    {
      what: '401',
      answer: (_seen, response) => response.writeHead(401, { 'www-authenticate': 'Bearer realm="canary-body"' }).end(),
      status: 502,
      code: -31502,
    },
    {
      what: '403 that asks for more scope',
      answer: (_seen, response) =>
        response.writeHead(403, { 'www-authenticate': 'Bearer error="insufficient_scope"' }).end(),
      status: 502,
      code: -31502,
    },
    { what: 'silence', answer: () => undefined, status: 504, code: -31504 },
    {
      what: 'half an answer',
      answer: (_seen, response) => {
        response.writeHead(200, { 'content-type': 'application/json', 'content-length': '1000' });
        response.write('{"canary-body":', () => response.destroy());
      },
      status: 503,
      code: -31503,
    },
    {
      what: 'an answer that stops half-way',
      answer: (_seen, response) => {
        response.writeHead(200, { 'content-type': 'application/json' });
        response.write('{"canary-body":');
      },
      status: 504,
      code: -31504,
    },
    {
      what: 'an answer that never ends',
      answer: (_seen, response) => {
        response.writeHead(200, { 'content-type': 'application/json' });
        const timer = setInterval(() => response.write(' '), 20);
        response.on('close', () => clearInterval(timer));
      },
      status: 504,
      code: -31504,
    },
  ];
  for (const { what, answer, status, code } of cases) {
    test(what, async () => {
      upstream.answer = answer;
      const got = await askLegacy(sidecar.base, call());
      assert.equal(got.status, status);
      assert.equal(got.json.id, 7);
      assert.equal(got.json.error.code, code);
      assert.doesNotMatch(got.text + JSON.stringify(got.headers), /canary-body|127\.0\.0\.1:1\b/);
      if (status === 503) assert.ok(Number(got.headers['retry-after']) >= 1);
    });
  }

  test('a JSON-RPC error of the server passes as it is, with its status', async () => {
    upstream.answer = (seen, response) =>
      sendJson(
        response,
        { jsonrpc: '2.0', id: seen.json.id, error: { code: -32022, message: 'no', data: { supported: ['x'] } } },
        400,
      );
    const got = await askLegacy(sidecar.base, call());
    assert.equal(got.status, 400);
    assert.deepEqual(got.json.error, { code: -32022, message: 'no', data: { supported: ['x'] } });
  });

  test('a probe is never told 4xx, nor an error of ours under one', async () => {
    for (const answer of [cases[0]!.answer, cases[8]!.answer, cases[10]!.answer]) {
      upstream.answer = answer;
      const got = await askModern(sidecar.base, { id: 1, method: 'server/discover' });
      assert.ok(got.status >= 500, String(got.status));
    }
  });

  test('a list too large to be read whole is refused rather than passed unread', async () => {
    upstream.answer = (seen, response) =>
      sendJson(response, {
        jsonrpc: '2.0',
        id: seen.json.id,
        result: { tools: [{ name: 'x', description: 'y'.repeat(200_000) }] },
      });
    const got = await askLegacy(sidecar.base, { jsonrpc: '2.0', id: 7, method: 'tools/list' });
    assert.equal(got.status, 502);
  });

  test('a large result of a call goes through as it came', async () => {
    const text = 'é'.repeat(2_000_000);
    upstream.answer = (seen, response) =>
      sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: { content: [{ type: 'text', text }] } });
    const got = await askLegacy(sidecar.base, call());
    assert.equal(got.json.result.content[0].text, text);
  });

  test('cookies and challenges of the server never reach the agent, nor the agent’s credentials the server', async () => {
    upstream.answer = (seen, response) =>
      sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: {} }, 200, {
        'set-cookie': 'canary=1',
        'x-inner-host': 'canary',
      });
    const got = await askLegacy(sidecar.base, call(), {
      authorization: 'Bearer canary-in',
      cookie: 'canary-in=1',
      'proxy-authorization': 'canary-in',
      'x-api-key': 'canary-in',
      'x-forwarded-for': 'canary-in',
    });
    assert.equal(got.status, 200);
    assert.doesNotMatch(JSON.stringify(got.headers), /canary/);
    assert.doesNotMatch(JSON.stringify(upstream.seen.at(-1)!.headers), /canary-in/);
    assert.equal(upstream.seen.at(-1)!.headers.host, new URL(upstream.url).host);
  });
});

describe('the breaker', () => {
  test('trips after failures in a row, refuses without asking, lets one probe through, and closes on success', async () => {
    const upstream = await startScriptedUpstream();
    const sidecar = await startTestSidecar(settings(upstream.url));
    try {
      const failing: ScriptedUpstream['answer'] = (_seen, response) => response.writeHead(503).end();
      upstream.answer = failing;
      for (let index = 0; index < 3; index += 1) assert.equal((await askLegacy(sidecar.base, call())).status, 503);
      const before = upstream.seen.length;
      const refused = await askLegacy(sidecar.base, call());
      assert.equal(refused.json.error.code, -31503);
      assert.ok(refused.json.error.data.retryAfterMs <= 200);
      assert.equal(upstream.seen.length, before);

      const { answer } = await startAnswer();
      upstream.answer = answer;
      let status = 0;
      for (let tries = 0; tries < 50 && status !== 200; tries += 1) {
        status = (await askLegacy(sidecar.base, call())).status;
        if (status !== 200) await new Promise((resolve) => setTimeout(resolve, 20));
      }
      assert.equal(status, 200);
      assert.equal((await askLegacy(sidecar.base, call())).status, 200);
    } finally {
      await sidecar.close();
      await upstream.close();
    }
  });
});

async function startAnswer(): Promise<{ answer: ScriptedUpstream['answer'] }> {
  return {
    answer: (seen, response) => sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: { content: [] } }),
  };
}

describe('on the wire', () => {
  const servers: Server[] = [];
  const sidecars: TestSidecar[] = [];
  after(async () => {
    for (const sidecar of sidecars) await sidecar.close();
    for (const server of servers) server.close();
  });

  async function withWire(
    onConnection: (socket: Socket, count: number) => void,
  ): Promise<{ sidecar: TestSidecar; connections: () => number }> {
    let connections = 0;
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      connections += 1;
      onConnection(socket, connections);
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const sidecar = await startTestSidecar(settings(`http://127.0.0.1:${port}/mcp`));
    sidecars.push(sidecar);
    return { sidecar, connections: () => connections };
  }

  test('garbage that is not HTTP is 502', async () => {
    const { sidecar } = await withWire((socket) => socket.once('data', () => socket.end('SSH-2.0-canary\r\n')));
    const got = await askLegacy(sidecar.base, call());
    assert.equal(got.status, 502, JSON.stringify((await sidecar.auditLines()).at(-1)));
  });

  test('Content-Length with Transfer-Encoding is not believed', async () => {
    const { sidecar } = await withWire((socket) =>
      socket.once('data', () =>
        socket.write(
          'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
        ),
      ),
    );
    const got = await askLegacy(sidecar.base, call());
    assert.equal(got.status, 502);
  });

  test('a call is not sent twice when the connection breaks; a list is', async () => {
    const { sidecar, connections } = await withWire((socket) => socket.once('data', () => socket.destroy()));
    await askLegacy(sidecar.base, call());
    assert.equal(connections(), 1);
    await askLegacy(sidecar.base, { jsonrpc: '2.0', id: 1, method: 'tools/list' });
    assert.equal(connections(), 3);
  });

  test('nobody there is 503 with Retry-After', async () => {
    const { sidecar } = await withWire((socket) => socket.destroy());
    servers.at(-1)!.close();
    const got = await askLegacy(sidecar.base, call());
    assert.equal(got.status, 503);
    assert.equal(got.json.error.code, -31503);
    assert.ok(Number(got.headers['retry-after']) >= 1);
  });
});
