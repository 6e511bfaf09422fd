/**
 * A hard quota of tokens, over real sockets: whatever way an answer comes, it is not passed on beyond the limit, the
 * agent sees an error rather than a short answer that looks whole, and the record says which quota it was.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { type TestContext, test } from 'node:test';
import { openStream } from '../support/event-stream.ts';
import { ask, askLegacy, askModern, toolCall } from '../support/raw-http.ts';
import { type ScriptedUpstream, sendJson } from '../support/scripted-upstream.ts';
import { startBehind } from '../support/sidecar.ts';

async function opened(context: TestContext, quota: string, more = '') {
  const { upstream, sidecar } = await startBehind(
    context,
    (url) => `
servers: { main: { url: "${url}" } }
policy: { version: 1, default: allow, quotas: [ { name: tokens, key: [agent], ${quota} } ]${more} }
`,
  );
  const records = async (method: string) => (await sidecar.auditLines()).filter((line) => line.method === method);
  return { upstream, sidecar, records };
}

const textResult = (id: unknown, bytes: number) => ({
  jsonrpc: '2.0',
  id,
  result: { content: [{ type: 'text', text: 'x'.repeat(bytes) }] },
});
const event = (value: unknown, id: string) => `id: ${id}\ndata: ${JSON.stringify(value)}\n\n`;
const progress = { jsonrpc: '2.0', method: 'notifications/progress', params: { progressToken: 1, progress: 1 } };

/** Answers with JSON that goes on for as long as somebody reads it, 50 MB at most. */
function pour(upstream: ScriptedUpstream): { readonly written: () => number; readonly closed: Promise<unknown> } {
  let written = 0;
  const closed = new Promise((resolve) => {
    upstream.answer = async (seen, response) => {
      response.once('close', resolve);
      response.writeHead(200, { 'content-type': 'application/json' });
      response.write(
        `{"jsonrpc":"2.0","id":${JSON.stringify(seen.json.id)},"result":{"content":[{"type":"text","text":"`,
      );
      while (written < 50_000_000 && !response.destroyed) {
        written += 65_536;
        if (!response.write('x'.repeat(65_536))) await Promise.race([once(response, 'drain'), closed]);
      }
      response.end('"}]}}');
    };
  });
  return { written: () => written, closed };
}

test('a JSON answer that is too much before any of it is out is an error as every other', async (context) => {
  const { upstream, sidecar, records } = await opened(context, 'tokens: 100/h, hard: true');
  const { written, closed } = pour(upstream);
  const { status, headers, json } = await askLegacy(sidecar.base, toolCall('any'));
  assert.deepEqual(
    [status, headers['retry-after'], json.id, json.error.code, json.error.data.quota],
    [429, '3600', 7, -31429, 'tokens'],
  );
  await closed;
  assert.ok(written() < 50_000_000, 'the server is not read to its end');
  const [line] = await records('tools/call');
  assert.deepEqual([line.tool, line.decision, line.rule, line.rpcCode], ['any', 'limit', 'tokens', -31429]);
  assert.equal(line.errorId, json.error.data.errorId);
  assert.ok(line.tokensOut > 100, 'what came is charged');
  assert.equal((await askLegacy(sidecar.base, toolCall('any'))).status, 429);
  assert.equal(upstream.seen.length, 1);
});

test('a JSON answer that becomes too much on its way is cut, and its client sees that', async (context) => {
  const { upstream, sidecar, records } = await opened(context, 'tokens: 50000/h, hard: true');
  const { written, closed } = pour(upstream);
  await assert.rejects(askLegacy(sidecar.base, toolCall('any')), { code: 'ECONNRESET' });
  await closed;
  assert.ok(written() < 50_000_000);
  const [line] = await records('tools/call');
  assert.deepEqual([line.tool, line.decision, line.rule, line.status], ['any', 'limit', 'tokens', 200]);
  assert.ok(line.bytesOut > 0 && line.bytesOut <= 200_000, `${line.bytesOut} bytes`);
});

for (const [window, retryAfterMs] of [
  ['tokens: 100/min', 60_000],
  ['tokens: 100/h', 3_600_000],
] as const)
  test(`what came counts for a whole window: ${window}`, async (context) => {
    const { upstream, sidecar } = await opened(context, `${window}, hard: true`);
    upstream.answer = (seen, response) => sendJson(response, textResult(seen.json.id, 5000));
    const { status, headers, json } = await askLegacy(sidecar.base, toolCall('any'));
    assert.deepEqual([status, json.error.code], [429, -31429]);
    assert.equal(json.error.data.retryAfterMs, retryAfterMs);
    assert.equal(headers['retry-after'], String(retryAfterMs / 1000));
  });

test('a small JSON answer is passed on up to the limit, by the figures of its server where it has them', async (context) => {
  const { upstream, sidecar } = await opened(context, 'tokens: 300/h, hard: true');
  upstream.answer = (seen, response) => sendJson(response, textResult(seen.json.id, seen.json.params.arguments.bytes));
  const call = (bytes: number) => askLegacy(sidecar.base, toolCall('any', { bytes }));
  assert.equal((await call(200)).status, 200);
  assert.equal((await call(5000)).json.error.code, -31429);

  const figures = await opened(context, 'tokens: 300/h, hard: true');
  figures.upstream.answer = (seen, response) => {
    const { result, ...rest } = textResult(seen.json.id, 5000);
    sendJson(response, { ...rest, result: { ...result, usage: { inputTokens: 5, outputTokens: 20 } } });
  };
  assert.equal((await askLegacy(figures.sidecar.base, toolCall('any'))).status, 200);
});

test('the words of an error count as those of a result', async (context) => {
  const { upstream, sidecar } = await opened(context, 'tokens: 300/h, hard: true');
  upstream.answer = (seen, response) => {
    const { length } = seen.json.params.arguments;
    const error = { code: -32000, message: 'x'.repeat(length) };
    sendJson(response, { jsonrpc: '2.0', id: seen.json.id, error }, 400);
  };
  const call = (length: number) => askLegacy(sidecar.base, toolCall('any', { length }));
  assert.equal((await call(200)).json.error.code, -32000);
  assert.equal((await call(5000)).json.error.code, -31429);
});

test('what is too much is told to the model where the quota says so', async (context) => {
  const { upstream, sidecar } = await opened(context, 'tokens: 100/h, hard: true, onLimit: toolError');
  upstream.answer = (seen, response) => sendJson(response, textResult(seen.json.id, 5000));
  const { status, json } = await askLegacy(sidecar.base, toolCall('any'));
  assert.deepEqual([status, json.result.isError], [200, true]);

  const streamed = await opened(context, 'tokens: 100/h, hard: true, onLimit: toolError');
  streamed.upstream.answer = (seen, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.end(event(textResult(seen.json.id, 5000), 'e1'));
  };
  const { text } = await askLegacy(streamed.sidecar.base, toolCall('any'));
  assert.match(text, /"isError":true/);
  assert.doesNotMatch(text, /xxx/);
});

test('an answer that is too much as one event is withheld', async (context) => {
  const { upstream, sidecar, records } = await opened(context, 'tokens: 100/h, hard: true');
  upstream.answer = (seen, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.end(event(textResult(seen.json.id, 5000), 'e1'));
  };
  const { text } = await askLegacy(sidecar.base, toolCall('any'));
  assert.doesNotMatch(text, /xxx/);
  assert.match(text, /"code":-31429/);
  const [line] = await records('tools/call');
  assert.deepEqual([line.decision, line.rule, line.rpcCode], ['limit', 'tokens', -31429]);
});

test('a stream whose head still waits to hear that there is such a tool has an error as every other', async (context) => {
  const hiding = ', rules: [ { name: hide, deny: [ { server: main, tools: [drill] } ] } ]';
  const { upstream, sidecar, records } = await opened(context, 'tokens: 100/h, hard: true', hiding);
  upstream.answer = (seen, response) => {
    if (seen.json.method !== 'tools/call')
      return sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: { tools: [] } });
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.end(event(textResult(seen.json.id, 5000), 'e1'));
  };
  const { status, json } = await askLegacy(sidecar.base, toolCall('any'));
  assert.deepEqual([status, json.error.code], [429, -31429]);
  assert.equal((await records('tools/call'))[0].rule, 'tokens');
});

test('an answer from memory is paid for as any other', async (context) => {
  const { upstream, sidecar, records } = await opened(context, 'tokens: 2000/h, hard: true');
  upstream.answer = (seen, response) =>
    sendJson(response, {
      jsonrpc: '2.0',
      id: seen.json.id,
      result: { contents: [{ uri: 'a:b', text: 'x'.repeat(5000) }], ttlMs: 60_000, cacheScope: 'private' },
    });
  const read = () => askModern(sidecar.base, { id: 1, method: 'resources/read', params: { uri: 'a:b' } });
  assert.deepEqual([(await read()).status, (await read()).status], [200, 429]);
  assert.equal(upstream.seen.length, 1);
  const line = (await records('resources/read'))[1]!;
  assert.deepEqual([line.decision, line.rule, line.cached], ['limit', 'tokens', true]);
});

test('a soft quota passes everything on, and so does audit mode, which says what it would have done', async (context) => {
  const soft = await opened(context, 'tokens: 100/h');
  soft.upstream.answer = (seen, response) => sendJson(response, textResult(seen.json.id, 200_000));
  assert.equal((await askLegacy(soft.sidecar.base, toolCall('any'))).status, 200);
  assert.equal((await askLegacy(soft.sidecar.base, toolCall('any'))).status, 429);

  const audit = await opened(context, 'tokens: 100/h, hard: true', ', mode: audit');
  audit.upstream.answer = (seen, response) => sendJson(response, textResult(seen.json.id, 200_000));
  assert.equal((await askLegacy(audit.sidecar.base, toolCall('any'))).json.result.content[0].text.length, 200_000);
  const [line] = await audit.records('tools/call');
  assert.deepEqual([line.decision, line.rule], ['audit', 'tokens']);
});

/** A session in which a call was begun whose stream broke off before its answer. Its answer, so large, waits for a GET. */
async function unanswered(context: TestContext, quota: string, bytes: number) {
  const { upstream, sidecar, records } = await opened(context, quota);
  let push: ServerResponse | undefined;
  upstream.answer = (seen, response) => {
    const headers = { 'mcp-session-id': 'session-1' };
    if (seen.json?.method === 'initialize') return sendJson(response, textResult(seen.json.id, 0), 200, headers);
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    if (seen.method === 'POST') return void response.write(event(progress, 'e1'), () => response.destroy());
    push = response;
    if (seen.headers['last-event-id'] === undefined) return response.flushHeaders();
    response.write(event(textResult(7, bytes), 'e2'));
    return void response.write(event(progress, 'e3'));
  };
  const initialize = {
    jsonrpc: '2.0',
    id: 1,
    method: 'initialize',
    params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'test', version: '1' } },
  };
  const session = (await askLegacy(sidecar.base, initialize)).headers['mcp-session-id'];
  const headers = { 'mcp-session-id': session, 'mcp-protocol-version': '2025-11-25' };
  const get = async (more = {}) => {
    const stream = await openStream(`${sidecar.base}/mcp`, { method: 'GET', headers: { ...headers, ...more } });
    context.after(() => stream.close());
    return stream;
  };
  const call = () => askLegacy(sidecar.base, toolCall('any'), headers);
  await call();
  return { call, get, push: () => push!, records, upstream, sidecar, headers };
}

test('an answer on a stream that is taken up again is charged to its call', async (context) => {
  const { call, get } = await unanswered(context, 'tokens: 1000/h', 5000);
  const resumed = await get({ 'last-event-id': 'e1' });
  await resumed.waitFor(2);
  assert.equal(resumed.events[0]!.data.result.content[0].text.length, 5000);
  assert.equal((await call()).status, 429);
});

test('an answer on a stream that is taken up again is withheld when it is too much', async (context) => {
  const { get, push, records } = await unanswered(context, 'tokens: 1000/h, hard: true', 5000);
  const resumed = await get({ 'last-event-id': 'e1' });
  await resumed.waitFor(2);
  const [first, second] = resumed.events;
  assert.deepEqual([first!.id, first!.data.id, first!.data.error.code], ['e2', 7, -31429]);
  assert.equal(first!.data.error.data.quota, 'tokens');
  assert.deepEqual(second!.data, progress, 'what else comes on the stream passes');
  // Nor is it to be had by asking once more.
  const again = await get({ 'last-event-id': 'e1' });
  await again.waitFor(1);
  assert.equal(again.events[0]!.data.error.code, -31429);
  push().end();
  await again.ended;
  const line = (await records('GET')).at(-1)!;
  assert.deepEqual([line.decision, line.rule, line.rpcCode], ['limit', 'tokens', -31429]);
});

test('calls that share an id are all charged for its answer, and there are few of them', async (context) => {
  const quotas = `tokens: 1000000/h }, { name: dear, key: [agent], tokens: 1000/h, hard: true, when: 'tool.name == "dear"'`;
  const { call, get, sidecar, headers } = await unanswered(context, quotas, 5000);
  const dear = () => askLegacy(sidecar.base, toolCall('dear'), headers);
  await dear();
  const resumed = await get({ 'last-event-id': 'e1' });
  await resumed.waitFor(1);
  assert.deepEqual([resumed.events[0]!.data.error?.code, resumed.events[0]!.data.error?.data.quota], [-31429, 'dear']);
  for (let more = 0; more < 6; more++) assert.equal((await call()).status, 200);
  const crowded = await call();
  assert.deepEqual([crowded.status, crowded.json.error.code], [400, -32602]);
  assert.match(crowded.json.error.message, /its id is that of requests which are not answered yet/);
});

test('an answer on the stream that is open for everything is withheld too, while its call is under way', async (context) => {
  const { get, push, upstream, sidecar, headers } = await unanswered(context, 'tokens: 1000/h, hard: true', 0);
  const standing = await get();
  const answer = upstream.answer;
  let asked: ServerResponse | undefined;
  upstream.answer = (seen, response, request) => {
    if (seen.method !== 'POST') return answer(seen, response, request);
    asked = response;
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(event(progress, 'e5'));
  };
  const running = await openStream(`${sidecar.base}/mcp`, { headers, body: JSON.stringify(toolCall('any', {}, 8)) });
  await running.waitFor(1);
  push().write(event(textResult(8, 5000), 'e6'));
  await standing.waitFor(1);
  assert.equal(standing.events[0]!.data.error.code, -31429);
  asked!.end();
  await running.ended;
});

test('an answer that nobody here has asked for passes', async (context) => {
  const { get, push } = await unanswered(context, 'tokens: 1000/h, hard: true', 0);
  const standing = await get();
  push().write(event(textResult(99, 5000), 'e4'));
  await standing.waitFor(1);
  assert.equal(standing.events[0]!.data.result.content[0].text.length, 5000);
});

test('in a batch, the answer that is too much is an error, and the others are good', async (context) => {
  const { upstream, sidecar } = await opened(context, 'tokens: 100/h, hard: true');
  upstream.answer = (seen, response) =>
    sendJson(response, textResult(seen.json.id, seen.json.method === 'tools/call' ? 5000 : 10));
  const { json } = await ask(sidecar.base, {
    headers: { accept: 'application/json, text/event-stream', 'mcp-protocol-version': '2025-03-26' },
    body: JSON.stringify([toolCall('any', {}, 1), { jsonrpc: '2.0', id: 2, method: 'ping' }]),
  });
  const byId = new Map<unknown, { error?: { code: number }; result?: unknown }>(
    json.map((one: { id: unknown }) => [one.id, one]),
  );
  assert.equal(byId.get(1)!.error!.code, -31429);
  assert.ok(byId.get(2)!.result);
});
