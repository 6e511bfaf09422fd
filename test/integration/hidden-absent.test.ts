/**
 * What policy hides and what the server does not have are answered alike, whatever the server says, however it says it,
 * and whatever else would have refused the call.
 */
import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { describe, test } from 'node:test';
import { openStream } from '../support/event-stream.ts';
import { askLegacy, askModern, type RawAnswer, toolCall } from '../support/raw-http.ts';
import { type ScriptedUpstream, sendJson } from '../support/scripted-upstream.ts';
import { startBehind } from '../support/sidecar.ts';

/** A sidecar in front of one server, with the policy whose lines these are. */
const under =
  (...lines: readonly string[]) =>
  (url: string) =>
    `servers: { n: { url: "${url}" } }\npolicy:\n  version: 1\n${lines.map((line) => `  ${line}\n`).join('')}`;

const HIDING = under(
  'rules: [ { name: all, allow: [ { tools: ["*"] } ] }, { name: hide, deny: [ { tools: [hidden] } ] } ]',
);

/** Answers with the error that `error` makes of the request; lists the tool `real`. */
function refusing(error: (json: { method: string }) => object, status = 200): ScriptedUpstream['answer'] {
  return ({ json }, response) => {
    if (json?.method === 'tools/list')
      return sendJson(response, {
        jsonrpc: '2.0',
        id: json.id,
        result: { resultType: 'complete', tools: [{ name: 'real' }] },
      });
    return sendJson(response, { jsonrpc: '2.0', id: json.id, error: error(json) }, status);
  };
}

/** But for the name, which is the agent's own. */
function assertAlike(absent: RawAnswer, hidden: RawAnswer): void {
  assert.equal(absent.text.replaceAll('absent', 'hidden'), hidden.text);
  assert.equal(absent.status, hidden.status);
  assert.deepEqual(Object.keys(absent.headers), Object.keys(hidden.headers));
}

describe('a tool', () => {
  for (const [by, lines] of [
    [
      'an allow with a condition',
      ['rules: [ { name: some, allow: [ { server: n, tools: ["*"] } ], when: \'tool.name != "hidden"\' } ]'],
    ],
    ['what is not allowed', ['rules: [ { name: some, allow: [ { server: n, tools: ["a*"] } ] } ]']],
    ['a virtual server in audit mode', ['mode: audit', 'virtualServers: { some: { tools: ["n.a*"] } }']],
  ] as const)
    test(`that is hidden by ${by}`, async (context) => {
      const { upstream, sidecar } = await startBehind(context, under(...lines));
      upstream.answer = refusing(() => ({ code: -32602, message: 'Tool absent not found' }));
      const path = by.startsWith('a virtual') ? '/virtual/some/mcp' : '/mcp';
      const hidden = await askLegacy(sidecar.base, toolCall('hidden'), {}, path);
      assert.equal(hidden.json.error.message, 'Unknown tool: hidden');
      assertAlike(await askLegacy(sidecar.base, toolCall('absent'), {}, path), hidden);
    });

  test('where nothing is hidden, the server’s words are its own', async (context) => {
    const { upstream, sidecar } = await startBehind(
      context,
      under('rules: [ { name: all, allow: [ { tools: ["*"] } ] } ]'),
    );
    upstream.answer = refusing(() => ({ code: -32602, message: 'Tool absent not found' }));
    const answer = await askLegacy(sidecar.base, toolCall('absent'));
    assert.equal(answer.json.error.message, 'Tool absent not found');
  });
});

describe('a prompt or a resource', () => {
  const hiding = under(
    'rules:',
    '  - { name: all, allow: [ { prompts: ["*"], resources: ["*"] } ] }',
    '  - { name: hide, deny: [ { prompts: [hidden], resources: ["x://hidden"] } ] }',
  );
  const prompt = (name: string) => ({ name });
  const resource = (name: string) => ({ uri: `x://${name}` });
  const completion = (name: string) => ({ ref: { type: 'ref/prompt', name }, argument: { name: 'a', value: '' } });

  const CASES: [
    how: string,
    method: string,
    params: (name: string) => Record<string, unknown>,
    error: object,
    status?: number,
  ][] = [
    ['by its code', 'resources/read', resource, { code: -32002, message: 'Nothing there' }],
    ['as invalid params', 'resources/read', resource, { code: -32602, message: 'Resource x://absent not found' }],
    [
      'as an error of its own',
      'resources/read',
      resource,
      { code: -32603, message: 'ENOENT: no such file or directory' },
    ],
    ['by a status of HTTP', 'resources/read', resource, { code: -32602, message: 'Unknown resource' }, 400],
    ['to a subscriber', 'resources/subscribe', resource, { code: 0, message: 'Unknown resource: x://absent' }],
    ['by its words', 'prompts/get', prompt, { code: -32602, message: 'Prompt absent not found' }],
    ['by other words', 'prompts/get', prompt, { code: 0, message: "Unknown prompt: 'absent'" }],
    ['as a method that it has not', 'prompts/get', prompt, { code: -32601, message: 'Method not found' }],
    ['to who completes', 'completion/complete', completion, { code: -32602, message: 'Prompt absent not found' }],
  ];
  for (const [how, method, paramsOf, error, status] of CASES)
    test(`whose absence the server tells ${how}: ${method}`, async (context) => {
      const { upstream, sidecar } = await startBehind(context, hiding);
      upstream.answer = refusing(() => error, status);
      const asking = (name: string) => ({ jsonrpc: '2.0', id: 1, method, params: paramsOf(name) });
      const hidden = await askLegacy(sidecar.base, asking('hidden'));
      assert.match(hidden.json.error.message, /^(Unknown prompt|Resource not found): /);
      assertAlike(await askLegacy(sidecar.base, asking('absent')), hidden);
      if (method.endsWith('scribe')) return;
      assertAlike(await askModern(sidecar.base, asking('absent')), await askModern(sidecar.base, asking('hidden')));
    });

  const OWN: [what: string, method: string, params: Record<string, unknown>, error: object][] = [
    [
      'about arguments',
      'prompts/get',
      prompt('real'),
      { code: -32602, message: 'Invalid arguments for prompt real: topic is missing' },
    ],
    [
      'about an argument that it does not know',
      'prompts/get',
      prompt('real'),
      { code: -32602, message: 'Unknown prompt argument: x' },
    ],
    [
      'about what a prompt needs',
      'prompts/get',
      prompt('real'),
      { code: -32603, message: 'Error rendering prompt real: issue 7 not found' },
    ],
    ['about the server', 'resources/read', resource('real'), { code: -32603, message: 'The disk is full' }],
    ['about the session', 'resources/read', resource('real'), { code: -32001, message: 'Session not found' }],
    ['about completion', 'completion/complete', completion('real'), { code: -32601, message: 'Method not found' }],
  ];
  for (const [what, method, params, error] of OWN)
    test(`that exists keeps an error ${what}`, async (context) => {
      const { upstream, sidecar } = await startBehind(context, hiding);
      upstream.answer = refusing(() => error);
      const answer = await askLegacy(sidecar.base, { jsonrpc: '2.0', id: 1, method, params });
      assert.deepEqual(answer.json.error, error);
    });
});

test('an error of a tool that was not listed yet is its own: the list is asked for first', async (context) => {
  const { upstream, sidecar } = await startBehind(context, HIDING);
  const error = { code: -32602, message: 'Invalid arguments for tool real: q is missing' };
  upstream.answer = refusing(() => error);
  assert.deepEqual((await askLegacy(sidecar.base, toolCall('real'))).json.error, error);
  const hidden = await askLegacy(sidecar.base, toolCall('hidden'));
  assertAlike(await askLegacy(sidecar.base, toolCall('absent')), hidden);
});

describe('a stream', () => {
  const NEWS = [
    { jsonrpc: '2.0', method: 'notifications/tools/list_changed' },
    { jsonrpc: '2.0', method: 'notifications/message', params: { level: 'info', data: 'x' } },
  ];
  const PROGRESS = { jsonrpc: '2.0', method: 'notifications/progress', params: { progressToken: 1, progress: 1 } };
  const eventOf = (message: object) => `data: ${JSON.stringify(message)}\n\n`;
  const notFound = (id: unknown) => ({ jsonrpc: '2.0', id, error: { code: -32602, message: 'Tool absent not found' } });
  /** Writes events, and whatever else follows. */
  const streaming =
    (write: (response: ServerResponse, id: unknown) => void): ScriptedUpstream['answer'] =>
    (seen, response, request) => {
      if (seen.json?.method !== 'tools/call')
        return refusing(() => ({ code: -32601, message: 'no' }))(seen, response, request);
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      write(response, seen.json.id);
    };

  test('that brings news before it says that there is no such tool', async (context) => {
    const { upstream, sidecar } = await startBehind(context, HIDING);
    upstream.answer = streaming((response, id) => {
      response.write(': hello\n\nid: 1\ndata:\n\n');
      for (const one of NEWS) response.write(eventOf(one));
      response.end(eventOf(notFound(id)));
    });
    const hidden = await askLegacy(sidecar.base, toolCall('hidden'));
    assertAlike(await askLegacy(sidecar.base, toolCall('absent')), hidden);
  });

  test('that brings too much news to wait for still says it in our words', async (context) => {
    const { upstream, sidecar } = await startBehind(context, HIDING);
    upstream.answer = streaming((response, id) => {
      for (let index = 0; index < 20; index++) response.write(eventOf(NEWS[1]!));
      response.end(`id: 7\n${eventOf(notFound(id))}`);
    });
    const hidden = await askLegacy(sidecar.base, toolCall('hidden'));
    const absent = await askLegacy(sidecar.base, toolCall('absent'));
    assert.equal(absent.headers['content-type'], 'text/event-stream');
    const events = absent.text.split('\n\n').filter((text) => text !== '');
    assert.equal(events.length, 21);
    const last = JSON.parse(/^data: (.*)$/m.exec(events.at(-1)!)![1]!);
    assert.deepEqual(last, JSON.parse(hidden.text.replace('hidden', 'absent')));
    const line = (await sidecar.auditLines()).find(({ tool }) => tool === 'absent');
    assert.deepEqual([line.decision, line.rpcCode], ['deny', -32602]);
  });

  for (const [what, first] of [
    ['how far a tool that was never listed is', PROGRESS],
    ['after a while, other news of it', NEWS[1]!],
    ['what it asks the agent', { jsonrpc: '2.0', id: 'q', method: 'ping' }],
  ] as const)
    test(`brings ${what} before the answer is there`, async (context) => {
      const { upstream, sidecar } = await startBehind(context, HIDING);
      let finish: (() => void) | undefined;
      upstream.answer = streaming((response, id) => {
        response.write(eventOf(first));
        finish = () => response.end(eventOf({ jsonrpc: '2.0', id, result: { content: [] } }));
      });
      const stream = await openStream(`${sidecar.base}/mcp`, { body: JSON.stringify(toolCall('slow')) });
      await stream.waitFor(1);
      assert.deepEqual(stream.events[0]!.data, first);
      finish!();
      await stream.waitFor(2);
      assert.deepEqual(stream.events[1]!.data.result, { content: [] });
      await stream.ended;
    });
});

describe('an absent tool, like a hidden one, is not told', () => {
  const RULES = 'rules: [ { name: some, allow: [ { tools: ["*"] } ], when: \'tool.name != "hidden"\' } ]';
  const BUSY: [what: string, line: string, args?: Record<string, unknown>][] = [
    ['that a quota is spent', 'quotas: [ { name: few, key: [agent], calls: 1/hour } ]'],
    ['what its arguments must be', 'arguments: [ { name: valid, server: n, tools: ["*"], validate: true } ]'],
    [
      'what must not be in them',
      'arguments: [ { name: gone, server: n, tools: ["*"], remove: [/token] } ]',
      { Token: 'x' },
    ],
  ];
  for (const [what, line, args] of BUSY)
    test(what, async (context) => {
      const { upstream, sidecar } = await startBehind(context, under(RULES, line));
      upstream.answer = refusing(() => ({ code: -32602, message: 'Tool else not found' }));
      // Spends the quota; and before it is said that there is no such tool, the list is asked for.
      await askModern(sidecar.base, toolCall('else'));
      const calls = upstream.seen.length;
      const hidden = await askModern(sidecar.base, toolCall('hidden', args));
      assertAlike(await askModern(sidecar.base, toolCall('absent', args)), hidden);
      assert.deepEqual(
        upstream.seen.slice(calls).filter(({ json }) => json.method === 'tools/call'),
        [],
      );
    });

  test('while one that is not listed is called where nothing is hidden, and where it is allowed by its name', async (context) => {
    for (const allowed of ['"*"', 'listless']) {
      const { upstream, sidecar } = await startBehind(
        context,
        under(
          `rules: [ { name: some, allow: [ { tools: [${allowed}] } ] } ]`,
          'arguments: [ { name: gone, server: n, tools: [listless], remove: [/token] } ]',
        ),
      );
      upstream.answer = refusing(() => ({ code: -32603, message: 'own words' }));
      // A header that may repeat an argument: the list is asked for.
      const answer = await askModern(sidecar.base, toolCall('listless'), { 'mcp-param-q': 'x' });
      assert.equal(answer.json.error.message, 'own words');
      assert.equal(upstream.seen[0]!.json.method, 'tools/list');
    }
  });
});
