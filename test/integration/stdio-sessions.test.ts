/** The 2025 eras over a child process: one child for each session, answers as a Streamable HTTP server gives them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bodyless, post } from '../support/mcp-message.ts';
import {
  bodyOf,
  call,
  eventsOf,
  expectResponse,
  initialize,
  jsonOf,
  startUpstream,
  TestSession,
  textOf,
} from '../support/stdio-harness.ts';

test('initialize opens a session; a call is answered with JSON; DELETE ends it', async (context) => {
  const { upstream } = startUpstream(context);
  const session = await TestSession.open(upstream);
  assert.match(session.id, /^[0-9a-f-]{36}$/);
  const response = expectResponse(await session.send(call(1, 'echo', { text: 'hello' })));
  assert.equal(response.status, 200);
  assert.equal(textOf(await jsonOf(response)), 'hello');
  assert.equal(expectResponse(await session.delete()).status, 200);
  const after = expectResponse(await session.send(call('late', 'echo')));
  assert.equal(after.status, 404);
  assert.deepEqual(await jsonOf(after), {
    jsonrpc: '2.0',
    id: 'late',
    error: { code: -32001, message: 'Session not found' },
  });
});

test('without a session id, with an unknown one, and with one of somebody else', async (context) => {
  const { upstream } = startUpstream(context);
  const session = await TestSession.open(upstream, { principal: 'triage' });
  const missing = expectResponse(await upstream.send(post(call(1, 'echo'))));
  assert.equal(missing.status, 400);
  assert.equal((await jsonOf(missing)).error.code, -32000);
  for (const request of [
    post(call(1, 'echo'), { sessionId: 'no-such-session' }),
    post(call(1, 'echo'), { sessionId: session.id, principal: 'writer' }),
    bodyless('GET', { sessionId: session.id, principal: 'writer' }),
    bodyless('DELETE', { sessionId: session.id, principal: 'writer' }),
  ]) {
    const response = expectResponse(await upstream.send(request));
    assert.equal(response.status, 404);
    assert.equal((await jsonOf(response)).error.code, -32001);
  }
  assert.equal(await session.text(2, 'echo', { text: 'still here' }), 'still here');
});

test('a second initialize, and an id that is in use, are refused', async (context) => {
  const { upstream } = startUpstream(context);
  const session = await TestSession.open(upstream);
  assert.equal(expectResponse(await session.send(initialize(1))).status, 400);
  const waiting = session.send(call(7, 'wait', { text: 'first' }));
  const twin = expectResponse(await session.send(call(7, 'echo', { text: 'second' })));
  assert.equal(twin.status, 400);
  assert.equal((await jsonOf(twin)).id, 7);
  await session.text(8, 'go');
  assert.equal(textOf(await jsonOf(expectResponse(await waiting))), 'first');
});

test('a refused initialize leaves no session and no child', async (context) => {
  const { upstream } = startUpstream(context, { flags: ['--refuse-initialize'], limits: { childrenMax: 1 } });
  for (let at = 0; at < 3; at += 1) {
    const response = expectResponse(await upstream.send(post(initialize())));
    assert.equal(response.headers['mcp-session-id'], undefined);
    assert.equal((await jsonOf(response)).error.code, -32602);
  }
});

test('a notification is accepted, and reaches the child', async (context) => {
  const { upstream } = startUpstream(context);
  const session = await TestSession.open(upstream);
  const response = expectResponse(await session.send({ jsonrpc: '2.0', method: 'notifications/initialized' }));
  assert.equal(response.status, 202);
  assert.equal(await bodyOf(response), '');
  assert.equal(await session.text(1, 'received'), 'initialize notifications/initialized tools/call');
});

test('progress comes as events of its own request, each at once, before the response', async (context) => {
  const { upstream } = startUpstream(context);
  const session = await TestSession.open(upstream);
  const get = expectResponse(await session.get());
  const args = { steps: 2, thenWait: true };
  const response = expectResponse(await session.send(call(1, 'progress', args, { progressToken: 'p' })));
  const events = eventsOf(response);
  const newer = session.send(call(3, 'wait', { text: 'newer' }));
  assert.equal(await session.text(4, 'step', { token: 'p' }), 'stepped');
  // The child answers only after `go`: were the events held back, this would never come.
  assert.equal((await events.next()).value.params.progress, 1);
  assert.equal((await events.next()).value.params.progress, 2);
  assert.equal((await events.next()).value.params.progress, 1);
  await session.text(2, 'go');
  assert.equal(textOf((await events.next()).value), 'done');
  assert.equal((await events.next()).done, true);
  assert.equal(textOf(await jsonOf(expectResponse(await newer))), 'newer');
  await session.delete();
  assert.equal(await bodyOf(get), '');
});

test('the stream of a GET carries what belongs to no request; there is one at a time', async (context) => {
  const { upstream } = startUpstream(context);
  const session = await TestSession.open(upstream);
  const stream = expectResponse(await session.get());
  assert.equal(stream.status, 200);
  assert.equal(expectResponse(await session.get()).status, 409);
  await session.send({ jsonrpc: '2.0', method: 'notifications/announce' });
  const events = eventsOf(stream);
  assert.equal((await events.next()).value.method, 'notifications/tools/list_changed');
  assert.equal(textOf(await jsonOf(expectResponse(await session.send(call(1, 'echo', { text: 'json' }))))), 'json');
  await session.delete();
  assert.equal((await events.next()).done, true);
});

test('a stream that its agent closed makes room for the next', async (context) => {
  const { upstream } = startUpstream(context);
  const session = await TestSession.open(upstream);
  const agent = new AbortController();
  expectResponse(await session.get({ signal: agent.signal }));
  agent.abort();
  const second = expectResponse(await session.get());
  assert.equal(second.status, 200);
  second.cancel();
  assert.equal(expectResponse(await session.get()).status, 200);
});

test('what the child says while nobody listens is kept for who comes next', async (context) => {
  const { upstream } = startUpstream(context);
  const session = await TestSession.open(upstream);
  // One write of the child: the announcement is there by the time the answer is.
  assert.equal(await session.text(1, 'answerThenAnnounce'), 'soon');
  const events = eventsOf(expectResponse(await session.send(call(2, 'echo', { text: 'hello' }))));
  assert.equal((await events.next()).value.method, 'notifications/tools/list_changed');
  assert.equal(textOf((await events.next()).value), 'hello');
});

for (const withGet of [false, true]) {
  test(`the child may ask the agent ${withGet ? 'on the stream of a GET' : 'on the stream of the call'}`, async (context) => {
    const { upstream } = startUpstream(context);
    const session = await TestSession.open(upstream);
    const get = withGet ? expectResponse(await session.get()) : undefined;
    const calling = session.send(call(1, 'sample'));
    const asking = eventsOf(get ?? expectResponse(await calling));
    const question = (await asking.next()).value;
    assert.equal(question.method, 'sampling/createMessage');
    const reply = { jsonrpc: '2.0', id: question.id, result: { text: '42' } };
    assert.equal(expectResponse(await session.send(reply)).status, 202);
    const answer = withGet ? await jsonOf(expectResponse(await calling)) : (await asking.next()).value;
    assert.equal(textOf(answer), 'the model said 42');
  });
}

test('the bytes reach the child with their numbers, on one line whatever the reader takes for one', async (context) => {
  const { upstream } = startUpstream(context);
  const session = await TestSession.open(upstream);
  const smuggled = '\u2028{\\"jsonrpc\\":\\"2.0\\",\\"method\\":\\"notifications/die\\"}\u2028';
  const params = `{"name":"line",\r\n"arguments":{"n":9007199254740993.50,"s":"${smuggled}"}}`;
  const response = expectResponse(
    await session.send(`{"jsonrpc":"2.0","id":1,\n"method":"tools/call","params":${params}}`),
  );
  const line = textOf(await jsonOf(response));
  assert.ok(line.includes('9007199254740993.50'), line);
  assert.ok(line.includes('\\u2028{'), line);
  assert.equal(await session.text(2, 'received'), 'initialize tools/call tools/call');
});

test('the bytes of the child come back as they are, but for carriage returns', async (context) => {
  const { upstream } = startUpstream(context);
  const session = await TestSession.open(upstream);
  const response = expectResponse(await session.send(call(1, 'carriageReturns')));
  assert.equal(await bodyOf(response), '{"jsonrpc":"2.0", "id":1,"result":{"n":9007199254740993}} ');
});

test('fifty sessions with the same ids never cross', async (context) => {
  const { upstream } = startUpstream(context, { limits: { childrenMax: 50 } });
  const agents = Array.from({ length: 50 }, (_, at) => `agent-${at}`);
  const sessions = await Promise.all(agents.map((principal) => TestSession.open(upstream, { principal })));
  const answers = await Promise.all(
    sessions.map(async (session, at) => {
      const text = `${agents[at]}`;
      const waiting = session.send(call(1, 'wait', { text }, { progressToken: 1 }));
      const echo = await session.text(2, 'echo', { text });
      await session.text(3, 'go');
      return [textOf(await jsonOf(expectResponse(await waiting))), echo, await session.text(1, 'pid')];
    }),
  );
  assert.deepEqual(
    answers.map(([waited]) => waited),
    agents,
  );
  assert.deepEqual(
    answers.map(([, echo]) => echo),
    agents,
  );
  assert.equal(new Set(answers.map(([, , pid]) => pid)).size, 50);
});
