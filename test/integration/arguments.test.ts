/**
 * What policy does to arguments and results, over real sockets and in both eras: what is judged, recorded and sent is
 * one and the same, and what is redacted reaches nobody.
 */
import assert from 'node:assert/strict';
import { suite, type TestContext, test } from 'node:test';
import { ACCEPT_BOTH, ask, askLegacy, askModern, toolCall } from '../support/raw-http.ts';
import { sendJson, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { toolServer } from '../support/tool-server.ts';

const SCHEMA = {
  type: 'object',
  properties: { limit: { type: 'integer', maximum: 10 }, pattern: { type: 'string', pattern: '^(a+)+$' } },
  required: ['limit'],
  additionalProperties: false,
};

async function opened(
  context: TestContext,
  policy: string,
  tools: object[] = [{ name: 'search', inputSchema: SCHEMA }],
) {
  const upstream = await startScriptedUpstream();
  context.after(() => upstream.close());
  upstream.answer = toolServer({ era: 'modern', tools });
  const sidecar = await startTestSidecar(`
servers: { main: { url: "${upstream.url}" } }
policy: { version: 1, default: allow, ${policy} }
`);
  context.after(() => sidecar.close());
  const calls = () => upstream.seen.filter(({ json }) => json?.method === 'tools/call');
  const line = async () => (await sidecar.auditLines()).filter(({ method }) => method === 'tools/call').at(-1);
  return { upstream, sidecar, calls, line };
}

const RULE =
  'arguments: [ { name: own repository, server: main, tools: ["*"], remove: [/token], set: { /repo: acme/app, /options/limit: 5 } } ]';

suite('arguments', () => {
  for (const [era, askIn] of [
    ['legacy', askLegacy],
    ['modern', askModern],
  ] as const)
    test(`are removed and set before the call is judged, and nothing else changes (${era})`, async (context) => {
      const { sidecar, upstream, calls, line } = await opened(
        context,
        `${RULE}, rules: [ { name: other repositories, deny: [ { tools: ["*"] } ], when: 'args.repo != "acme/app"' } ]`,
        [{ name: 'search' }],
      );
      if (era === 'legacy')
        upstream.answer = (seen, response) =>
          sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: { content: [] } });
      const args = { repo: 'evil/other', token: 'secret', big: 1, nested: { z: 1, a: [1, 2] } };
      const { status, json } = await askIn(sidecar.base, toolCall('search', args));
      assert.equal(status, 200);
      assert.equal(json.error, undefined);
      const { arguments: sent } = calls()[0]!.json.params;
      const wanted = { options: { limit: 5 }, repo: 'acme/app', big: 1, nested: { z: 1, a: [1, 2] } };
      assert.deepEqual(sent, wanted);
      assert.ok(calls()[0]!.body.includes('"big":1,"nested":{"z":1,"a":[1,2]}'), calls()[0]!.body);
      const { arguments: recorded, argumentsChanged } = await line();
      assert.deepEqual([recorded, argumentsChanged], [wanted, true]);
    });
  test('numbers beyond 2^53 stay as they were written', async (context) => {
    const { sidecar, upstream, calls } = await opened(context, RULE);
    upstream.answer = (seen, response) =>
      sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: { content: [] } });
    const body =
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{"n": 12345678901234567890 ,"token":"x"}}}';
    await ask(sidecar.base, {
      path: '/mcp',
      headers: { accept: ACCEPT_BOTH, 'mcp-protocol-version': '2025-11-25' },
      body,
    });
    assert.ok(calls()[0]!.body.includes('"n": 12345678901234567890 '), calls()[0]!.body);
    assert.equal(calls()[0]!.body.includes('token'), false);
  });
  test('are made where there are none', async (context) => {
    const { sidecar, calls } = await opened(context, RULE);
    await askModern(sidecar.base, { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'search' } } as never);
    assert.deepEqual(calls()[0]!.json.params.arguments, { repo: 'acme/app', options: { limit: 5 } });
  });
  test('that already are as they should be are sent as they came', async (context) => {
    const { sidecar, line } = await opened(context, RULE);
    await askModern(sidecar.base, toolCall('search', { options: { limit: 5 }, repo: 'acme/app' }));
    assert.equal((await line()).argumentsChanged, undefined);
  });
  test('that leave no place for a constant are refused by the rule’s name', async (context) => {
    const { sidecar, calls, line } = await opened(context, RULE);
    const { json } = await askModern(sidecar.base, toolCall('search', { options: 'x' }));
    assert.deepEqual([json.error.code, json.error.data.rule], [-31403, 'own repository']);
    assert.equal(calls().length, 0);
    assert.match((await line()).reason, /\/options is no object/);
  });
  test('for which two rules have different constants are refused', async (context) => {
    const { sidecar } = await opened(
      context,
      'arguments: [ { name: one, tools: [search], set: { /repo: a } }, { name: two, tools: ["s*"], set: { /repo: b } } ]',
    );
    const { json } = await askModern(sidecar.base, toolCall('search'));
    assert.equal(json.error.code, -31403);
  });
});

suite('arguments that policy changes', () => {
  const refusals: Record<string, [policy: string, args: Record<string, unknown>, rule: string, words: RegExp]> = {
    'a key that looks like the one that is removed': [RULE, { Token: 'secret' }, 'own repository', /looks like token/],
    'a key that looks like one on the way': [RULE, { OPTIONS: { limit: 9 } }, 'own repository', /have OPTIONS/],
    'an element of a list': [
      'arguments: [ { name: no copies, tools: [search], remove: [/to/0] } ]',
      { to: ['a'] },
      'no copies',
      /element of a list/,
    ],
  };
  for (const [name, [policy, args, rule, words]] of Object.entries(refusals))
    test(`are refused for ${name}`, async (context) => {
      const { sidecar, calls, line } = await opened(context, policy);
      const { json } = await askLegacy(sidecar.base, toolCall('search', args));
      assert.deepEqual([json.error.code, json.error.data.rule], [-31403, rule]);
      assert.equal(json.error.message.includes('secret'), false);
      assert.equal(calls().length, 0);
      const { tool, rule: recorded, reason } = await line();
      assert.deepEqual([tool, recorded], ['search', rule]);
      assert.match(reason, words);
    });
  test('are not told of a tool that is hidden', async (context) => {
    const { sidecar } = await opened(context, `${RULE}, rules: [ { name: not this, deny: [ { tools: [search] } ] } ]`);
    const hidden = await askModern(sidecar.base, toolCall('search', { options: 'x' }));
    assert.deepEqual([hidden.json.error.code, hidden.json.error.message], [-32602, 'Unknown tool: search']);
  });
  test('are left alone in audit mode', async (context) => {
    const { sidecar, calls } = await opened(context, `mode: audit, ${RULE}`);
    await askModern(sidecar.base, toolCall('search', { token: 'mine' }));
    assert.deepEqual(calls()[0]!.json.params.arguments, { token: 'mine' });
  });
  test('are changed in each element of a batch', async (context) => {
    const { sidecar, upstream, calls } = await opened(context, RULE);
    upstream.answer = (seen, response) =>
      sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: { content: [] } });
    const batch = [1, 2].map((id) => toolCall('search', { token: 'x', id }, id));
    const { json } = await askLegacy(sidecar.base, batch, { 'mcp-protocol-version': '2025-03-26' });
    assert.equal(json.length, 2);
    const sent = calls().map(({ json: { params } }) => params.arguments);
    assert.deepEqual(
      sent.sort((one, other) => one.id - other.id),
      [1, 2].map((id) => ({ id, options: { limit: 5 }, repo: 'acme/app' })),
    );
  });
});

suite('headers that repeat arguments', () => {
  const TOOL = {
    name: 'search',
    inputSchema: {
      type: 'object',
      properties: Object.fromEntries(
        ['repo', 'token', 'place'].map((name) => [name, { type: 'string', 'x-mcp-header': name }]),
      ),
    },
  };
  const paramsOf = (headers: Record<string, unknown>) =>
    Object.fromEntries(Object.entries(headers).filter(([name]) => name.startsWith('mcp-param-')));
  const ARGS = { repo: 'evil/other', token: 'secret', place: 'here' };
  const HEADERS = { 'mcp-param-repo': 'evil/other', 'mcp-param-token': 'secret', 'mcp-param-place': 'here' };
  const ZURICH = 'arguments: [ { name: ours, tools: [search], remove: [/token], set: { /repo: Zürich } } ]';

  test('say what is sent, on the first call too', async (context) => {
    const { sidecar, calls } = await opened(context, ZURICH, [TOOL]);
    const { json } = await askModern(sidecar.base, toolCall('search', ARGS), {
      ...HEADERS,
      'mcp-param-copy': 'secret',
    });
    assert.equal(json.error, undefined);
    const [{ headers, json: sent }] = calls() as [ReturnType<typeof calls>[number]];
    assert.deepEqual(sent.params.arguments, { repo: 'Zürich', place: 'here' });
    const repo = `=?base64?${Buffer.from('Zürich').toString('base64')}?=`;
    assert.deepEqual(paramsOf(headers), { 'mcp-param-repo': repo, 'mcp-param-place': 'here' });
  });
  test('are made for what the agent has not sent', async (context) => {
    const { sidecar, calls } = await opened(context, RULE, [TOOL]);
    await askModern(sidecar.base, toolCall('search', {}));
    assert.deepEqual(paramsOf(calls()[0]!.headers), { 'mcp-param-repo': 'acme/app' });
  });
  test('must say what the agent has sent, and not what policy makes of it', async (context) => {
    const { sidecar, calls } = await opened(context, ZURICH, [TOOL]);
    const { json } = await askModern(sidecar.base, toolCall('search', ARGS), {
      ...HEADERS,
      'mcp-param-repo': '=?base64?WsO8cmljaA==?=',
    });
    assert.equal(json.error.code, -32020);
    assert.equal(calls().length, 0);
  });
  test('of a tool that nobody knows refuse, since a removed argument could be among them', async (context) => {
    const { sidecar, calls } = await opened(context, ZURICH, []);
    const { json } = await askModern(sidecar.base, toolCall('search', ARGS), HEADERS);
    assert.deepEqual([json.error.code, json.error.data.rule], [-31403, 'ours']);
    assert.equal(calls().length, 0);
    await askModern(sidecar.base, toolCall('search', ARGS));
    assert.equal(calls().length, 1);
  });
  test('go on as they came where nothing is changed', async (context) => {
    const { sidecar, calls } = await opened(context, '', [TOOL]);
    const headers = { ...HEADERS, 'mcp-param-copy': 'x' };
    await askModern(sidecar.base, toolCall('search', ARGS), headers);
    assert.deepEqual(paramsOf(calls()[0]!.headers), headers);
  });
});

suite('the tool’s own schema', () => {
  const VALIDATE = 'arguments: [ { name: as declared, tools: ["*"], validate: true } ]';
  const cases: Record<string, [args: Record<string, unknown>, words: RegExp | undefined]> = {
    'what fits passes': [{ limit: 10 }, undefined],
    'too much': [{ limit: 11 }, /\/limit breaks maximum/],
    'the wrong type': [{ limit: '1' }, /\/limit breaks type/],
    missing: [{}, /\/ breaks required/],
    'what is not declared': [{ limit: 1, force: true }, /breaks (?:additionalProperties|false)/],
    // A property may have the name of a keyword; the pattern, which could run for ever, is not enforced.
    'a pattern that could run for ever': [{ limit: 1, pattern: `${'a'.repeat(40)}!` }, undefined],
  };
  for (const [name, [args, words]] of Object.entries(cases))
    test(`is enforced on the first call too: ${name}`, async (context) => {
      const { sidecar, calls, line } = await opened(context, VALIDATE);
      const { json } = await askModern(sidecar.base, toolCall('search', args));
      if (words === undefined) return assert.equal(json.error, undefined);
      assert.deepEqual([json.error.code, json.error.data.rule], [-31403, 'as declared']);
      assert.match(json.error.message, words);
      const { reason, reasonKind, decision } = await line();
      assert.match(reason, words);
      assert.deepEqual([reasonKind, decision], ['argumentsRefused', 'deny']);
      assert.equal(calls().length, 0);
    });
  const unusable: Record<string, object> = {
    'a reference to elsewhere': { type: 'object', properties: { a: { $ref: 'https://evil.example/schema.json' } } },
    'a reference to nothing': { $ref: '#/$defs/none' },
    'no object': [],
  };
  for (const [name, inputSchema] of Object.entries(unusable))
    test(`that cannot be enforced refuses: ${name}`, async (context) => {
      const { sidecar, calls } = await opened(context, VALIDATE, [{ name: 'search', inputSchema }]);
      const { json } = await askModern(sidecar.base, toolCall('search', { a: 1 }));
      assert.equal(json.error?.code, -31403);
      assert.equal(calls().length, 0);
    });
  test('that is not known refuses', async (context) => {
    const { sidecar } = await opened(context, VALIDATE, []);
    const { json } = await askModern(sidecar.base, toolCall('unlisted'));
    assert.notEqual(json.error, undefined);
  });
});

suite('a result', () => {
  const REDACT =
    'redact: [ { server: main, tools: [search], result: [/structuredContent/customer/email, /**/phone] } ]';
  const customer = { name: 'Ada', email: 'ada@example.com', contacts: [{ phone: '555' }], id: 7 };
  const RESULT = {
    content: [
      { type: 'text', text: JSON.stringify({ customer }) },
      { type: 'text', text: 'call me' },
    ],
    structuredContent: { customer, big: 1 },
  };
  const wanted = { name: 'Ada', email: '[redacted]', contacts: [{ phone: '[redacted]' }], id: 7 };
  for (const kind of ['JSON', 'event stream', 'large JSON'] as const)
    test(`is redacted, and so is its copy in the text (${kind})`, async (context) => {
      const { sidecar, upstream } = await opened(context, REDACT);
      upstream.answer = (seen, response) => {
        const filler = kind === 'large JSON' ? { filler: 'x'.repeat(100_000) } : {};
        const answer = { jsonrpc: '2.0', id: seen.json.id, result: { ...RESULT, ...filler } };
        if (kind !== 'event stream') return sendJson(response, answer);
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        response.end(`data: ${JSON.stringify(answer)}\n\n`);
      };
      const { text } = await askLegacy(sidecar.base, toolCall('search'));
      assert.equal(/ada@example|555/.test(text), false, text.slice(0, 500));
      const { result } = JSON.parse(kind === 'event stream' ? text.replace(/^(?:.*\n)*?data: /, '') : text);
      assert.deepEqual(result.structuredContent, { customer: wanted, big: 1 });
      assert.deepEqual(JSON.parse(result.content[0].text), { customer: wanted });
      assert.equal(result.content[1].text, 'call me');
    });
  for (const [method, wrap] of [
    ['tasks/result', (result: object) => result],
    ['tasks/get', (result: object) => ({ taskId: 't', status: 'completed', result })],
  ] as const)
    test(`is redacted where a task brings it (${method})`, async (context) => {
      const { sidecar, upstream } = await opened(
        context,
        `${REDACT}, rules: [ { name: tasks, allow: [ { methods: ["tasks/*"] } ] } ]`,
      );
      upstream.answer = (seen, response) =>
        sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: wrap(RESULT) });
      const { text } = await askLegacy(sidecar.base, { jsonrpc: '2.0', id: 7, method, params: { taskId: 't' } });
      assert.equal(/ada@example|555/.test(text), false, text);
      assert.ok(text.includes('[redacted]'), text);
    });
  test('is redacted where the notice of a task brings it', async (context) => {
    const { sidecar, upstream } = await opened(context, REDACT);
    upstream.answer = (seen, response) => {
      const notice = { jsonrpc: '2.0', method: 'notifications/tasks', params: { taskId: 't', result: RESULT } };
      const answer = { jsonrpc: '2.0', id: seen.json.id, result: { content: [] } };
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.end(`data: ${JSON.stringify(notice)}\n\ndata: ${JSON.stringify(answer)}\n\n`);
    };
    const { text } = await askLegacy(sidecar.base, toolCall('search'));
    assert.equal(/ada@example|555/.test(text), false, text);
    assert.match(text, /notifications\/tasks.*\[redacted\]/);
  });
  const unreadable: Record<string, [body: (id: unknown) => string, kind: 'JSON' | 'event stream']> = {
    'no JSON': [() => 'ada@example.com', 'JSON'],
    'no JSON, as an event': [() => 'ada@example.com', 'event stream'],
    'too large': [
      (id) => JSON.stringify({ jsonrpc: '2.0', id, result: { ...RESULT, filler: 'x'.repeat(17 * 1024 * 1024) } }),
      'JSON',
    ],
  };
  for (const [name, [body, kind]] of Object.entries(unreadable))
    test(`that cannot be read is refused: ${name}`, async (context) => {
      const { sidecar, upstream } = await opened(context, REDACT);
      upstream.answer = (seen, response) => {
        const isStream = kind === 'event stream';
        response.writeHead(200, { 'content-type': isStream ? 'text/event-stream' : 'application/json' });
        response.end(isStream ? `data: ${body(seen.json.id)}\n\n` : body(seen.json.id));
      };
      const { text } = await askLegacy(sidecar.base, toolCall('search'));
      assert.equal(text.includes('ada@example'), false);
      assert.match(text, /"error":/);
    });
  test('of another tool stays', async (context) => {
    const { sidecar, upstream } = await opened(context, REDACT);
    upstream.answer = (seen, response) => sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: RESULT });
    assert.deepEqual((await askLegacy(sidecar.base, toolCall('other'))).json.result, RESULT);
  });
});
