/** Real MCP servers over stdio. */
import assert from 'node:assert/strict';
import { mkdtemp, realpath, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Upstream } from '../../sidecar/upstream/upstream.ts';
import { post } from '../support/mcp-message.ts';
import {
  type Body,
  bodyOf,
  call,
  eventsOf,
  expectResponse,
  initialize,
  jsonOf,
  modern,
  modernCall,
  startUpstream,
  textOf,
} from '../support/stdio-harness.ts';

const require = createRequire(import.meta.url);

function commandOf(packageName: string, ...args: string[]): string[] {
  const manifest = require.resolve(`${packageName}/package.json`);
  const [script] = Object.values<string>(require(manifest).bin);
  return [process.execPath, join(dirname(manifest), script ?? ''), ...args];
}

/** The answer to a request, whether it came as JSON or at the end of a stream, and what came before it. */
async function converse(upstream: Upstream, sessionId: string | undefined, content: object) {
  const response = expectResponse(await upstream.send(post(content, { sessionId })));
  if (response.headers['content-type'] === 'application/json') {
    return { before: [], answer: await jsonOf(response), sessionId: response.headers['mcp-session-id'] };
  }
  const events: Body[] = [];
  for await (const event of eventsOf(response)) events.push(event);
  const answer = events.pop();
  return { before: events, answer, sessionId: response.headers['mcp-session-id'] };
}

async function open(upstream: Upstream): Promise<string> {
  const { answer, sessionId } = await converse(upstream, undefined, initialize());
  assert.equal(answer.result.protocolVersion, '2025-11-25');
  const initialized = { jsonrpc: '2.0', method: 'notifications/initialized' };
  assert.equal(expectResponse(await upstream.send(post(initialized, { sessionId }))).status, 202);
  return sessionId ?? '';
}

test('server-everything: tools, progress, and a probe that it does not know', async (context) => {
  const { upstream } = startUpstream(context, {
    command: commandOf('@modelcontextprotocol/server-everything', 'stdio'),
  });
  const probe = expectResponse(await upstream.send(post(modern(0, 'server/discover'), { era: 'modern' })));
  assert.equal(probe.status, 404);
  const sessionId = await open(upstream);
  const { answer: list } = await converse(upstream, sessionId, { jsonrpc: '2.0', id: 1, method: 'tools/list' });
  assert.ok(list.result.tools.some(({ name }: Body) => name === 'echo'));
  const { answer: echo } = await converse(upstream, sessionId, call(2, 'echo', { message: 'hello' }));
  assert.equal(textOf(echo), 'Echo: hello');
  const long = call(3, 'trigger-long-running-operation', { duration: 0.3, steps: 3 }, { progressToken: 'p' });
  const { before, answer } = await converse(upstream, sessionId, long);
  const progress = before.filter(({ method }) => method === 'notifications/progress');
  assert.deepEqual(
    progress.map(({ params }) => params.progress),
    [1, 2, 3],
  );
  assert.match(textOf(answer), /completed/);
});

test('server-filesystem: reads what it may read', async (context) => {
  const folder = await realpath(await mkdtemp(join(tmpdir(), 'files-')));
  context.after(() => rm(folder, { recursive: true }));
  await writeFile(join(folder, 'note.txt'), 'remember the milk');
  const { upstream, logged } = startUpstream(context, {
    command: commandOf('@modelcontextprotocol/server-filesystem', folder),
  });
  const sessionId = await open(upstream);
  const read = call(1, 'read_text_file', { path: join(folder, 'note.txt') });
  assert.equal(textOf((await converse(upstream, sessionId, read)).answer), 'remember the milk');
  const forbidden = call(2, 'read_text_file', { path: '/etc/hostname' });
  assert.equal((await converse(upstream, sessionId, forbidden)).answer.result.isError, true);
  assert.ok(logged.some((line) => line.includes('stderr: Secure MCP Filesystem Server')));
});

test('the SDK’s own stdio server, in both eras', async (context) => {
  const { upstream } = startUpstream(context, {
    command: [process.execPath, fileURLToPath(new URL('../support/sdk-stdio-server.ts', import.meta.url))],
  });
  const era = 'modern' as const;
  const ask = async (content: object) => {
    const response = expectResponse(await upstream.send(post(content, { era })));
    return { status: response.status, body: await jsonOf(response) };
  };
  const discover = await ask(modern(0, 'server/discover'));
  assert.equal(discover.status, 200);
  assert.deepEqual(discover.body.result.supportedVersions, ['2026-07-28']);
  assert.equal(textOf((await ask(modernCall(1, 'greet', { name: 'you' }))).body), 'hello you');
  assert.equal((await ask(modern(2, 'no/such/method'))).status, 404);

  const listen = modern('sub', 'subscriptions/listen') as Body;
  listen.params.notifications = { toolsListChanged: true };
  const events = eventsOf(expectResponse(await upstream.send(post(listen, { era }))));
  assert.equal((await events.next()).value.method, 'notifications/subscriptions/acknowledged');
  await ask(modernCall(3, 'grow'));
  const change = (await events.next()).value;
  assert.equal(change.method, 'notifications/tools/list_changed');
  assert.equal(change.params._meta['io.modelcontextprotocol/subscriptionId'], 'sub');
  await events.return();

  const sessionId = await open(upstream);
  assert.equal(textOf((await converse(upstream, sessionId, call(1, 'greet', { name: 'you' }))).answer), 'hello you');
});

test('an abort before the SDK’s server has chosen an era leaves it a modern one', async (context) => {
  const { upstream } = startUpstream(context, {
    command: [process.execPath, fileURLToPath(new URL('../support/sdk-stdio-server.ts', import.meta.url))],
  });
  const agent = new AbortController();
  const gone = upstream.send(post(modernCall(1, 'greet', { name: 'nobody' }), { era: 'modern', signal: agent.signal }));
  agent.abort();
  assert.equal((await gone).ok, false);
  const response = expectResponse(await upstream.send(post(modern(2, 'tools/list'), { era: 'modern' })));
  const body = await bodyOf(response);
  assert.equal(response.status, 200, body);
  assert.ok(JSON.parse(body).result.resultType, body);
});
