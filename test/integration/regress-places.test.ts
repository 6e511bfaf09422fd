/**
 * The places of `limits.inFlight` and `limits.streams`. A batch took one for all its elements, `subscriptions/listen` in
 * the manner of the 2025 eras opened a stream that nothing bounded, and what an agent had left kept its place for as long
 * as the server liked.
 */
import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { describe, type TestContext, test } from 'node:test';
import { type OpenStream, openStream } from '../support/event-stream.ts';
import { ACCEPT_BOTH, ask, askLegacy, askModern, toolCall } from '../support/raw-http.ts';
import { ALLOW_ALL, startBehind } from '../support/sidecar.ts';
import { until } from '../support/until.ts';

/**
 * A sidecar before a server that keeps `slow` calls open: a stream that says a word at once, and then a comment now and
 * then for ever. A `silent` one it does not answer.
 */
async function start(context: TestContext, settings: string) {
  const { upstream, sidecar } = await startBehind(
    context,
    (url) => `servers: { main: { url: "${url}" } }\ndrain: { grace: 100ms }\n${settings}\n${ALLOW_ALL}`,
  );
  const usual = upstream.answer;
  /** By the id of their request. */
  const open = new Map<ServerResponse, number | undefined>();
  let most = 0;
  upstream.answer = (seen, response, request) => {
    if (seen.method === 'POST' && !isSlow(seen.json)) return usual(seen, response, request);
    open.set(response, seen.json?.id);
    most = Math.max(most, open.size);
    response.on('close', () => open.delete(response));
    if (seen.json?.params?.name === 'silent') return;
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write('data: {"jsonrpc":"2.0","method":"notifications/message","params":{}}\n\n');
    const comments = setInterval(() => !response.writableEnded && response.write(': here\n\n'), 50);
    response.on('close', () => clearInterval(comments));
  };
  const figure = async (name: string) => {
    const text = await (await fetch(`${sidecar.admin}/metrics`)).text();
    return Number(new RegExp(`^mcp_sidecar_${name} (\\d+)$`, 'm').exec(text)?.[1]);
  };
  return {
    upstream,
    sidecar,
    base: sidecar.base,
    open,
    most: () => most,
    placesTaken: async () => (await figure('requests_in_flight')) + (await figure('streams_open')),
    stream: (message: unknown, headers = {}) =>
      openStream(`${sidecar.base}/mcp`, { headers, body: JSON.stringify(message) }),
    /** Ends one call, as a server does that answers it. */
    answerOne() {
      const [response, id] = open.entries().next().value!;
      open.delete(response);
      response.end(`data: ${JSON.stringify({ jsonrpc: '2.0', id, result: { content: [] } })}\n\n`);
    },
  };
}

const isSlow = (json: { method?: string; params?: { name?: string } }) =>
  json.method === 'subscriptions/listen' || ['slow', 'silent'].includes(json.params?.name ?? '');
const slow = (id: number) => toolCall('slow', {}, id);
const batchOf = <T>(count: number, one: (id: number) => T) => Array.from({ length: count }, (_, id) => one(id));
const LISTEN = { method: 'subscriptions/listen', params: { notifications: {} } };

describe('subscriptions/listen is of 2026-07-28', () => {
  const listen = (id: number) => ({ jsonrpc: '2.0', id, ...LISTEN });

  test('in a 2025 message it is a method that nobody knows, and no server hears of it', async (context) => {
    const { base, upstream } = await start(context, '');
    const request = await askLegacy(base, listen(4));
    assert.deepEqual([request.status, request.json.id, request.json.error.code], [200, 4, -32601]);
    const unversioned = await ask(base, { body: JSON.stringify(listen(5)) });
    assert.equal(unversioned.json.error.code, -32601);
    const notification = await askLegacy(base, { jsonrpc: '2.0', ...LISTEN });
    assert.deepEqual([notification.status, notification.json.error.code], [403, -32601]);
    assert.equal(upstream.seen.length, 0);
  });

  test('a batch with one is refused whole', async (context) => {
    const { base, upstream } = await start(context, 'limits: { inFlight: 2, streams: 2 }');
    const headers = { 'mcp-protocol-version': '2025-03-26' };
    const refused = await askLegacy(base, [toolCall('quick'), ...batchOf(49, listen)], headers);
    assert.deepEqual([refused.status, refused.json.error.code], [400, -32600]);
    assert.equal(upstream.seen.length, 0);
  });
});

describe('a batch', () => {
  const headers = { 'mcp-protocol-version': '2025-03-26' };

  test('has no more requests at the server than there are places, and is served whole', async (context) => {
    const { base, open, most, stream, answerOne } = await start(context, 'limits: { inFlight: 3 }');
    const batch = await stream(batchOf(10, slow), headers);
    await until(() => open.size === 3, 'as many requests as there are places');
    assert.equal((await askLegacy(base, toolCall('quick'))).status, 503);
    for (let answered = 0; answered < 10; answered++) {
      await until(() => open.size > 0, `request ${answered}`);
      answerOne();
    }
    await batch.ended;
    const ids = batch.events.flatMap(({ data }) => ('id' in data ? [data.id] : []));
    assert.deepEqual(
      ids.sort((one, other) => one - other),
      batchOf(10, (id) => id),
    );
    assert.equal(most(), 3);
    assert.equal((await askLegacy(base, toolCall('quick'))).status, 200);
  });

  test('larger than all places is served, not refused for ever', async (context) => {
    const { base, most } = await start(context, 'limits: { inFlight: 1 }');
    const answer = await askLegacy(
      base,
      batchOf(50, (id) => toolCall('quick', {}, id)),
      headers,
    );
    assert.equal(answer.status, 200);
    assert.equal(answer.json.length, 50);
    assert.equal(most(), 0);
  });

  test('of one agent leaves half of the places to the others', async (context) => {
    const keys = ['one', 'two'].map((name) => [name, `${name}-key-0123456789abcdef`] as const);
    for (const [name, key] of keys) {
      process.env[`PLACES_KEY_${name.toUpperCase()}`] = key;
      context.after(() => delete process.env[`PLACES_KEY_${name.toUpperCase()}`]);
    }
    const { base, open, stream } = await start(
      context,
      `limits: { inFlight: 4 }
identify:
  - type: apiKey
    agents: { one: { env: PLACES_KEY_ONE }, two: { env: PLACES_KEY_TWO } }`,
    );
    const [one, two] = keys.map(([, key]) => ({ authorization: `Bearer ${key}` }));
    const batch = await stream(batchOf(10, slow), { ...headers, ...one });
    await until(() => open.size === 2, 'half of the places');
    assert.equal((await askLegacy(base, toolCall('quick'), one)).status, 503);
    assert.equal((await askLegacy(base, toolCall('quick'), two)).status, 200);
    assert.equal(open.size, 2);
    batch.close();
  });
});

describe('an agent that hangs up', () => {
  const TIMES = 'limits: { inFlight: 4, streams: 4 }\ntimeouts: { idle: 10s, total: 2s }';
  const opened: readonly [name: string, open: (at: Awaited<ReturnType<typeof start>>) => Promise<OpenStream>][] = [
    ['a 2025 call', ({ stream }) => stream(slow(1))],
    ['a batch', ({ stream }) => stream(batchOf(10, slow), { 'mcp-protocol-version': '2025-03-26' })],
    ['a GET', ({ base }) => openStream(`${base}/mcp`, { method: 'GET' })],
  ];
  for (const [name, open] of opened)
    test(`${name}: its place and the server's stream are free within timeouts.total`, async (context) => {
      const at = await start(context, TIMES);
      for (let agent = 0; agent < 8; agent++) {
        const stream = await open(at);
        await stream.waitFor(1);
        assert.ok(at.open.size > 0);
        stream.close();
        // Nobody has to wait for what another agent has left.
        await until(async () => (await at.placesTaken()) === 0, 'free places');
      }
      await until(() => at.open.size === 0, 'the end of the streams at the server');
      const quick = await askLegacy(at.base, toolCall('quick'));
      assert.equal(quick.status, 200);
      const lines = (await at.sidecar.auditLines()).filter(({ aborted }) => aborted === true);
      assert.ok(lines.length >= 8);
    });

  test('before anything is answered: the same', async (context) => {
    const at = await start(context, TIMES);
    for (let agent = 0; agent < 8; agent++) {
      const leaving = new AbortController();
      const asked = fetch(`${at.base}/mcp`, {
        method: 'POST',
        signal: leaving.signal,
        headers: { accept: ACCEPT_BOTH, 'content-type': 'application/json' },
        body: JSON.stringify(toolCall('silent', {}, agent)),
      });
      const ended = assert.rejects(asked);
      await until(() => at.upstream.seen.length > agent, 'the request at the server');
      leaving.abort();
      await ended;
      await until(async () => (await at.placesTaken()) === 0, 'free places');
    }
    await until(() => at.open.size === 0, 'the end of the requests at the server');
    assert.equal((await askLegacy(at.base, toolCall('quick'))).status, 200);
  });

  test('leaves no more behind at the server than limits.inFlight', async (context) => {
    const at = await start(context, 'limits: { inFlight: 2 }\ntimeouts: { total: 1h }');
    for (let agent = 0; agent < 6; agent++) {
      const stream = await at.stream(slow(agent));
      await stream.waitFor(1);
      stream.close();
      await until(async () => (await at.placesTaken()) === 0, 'a free place');
    }
    await until(() => at.open.size === 2, 'the end of all but two');
    assert.equal((await askLegacy(at.base, toolCall('quick'))).status, 200);
    // What may run on is answered in the end, and then others may.
    while (at.open.size > 0) at.answerOne();
    const ended = async () => (await at.sidecar.auditLines()).filter(({ tool }) => tool === 'slow').length;
    await until(async () => (await ended()) === 6, 'the end of all six');
    const last = await at.stream(slow(9));
    await last.waitFor(1);
    last.close();
    await until(async () => (await at.placesTaken()) === 0, 'a free place');
    assert.equal((await askModern(at.base, { id: 1, method: 'ping' })).status, 200);
    assert.equal(at.open.size, 1);
  });

  test('what of its batch was not begun is not, and is recorded', async (context) => {
    const at = await start(context, 'limits: { inFlight: 2 }\ntimeouts: { total: 2s }');
    const batch = await at.stream(batchOf(5, slow), { 'mcp-protocol-version': '2025-03-26' });
    await until(() => at.open.size === 2, 'two at the server');
    batch.close();
    await until(() => at.open.size === 0, 'their end');
    const calls = async () => (await at.sidecar.auditLines()).filter(({ method }) => method === 'tools/call');
    await until(async () => (await calls()).length === 5, 'a line of each');
    assert.ok((await calls()).every(({ aborted }) => aborted === true));
    assert.equal(at.upstream.seen.length, 2);
  });
});
