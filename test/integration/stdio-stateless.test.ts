/** 2026-07-28 over child processes: shared by the requests of one principal, nothing rewritten, nothing crossed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Upstream } from '../../sidecar/upstream/upstream.ts';
import { bodyless, post, type RequestOptions } from '../support/mcp-message.ts';
import {
  type Body,
  bodyOf,
  eventsOf,
  expectFailure,
  expectResponse,
  initialize,
  jsonOf,
  modern,
  modernCall,
  SECOND,
  startUpstream,
  TestSession,
  textOf,
} from '../support/stdio-harness.ts';
import { until } from '../support/until.ts';

function send(upstream: Upstream, content: object, options: RequestOptions = {}) {
  return upstream.send(post(content, { era: 'modern', ...options }));
}

async function ask(
  upstream: Upstream,
  content: object,
  options: RequestOptions = {},
): Promise<{ status: number; body: Body }> {
  const response = expectResponse(await send(upstream, content, options));
  return { status: response.status, body: await jsonOf(response) };
}

async function text(upstream: Upstream, content: object, options: RequestOptions = {}): Promise<string> {
  return textOf((await ask(upstream, content, options)).body);
}

test('requests of one principal share a child, another principal has its own', async (context) => {
  const { upstream } = startUpstream(context, { flags: ['--modern'] });
  assert.equal((await ask(upstream, modern(0, 'server/discover'))).body.result.supportedVersions[0], '2026-07-28');
  const mine = [await text(upstream, modernCall(1, 'pid')), await text(upstream, modernCall(1, 'pid'))];
  const theirs = await text(upstream, modernCall(1, 'pid'), { principal: 'writer' });
  assert.equal(mine[0], mine[1]);
  assert.notEqual(mine[0], theirs);
});

test('a request whose id or token is in use is placed on another child', async (context) => {
  const { upstream } = startUpstream(context, { flags: ['--modern'] });
  const first = send(upstream, modernCall(1, 'wait', { text: 'first' }, { progressToken: 'p' }));
  const sharedPid = await text(upstream, modernCall(2, 'pid'));
  const sameIdPid = await text(upstream, modernCall(1, 'pid'));
  const sameTokenPid = await text(upstream, modernCall(3, 'pid', {}, { progressToken: 'p' }));
  const sameDigitsPid = await text(upstream, modernCall('1', 'pid'));
  assert.notEqual(sameIdPid, sharedPid);
  assert.equal(sameTokenPid, sameIdPid);
  assert.equal(sameDigitsPid, sharedPid);
  await text(upstream, modernCall(4, 'go'));
  assert.equal(textOf(await jsonOf(expectResponse(await first))), 'first');
});

test('no room for another child: busy, until the id is free again', async (context) => {
  const { upstream } = startUpstream(context, { flags: ['--modern'], limits: { childrenMax: 1 } });
  const first = send(upstream, modernCall(1, 'wait', { text: 'first' }));
  assert.equal(expectFailure(await send(upstream, modernCall(1, 'echo'))).kind, 'busy');
  await text(upstream, modernCall(2, 'go'));
  await first;
  assert.equal(await text(upstream, modernCall(1, 'echo', { text: 'second' })), 'second');
});

test('an agent that goes away cancels its request; its id is not used again on that child', async (context) => {
  const { upstream } = startUpstream(context, { flags: ['--modern'] });
  const agent = new AbortController();
  const gone = send(upstream, modernCall(1, 'wait', { text: 'late' }), { signal: agent.signal });
  const pid = await text(upstream, modernCall(2, 'pid'));
  agent.abort();
  assert.deepEqual(expectFailure(await gone), { kind: 'aborted', sent: true });
  assert.match(await text(upstream, modernCall(3, 'received')), /cancelled:1/);
  assert.notEqual(await text(upstream, modernCall(1, 'pid')), pid);
  // The child answers all the same: that answer is for nobody.
  await text(upstream, modernCall(4, 'go'));
  assert.equal(await text(upstream, modernCall(1, 'pid')), pid);
});

test('closing the stream cancels as well', async (context) => {
  const { upstream } = startUpstream(context, { flags: ['--modern'] });
  const args = { steps: 1, thenWait: true };
  const stream = expectResponse(await send(upstream, modernCall('a', 'progress', args, { progressToken: 1 })));
  for await (const event of eventsOf(stream)) {
    assert.equal(event.params.progress, 1);
    break;
  }
  assert.match(await text(upstream, modernCall('b', 'received')), /cancelled:a/);
});

test('a child on which a forgotten id is taken makes room when it is in the way', async (context) => {
  const { upstream } = startUpstream(context, { flags: ['--modern'], limits: { childrenMax: 1 } });
  const agent = new AbortController();
  const gone = send(upstream, modernCall(1, 'wait', { text: 'late' }), { signal: agent.signal });
  const pid = await text(upstream, modernCall(2, 'pid'));
  agent.abort();
  await gone;
  assert.notEqual(await text(upstream, modernCall(1, 'pid')), pid);
});

test('a subscription is a stream of the events that carry its id', async (context) => {
  const { upstream, timers } = startUpstream(context, { flags: ['--modern'] });
  const stream = expectResponse(await send(upstream, modern('sub', 'subscriptions/listen')));
  const events = eventsOf(stream);
  assert.equal((await events.next()).value.method, 'notifications/subscriptions/acknowledged');
  assert.equal(await text(upstream, modernCall(1, 'change')), 'changed');
  assert.equal((await events.next()).value.method, 'notifications/tools/list_changed');
  // It may be silent for as long as it likes.
  timers.advance(3600 * SECOND);
  assert.equal(await text(upstream, modernCall(2, 'endSubscription')), 'ended');
  assert.equal((await events.next()).value.method, 'notifications/cancelled');
  assert.equal((await events.next()).done, true);
});

test('log messages go to the one request that asked for them, or to nobody', async (context) => {
  const { upstream } = startUpstream(context, { flags: ['--modern'] });
  const wanting = { 'io.modelcontextprotocol/logLevel': 'info' };
  const flood = { events: 1, bytes: 10 };
  const heard = await bodyOf(expectResponse(await send(upstream, modernCall(1, 'flood', flood, wanting))));
  assert.match(heard, /notifications\/message/);
  assert.equal(await text(upstream, modernCall(2, 'flood', flood)), 'flooded');
  const waiting = send(upstream, modernCall(3, 'wait', { text: 'two wait' }, wanting));
  assert.equal(await text(upstream, modernCall(4, 'flood', flood, wanting)), 'flooded');
  await text(upstream, modernCall(5, 'go'));
  assert.equal(textOf(await jsonOf(expectResponse(await waiting))), 'two wait');
});

for (const [code, status] of [
  [-32601, 404],
  [-32022, 400],
  [-32021, 400],
  [-32602, 200],
  [-1, 200],
] as const) {
  test(`an error ${code} is HTTP ${status}`, async (context) => {
    const { upstream } = startUpstream(context, { flags: ['--modern'] });
    const answer = await ask(upstream, modernCall(1, 'refuse', { code }));
    assert.equal(answer.status, status);
    assert.equal(answer.body.error.code, code);
  });
}

test('this era knows neither GET nor DELETE, and does not pass notifications on', async (context) => {
  const { upstream } = startUpstream(context, { flags: ['--modern'] });
  for (const method of ['GET', 'DELETE'] as const) {
    const response = expectResponse(await upstream.send(bodyless(method, { era: 'modern' })));
    assert.equal(response.status, 405);
    assert.equal(response.headers.allow, 'POST');
  }
  const waiting = send(upstream, modernCall(1, 'wait', { text: 'mine' }));
  const cancel = { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 1 } };
  assert.equal(expectResponse(await send(upstream, cancel)).status, 202);
  assert.doesNotMatch(await text(upstream, modernCall(2, 'received')), /cancelled/);
  await text(upstream, modernCall(3, 'go'));
  assert.equal(textOf(await jsonOf(expectResponse(await waiting))), 'mine');
});

for (const [what, flags] of [
  ['answers «Method not found»', []],
  ['dies of it', ['--die-on-discover']],
  ['dies before it', ['--exit-at-start']],
] as const) {
  test(`a probe of an older server that ${what}: 404, and no child for the next`, async (context) => {
    const { upstream, logged } = startUpstream(context, { flags });
    const first = await ask(upstream, modern('probe-1', 'server/discover'));
    assert.equal(first.status, 404);
    assert.deepEqual([first.body.id, first.body.error.code], ['probe-1', -32601]);
    const lines = logged.length;
    const again = await ask(upstream, modern(7, 'server/discover'), { principal: 'writer' });
    assert.deepEqual([again.status, again.body.id], [404, 7]);
    assert.equal((await ask(upstream, modernCall(8, 'echo'))).status, 400);
    assert.equal(logged.length, lines);
    if (what !== 'dies before it') await TestSession.open(upstream);
  });
}

test('a probe that nobody answers: 404 after two seconds; the one place is free for initialize', async (context) => {
  const { upstream, timers } = startUpstream(context, { flags: ['--silent-on-discover'], limits: { childrenMax: 1 } });
  const probing = ask(upstream, modern(0, 'server/discover'));
  timers.advance(2 * SECOND);
  assert.equal((await probing).status, 404);
  const session = await TestSession.open(upstream);
  assert.equal(await session.text(1, 'received'), 'initialize tools/call');
});

test('a server that answers its probe late is a modern one after all', async (context) => {
  const { upstream, timers } = startUpstream(context, { flags: ['--slow-discover'] });
  const probing = ask(upstream, modern(0, 'server/discover'));
  timers.advance(2 * SECOND);
  assert.equal((await probing).status, 404);
  await until(async () => (await ask(upstream, modernCall(1, 'pid'))).status === 200, 'the late answer');
});

test('a server known to be modern may be slow', async (context) => {
  const { upstream, timers } = startUpstream(context, { flags: ['--modern'] });
  await ask(upstream, modern(0, 'server/discover'));
  const other = ask(upstream, modern(0, 'server/discover'), { principal: 'writer' });
  timers.advance(10 * SECOND);
  assert.equal((await other).status, 200);
});

test('a shared child that is unused ends after a minute', async (context) => {
  const { upstream, timers } = startUpstream(context, { flags: ['--modern'] });
  const pid = await text(upstream, modernCall(1, 'pid'));
  timers.advance(59 * SECOND);
  assert.equal(await text(upstream, modernCall(1, 'pid')), pid);
  timers.advance(60 * SECOND);
  assert.notEqual(await text(upstream, modernCall(1, 'pid')), pid);
});

test('a crash: whoever waits learns it; the next children start with a pause', async (context) => {
  const { upstream, timers } = startUpstream(context, { flags: ['--modern'] });
  const waiting = send(upstream, modernCall(1, 'wait'));
  const failure = expectFailure(await send(upstream, modernCall(2, 'crash')));
  assert.equal(failure.kind, 'unreachable');
  assert.deepEqual(expectFailure(await waiting), failure);
  assert.equal(expectFailure(await send(upstream, modernCall(3, 'pid'))).kind, 'busy');
  assert.equal(expectFailure(await upstream.send(post(initialize()))).kind, 'busy');
  timers.advance(500);
  assert.match(await text(upstream, modernCall(3, 'pid')), /^\d+$/);
});

test('both eras at once, on children of their own', async (context) => {
  const { upstream } = startUpstream(context, { flags: ['--modern'] });
  const session = await TestSession.open(upstream);
  const pids = [await session.text(1, 'pid'), await text(upstream, modernCall(1, 'pid'))];
  assert.notEqual(pids[0], pids[1]);
});
