/** Sessions over a child process when something goes wrong: agents that leave, children that die, times, bounds. */
import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';
import { ok } from '../../policies/result.ts';
import { UpstreamBroken } from '../../sidecar/upstream/upstream.ts';
import { post } from '../support/mcp-message.ts';
import {
  bodyOf,
  call,
  eventsOf,
  expectFailure,
  expectResponse,
  initialize,
  jsonOf,
  SECOND,
  startUpstream,
  TestSession,
  textOf,
} from '../support/stdio-harness.ts';
import { until } from '../support/until.ts';

test('an agent that goes away leaves the child at work; the late answer is nobody’s', async (context) => {
  const { upstream, logged } = startUpstream(context);
  const session = await TestSession.open(upstream);
  const agent = new AbortController();
  const waiting = session.send(call(1, 'wait', { text: 'late' }), { signal: agent.signal });
  agent.abort();
  assert.deepEqual(expectFailure(await waiting), { kind: 'aborted', sent: true });
  // Until the child has answered, the id stays taken.
  assert.equal(expectResponse(await session.send(call(1, 'echo', { text: 'new' }))).status, 400);
  await session.text(2, 'go');
  assert.equal(await session.text(1, 'echo', { text: 'new' }), 'new');
  assert.equal(await session.text(3, 'received'), 'initialize tools/call tools/call tools/call tools/call');
  assert.deepEqual(logged, []);
  assert.equal(getEventListeners(agent.signal, 'abort').length, 0);
});

test('a request that the agent cancels gets no answer, and the child hears of it', async (context) => {
  const { upstream } = startUpstream(context);
  const session = await TestSession.open(upstream);
  const waiting = session.send(call(1, 'wait', { text: 'late' }));
  const cancel = { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 1 } };
  assert.equal(expectResponse(await session.send(cancel)).status, 202);
  assert.equal(expectFailure(await waiting).kind, 'aborted');
  assert.match(await session.text(2, 'received'), /cancelled:1/);
});

test('many requests leave no listener on a signal that they share', async (context) => {
  const { upstream } = startUpstream(context);
  const session = await TestSession.open(upstream);
  const agent = new AbortController();
  for (let at = 1; at <= 50; at += 1) {
    const response = expectResponse(await session.send(call(at, 'echo', { text: 'x' }), { signal: agent.signal }));
    await bodyOf(response);
  }
  assert.equal(getEventListeners(agent.signal, 'abort').length, 0);
});

test('a child that dies: whoever waits learns it, the session is gone, the next start waits longer each time', async (context) => {
  const { upstream, timers, logged } = startUpstream(context);
  const session = await TestSession.open(upstream);
  const get = eventsOf(expectResponse(await session.get()));
  const streaming = expectResponse(
    await session.send(call(1, 'progress', { steps: 1, thenWait: true }, { progressToken: 1 })),
  );
  const progress = eventsOf(streaming);
  await progress.next();
  const waiting = session.send(call(2, 'wait'));
  const failure = expectFailure(await session.send(call(3, 'crash')));
  assert.deepEqual(failure, { kind: 'unreachable', detail: 'the server exited with code 7', sent: true });
  assert.deepEqual(expectFailure(await waiting), failure);
  await assert.rejects(
    progress.next(),
    (error) => error instanceof UpstreamBroken && error.failure.kind === 'unreachable',
  );
  await assert.rejects(get.next(), UpstreamBroken);
  assert.equal(expectResponse(await session.send(call(4, 'echo'))).status, 404);
  assert.match(logged.at(-1) ?? '', /^warn the server exited with code 7 {"server":"scripted"}$/);

  const busy = expectFailure(await upstream.send(post(initialize())));
  assert.equal(busy.kind === 'busy' && busy.retryAfterMs, 500);
  timers.advance(500);
  const second = await TestSession.open(upstream);
  assert.equal(expectFailure(await second.send(call(1, 'crash'))).kind, 'unreachable');
  const longer = expectFailure(await upstream.send(post(initialize())));
  assert.equal(longer.kind === 'busy' && longer.retryAfterMs, 1000);
});

test('as many children as may be, and no more; the place of one that ended is free again', async (context) => {
  const { upstream } = startUpstream(context, { limits: { childrenMax: 2 } });
  const [first] = await Promise.all([TestSession.open(upstream), TestSession.open(upstream)]);
  const busy = expectFailure(await upstream.send(post(initialize())));
  assert.equal(busy.kind, 'busy');
  assert.ok(busy.kind === 'busy' && busy.retryAfterMs > 0);
  await first.delete();
  await TestSession.open(upstream);
});

test('an initialize that nobody waits for any more leaves no session and no child', async (context) => {
  const { upstream } = startUpstream(context, { flags: ['--deaf'], limits: { childrenMax: 1 } });
  for (let at = 0; at < 3; at += 1) {
    const agent = new AbortController();
    const opening = upstream.send(post(initialize(), { signal: agent.signal }));
    // The place of the one before is free as soon as its child has gone.
    setTimeout(() => agent.abort(), at === 0 ? 0 : 100);
    assert.equal(expectFailure(await opening).kind, 'aborted');
  }
});

test('an unused session ends with its child; one with an open stream or a request under way does not', async (context) => {
  const { upstream, timers } = startUpstream(context, {
    limits: { sessionIdleMs: 60 * SECOND },
    timeouts: { headersMs: 9000 * SECOND, totalMs: 9000 * SECOND },
  });
  const [unused, listening, waiting] = await Promise.all([1, 2, 3].map(() => TestSession.open(upstream)));
  assert.ok(unused && listening && waiting);
  const get = expectResponse(await listening.get());
  const pending = waiting.send(call(1, 'wait', { text: 'long' }));
  timers.advance(59 * SECOND);
  await unused.text(1, 'echo', { text: 'used' });
  timers.advance(59 * SECOND);
  assert.equal(await unused.text(2, 'echo', { text: 'used' }), 'used');
  timers.advance(60 * SECOND);
  assert.equal(expectResponse(await unused.send(call(3, 'echo'))).status, 404);
  assert.equal(await listening.text(1, 'echo', { text: 'open' }), 'open');
  await waiting.text(2, 'go');
  assert.equal(textOf(await jsonOf(expectResponse(await pending))), 'long');
  get.cancel();
  timers.advance(60 * SECOND);
  assert.equal(expectResponse(await listening.send(call(3, 'echo'))).status, 404);
  assert.equal(timers.pending, 0);
});

test('timeouts: the first message, then the pause between two, which progress starts anew', async (context) => {
  const { upstream, timers } = startUpstream(context, { timeouts: { headersMs: 10 * SECOND, idleMs: 20 * SECOND } });
  const session = await TestSession.open(upstream);
  const silent = session.send(call(1, 'wait'));
  timers.advance(10 * SECOND);
  assert.deepEqual(expectFailure(await silent), { kind: 'timeout', phase: 'headers', afterMs: 10_000, sent: true });

  const progress = eventsOf(
    expectResponse(await session.send(call(2, 'progress', { steps: 1, thenWait: true }, { progressToken: 'p' }))),
  );
  await progress.next();
  timers.advance(15 * SECOND);
  await bodyOf(expectResponse(await session.send(call(3, 'step', { token: 'p' }))));
  await progress.next();
  timers.advance(15 * SECOND);
  await bodyOf(expectResponse(await session.send(call(4, 'step', { token: 'p' }))));
  await progress.next();
  timers.advance(20 * SECOND);
  await assert.rejects(progress.next(), (error) => {
    assert.ok(error instanceof UpstreamBroken);
    assert.deepEqual(error.failure, { kind: 'timeout', phase: 'idle', afterMs: 20_000, sent: true });
    return true;
  });
  assert.equal(await session.text(5, 'echo', { text: 'alive' }), 'alive');
});

test('timeouts: a JSON answer has a total, if that is shorter', async (context) => {
  const { upstream, timers } = startUpstream(context, { timeouts: { totalMs: 5 * SECOND } });
  const session = await TestSession.open(upstream);
  const silent = session.send(call(1, 'wait'));
  timers.advance(5 * SECOND);
  assert.deepEqual(expectFailure(await silent), { kind: 'timeout', phase: 'total', afterMs: 5000, sent: true });
});

test('an agent that does not read its stream is cut off, and the session lives on', async (context) => {
  const { upstream } = startUpstream(context, { limits: { messageBytesMax: 64 * 1024, queueMax: 20 } });
  const session = await TestSession.open(upstream);
  const unread = expectResponse(await session.get());
  // 100 events of 16 KiB, of which nobody takes one.
  // Once the stream is closed, what comes is no longer for it.
  const rest = await bodyOf(expectResponse(await session.send(call(1, 'flood', { events: 100, bytes: 16 * 1024 }))));
  assert.match(rest, /flooded/);
  assert.equal(expectResponse(await session.get()).status, 200);
  let bytes = 0;
  await assert.rejects(async () => {
    for await (const chunk of unread.body) bytes += chunk.length;
  }, UpstreamBroken);
  assert.ok(bytes > 256 * 1024 && bytes < 512 * 1024, String(bytes));
});

test('a child that does not read is not fed without end', async (context) => {
  const { upstream } = startUpstream(context, {
    flags: ['--deaf'],
    limits: { messageBytesMax: 64 * 1024, childrenMax: 1 },
  });
  const opening = upstream.send(post(initialize(), { era: 'modern' }));
  const results = [];
  for (let at = 1; at <= 20; at += 1) {
    const result = upstream.send(post(call(at, 'echo', { text: 'x'.repeat(32 * 1024) }), { era: 'modern' }));
    results.push(Promise.race([result, new Promise((resolve) => setImmediate(() => resolve('waiting')))]));
  }
  const seen = (await Promise.all(results)) as (string | Awaited<typeof opening>)[];
  const refused = seen.filter((result) => typeof result !== 'string');
  assert.ok(refused.length >= 10, String(refused.length));
  for (const result of refused) assert.equal(typeof result !== 'string' && expectFailure(result).kind, 'busy');
  await upstream.close(0);
  assert.equal(expectFailure(await opening).kind, 'unreachable');
});

test('what is not JSON-RPC on stdout is logged and skipped', async (context) => {
  const { upstream, logged } = startUpstream(context, { flags: ['--banner'] });
  const session = await TestSession.open(upstream);
  assert.equal(await session.text(1, 'echo', { text: 'fine' }), 'fine');
  assert.deepEqual(
    logged.map((line) => line.replace(/ {"server.*/, '')),
    ['Welcome to the scripted server!', '{"hello":"world"}', '[1,2,3]'].map(
      (line) => `warn not a JSON-RPC message on stdout: ${line}`,
    ),
  );
});

test('a line that is too long ends its child, with a reason', async (context) => {
  const { upstream, logged } = startUpstream(context, { limits: { messageBytesMax: 10_000 } });
  const session = await TestSession.open(upstream);
  const failure = expectFailure(await session.send(call(1, 'bigLine', { bytes: 20_000 })));
  assert.deepEqual(failure, {
    kind: 'garbage',
    detail: 'the server wrote a line of more than 10000 bytes',
    sent: true,
  });
  assert.match(logged.at(-1) ?? '', /^warn the server wrote a line of more than/);
  assert.equal(expectResponse(await session.send(call(2, 'echo'))).status, 404);
  // It did not crash, it was ended: the next may start at once.
  await TestSession.open(upstream);
});

test('the child has the environment that it was given and nothing else; its values stay out of the log', async (context) => {
  const { upstream, logged } = startUpstream(context, {
    flags: ['--secret-on-stderr'],
    env: () => ok({ SCRIPT_TOKEN: 'hunter2-hunter2' }),
  });
  const session = await TestSession.open(upstream);
  assert.deepEqual(JSON.parse(await session.text(1, 'env')), { SCRIPT_TOKEN: 'hunter2-hunter2' });
  await until(() => logged.length > 0, 'the line on stderr');
  assert.deepEqual(logged, ['info stderr: the token is [SCRIPT_TOKEN] {"server":"scripted"}']);
});
