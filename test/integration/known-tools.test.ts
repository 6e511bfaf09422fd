/**
 * What the sidecar must know of a tool before it judges a call: its annotations, where policy looks at them, so that an
 * agent may call what it would be shown; and its schema, so that `Mcp-Param-*` headers say what the arguments say.
 */
import assert from 'node:assert/strict';
import { request } from 'node:http';
import { after, before, beforeEach, describe, type TestContext, test } from 'node:test';
import { askLegacy, askModern, toolCall } from '../support/raw-http.ts';
import { type ScriptedUpstream, sendJson, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { ALLOW_ALL, startTestSidecar, type TestSidecar } from '../support/sidecar.ts';
import { methodsSeen, toolServer } from '../support/tool-server.ts';
import { until } from '../support/until.ts';

const READING = `
policy:
  version: 1
  rules:
    - { name: reading, allow: [ { server: "*", tools: ["*"] } ], when: tool.annotations.readOnlyHint }
`;
const TOOLS = [
  { name: 'read', annotations: { readOnlyHint: true }, inputSchema: { type: 'object' } },
  { name: 'write', annotations: { readOnlyHint: false }, inputSchema: { type: 'object' } },
  { name: 'silent', inputSchema: { type: 'object' } },
  { name: 'look', annotations: { readOnlyHint: true }, inputSchema: { type: 'object' } },
];
const NAMES = TOOLS.map(({ name }) => name);

let upstream: ScriptedUpstream;
before(async () => {
  upstream = await startScriptedUpstream();
});
after(() => upstream.close());
beforeEach(() => {
  upstream.seen.length = 0;
});

async function started(context: TestContext, policy: string): Promise<TestSidecar> {
  const sidecar = await startTestSidecar(`servers: { main: { url: "${upstream.url}" } }\n${policy}`);
  context.after(() => sidecar.close());
  return sidecar;
}

const callModern = ({ base }: TestSidecar, name: string, headers = {}, args: Record<string, unknown> = {}) =>
  askModern(base, { id: 1, method: 'tools/call', params: { name, arguments: args } }, headers);

const listings = () => methodsSeen(upstream).filter((method) => method === 'tools/list').length;
const calls = () => methodsSeen(upstream).filter((method) => method === 'tools/call').length;

describe('annotations', () => {
  test('2026-07-28: what may be called without listing is what is listed', async (context) => {
    upstream.answer = toolServer({ era: 'modern', tools: TOOLS, pageSize: 1 });
    const sidecar = await started(context, READING);
    const answers = await Promise.all(NAMES.map((name) => callModern(sidecar, name)));
    const callable = NAMES.filter((_name, index) => answers[index]!.json.result !== undefined);
    assert.deepEqual(callable, ['read', 'look']);
    assert.equal(answers[1]!.json.error.message, 'Unknown tool: write');
    // One question on four pages for all four calls, and none for a name that nobody knows.
    assert.equal(listings(), 4);
    await callModern(sidecar, 'invented');
    assert.equal(listings(), 4);
    assert.equal(calls(), 2);

    const shown: string[] = [];
    for (const cursor of [undefined, '1', '2', '3']) {
      const { json } = await askModern(sidecar.base, { id: 2, method: 'tools/list', params: { cursor } });
      shown.push(...json.result.tools.map(({ name }: { name: string }) => name));
    }
    assert.deepEqual(shown, callable);
  });

  test('2025: a session of its own, which leaves the agent’s alone', async (context) => {
    upstream.answer = toolServer({ era: 'legacy', tools: TOOLS });
    const sidecar = await started(context, READING);
    const initialize = { jsonrpc: '2.0', id: 0, method: 'initialize', params: { protocolVersion: '2025-06-18' } };
    const opened = await askLegacy(sidecar.base, initialize, { 'mcp-protocol-version': '2025-06-18' });
    const session = { 'mcp-session-id': opened.headers['mcp-session-id'], 'mcp-protocol-version': '2025-06-18' };
    await askLegacy(sidecar.base, { jsonrpc: '2.0', method: 'notifications/initialized' }, session);
    for (const [name, allowed] of [
      ['read', true],
      ['write', false],
      ['look', true],
    ] as const) {
      const { json } = await askLegacy(sidecar.base, toolCall(name), session);
      assert.equal(json.result !== undefined, allowed, name);
    }
    assert.deepEqual(methodsSeen(upstream), [
      'initialize',
      'notifications/initialized',
      // The sidecar's own: as a newer server would be asked, then as this one wants it.
      'tools/list',
      'initialize',
      'notifications/initialized',
      'tools/list',
      'DELETE',
      'tools/call',
      'tools/call',
    ]);
    const sessions = upstream.seen.map(({ headers }) => headers['mcp-session-id']);
    assert.deepEqual(sessions.slice(-3), ['session-2', 'session-1', 'session-1']);
  });

  test('are not asked for where policy does not look at them', async (context) => {
    upstream.answer = toolServer({ era: 'modern', tools: TOOLS });
    const sidecar = await started(context, ALLOW_ALL);
    assert.equal((await callModern(sidecar, 'write')).status, 200);
    assert.deepEqual(methodsSeen(upstream), ['tools/call']);
  });

  test('that cannot be had are the worst, and not asked for at each call', async (context) => {
    upstream.answer = (_seen, response) => sendJson(response, { canary: 1 }, 500);
    const sidecar = await started(context, READING);
    for (let turn = 0; turn < 3; turn++) {
      const { json } = await callModern(sidecar, 'read');
      assert.equal(json.error.message, 'Unknown tool: read');
    }
    assert.equal(upstream.seen.length, 1);
    assert.ok(sidecar.logged.some((line) => /tools of main are not known.*HTTP status 500/.test(line)));
    assert.ok(!sidecar.logged.some((line) => line.includes('canary')));
  });

  test('that changed are asked for at the next need', async (context) => {
    upstream.answer = toolServer({ era: 'modern', tools: TOOLS });
    const sidecar = await started(context, READING);
    assert.ok((await callModern(sidecar, 'read')).json.result);
    assert.equal(listings(), 1);

    const changed = toolServer({ era: 'modern', tools: [{ name: 'read', annotations: {} }] });
    upstream.answer = (seen, response, request) => {
      if (seen.json.method !== 'tools/call') return changed(seen, response, request);
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write('data: {"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n\n');
      response.end(`data: {"jsonrpc":"2.0","id":${seen.json.id},"result":{"content":[]}}\n\n`);
    };
    // The old ones hold for the call that brings the news.
    assert.match((await callModern(sidecar, 'read')).text, /"result"/);
    assert.equal(listings(), 1);
    assert.equal((await callModern(sidecar, 'read')).json.error.message, 'Unknown tool: read');
    assert.equal(listings(), 2);
  });

  test('an agent that does not wait for them has not called', async (context) => {
    let list: (() => void) | undefined;
    const modern = toolServer({ era: 'modern', tools: TOOLS });
    upstream.answer = (seen, response, incoming) => {
      const answer = () => modern(seen, response, incoming);
      if (list === undefined) list = answer;
      else answer();
    };
    const sidecar = await started(context, READING);
    const body = JSON.stringify(toolCall('read'));
    const leaving = request(`${sidecar.base}/mcp`, {
      method: 'POST',
      agent: false,
      headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream' },
    });
    leaving.on('error', () => {});
    leaving.end(body);
    await until(() => list !== undefined, 'the question for tools');
    leaving.destroy();
    const staying = callModern(sidecar, 'look');
    // A connection to the same process that comes and goes: the one that closed before it has been heard of.
    await fetch(`${sidecar.admin}/livez`);
    list!();
    assert.ok((await staying).json.result);
    await until(
      async () => (await sidecar.auditLines()).filter(({ tool }) => tool === 'read').length === 1,
      'the line',
    );
    assert.equal(calls(), 1);
  });
});

describe('Mcp-Param-*', () => {
  const REGION = {
    name: 'query',
    inputSchema: { type: 'object', properties: { region: { type: 'string', 'x-mcp-header': 'Region' } } },
  };
  const hidden = { ...REGION, name: 'hidden' };
  const policy = 'policy: { version: 1, rules: [ { name: q, allow: [ { server: "*", tools: [query] } ] } ] }';
  const list = (sidecar: TestSidecar) => askModern(sidecar.base, { id: 0, method: 'tools/list' });
  beforeEach(() => {
    upstream.answer = toolServer({ era: 'modern', tools: [REGION, hidden] });
  });

  for (const [what, headers, detail] of [
    [
      'says something else',
      { 'mcp-param-region': 'us' },
      /Mcp-Param-Region is not what params\.arguments\.region says/,
    ],
    ['is missing', {}, /Mcp-Param-Region is missing/],
  ] as const) {
    test(`that ${what} is 400 with the request’s id, and goes nowhere`, async (context) => {
      const sidecar = await started(context, policy);
      await list(sidecar);
      const answer = await callModern(sidecar, 'query', headers, { region: 'eu' });
      assert.equal(answer.status, 400);
      assert.equal(answer.json.id, 1);
      assert.equal(answer.json.error.code, -32020);
      assert.match(answer.json.error.message, detail);
      assert.equal(calls(), 0);
    });
  }

  test('that says the same goes through, also encoded', async (context) => {
    const sidecar = await started(context, policy);
    await list(sidecar);
    const encoded = `=?base64?${Buffer.from('eu').toString('base64')}?=`;
    for (const region of ['eu', encoded]) {
      assert.equal((await callModern(sidecar, 'query', { 'mcp-param-region': region }, { region: 'eu' })).status, 200);
      assert.equal(upstream.seen.at(-1)!.headers['mcp-param-region'], region);
    }
  });

  test('of a tool that was not listed yet: the server is asked first, once', async (context) => {
    const sidecar = await started(context, policy);
    const wrong = await callModern(sidecar, 'query', { 'mcp-param-region': 'us' }, { region: 'eu' });
    assert.deepEqual([wrong.status, wrong.json.error.code], [400, -32020]);
    assert.equal((await callModern(sidecar, 'query', { 'mcp-param-region': 'eu' }, { region: 'eu' })).status, 200);
    assert.deepEqual(methodsSeen(upstream), ['tools/list', 'tools/call']);
  });

  test('of a tool that the server does not list goes through', async (context) => {
    upstream.answer = toolServer({ era: 'modern', tools: [hidden] });
    const sidecar = await started(context, policy);
    await callModern(sidecar, 'query', { 'mcp-param-region': 'us' }, { region: 'eu' });
    assert.deepEqual(methodsSeen(upstream), ['tools/list', 'tools/call']);
    assert.equal(upstream.seen.at(-1)!.headers['mcp-param-region'], 'us');
  });

  test('while the server’s tools cannot be listed, nobody can say what it should say: 503', async (context) => {
    upstream.answer = (_seen, response) => response.writeHead(500).end();
    const sidecar = await started(context, policy);
    const answer = await callModern(sidecar, 'query', { 'mcp-param-region': 'us' }, { region: 'eu' });
    assert.deepEqual([answer.status, answer.headers['retry-after']], [503, '1']);
    assert.equal(calls(), 0);
    assert.notEqual((await callModern(sidecar, 'query', {}, { region: 'eu' })).status, 503);
    assert.equal(calls(), 1);
  });

  test('of a tool that is hidden does not tell that there is one', async (context) => {
    const sidecar = await started(context, policy);
    await list(sidecar);
    const answer = await callModern(sidecar, 'hidden', {}, { region: 'eu' });
    assert.deepEqual([answer.status, answer.json.error.message], [200, 'Unknown tool: hidden']);
  });

  test('is not asked of the 2025 eras', async (context) => {
    const sidecar = await started(context, policy);
    await list(sidecar);
    upstream.answer = ({ json }, response) => sendJson(response, { jsonrpc: '2.0', id: json.id, result: {} });
    assert.equal((await askLegacy(sidecar.base, toolCall('query', { region: 'eu' }))).status, 200);
  });
});
