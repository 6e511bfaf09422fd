/**
 * Every limit at its edge: what is over it is refused at once and clearly, what is inside goes on meanwhile.
 */
import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { after, afterEach, before, describe, type TestContext, test } from 'node:test';
import { openListener } from '../../sidecar/listener.ts';
import { type OpenStream, openStream } from '../support/event-stream.ts';
import { ACCEPT_BOTH, ask, askLegacy, askModern, sendRaw, toolCall } from '../support/raw-http.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { ALLOW_ALL, startTestSidecar, type TestSidecar } from '../support/sidecar.ts';
import { until } from '../support/until.ts';

let upstream: ScriptedUpstream;
let usual: ScriptedUpstream['answer'];
before(async () => {
  upstream = await startScriptedUpstream();
  usual = upstream.answer;
});
after(() => upstream.close());
afterEach(() => {
  upstream.answer = usual;
  upstream.seen.length = 0;
});

async function started(context: TestContext, limits: string): Promise<TestSidecar> {
  const sidecar = await startTestSidecar(
    `servers: { main: { url: "${upstream.url}" } }\nlimits: { ${limits} }\ndrain: { grace: 1s }\n${ALLOW_ALL}`,
  );
  context.after(() => sidecar.close());
  return sidecar;
}

const statusOf = async (answer: Promise<{ status: number }>) => (await answer).status;

/** Lets the server keep its calls until they are released. */
function hold(): { readonly held: (() => void)[]; release(): void } {
  const held: (() => void)[] = [];
  upstream.answer = (seen, response, request) => {
    if (seen.json?.params?.name === 'quick') usual(seen, response, request);
    else held.push(() => usual(seen, response, request));
  };
  return {
    held,
    release() {
      for (const one of held.splice(0)) one();
    },
  };
}

describe('how many at a time', () => {
  test('requests beyond inFlight are shed quickly with the id and Retry-After, and let in again later', async (context) => {
    const { base } = await started(context, 'inFlight: 2');
    const { held, release } = hold();
    const inside = [1, 2].map((id) => askLegacy(base, toolCall('slow', {}, id)));
    await until(() => held.length === 2, 'two at the server');
    const shedAt = performance.now();
    const shed = await Promise.all([
      ...Array.from({ length: 20 }, (_, id) => askLegacy(base, toolCall('slow', {}, `l${id}`))),
      ...Array.from({ length: 20 }, (_, id) => askModern(base, toolCall('slow', {}, `m${id}`))),
    ]);
    assert.ok(performance.now() - shedAt < 2_000);
    for (const [index, { status, headers, json }] of shed.entries()) {
      assert.deepEqual([status, json.error.code], [503, -31503]);
      assert.equal(json.id, index < 20 ? `l${index}` : `m${index - 20}`);
      assert.equal(headers['retry-after'], '1');
    }
    assert.equal(upstream.seen.length, 2);
    release();
    assert.deepEqual(await Promise.all(inside.map(statusOf)), [200, 200]);
    assert.equal(await statusOf(askLegacy(base, toolCall('quick'))), 200);
  });

  test('a probe that is shed is not told that the server is an old one', async (context) => {
    const { base } = await started(context, 'inFlight: 1');
    const { held, release } = hold();
    const inside = askLegacy(base, toolCall('slow'));
    await until(() => held.length === 1, 'one at the server');
    assert.equal((await askModern(base, { id: 1, method: 'server/discover' })).status, 503);
    release();
    await inside;
  });

  describe('streams', () => {
    const open: OpenStream[] = [];
    afterEach(() => {
      for (const stream of open.splice(0)) stream.close();
    });
    const push = (_seen: unknown, response: ServerResponse) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write('data: {"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n\n');
    };
    const LISTEN = { id: 'sub', method: 'subscriptions/listen', params: { notifications: {} } };
    async function listen(base: string): Promise<OpenStream> {
      const _meta = {
        'io.modelcontextprotocol/protocolVersion': '2026-07-28',
        'io.modelcontextprotocol/clientCapabilities': {},
      };
      const stream = await openStream(`${base}/mcp`, {
        headers: { 'mcp-protocol-version': '2026-07-28', 'mcp-method': LISTEN.method },
        body: JSON.stringify({ jsonrpc: '2.0', ...LISTEN, params: { ...LISTEN.params, _meta } }),
      });
      open.push(stream);
      await stream.waitFor(1);
      return stream;
    }
    async function get(base: string): Promise<OpenStream> {
      const stream = await openStream(`${base}/mcp`, { method: 'GET' });
      open.push(stream);
      await stream.waitFor(1);
      return stream;
    }

    test('beyond the limit are shed, of either era, and calls go on', async (context) => {
      const { base } = await started(context, 'streams: 2, inFlight: 1');
      upstream.answer = push;
      const first = await get(base);
      await listen(base);
      for (const shed of [await ask(base, { method: 'GET' }), await askModern(base, LISTEN)]) {
        assert.equal(shed.status, 503);
        assert.equal(shed.headers['retry-after'], '1');
        assert.equal(shed.json.error.code, -31503);
      }
      assert.equal((await askModern(base, LISTEN)).json.id, 'sub');
      // An open subscription does not take the place of a request.
      upstream.answer = usual;
      assert.equal(await statusOf(askLegacy(base, toolCall('quick'))), 200);

      first.close();
      upstream.answer = push;
      await until(async () => (await get(base).catch(() => undefined)) !== undefined, 'room for another stream');
    });
  });

  test('connections beyond the limit are closed, those inside go on, and room is given back', async (context) => {
    const { base } = await started(context, 'connections: 3');
    const port = Number(new URL(base).port);
    const dial = () =>
      new Promise<Socket>((resolve, reject) => {
        const socket = connect(port, '127.0.0.1', () => resolve(socket));
        socket.on('error', reject);
      });
    const inside = await Promise.all([dial(), dial(), dial()]);
    context.after(() => {
      for (const socket of inside) socket.destroy();
    });
    const closed = async () => {
      const socket = await dial();
      return new Promise<boolean>((resolve) => {
        socket.on('close', () => resolve(true)).resume();
        socket.on('data', () => resolve(false));
        socket.write('GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n');
      });
    };
    assert.equal(await closed(), true);
    const text = new Promise<string>((resolve) => inside[0]!.once('data', (chunk) => resolve(chunk.toString())));
    inside[0]!.write('GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n');
    assert.match(await text, /^HTTP\/1\.1 404 /);
    inside[1]!.destroy();
    await until(async () => !(await closed().catch(() => true)), 'room for another connection');
  });
});

describe('how big', () => {
  test('headers beyond headersBytes are 431', async (context) => {
    const { base } = await started(context, 'headersBytes: 4KiB');
    const head = (bytes: number) =>
      `POST /mcp HTTP/1.1\r\nHost: localhost\r\nX-Filler: ${'x'.repeat(bytes)}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 38\r\n\r\n{"jsonrpc":"2.0","id":1,"method":"x"} `;
    assert.match(await sendRaw(base, head(8_000)), /^HTTP\/1\.1 431 /);
    assert.match(await sendRaw(base, head(100)), /^HTTP\/1\.1 200 [\s\S]*"error"|^HTTP\/1\.1 200 [\s\S]*"result"/);
    const many = Array.from({ length: 500 }, (_, index) => `X-Filler-${index}: ${index}\r\n`).join('');
    assert.match(await sendRaw(base, `GET /mcp HTTP/1.1\r\nHost: localhost\r\n${many}\r\n`), /^HTTP\/1\.1 431 /);
    assert.equal(upstream.seen.length, 1);
  });

  test('a body of exactly the limit goes through, one byte more does not, with or without its length', async (context) => {
    const { base } = await started(context, 'body: 8KiB');
    const bodyOf = (bytes: number) => {
      const empty = JSON.stringify(toolCall('any', { text: '' }));
      return JSON.stringify(toolCall('any', { text: 'x'.repeat(bytes - empty.length) }));
    };
    const send = async (bytes: number, chunked: boolean) => {
      const body = bodyOf(bytes);
      const [framing, framed] = chunked
        ? ['Transfer-Encoding: chunked', `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`]
        : [`Content-Length: ${body.length}`, body];
      const head = `POST /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: ${ACCEPT_BOTH}\r\nContent-Type: application/json`;
      const answer = await sendRaw(base, `${head}\r\nConnection: close\r\n${framing}\r\n\r\n${framed}`);
      return Number(/^HTTP\/1\.1 (\d+)/.exec(answer)?.[1]);
    };
    for (const chunked of [false, true]) {
      assert.equal(await send(8192, chunked), 200);
      assert.equal(await send(8193, chunked), 413);
    }
    assert.deepEqual(
      upstream.seen.map(({ json }) => json.params.arguments.text.length > 8_000),
      [true, true],
    );
  });

  test('nesting of exactly the limit goes through, one level more does not', async (context) => {
    const { base } = await started(context, 'depth: 16');
    // The message, its params and the arguments are three levels.
    const nested = (levels: number) => JSON.parse('['.repeat(levels - 3) + ']'.repeat(levels - 3));
    assert.equal(await statusOf(askLegacy(base, toolCall('any', { deep: nested(16) }))), 200);
    const refused = await askLegacy(base, toolCall('any', { deep: nested(17) }));
    assert.deepEqual([refused.status, refused.json.error.code], [400, -32600]);
  });

  test('a batch of exactly the limit goes through, one more does not', async (context) => {
    const { base } = await started(context, 'batch: 3');
    const batch = (size: number) =>
      askLegacy(
        base,
        Array.from({ length: size }, (_, id) => toolCall('any', {}, id)),
        { 'mcp-protocol-version': '2025-03-26' },
      );
    assert.equal((await batch(3)).json.length, 3);
    const refused = await batch(4);
    assert.deepEqual([refused.status, refused.json.error.code], [400, -32600]);
    assert.equal(upstream.seen.length, 3);
  });

  test('an event within the limit goes through, one beyond it ends the stream with an error', async (context) => {
    const { base } = await started(context, 'event: 8KiB');
    const send = async (bytes: number) => {
      upstream.answer = (seen, response) => {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        const result = { content: [{ type: 'text', text: 'x'.repeat(bytes) }] };
        response.end(`data: ${JSON.stringify({ jsonrpc: '2.0', id: seen.json.id, result })}\n\n`);
      };
      const stream = await openStream(`${base}/mcp`, { body: JSON.stringify(toolCall('any')) });
      await stream.ended;
      return stream.events.at(-1)!.data;
    };
    assert.ok((await send(7_500)).result);
    assert.equal((await send(9_000)).error.code, -31502);
  });
});

describe('how slow', () => {
  const TIMEOUTS = { headMs: 300, requestMs: 1_500, keepAliveMs: 300, lookMs: 100 };

  async function listening(context: TestContext) {
    const opened = await openListener(
      { kind: 'tcp', host: '127.0.0.1', port: 0, tls: undefined },
      { headersBytes: 16_384, connections: 1000 },
      {
        onRequest: (request, response) => request.resume().on('end', () => response.end('served')),
        onError: (message) => assert.fail(message),
      },
      TIMEOUTS,
    );
    assert.ok(opened.ok);
    context.after(() => {
      opened.value.stop();
      opened.value.destroy();
    });
    return opened.value.url.replace(/\/mcp$/, '');
  }

  test('connections that trickle their head, or their body, are closed on time while others are served', async (context) => {
    const base = await listening(context);
    const slow = Array.from({ length: 200 }, (_, index) => {
      const socket = connect(Number(new URL(base).port), '127.0.0.1').on('error', () => {});
      socket.write(
        index % 2 === 0
          ? 'POST /mcp HTTP/1.1\r\nHost: loc'
          : 'POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n',
      );
      const trickle = setInterval(() => socket.write('a'), 50);
      context.after(() => {
        clearInterval(trickle);
        socket.destroy();
      });
      return new Promise<number>((resolve) => {
        socket.resume().on('close', () => {
          clearInterval(trickle);
          resolve(performance.now());
        });
      });
    });
    const started = performance.now();
    let over = false;
    const all = Promise.all(slow).then((times) => {
      over = true;
      return times;
    });
    let served = 0;
    for (let index = 0; index < 1_000 && !over; index += 1) {
      assert.equal((await ask(base, { body: '{}' })).text, 'served');
      served += 1;
    }
    const closedAfter = (await all).map((at) => at - started);
    const [heads, bodies] = [0, 1].map((odd) => closedAfter.filter((_after, index) => index % 2 === odd));
    assert.ok(Math.max(...heads!) < Math.min(...bodies!), `${Math.max(...heads!)} and ${Math.min(...bodies!)} ms`);
    assert.ok(Math.max(...bodies!) < 5_000, `${Math.max(...bodies!)} ms`);
    assert.ok(served > 5);
  });

  test('a connection that stays idle is let go', async (context) => {
    const base = await listening(context);
    const opened = performance.now();
    const socket = connect(Number(new URL(base).port), '127.0.0.1');
    context.after(() => socket.destroy());
    let text = '';
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    const closed = new Promise<number>((resolve) => socket.on('end', () => resolve(performance.now() - opened)));
    socket.write('GET /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n');
    const after = await closed;
    assert.match(text, /^HTTP\/1\.1 200 .*served$/s);
    assert.ok(after > 250 && after < 4_000, `${after} ms`);
  });
});
