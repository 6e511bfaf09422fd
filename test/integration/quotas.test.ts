/**
 * Quotas over real sockets: exact under concurrency, reserved before the server sees anything, settled by what came
 * back, and never charged for what did not happen.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, type TestContext, test } from 'node:test';
import { askLegacy, askModern, type RawAnswer, toolCall } from '../support/raw-http.ts';
import { type ScriptedUpstream, sendJson, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';
import { until } from '../support/until.ts';

const keys = { triage: randomBytes(24).toString('base64url'), author: randomBytes(24).toString('base64url') };
const as = (agent: keyof typeof keys) => ({ authorization: `Bearer ${keys[agent]}` });

let upstream: ScriptedUpstream;
let usual: ScriptedUpstream['answer'];
before(async () => {
  process.env.QUOTAS_TRIAGE_KEY = keys.triage;
  process.env.QUOTAS_AUTHOR_KEY = keys.author;
  upstream = await startScriptedUpstream();
  usual = upstream.answer;
});
after(() => upstream.close());
beforeEach(() => {
  upstream.seen.length = 0;
});
afterEach(() => {
  upstream.answer = usual;
});

async function started(context: TestContext, quotas: string, more = '', url = upstream.url): Promise<TestSidecar> {
  const sidecar = await startTestSidecar(`
identify: [ { type: apiKey, agents: { triage: { env: QUOTAS_TRIAGE_KEY }, author: { env: QUOTAS_AUTHOR_KEY } } } ]
servers: { main: { url: "${url}" } }
${more}
policy:
  version: 1
  default: allow
  rules: [ { name: hide it, deny: [ { server: main, tools: [hidden] } ] } ]
  quotas: [ ${quotas} ]
`);
  context.after(() => sidecar.close());
  return sidecar;
}

/** 200 stands for a result: an error under that status counts by its code. */
async function statuses(count: number, ask: () => Promise<RawAnswer>): Promise<number[]> {
  const found: number[] = [];
  for (let index = 0; index < count; index += 1) found.push(statusOf(await ask()));
  return found;
}

function statusOf({ status, json }: RawAnswer): number {
  return status === 200 ? (json?.error?.code ?? status) : status;
}

describe('calls', () => {
  test('of 1,000 that come at once, exactly as many as the limit reach the server', async (context) => {
    const sidecar = await started(
      context,
      '{ name: hundred, key: [agent], calls: 100/h }',
      'limits: { inFlight: 2000, connections: 2000 }',
    );
    const answers = await Promise.all(
      Array.from({ length: 1000 }, (_, id) => askLegacy(sidecar.base, toolCall('any', {}, id), as('triage'))),
    );
    assert.equal(answers.filter((answer) => statusOf(answer) === 200).length, 100);
    assert.equal(upstream.seen.length, 100);
    answers.forEach(({ status, headers, json }, id) => {
      assert.equal(json.id, id);
      if (status === 200) return;
      assert.deepEqual([status, json.error.code, json.error.data.quota], [429, -31429, 'hundred']);
      assert.ok(Number(headers['retry-after']) > 0);
    });
    const lines = (await sidecar.auditLines()).filter((line) => line.event === undefined);
    assert.equal(lines.filter((line) => line.decision === 'allow').length, 100);
    assert.equal(lines.filter((line) => line.decision === 'limit' && line.rule === 'hundred').length, 900);
  });

  test('the burst bounds the start of a window', async (context) => {
    const sidecar = await started(context, '{ name: calls, key: [agent], calls: 60/h, burst: 2/10s }');
    const call = () => askLegacy(sidecar.base, toolCall('any'), as('triage'));
    assert.deepEqual(await statuses(2, call), [200, 200]);
    const third = await call();
    assert.equal(third.status, 429);
    // A wait for the burst, not for the hour.
    const { retryAfterMs } = third.json.error.data;
    assert.ok(retryAfterMs > 5_000 && retryAfterMs <= 10_200, `${retryAfterMs} ms`);
    assert.equal(Number(third.headers['retry-after']), Math.ceil(retryAfterMs / 1000));
  });

  test('two agents do not share a key, and a group does', async (context) => {
    const sidecar = await started(
      context,
      '{ name: each, key: [agent], calls: 2/h }, { name: all, key: [group], calls: 3/h }',
    );
    const call = (agent: keyof typeof keys) => askLegacy(sidecar.base, toolCall('any'), as(agent));
    assert.deepEqual(await statuses(3, () => call('triage')), [200, 200, 429]);
    assert.equal((await call('author')).status, 200);
    const last = await call('author');
    assert.deepEqual([last.status, last.json.error.data.quota], [429, 'all']);
  });

  test('each tool has its own where the key says so, prompts and resources count, lists do not', async (context) => {
    const sidecar = await started(context, '{ name: each tool, key: [agent, tool], calls: 1/h }');
    const call = (name: string) => askLegacy(sidecar.base, toolCall(name), as('triage'));
    assert.deepEqual([await call('a'), await call('b'), await call('a')].map(statusOf), [200, 200, 429]);
    const ask = (method: string, params: object) =>
      askLegacy(sidecar.base, { jsonrpc: '2.0', id: 1, method, params }, as('triage'));
    assert.deepEqual(await statuses(2, () => ask('prompts/get', { name: 'p' })), [200, 429]);
    assert.equal((await ask('resources/read', { uri: 'file:///a' })).status, 429);
    assert.deepEqual(await statuses(3, () => ask('tools/list', {})), [200, 200, 200]);
  });

  test('a batch pays for each of its calls', async (context) => {
    const sidecar = await started(context, '{ name: two, key: [agent], calls: 2/h }');
    const batch = [1, 2, 3].map((id) => toolCall('any', {}, id));
    const answer = await askLegacy(sidecar.base, batch, { ...as('triage'), 'mcp-protocol-version': '2025-03-26' });
    assert.equal(answer.json.length, 3);
    const refused = answer.json.filter((one: { error?: { code: number } }) => one.error?.code === -31429);
    assert.equal(refused.length, 1);
    assert.equal(upstream.seen.length, 2);
  });
});

describe('tokens', () => {
  const QUOTA = '{ name: tokens, key: [agent], tokens: 1000/h }';

  test('what the arguments cost is reserved before the server sees anything', async (context) => {
    const sidecar = await started(context, QUOTA);
    const call = (bytes: number) => askModern(sidecar.base, toolCall('any', { text: 'x'.repeat(bytes) }), as('triage'));
    assert.deepEqual(await statuses(2, () => call(2400)), [200, 429]);
    assert.equal((await call(400)).status, 200);
    assert.equal(upstream.seen.length, 2);
  });

  test('calls under way hold what they have reserved', async (context) => {
    const sidecar = await started(context, QUOTA);
    const held: (() => void)[] = [];
    upstream.answer = (seen, response, request) => held.push(() => usual(seen, response, request));
    const call = () => askLegacy(sidecar.base, toolCall('any', { text: 'x'.repeat(1600) }), as('triage'));
    const answers = Array.from({ length: 5 }, call);
    await until(() => held.length === 2, 'two calls at the server');
    // Refused while the two are under way, and not because of what they came to.
    let refused = 0;
    for (const answer of answers) void answer.then(() => (refused += 1));
    await until(() => refused === 3, 'three refusals');
    for (const release of held) release();
    const found = (await Promise.all(answers)).map(statusOf).sort();
    assert.deepEqual(found, [200, 200, 429, 429, 429]);
  });

  for (const era of ['legacy', 'modern'] as const) {
    test(`a big result is paid for by the next call (${era})`, async (context) => {
      const sidecar = await started(context, QUOTA);
      const ask = era === 'legacy' ? askLegacy : askModern;
      upstream.answer = (seen, response) =>
        sendJson(response, {
          jsonrpc: '2.0',
          id: seen.json.id,
          result: { content: [{ type: 'text', text: 'x'.repeat(6000) }] },
        });
      const first = await ask(sidecar.base, toolCall('any'), as('triage'));
      assert.equal(first.status, 200);
      assert.equal(first.json.result.content[0].text.length, 6000);
      const second = await ask(sidecar.base, toolCall('any'), as('triage'));
      assert.deepEqual([second.status, second.json.error.data.quota], [429, 'tokens']);
      assert.equal((await ask(sidecar.base, toolCall('any'), as('author'))).status, 200);
      const [line] = (await sidecar.auditLines()).filter((one) => one.tool === 'any');
      assert.ok(line.tokensOut > 1500 && line.tokensOut < 1600, String(line.tokensOut));
    });
  }

  test('a result in an event stream, and one too big to be read whole, are paid for too', async (context) => {
    const sidecar = await started(context, QUOTA);
    const body = (id: unknown, length: number) =>
      JSON.stringify({ jsonrpc: '2.0', id, result: { content: [{ type: 'text', text: 'x'.repeat(length) }] } });
    upstream.answer = (seen, response) =>
      response.writeHead(200, { 'content-type': 'text/event-stream' }).end(`data: ${body(seen.json.id, 6000)}\n\n`);
    const call = (agent: keyof typeof keys) => askLegacy(sidecar.base, toolCall('any'), as(agent));
    assert.deepEqual(await statuses(2, () => call('triage')), [200, 429]);
    upstream.answer = (seen, response) =>
      response.writeHead(200, { 'content-type': 'application/json' }).end(body(seen.json.id, 200_000));
    assert.deepEqual(await statuses(2, () => call('author')), [200, 429]);
  });

  test('a call that costs more than the limit is told that waiting does not help', async (context) => {
    const sidecar = await started(context, QUOTA);
    const answer = await askLegacy(sidecar.base, toolCall('any', { text: 'x'.repeat(6000) }), as('triage'));
    assert.equal(answer.status, 429);
    assert.equal(answer.headers['retry-after'], undefined);
    assert.match(answer.json.error.message, /this call alone costs more/);
    assert.equal(upstream.seen.length, 0);
  });
});

describe('what did not happen costs nothing', () => {
  const QUOTA = '{ name: two, key: [agent], calls: 2/h }';
  const call = (sidecar: TestSidecar, name = 'any') => askLegacy(sidecar.base, toolCall(name), as('triage'));

  test('refused by policy, or malformed', async (context) => {
    const sidecar = await started(context, QUOTA);
    for (let index = 0; index < 3; index += 1) {
      assert.equal((await call(sidecar, 'hidden')).json.error.code, -32602);
      assert.equal((await askLegacy(sidecar.base, { jsonrpc: '2.0', id: 1 }, as('triage'))).status, 400);
    }
    assert.deepEqual(await statuses(3, () => call(sidecar)), [200, 200, 429]);
  });

  test('no credential could be had', async (context) => {
    const sidecar = await startTestSidecar(
      `
identify: [ { type: apiKey, agents: { triage: { env: QUOTAS_TRIAGE_KEY } } } ]
servers: { main: { url: "${upstream.url}", auth: { type: bearer, token: { file: token } } } }
policy: { version: 1, default: allow, quotas: [ ${QUOTA} ] }
`,
      { token: 'some-token' },
    );
    context.after(() => sidecar.close());
    // Lists cost nothing; the file is looked at once a second.
    const listing = () => askLegacy(sidecar.base, { jsonrpc: '2.0', id: 1, method: 'tools/list' }, as('triage'));
    await rm(join(sidecar.folder, 'token'));
    await until(async () => (await listing()).status === 502, 'no credential');
    upstream.seen.length = 0;
    assert.deepEqual(await statuses(3, () => call(sidecar)), [502, 502, 502]);
    assert.equal(upstream.seen.length, 0);
    await writeFile(join(sidecar.folder, 'token'), 'another-token');
    await until(async () => (await listing()).status === 200, 'a credential');
    assert.deepEqual(await statuses(3, () => call(sidecar)), [200, 200, 429]);
  });
});

describe('how a spent quota is told', () => {
  const policy = (mode: string, onLimit: string) => `
policy:
  version: 1
  mode: ${mode}
  default: deny
  rules: [ { name: all, allow: [ { tools: ["*"], prompts: ["*"] } ] } ]
  quotas: [ { name: one, key: [agent], calls: 1/min, onLimit: ${onLimit} } ]
`;
  const call = (id: number) => ({ jsonrpc: '2.0', id, method: 'tools/call', params: { name: 'any', arguments: {} } });

  test('onLimit: toolError answers with a result that the model reads', async () => {
    const upstream = await startScriptedUpstream();
    const sidecar = await startTestSidecar(
      `servers: { main: { url: "${upstream.url}" } }\n${policy('enforce', 'toolError')}`,
    );
    try {
      await askLegacy(sidecar.base, call(1));
      const answer = await askLegacy(sidecar.base, call(2));
      assert.equal(answer.status, 200);
      assert.equal(answer.json.id, 2);
      assert.equal(answer.json.result.isError, true);
      assert.match(answer.json.result.content[0].text, /Quota "one" is spent/);
      const prompt = await askLegacy(sidecar.base, {
        jsonrpc: '2.0',
        id: 3,
        method: 'prompts/get',
        params: { name: 'p' },
      });
      assert.equal(prompt.status, 429);
      assert.equal(upstream.seen.length, 1);
    } finally {
      await sidecar.close();
      await upstream.close();
    }
  });

  test('audit mode lets through and says what enforcing would have done', async () => {
    const upstream = await startScriptedUpstream();
    const sidecar = await startTestSidecar(
      `servers: { main: { url: "${upstream.url}" } }\n${policy('audit', 'refuse')}`,
    );
    try {
      for (const id of [1, 2, 3])
        assert.equal((await askLegacy(sidecar.base, call(id))).json.result.isError, undefined);
      const lines = (await sidecar.auditLines()).filter((line) => line.method === 'tools/call');
      assert.deepEqual(
        lines.map((line) => [line.decision, line.rule]),
        [
          ['allow', 'all'],
          ['audit', 'one'],
          ['audit', 'one'],
        ],
      );
    } finally {
      await sidecar.close();
      await upstream.close();
    }
  });
});
