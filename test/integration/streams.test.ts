/**
 * What the public conformance suite does not look at: that events arrive one by one, that cancelling and resuming mean
 * what each era says, that filtering holds on every stream, and that each forwarded request carries its trace context.
 */
import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { type OpenStream, openStream } from '../support/event-stream.ts';
import { ask, askLegacy, askModern } from '../support/raw-http.ts';
import { type ScriptedUpstream, sendJson, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { ALLOW_ALL, startTestSidecar, type TestSidecar } from '../support/sidecar.ts';

let upstream: ScriptedUpstream;
let sidecar: TestSidecar;
const open: OpenStream[] = [];

before(async () => {
  upstream = await startScriptedUpstream();
  sidecar = await startTestSidecar(`
servers: { main: { url: "${upstream.url}" } }
limits: { event: 64KiB }
${ALLOW_ALL.replace('rules:', 'rules:\n    - { name: hide the drill, deny: [ { server: main, tools: [drill] } ] }')}`);
});
after(async () => {
  await sidecar.close();
  await upstream.close();
});
afterEach(() => {
  for (const stream of open.splice(0)) stream.close();
});

const MODERN_META = {
  'io.modelcontextprotocol/protocolVersion': '2026-07-28',
  'io.modelcontextprotocol/clientCapabilities': {},
};

async function stream(
  message: { id: number; method: string; params?: Record<string, unknown> },
  era: 'legacy' | 'modern' = 'legacy',
): Promise<OpenStream> {
  const name = message.params?.name;
  const params = era === 'modern' ? { ...message.params, _meta: MODERN_META } : message.params;
  const opened = await openStream(`${sidecar.base}/mcp`, {
    headers:
      era === 'modern'
        ? {
            'mcp-protocol-version': '2026-07-28',
            'mcp-method': message.method,
            ...(typeof name === 'string' ? { 'mcp-name': name } : undefined),
          }
        : { 'mcp-protocol-version': '2025-11-25' },
    body: JSON.stringify({ jsonrpc: '2.0', ...message, params }),
  });
  open.push(opened);
  return opened;
}

function startSse(response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.flushHeaders();
}

const event = (value: unknown, id?: string) =>
  `${id === undefined ? '' : `id: ${id}\n`}event: message\ndata: ${JSON.stringify(value)}\n\n`;
const progress = (step: number) => ({
  jsonrpc: '2.0',
  method: 'notifications/progress',
  params: { progressToken: 1, progress: step },
});

test('events arrive one by one, each within 5 ms in the median of its being sent', async () => {
  const sentAt: number[] = [];
  upstream.answer = async (seen, response) => {
    startSse(response);
    for (let step = 0; step < 20; step += 1) {
      sentAt.push(performance.now());
      response.write(event(progress(step)));
      await delay(10);
    }
    response.end(event({ jsonrpc: '2.0', id: seen.json.id, result: { content: [] } }));
  };
  const answer = await stream({ id: 1, method: 'tools/call', params: { name: 'slow' } });
  await answer.ended;
  assert.equal(answer.events.length, 21);
  const delays = sentAt.map((at, index) => answer.events[index]!.at - at).sort((a, b) => a - b);
  assert.ok(delays[10]! < 5, `median delay ${delays[10]!.toFixed(2)} ms`);
  // In a lump, the first would come with the last.
  assert.ok(answer.events[0]!.at < sentAt[5]!);
});

test('an event that arrives in pieces, even inside a character, is passed on whole and unchanged', async () => {
  const text = event(
    { jsonrpc: '2.0', method: 'notifications/message', params: { level: 'info', data: 'żółć 🦊' } },
    'a-1',
  );
  upstream.answer = async (seen, response) => {
    startSse(response);
    const bytes = Buffer.from(text.replaceAll('\n', '\r\n'));
    for (let index = 0; index < bytes.length; index += 7) {
      response.write(bytes.subarray(index, index + 7));
      await delay(0);
    }
    response.end(event({ jsonrpc: '2.0', id: seen.json.id, result: {} }));
  };
  const answer = await ask(sidecar.base, {
    headers: { accept: 'application/json, text/event-stream' },
    body: '{"jsonrpc":"2.0","id":1,"method":"ping"}',
  });
  assert.ok(answer.text.startsWith(text.replaceAll('\n', '\r\n')));
});

describe('cancelling', () => {
  async function upstreamStream(
    message: { id: number; method: string; params?: Record<string, unknown> },
    era: 'legacy' | 'modern',
  ) {
    let closed = false;
    let response: ServerResponse | undefined;
    const closedAt = new Promise<number>((resolve) => {
      upstream.answer = (_seen, answer) => {
        response = answer;
        startSse(answer);
        answer.write(event(progress(1)));
        answer.on('close', () => {
          closed = true;
          resolve(performance.now());
        });
      };
    });
    const answer = await stream(message, era);
    await answer.waitFor(1);
    return { answer, closedAt, isClosed: () => closed, response: () => response! };
  }

  test('2026-07-28: the agent leaves and the server is told within a second', async () => {
    const { answer, closedAt } = await upstreamStream(
      { id: 5, method: 'tools/call', params: { name: 'slow' } },
      'modern',
    );
    const left = performance.now();
    answer.close();
    assert.ok((await closedAt) - left < 1_000);
  });

  test('2025: the agent leaves and the request runs on to its end', async () => {
    const { answer, isClosed, response } = await upstreamStream(
      { id: 5, method: 'tools/call', params: { name: 'slow' } },
      'legacy',
    );
    answer.close();
    await delay(200);
    assert.equal(isClosed(), false);
    response().end(event({ jsonrpc: '2.0', id: 5, result: { content: [] } }));
    for (let tries = 0; tries < 50; tries += 1) {
      const line = (await sidecar.auditLines()).find(
        (one) => one.requestId === '5' && one.aborted === true && one.method === 'tools/call' && one.era === 'legacy',
      );
      if (line !== undefined) return assert.ok(line.tokensOut > 0);
      await delay(20);
    }
    assert.fail('no audit line of the request that ran on');
  });
});

describe('2025: the stream of a GET', () => {
  test('carries the server’s own requests, and ends at the server when the agent leaves', async () => {
    const closed = new Promise<void>((resolve) => {
      upstream.answer = (_seen, response) => {
        startSse(response);
        response.write(
          event({ jsonrpc: '2.0', id: 'srv-1', method: 'sampling/createMessage', params: { messages: [] } }, 'e1'),
        );
        response.on('close', resolve);
      };
    });
    const answer = await openStream(`${sidecar.base}/mcp`, { method: 'GET' });
    open.push(answer);
    await answer.waitFor(1);
    assert.equal(answer.events[0]!.data.method, 'sampling/createMessage');
    answer.close();
    await closed;
  });

  test('Last-Event-ID goes through, and a list replayed there is filtered all the same', async () => {
    upstream.answer = (_seen, response) => {
      startSse(response);
      response.write(event({ jsonrpc: '2.0', id: 9, result: { tools: [{ name: 'saw' }, { name: 'drill' }] } }, 'e8'));
    };
    const answer = await openStream(`${sidecar.base}/mcp`, { method: 'GET', headers: { 'last-event-id': 'e7' } });
    open.push(answer);
    await answer.waitFor(1);
    assert.equal(upstream.seen.at(-1)!.headers['last-event-id'], 'e7');
    assert.deepEqual(answer.events[0]!.data.result.tools, [{ name: 'saw' }]);
    assert.equal(answer.events[0]!.id, 'e8');
  });

  test('a key written with escapes does not hide a list', async () => {
    upstream.answer = (_seen, response) => {
      startSse(response);
      response.write(
        'data: {"jsonrpc":"2.0","id":9,"result":{"t\\u006fols":[{"name":"dr\\u0069ll"},{"name":"saw"}]}}\n\n',
      );
    };
    const answer = await openStream(`${sidecar.base}/mcp`, { method: 'GET' });
    open.push(answer);
    await answer.waitFor(1);
    assert.deepEqual(answer.events[0]!.data.result.tools, [{ name: 'saw' }]);
  });

  test('an event that is not JSON is not passed on', async () => {
    upstream.answer = (_seen, response) => {
      startSse(response);
      response.write('data: {"jsonrpc":"2.0","id":9,"result":{"tools":[{"name":"drill"}]},}\n\n');
      response.write(event(progress(2)));
    };
    const answer = await openStream(`${sidecar.base}/mcp`, { method: 'GET' });
    open.push(answer);
    await answer.waitFor(1);
    assert.equal(answer.events[0]!.data.method, 'notifications/progress');
  });
});

describe('a stream that breaks', () => {
  test('without event ids: the agent gets an error with its id', async () => {
    upstream.answer = (_seen, response) => {
      startSse(response);
      response.write(event(progress(1)), () => response.destroy());
    };
    const answer = await stream({ id: 11, method: 'tools/call', params: { name: 'slow' } });
    await answer.ended;
    assert.equal(answer.events.at(-1)!.data.id, 11);
    assert.equal(answer.events.at(-1)!.data.error.code, -31503);
  });

  test('with event ids: it just ends, and the agent resumes', async () => {
    upstream.answer = (_seen, response) => {
      startSse(response);
      response.write(event(progress(1), 'e1'), () => response.destroy());
    };
    const answer = await stream({ id: 12, method: 'tools/call', params: { name: 'slow' } });
    await answer.ended;
    assert.equal(answer.events.length, 1);
  });

  test('an event over limits.event ends it with an error', async () => {
    upstream.answer = (_seen, response) => {
      startSse(response);
      response.write(`data: ${'x'.repeat(100_000)}`);
    };
    const answer = await stream({ id: 13, method: 'tools/call', params: { name: 'slow' } });
    await answer.ended;
    assert.equal(answer.events.at(-1)!.data.error.code, -31502);
  });
});

describe('trace context', () => {
  const contextOf = () => upstream.seen.at(-1)!.json.params._meta.traceparent as string;

  test('is on every forwarded request, in params and _meta that were not there too', async () => {
    upstream.answer = (seen, response) =>
      sendJson(response, seen.json.id === undefined ? undefined : { jsonrpc: '2.0', id: seen.json.id, result: {} });
    const messages = [
      { jsonrpc: '2.0', id: 1, method: 'ping' },
      { jsonrpc: '2.0', id: 2, method: 'tools/list', params: {} },
      { jsonrpc: '2.0', id: 3, method: 'tools/call', params: { name: 'saw', arguments: { _meta: 1 } } },
      { jsonrpc: '2.0', id: 4, method: 'tools/call', params: { name: 'saw', _meta: { progressToken: 4 } } },
      { jsonrpc: '2.0', method: 'notifications/initialized' },
    ];
    for (const message of messages) {
      assert.ok((await askLegacy(sidecar.base, message)).status < 300);
      assert.match(contextOf(), /^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$/);
    }
    assert.equal(upstream.seen.at(-2)!.json.params._meta.progressToken, 4);
    assert.deepEqual(upstream.seen.at(-3)!.json.params.arguments, { _meta: 1 });
  });

  test('that arrives is continued, with tracestate and baggage', async () => {
    const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
    const _meta = { traceparent: `00-${traceId}-00f067aa0ba902b7-01`, tracestate: 'vendor=1', baggage: 'user=7' };
    await askLegacy(
      sidecar.base,
      { jsonrpc: '2.0', id: 5, method: 'ping', params: { _meta } },
      { traceparent: `00-${'1'.repeat(32)}-${'2'.repeat(16)}-01` },
    );
    const sent = upstream.seen.at(-1)!.json.params._meta;
    assert.equal(sent.traceparent.slice(3, 35), traceId);
    assert.equal(sent.tracestate, 'vendor=1');
    assert.equal(sent.baggage, 'user=7');
    const line = (await sidecar.auditLines()).find((one) => one.requestId === '5' && one.method === 'ping');
    assert.equal(line.traceId, traceId);
  });

  test('numbers, spaces and unknown members go through byte for byte', async () => {
    const body =
      '{ "jsonrpc":"2.0",\t"id" : 6, "method":"tools/call","params":{"name":"saw","arguments":{"big":12345678901234567890,"exp":1.50e+10}},"x-own":[1 , 2] }';
    await ask(sidecar.base, { headers: { accept: 'application/json, text/event-stream' }, body });
    const sent = upstream.seen.at(-1)!.body;
    assert.equal(sent.replace(/"_meta":\{"traceparent":"[^"]+"\},/, ''), body);
  });
});

describe('a 2025-03-26 batch', () => {
  test('is judged element by element', async () => {
    upstream.answer = (seen, response) =>
      sendJson(
        response,
        seen.json.id === undefined ? undefined : { jsonrpc: '2.0', id: seen.json.id, result: { content: [] } },
      );
    const batch = [
      { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'saw' } },
      { jsonrpc: '2.0', id: 2, method: 'tools/call', params: { name: 'drill' } },
      { jsonrpc: '2.0', method: 'notifications/progress', params: { progressToken: 1, progress: 1 } },
    ];
    const before = upstream.seen.length;
    const answer = await askLegacy(sidecar.base, batch, { 'mcp-protocol-version': '2025-03-26' });
    assert.equal(answer.status, 200);
    const byId = new Map(answer.json.map((one: { id: number }) => [one.id, one]));
    assert.deepEqual(byId.get(1), { jsonrpc: '2.0', id: 1, result: { content: [] } });
    assert.deepEqual(byId.get(2), { jsonrpc: '2.0', id: 2, error: { code: -32602, message: 'Unknown tool: drill' } });
    assert.equal(upstream.seen.length - before, 2);
  });

  test('is refused by the revisions that have none', async () => {
    const answer = await askLegacy(sidecar.base, [{ jsonrpc: '2.0', id: 1, method: 'ping' }], {
      'mcp-protocol-version': '2025-06-18',
    });
    assert.equal(answer.status, 400);
    assert.equal(answer.json.error.code, -32600);
  });
});

describe('sessions of the 2025 eras', () => {
  test('the agent’s id is a sealed one, the server gets its own, and a forged one is 404', async () => {
    upstream.answer = (seen, response) =>
      sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: { protocolVersion: '2025-11-25' } }, 200, {
        'mcp-session-id': 'inner-session',
      });
    const first = await askLegacy(sidecar.base, { jsonrpc: '2.0', id: 1, method: 'initialize', params: {} });
    const sealed = first.headers['mcp-session-id'] as string;
    assert.match(sealed, /^[\x21-\x7e]+$/);
    assert.doesNotMatch(sealed, /inner-session/);

    const second = await askLegacy(
      sidecar.base,
      { jsonrpc: '2.0', id: 2, method: 'ping' },
      { 'mcp-session-id': sealed },
    );
    assert.equal(upstream.seen.at(-1)!.headers['mcp-session-id'], 'inner-session');
    assert.equal(second.headers['mcp-session-id'], sealed);

    const before = upstream.seen.length;
    for (const forged of ['inner-session', `${sealed.slice(0, -2)}AA`, 'x']) {
      assert.equal(
        (await askLegacy(sidecar.base, { jsonrpc: '2.0', id: 3, method: 'ping' }, { 'mcp-session-id': forged })).status,
        404,
      );
    }
    assert.equal(upstream.seen.length, before);
  });
});

describe('lists are filtered', () => {
  const tools = [{ name: 'saw', description: 'cuts' }, { name: 'drill' }];

  test('in a JSON answer, keeping order, cursor and everything else', async () => {
    upstream.answer = (seen, response) =>
      sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: { tools, nextCursor: 'c2', own: 1 } });
    const answer = await askLegacy(sidecar.base, { jsonrpc: '2.0', id: 1, method: 'tools/list' });
    assert.deepEqual(answer.json.result, { tools: [tools[0]], nextCursor: 'c2', own: 1 });
    assert.equal(Number(answer.headers['content-length']), Buffer.byteLength(answer.text));
  });

  test('in an event stream', async () => {
    upstream.answer = (seen, response) => {
      startSse(response);
      response.end(event({ jsonrpc: '2.0', id: seen.json.id, result: { tools } }, 'e1'));
    };
    const answer = await stream({ id: 2, method: 'tools/list' });
    await answer.ended;
    assert.deepEqual(answer.events[0]!.data.result.tools, [tools[0]]);
  });

  test('and a public scope becomes private', async () => {
    upstream.answer = (seen, response) =>
      sendJson(response, {
        jsonrpc: '2.0',
        id: seen.json.id,
        result: { resultType: 'complete', tools, ttlMs: 0, cacheScope: 'public' },
      });
    const answer = await askModern(sidecar.base, { id: 3, method: 'tools/list' });
    assert.equal(answer.json.result.cacheScope, 'private');
    assert.deepEqual(answer.json.result.tools, [tools[0]]);
  });
});

test('an answer with a ttlMs is given again without the server, with the time that is left and the new id', async () => {
  upstream.answer = (seen, response) =>
    sendJson(response, {
      jsonrpc: '2.0',
      id: seen.json.id,
      result: { resultType: 'complete', tools: [{ name: 'saw' }], ttlMs: 60_000, cacheScope: 'private' },
    });
  const params = { cursor: 'kept' };
  await askModern(sidecar.base, { id: 'first', method: 'tools/list', params });
  const before = upstream.seen.length;
  const again = await askModern(sidecar.base, { id: 'second', method: 'tools/list', params });
  assert.equal(upstream.seen.length, before);
  assert.equal(again.json.id, 'second');
  assert.deepEqual(again.json.result.tools, [{ name: 'saw' }]);
  assert.ok(again.json.result.ttlMs <= 60_000 && again.json.result.ttlMs > 50_000);
});
