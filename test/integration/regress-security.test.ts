/**
 * One test for each hole that a hostile reading of the pipeline found.
 */
import assert from 'node:assert/strict';
import type * as http from 'node:http';
import { connect, type Socket } from 'node:net';
import { describe, test } from 'node:test';
import { ask, askLegacy, askModern, toolCall } from '../support/raw-http.ts';
import { sendJson } from '../support/scripted-upstream.ts';
import { ALLOW_ALL, startBehind } from '../support/sidecar.ts';
import { until } from '../support/until.ts';

const open = (url: string) => `servers: { main: { url: "${url}" } }\n${ALLOW_ALL}`;

test('a list in an array of one is not a way around the filter', async (context) => {
  const { upstream, sidecar } = await startBehind(
    context,
    (url) =>
      `servers: { main: { url: "${url}" } }\npolicy: { version: 1, rules: [ { name: one, allow: [ { tools: [get_x] } ] } ] }\n`,
  );
  upstream.answer = (seen, response) =>
    sendJson(response, [
      { jsonrpc: '2.0', id: seen.json.id, result: { tools: [{ name: 'get_x' }, { name: 'delete_all' }] } },
    ]);
  const answer = await askLegacy(sidecar.base, { jsonrpc: '2.0', id: 1, method: 'tools/list' });
  assert.doesNotMatch(answer.text, /delete_all/);
  assert.equal(answer.status, 502);
});

test('headers that only 2026-07-28 has, and that nobody checked, do not go upstream from the 2025 eras', async (context) => {
  const { upstream, sidecar } = await startBehind(context, open);
  await askLegacy(sidecar.base, toolCall('get_x'), {
    'mcp-name': 'delete_all',
    'mcp-method': 'tools/list',
    'mcp-param-region': 'x',
  });
  assert.equal(upstream.seen.length, 1);
  for (const name of Object.keys(upstream.seen[0]!.headers)) assert.doesNotMatch(name, /^mcp-(method|name|param)/);
});

test('a body is JSON in UTF-8, whatever an agent says: for us and for the server', async (context) => {
  const { upstream, sidecar } = await startBehind(context, open);
  const body = JSON.stringify(toolCall('get_x', { note: '+ACI-,+ACI-owner+ACI-:+ACI-victim' }));
  for (const type of [
    'application/json; charset=utf-7',
    'application/json;x="y";charset="UTF-16LE"',
    'application/json; charset=utf-7; charset=utf-8',
  ])
    assert.equal((await ask(sidecar.base, { headers: { 'content-type': type }, body })).status, 415);
  assert.equal(upstream.seen.length, 0);
  const type = 'Application/JSON ; charset = "UTF-8"; x=charset=utf-7';
  await ask(sidecar.base, { headers: { 'content-type': type, accept: 'application/json, text/event-stream' }, body });
  assert.equal(upstream.seen[0]!.headers['content-type'], 'application/json');
});

test('headers of MCP that nobody here knows do not go upstream', async (context) => {
  const { upstream, sidecar } = await startBehind(context, open);
  await askModern(
    sidecar.base,
    { id: 1, method: 'tools/call', params: { name: 'get_x', arguments: {} } },
    { 'mcp-toolsets': 'all' },
  );
  const { headers } = upstream.seen.at(-1)!;
  assert.deepEqual([headers['mcp-toolsets'], headers['mcp-name']], [undefined, 'get_x']);
});

for (const args of ['{"owner":"evil"}', 5, true, [], ['owner']])
  test(`arguments that are ${JSON.stringify(args)} are none that a rule could look at`, async (context) => {
    const { upstream, sidecar } = await startBehind(
      context,
      (url) => `servers: { main: { url: "${url}" } }
policy: { version: 1, default: allow, rules: [ { name: n, deny: [ { tools: ["*"] } ], when: 'has(args.owner)' } ] }
`,
    );
    for (const method of ['tools/call', 'prompts/get']) {
      const message = { jsonrpc: '2.0', id: 3, method, params: { name: 'any', arguments: args } };
      const { status, json } = await askLegacy(sidecar.base, message);
      assert.deepEqual(
        [status, json.id, json.error.code, json.error.message],
        [400, 3, -32602, 'Invalid params: params.arguments must be an object'],
      );
    }
    assert.equal(upstream.seen.length, 0);
  });

test('2026-07-28: one agent cannot cancel what another has asked, since ids are nobody’s there', async (context) => {
  const { upstream, sidecar } = await startBehind(context, open);
  const body = JSON.stringify({
    jsonrpc: '2.0',
    method: 'notifications/cancelled',
    params: {
      requestId: 7,
      _meta: {
        'io.modelcontextprotocol/protocolVersion': '2026-07-28',
        'io.modelcontextprotocol/clientCapabilities': {},
      },
    },
  });
  const headers = {
    accept: 'application/json, text/event-stream',
    'mcp-protocol-version': '2026-07-28',
    'mcp-method': 'notifications/cancelled',
  };
  const { status, text } = await ask(sidecar.base, { headers, body });
  assert.deepEqual([status, text, upstream.seen.length], [202, '', 0]);
});

test('a page of another site cannot make its browser GET', async (context) => {
  const { upstream, sidecar } = await startBehind(context, open);
  const answer = await ask(sidecar.base, {
    method: 'GET',
    headers: { 'sec-fetch-site': 'cross-site', accept: 'image/*' },
  });
  assert.equal(answer.status, 403);
  assert.equal(upstream.seen.length, 0);
});

test('a batch whose answers are too large together gets an error for what does not fit', async (context) => {
  const { upstream, sidecar } = await startBehind(context, (url) => `limits: { response: 256KiB }\n${open(url)}`);
  upstream.answer = (seen, response) =>
    sendJson(response, {
      jsonrpc: '2.0',
      id: seen.json.id,
      result: { content: [{ type: 'text', text: 'x'.repeat(150_000) }] },
    });
  const batch = [1, 2, 3].map((id) => toolCall('any', {}, id));
  const answer = await askLegacy(sidecar.base, batch, { 'mcp-protocol-version': '2025-03-26' });
  assert.ok(answer.text.length < 400_000);
  assert.deepEqual(answer.json.map((one: { id: number }) => one.id).sort(), [1, 2, 3]);
  assert.ok(answer.json.some((one: { error?: { code: number } }) => one.error?.code === -31502));
  assert.ok(answer.json.some((one: { result?: unknown }) => one.result !== undefined));
});

test('one of several agents does not take all places', async (context) => {
  process.env.SHARE_A = 'the key of agent a, which is long';
  process.env.SHARE_B = 'the key of agent b, which is long';
  const { upstream, sidecar } = await startBehind(
    context,
    (url) => `identify: [ { type: apiKey, agents: { a: { env: SHARE_A }, b: { env: SHARE_B } } } ]
limits: { inFlight: 4, streams: 4 }
${open(url)}`,
  );
  const held: http.ServerResponse[] = [];
  upstream.answer = (seen, response) => {
    if (seen.json?.params?.name === 'slow') held.push(response);
    else sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: {} });
  };
  const as = (key: string) => ({ authorization: `Bearer ${key}` });
  const slow = [1, 2].map((id) => askLegacy(sidecar.base, toolCall('slow', {}, id), as(process.env.SHARE_A!)));
  await until(() => held.length === 2, 'two calls to be under way');
  const third = await askLegacy(sidecar.base, toolCall('quick', {}, 3), as(process.env.SHARE_A!));
  assert.equal(third.status, 503);
  assert.equal(third.json.id, 3);
  assert.equal((await askLegacy(sidecar.base, toolCall('quick', {}, 4), as(process.env.SHARE_B!))).status, 200);
  for (const response of held) sendJson(response, { jsonrpc: '2.0', id: held.indexOf(response) + 1, result: {} });
  await Promise.all(slow);
  assert.equal((await askLegacy(sidecar.base, toolCall('quick', {}, 5), as(process.env.SHARE_A!))).status, 200);
});

test('slow bodies together are bounded', async (context) => {
  const { sidecar } = await startBehind(context, (url) => `limits: { body: 64MiB }\n${open(url)}`);
  const { hostname, port } = new URL(sidecar.base);
  const sockets: Socket[] = [];
  const answers: string[] = [];
  context.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  const head = `POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${60 * 1024 * 1024}\r\n\r\n`;
  const part = Buffer.alloc(40 * 1024 * 1024, 0x20);
  for (let index = 0; index < 2; index += 1) {
    const socket = connect(Number(port), hostname);
    sockets.push(socket);
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => answers.push(chunk.toString()));
    socket.write(head);
    socket.write(part);
  }
  await until(() => answers.length > 0, 'one of them to be turned away', 10_000);
  assert.match(answers[0]!, /^HTTP\/1\.1 503 /);
  assert.equal(answers.length, 1);
});

describe('what is refused by its head', () => {
  test('is not read', async (context) => {
    const { sidecar } = await startBehind(context, open);
    const answer = await askLegacy(sidecar.base, toolCall('any'), { origin: 'http://evil.example' });
    assert.equal(answer.status, 403);
    assert.equal(answer.json.id, null);
  });
});
