/**
 * What spends, over real sockets: money and tokens in the record, warnings before the wall, streams that are cut off,
 * calls at a time, and what outlives the process.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { StateFile } from '../../sidecar/quota/state-file.ts';
import { askLegacy, toolCall } from '../support/raw-http.ts';
import { sendJson, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { startSidecar as startProcess } from '../support/sidecar-process.ts';
import { until } from '../support/until.ts';

async function opened(context: TestContext, policy: string) {
  const upstream = await startScriptedUpstream();
  context.after(() => upstream.close());
  const sidecar = await startTestSidecar(`
servers: { main: { url: "${upstream.url}" } }
policy: { version: 1, default: allow, ${policy} }
`);
  context.after(() => sidecar.close());
  const ask = (name: string, args: Record<string, unknown> = {}) => askLegacy(sidecar.base, toolCall(name, args));
  return { upstream, sidecar, ask };
}

const PRICES = 'prices: [ { tools: [search], perCall: 0.01, perThousandTokens: 1 } ]';

test('a budget is spent by what calls cost, and the record says it', async (context) => {
  const { sidecar, ask, upstream } = await opened(
    context,
    `budgets: [ { name: daily, key: [agent], cost: 0.08/day } ], ${PRICES}`,
  );
  upstream.answer = (seen, response) =>
    sendJson(response, {
      jsonrpc: '2.0',
      id: seen.json.id,
      result: { content: [], _meta: { usage: { inputTokens: 10, outputTokens: 20 } } },
    });
  // 0.01 a call and 0.03 for its tokens: the third would be beyond.
  const answers = [await ask('search'), await ask('search'), await ask('search')];
  assert.deepEqual(
    answers.map(({ status }) => status),
    [200, 200, 429],
  );
  const { error } = answers[2]!.json;
  assert.deepEqual([error.code, error.data.quota], [-31429, 'daily']);
  assert.match(error.message, /^Budget "daily" is spent; try again in /);
  assert.equal((await ask('free')).status, 200);
  const lines = (await sidecar.auditLines()).filter(({ tool }) => tool === 'search');
  assert.deepEqual(
    lines.map(({ cost, tokensIn, tokensOut, tokensBy, decision }) => [cost, tokensIn, tokensOut, tokensBy, decision]),
    [
      [0.04, 10, 20, 'server', 'allow'],
      [0.04, 10, 20, 'server', 'allow'],
      [undefined, 1, undefined, undefined, 'limit'],
    ],
  );
});

test('a spent budget is told to the model where it says so', async (context) => {
  const { ask } = await opened(
    context,
    `budgets: [ { name: daily, key: [agent], cost: 0.015/day, onLimit: toolError } ], prices: [ { perCall: 0.01 } ]`,
  );
  await ask('search');
  const { status, json } = await ask('search');
  assert.deepEqual([status, json.result.isError], [200, true]);
  assert.match(json.result.content[0].text, /^Budget "daily" is spent/);
});

test('near the wall the answer tells what is left, and the audit is warned once', async (context) => {
  const { sidecar, ask } = await opened(context, 'quotas: [ { name: calls, key: [agent], calls: 5/h } ]');
  const shares: unknown[] = [];
  for (let count = 0; count < 5; count++)
    shares.push((await ask('any')).json.result._meta?.['mcp-sidecar.io/quota']?.[0]);
  assert.deepEqual(shares, [
    undefined,
    undefined,
    undefined,
    { name: 'calls', dimension: 'calls', remaining: 0.2 },
    { name: 'calls', dimension: 'calls', remaining: 0 },
  ]);
  const warnings = (await sidecar.auditLines()).filter(({ event }) => event === 'quota.warning');
  assert.deepEqual(
    warnings.map(({ quota, dimension, used, limit, agent }) => [quota, dimension, used, limit, agent]),
    [['calls', 'calls', 4, 5, 'default']],
  );
});

for (const [what, policy, usage, remaining] of [
  ['tokens', 'quotas: [ { name: q, key: [agent], tokens: 1000/h } ]', { inputTokens: 10, outputTokens: 860 }, 0.13],
  ['tokens in all', 'quotas: [ { name: q, key: [agent], tokens: 1000/h } ]', { total_tokens: 870 }, 0.13],
  ['money', `budgets: [ { name: q, key: [agent], cost: 0.11/day } ], ${PRICES}`, { outputTokens: 90 }, 0.082],
] as const)
  test(`an answer tells the share that it leaves itself: ${what}`, async (context) => {
    const { sidecar, ask, upstream } = await opened(context, policy);
    upstream.answer = (seen, response) =>
      sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: { content: [], _meta: { usage } } });
    const { result } = (await ask('search')).json;
    assert.deepEqual(
      result._meta['mcp-sidecar.io/quota'].map((one: { name: string; remaining: number }) => [one.name, one.remaining]),
      [['q', remaining]],
    );
    const lines = await sidecar.auditLines();
    const [warned] = lines.filter(({ event }) => event === 'quota.warning');
    assert.equal(Math.round(1000 * (1 - warned!.used / warned!.limit)) / 1000, remaining);
    const { tokensIn, tokensOut } = lines.find(({ tool }) => tool === 'search')!;
    if (what !== 'money') assert.equal(tokensIn + tokensOut, 870);
  });

test('in audit mode, what a rule would refuse is recorded though a quota is spent', async (context) => {
  const { sidecar, ask } = await opened(
    context,
    'mode: audit, rules: [ { name: never, deny: [ { tools: [push] } ] } ], quotas: [ { name: q, key: [agent], calls: 1/h } ]',
  );
  for (const name of ['any', 'any', 'push']) assert.equal((await ask(name)).status, 200);
  const lines = (await sidecar.auditLines()).filter(({ tool }) => tool !== undefined);
  assert.deepEqual(
    lines.map(({ decision, rule }) => [decision, rule]),
    [
      ['allow', undefined],
      ['audit', 'q'],
      ['audit', 'never'],
    ],
  );
});

test('real text is counted by the tokenizer, once it is loaded', async (context) => {
  const { sidecar, ask } = await opened(context, 'quotas: [ { name: tokens, key: [agent], tokens: 100000/h } ]');
  const args = { text: 'The quick brown fox jumps over the lazy dog, and then over another one.' };
  let by: unknown;
  for (let attempt = 0; attempt < 300 && by !== 'tokenizer'; attempt++) {
    await ask('any', args);
    by = (await sidecar.auditLines()).at(-1)!.tokensBy;
    if (by !== 'tokenizer') await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const { tokensIn } = (await sidecar.auditLines()).at(-1)!;
  assert.equal(by, 'tokenizer');
  // 83 bytes of JSON: 21 by the estimate.
  assert.equal(tokensIn, 20);
});

test('a stream that brings too much is cut off where the quota is hard, and told why', async (context) => {
  const { sidecar, ask, upstream } = await opened(
    context,
    'quotas: [ { name: tokens, key: [agent], tokens: 200/h, hard: true } ]',
  );
  let response: ServerResponse | undefined;
  let isClosed: Promise<unknown> = Promise.resolve();
  upstream.answer = (_seen, answer) => {
    response = answer;
    isClosed = new Promise((resolve) => answer.once('close', resolve));
    answer.writeHead(200, { 'content-type': 'text/event-stream' });
    const event = JSON.stringify({
      jsonrpc: '2.0',
      method: 'notifications/message',
      params: { data: 'x'.repeat(300) },
    });
    for (let count = 0; count < 10; count++) answer.write(`id: ${count}\ndata: ${event}\n\n`);
  };
  const { text } = await ask('any');
  assert.equal(text.match(/notifications\/message/g)!.length, 2);
  const error = JSON.parse(/data: (\{"jsonrpc":"2.0","id".*)/.exec(text)![1]!);
  assert.deepEqual([error.error.code, error.error.data.quota], [-31429, 'tokens']);
  await isClosed;
  assert.equal(response!.writableFinished, false);
  assert.equal((await ask('any')).status, 429);
  const [line] = (await sidecar.auditLines()).filter(({ tool }) => tool === 'any');
  assert.deepEqual([line!.rpcCode, line!.rule, line!.tokensBy], [-31429, 'tokens', 'estimate']);
});

test('as many calls at a time as the quota says', async (context) => {
  const { ask, upstream } = await opened(context, 'quotas: [ { name: lanes, key: [server], concurrent: 2 } ]');
  const open: (() => void)[] = [];
  upstream.answer = (seen, response) => {
    open.push(() => sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: { content: [] } }));
  };
  const under = [ask('slow'), ask('slow')];
  await until(() => open.length === 2, 'both calls');
  const refused = await ask('slow');
  assert.deepEqual(
    [refused.status, refused.json.error.data.quota, refused.headers['retry-after']],
    [429, 'lanes', '1'],
  );
  for (const answer of open) answer();
  assert.deepEqual(
    (await Promise.all(under)).map(({ status }) => status),
    [200, 200],
  );
  const again = ask('slow');
  await until(() => open.length === 3, 'the third call');
  open[2]!();
  assert.equal((await again).status, 200);
});

test('what was spent outlives a process that is killed', async (context) => {
  const upstream = await startScriptedUpstream();
  context.after(() => upstream.close());
  const folder = await mkdtemp(join(tmpdir(), 'spending-'));
  context.after(() => rm(folder, { recursive: true, force: true }));
  const config = `
listen: { mcp: 127.0.0.1:0, admin: 127.0.0.1:0 }
servers: { main: { url: "${upstream.url}" } }
policy: { version: 1, default: allow, quotas: [ { name: two, key: [agent], calls: 2/h } ] }
`;
  const file = join(folder, '.mcp-sidecar', 'quota.json');
  const first = await startProcess(config, { cwd: folder });
  const base = (one: typeof first) => one.mcp[0].replace(/\/mcp$/, '');
  assert.equal((await askLegacy(base(first), toolCall('any', {}))).status, 200);
  await until(() => existsSync(file), 'the file of what was spent');
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  process.kill(first.pid, 'SIGKILL');
  await first.exited;

  const second = await startProcess(config, { cwd: folder });
  context.after(() => second.stop());
  const statuses = [];
  for (let count = 0; count < 2; count++) statuses.push((await askLegacy(base(second), toolCall('any', {}))).status);
  assert.deepEqual(statuses, [200, 429]);
  assert.equal(await second.stop(), 0);
  // Written at the end too, and the lock is gone.
  assert.match(await readFile(file, 'utf8'), /"version":1/);
  await assert.rejects(stat(`${file}.lock`));

  await writeFile(file, '{ broken');
  const third = await startProcess(config, { cwd: folder });
  context.after(() => third.stop());
  assert.equal((await askLegacy(base(third), toolCall('any', {}))).status, 200);
  assert.match(third.stderr(), /quota.json holds no spent quota that can be read/);
});

test('a folder of another sidecar is left alone, and one that cannot be written costs only what it would keep', async (context) => {
  const folder = await mkdtemp(join(tmpdir(), 'spending-'));
  context.after(() => rm(folder, { recursive: true, force: true }));
  const said: string[] = [];
  const ports = (pid: number) => ({
    warn: (text: string) => said.push(text),
    pid,
    isAlive: (other: number) => other === 1,
  });
  const first = await StateFile.open(folder, 'quota.json', ports(1));
  assert.ok(first);
  await first.write('one');
  assert.equal(await StateFile.open(folder, 'quota.json', ports(2)), undefined);
  assert.match(said.join(), /belongs to another sidecar \(process 1\)/);
  await first.close();
  // A lock that a dead process has left is taken over.
  await writeFile(join(folder, 'quota.json.lock'), '3');
  const next = await StateFile.open(folder, 'quota.json', ports(2));
  assert.equal(await next!.read(), 'one');
  await next!.close();

  said.length = 0;
  assert.equal(await StateFile.open(join(folder, 'quota.json', 'below'), 'quota.json', ports(4)), undefined);
  assert.match(said.join(), /cannot be written \(ENOTDIR\)/);
});
