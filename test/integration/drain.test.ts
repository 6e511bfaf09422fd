/**
 * SIGTERM to a real process: not ready at once, streams ended cleanly, every request under way answered in full, every
 * child gone, exit code 0. And what ends it when that takes too long.
 */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import * as http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { openStream } from '../support/event-stream.ts';
import { ACCEPT_BOTH, askLegacy, toolCall } from '../support/raw-http.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { ALLOW_ALL } from '../support/sidecar.ts';
import { type SidecarProcess, startSidecar } from '../support/sidecar-process.ts';
import { isAlive } from '../support/stdio-harness.ts';
import { until } from '../support/until.ts';

const CHILD = fileURLToPath(new URL('../support/stdio-server.ts', import.meta.url));
const HTTP = '/servers/main/mcp';
const STDIO = '/servers/child/mcp';

interface Running {
  readonly upstream: ScriptedUpstream;
  readonly sidecar: SidecarProcess;
  readonly base: string;
  readonly folder: string;
  ready(): Promise<number>;
}

async function started(context: TestContext, more = '', childFlags: readonly string[] = []): Promise<Running> {
  const folder = await mkdtemp(join(tmpdir(), 'drain-'));
  context.after(() => rm(folder, { recursive: true, force: true }));
  const upstream = await startScriptedUpstream();
  context.after(() => upstream.close());
  const sidecar = await startSidecar(
    `
listen: { mcp: 127.0.0.1:0, admin: 127.0.0.1:0 }
servers:
  main: { url: "${upstream.url}" }
  child: { command: ${JSON.stringify([process.execPath, CHILD, ...childFlags])} }
${more}
${ALLOW_ALL}`,
    { cwd: folder },
  );
  context.after(() => sidecar.stop());
  return {
    upstream,
    sidecar,
    base: sidecar.mcp[0].replace(/\/mcp$/, ''),
    folder,
    ready: async () => (await fetch(`${sidecar.admin}/readyz`)).status,
  };
}

/** A session at the child, and the pids that its tools answer. */
async function openChild(
  base: string,
  tools = ['pid'],
): Promise<{ headers: http.OutgoingHttpHeaders; pids: number[] }> {
  const params = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'test', version: '1' } };
  const opened = await askLegacy(base, { jsonrpc: '2.0', id: 0, method: 'initialize', params }, {}, STDIO);
  const headers = { 'mcp-session-id': String(opened.headers['mcp-session-id']) };
  const pids: number[] = [];
  for (const tool of tools) {
    const answer = await askLegacy(base, toolCall(tool), headers, STDIO);
    pids.push(Number(answer.json.result.content[0].text));
  }
  for (const pid of pids) assert.ok(isAlive(pid));
  return { headers, pids };
}

// Most of it is waiting for processes to end.
describe('a signal', { concurrency: true }, () => {
  test('SIGTERM with work under way: all of it is finished, and nothing is left', async (context) => {
    const { upstream, sidecar, base, folder, ready } = await started(context);
    const { pids, headers } = await openChild(base, ['pid', 'grandchild']);
    const held: (() => void)[] = [];
    const usual = upstream.answer;
    upstream.answer = (seen, response, request) => {
      if (seen.method === 'GET' || seen.json.method === 'subscriptions/listen') {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        response.write('data: {"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n\n');
      } else if (seen.json.params.name === 'streamed') {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        response.write('data: {"jsonrpc":"2.0","method":"notifications/message","params":{}}\n\n');
        const result = { jsonrpc: '2.0', id: seen.json.id, result: { content: [] } };
        held.push(() => response.end(`data: ${JSON.stringify(result)}\n\n`));
      } else {
        held.push(() => usual(seen, response, request));
      }
    };
    const calls = Array.from({ length: 20 }, (_, id) => askLegacy(base, toolCall('any', {}, id), {}, HTTP));
    const streamed = await openStream(`${base}${HTTP}`, { body: JSON.stringify(toolCall('streamed', {}, 'streamed')) });
    const pushed = await openStream(`${base}${HTTP}`, { method: 'GET' });
    const childPushed = await openStream(`${base}${STDIO}`, { method: 'GET', headers });
    const listening = await openStream(`${base}${HTTP}`, {
      headers: { 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'subscriptions/listen' },
      body: JSON.stringify({
        jsonrpc: '2.0',
        id: 'sub',
        method: 'subscriptions/listen',
        params: {
          notifications: { toolsListChanged: true },
          _meta: {
            'io.modelcontextprotocol/protocolVersion': '2026-07-28',
            'io.modelcontextprotocol/clientCapabilities': {},
          },
        },
      }),
    });
    await Promise.all([streamed.waitFor(1), pushed.waitFor(1), listening.waitFor(1)]);
    await until(() => held.length === 21, 'all calls at the server');
    assert.equal(await ready(), 200);

    process.kill(sidecar.pid, 'SIGTERM');
    await until(async () => (await ready()) === 503, 'not ready');
    await Promise.all([pushed.ended, listening.ended, childPushed.ended]);
    assert.equal(pushed.complete(), true);
    assert.equal(childPushed.complete(), true);
    assert.equal(listening.complete(), true);
    assert.deepEqual(listening.events.at(-1)!.data, {
      jsonrpc: '2.0',
      id: 'sub',
      result: { resultType: 'complete', _meta: { 'io.modelcontextprotocol/subscriptionId': 'sub' } },
    });
    // Nobody new is let in, and nobody who is inside is cut.
    await assert.rejects(askLegacy(base, toolCall('any'), {}, HTTP), { code: 'ECONNREFUSED' });

    for (const release of held) release();
    const answers = await Promise.all(calls);
    assert.deepEqual(
      answers.map(({ status, json }) => [status, json.id, json.result !== undefined]),
      answers.map((_answer, id) => [200, id, true]),
    );
    await streamed.ended;
    assert.deepEqual(streamed.events.at(-1)!.data.result, { content: [] });
    assert.equal(await sidecar.exited, 0);
    await until(() => pids.every((pid) => !isAlive(pid)), 'the end of the children');
    const last = (await readFile(join(folder, 'audit.jsonl'), 'utf8')).trimEnd().split('\n').at(-1)!;
    assert.match(last, /"event":"sidecar\.stopped","unfinished":0/);
  });

  test('SIGTERM under load: what has reached the server is answered', async (context) => {
    const { upstream, sidecar, base } = await started(context);
    const usual = upstream.answer;
    upstream.answer = (seen, response, request) => void setTimeout(() => usual(seen, response, request), 5);
    const agent = new http.Agent({ keepAlive: true, maxSockets: 16 });
    context.after(() => agent.destroy());
    let over = false;
    let answered = 0;
    const refusals = new Set<string>();
    const caller = async (worker: number) => {
      for (let index = 0; index < 10_000 && !over; index += 1) {
        const message = JSON.stringify(toolCall('any', {}, worker * 10_000 + index));
        const outcome = await new Promise<string>((resolve) => {
          const headers = { accept: ACCEPT_BOTH, 'content-type': 'application/json' };
          const request = http.request(`${base}${HTTP}`, { method: 'POST', agent, headers }, (response) => {
            let text = '';
            response.setEncoding('utf8').on('data', (chunk: string) => {
              text += chunk;
            });
            response.on('close', () => resolve(response.complete ? `${response.statusCode} ${text}` : 'cut'));
          });
          request.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message)).end(message);
        });
        if (outcome.startsWith('200 ') && outcome.includes('"result"')) answered += 1;
        else {
          refusals.add(outcome.replace(/ \{.*"code":(-?\d+).*/, ' $1'));
          if (!outcome.startsWith('503')) return;
        }
      }
    };
    const callers = Array.from({ length: 16 }, (_, worker) => caller(worker));
    await until(() => answered > 200, 'some load');
    process.kill(sidecar.pid, 'SIGTERM');
    const code = await sidecar.exited;
    over = true;
    await Promise.all(callers);
    assert.equal(code, 0);
    assert.equal(upstream.seen.length, answered);
    for (const refusal of refusals) assert.match(refusal, /^(503 -31503|ECONNREFUSED|ECONNRESET)$/);
  });

  test('what does not end within the grace is cut, and the exit is still clean', async (context) => {
    const { upstream, sidecar, base } = await started(context, 'drain: { grace: 200ms }', ['--stubborn']);
    const { pids } = await openChild(base);
    const reached = new Promise<void>((resolve) => {
      upstream.answer = () => resolve();
    });
    const never = askLegacy(base, toolCall('any'), {}, HTTP);
    const outcome = never.then(
      ({ status }) => status,
      ({ code }) => code,
    );
    await reached;
    const told = performance.now();
    process.kill(sidecar.pid, 'SIGTERM');
    assert.equal(await sidecar.exited, 0);
    assert.ok(performance.now() - told < 15_000);
    assert.ok(['ECONNRESET', 503].includes(await outcome), String(await outcome));
    await until(() => pids.every((pid) => !isAlive(pid)), 'the end of the children');
  });

  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    test(`a second ${signal} ends it at once, children included`, async (context) => {
      const { upstream, sidecar, base, ready } = await started(context, '', ['--stubborn']);
      const { pids } = await openChild(base);
      const reached = new Promise<void>((resolve) => {
        upstream.answer = () => resolve();
      });
      const outcome = askLegacy(base, toolCall('any'), {}, HTTP).catch(({ code }) => code);
      await reached;
      process.kill(sidecar.pid, signal);
      await until(async () => (await ready()) === 503, 'the drain');
      const told = performance.now();
      process.kill(sidecar.pid, signal);
      assert.equal(await sidecar.exited, 130);
      assert.ok(performance.now() - told < 5_000);
      assert.equal(await outcome, 'ECONNRESET');
      await until(() => pids.every((pid) => !isAlive(pid)), 'the end of the children');
    });
  }
});
