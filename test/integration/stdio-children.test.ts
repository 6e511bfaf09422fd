/** Child processes: what cannot be started, and that nothing of what was started is left. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { environmentOf } from '../../sidecar/upstream/create.ts';
import { post } from '../support/mcp-message.ts';
import { call, expectFailure, initialize, isAlive, startUpstream, TestSession } from '../support/stdio-harness.ts';
import { until } from '../support/until.ts';

test('a secret in the environment is read for each child: a rotated one reaches the next, a missing one is said', async (context) => {
  const folder = await mkdtemp(join(tmpdir(), 'stdio-'));
  context.after(() => rm(folder, { recursive: true }));
  const file = join(folder, 'token');
  const env = environmentOf(
    'files',
    { inheritEnv: ['HERE', 'ABSENT'], env: { TOKEN: { file }, REGION: 'eu' } },
    { HERE: 'x' },
  );
  const { upstream } = startUpstream(context, { env });
  const environmentOfNextChild = async () => {
    const session = await TestSession.open(upstream);
    const { HERE, TOKEN, REGION, ABSENT } = JSON.parse(await session.text(1, 'env'));
    return { HERE, TOKEN, REGION, ABSENT };
  };
  await writeFile(file, 'first\n');
  assert.deepEqual(await environmentOfNextChild(), { HERE: 'x', TOKEN: 'first', REGION: 'eu', ABSENT: undefined });
  await writeFile(file, 'rotated\n');
  assert.equal((await environmentOfNextChild()).TOKEN, 'rotated');
  await rm(file);
  const failure = expectFailure(await upstream.send(post(initialize())));
  assert.deepEqual(failure, {
    kind: 'unreachable',
    detail: `servers.files.env.TOKEN: the secret file ${file} cannot be read (ENOENT)`,
    sent: false,
  });
});

test('what cannot be started is said in a sentence, each time', async (context) => {
  const folder = await mkdtemp(join(tmpdir(), 'stdio-'));
  context.after(() => rm(folder, { recursive: true }));
  await writeFile(join(folder, 'not-executable'), '#!/bin/sh\n');
  for (const [overrides, sentence] of [
    [{ command: ['no-such-program-at-all'] }, /^the command no-such-program-at-all was not found: install it/],
    [{ command: [join(folder, 'not-executable')] }, /not-executable may not be executed: check its permissions/],
    [{ cwd: join(folder, 'nowhere') }, /^the working folder .*nowhere of the command .* does not exist/],
    [{ command: [process.execPath, 'a\0b'] }, /could not be started/],
    [{ command: [process.execPath, 'x'.repeat(4 * 1024 * 1024)] }, /could not be started \(E2BIG\)/],
  ] as const) {
    const { upstream, logged } = startUpstream(context, overrides);
    for (const era of ['legacy', 'modern', 'legacy'] as const) {
      const failure = expectFailure(await upstream.send(post(initialize(), { era })));
      assert.ok(failure.kind === 'unreachable' && !failure.sent, JSON.stringify(failure));
      assert.match(failure.detail, sentence);
    }
    assert.match(logged[0] ?? '', /^warn the /);
  }
});

test('no shell reads the command', async (context) => {
  const { upstream } = startUpstream(context, { command: ['echo $HOME; cat'] });
  const failure = expectFailure(await upstream.send(post(initialize())));
  assert.match(failure.kind === 'unreachable' ? failure.detail : '', /was not found/);
});

test('the end of a session ends all that its child has started, however stubborn', async (context) => {
  const { upstream } = startUpstream(context, { flags: ['--stubborn'] });
  const session = await TestSession.open(upstream);
  const pids = [Number(await session.text(1, 'pid')), Number(await session.text(2, 'grandchild'))];
  assert.deepEqual(pids.map(isAlive), [true, true]);
  const waiting = session.send(call(3, 'wait'));
  await session.delete();
  assert.equal(expectFailure(await waiting).kind, 'unreachable');
  await until(() => !pids.some(isAlive), 'the end of both processes');
});

test('a child that crashes takes along what it has started', async (context) => {
  const { upstream } = startUpstream(context);
  const session = await TestSession.open(upstream);
  const grandchild = Number(await session.text(1, 'grandchild'));
  await session.send(call(2, 'crash'));
  await until(() => !isAlive(grandchild), 'the end of the grandchild');
});

test('close ends every child, and resolves when they are gone', async (context) => {
  const { upstream } = startUpstream(context);
  const sessions = await Promise.all([1, 2, 3].map(() => TestSession.open(upstream)));
  const pids = await Promise.all(sessions.map(async (session) => Number(await session.text(1, 'pid'))));
  await upstream.close(5000);
  assert.deepEqual(pids.map(isAlive), [false, false, false]);
  assert.equal(expectFailure(await upstream.send(post(initialize()))).kind, 'unreachable');
});

test('one exit listener for however many children', async (context) => {
  const before = process.listenerCount('exit');
  const { upstream } = startUpstream(context);
  await Promise.all([1, 2, 3].map(() => TestSession.open(upstream)));
  assert.ok(process.listenerCount('exit') <= Math.max(before, 1) + 1);
  await Promise.all([1, 2, 3].map(() => TestSession.open(startUpstream(context).upstream)));
  assert.ok(process.listenerCount('exit') <= Math.max(before, 1) + 1);
});

for (const how of ['process.exit(0)', 'setImmediate(() => { throw new Error("a bug") })']) {
  test(`a sidecar that ends by ${how} leaves no child`, async (context) => {
    const harness = fileURLToPath(new URL('../support/stdio-harness.ts', import.meta.url));
    const script = `
      const { startUpstream, TestSession } = await import(process.argv[1]);
      const { upstream } = startUpstream({ after() {} }, { flags: ['--stubborn'] });
      const session = await TestSession.open(upstream);
      console.log(await session.text(1, 'pid'), await session.text(2, 'grandchild'));
      ${how};`;
    const sidecar = spawn(process.execPath, ['--input-type=module', '-e', script, harness], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    context.after(() => sidecar.kill('SIGKILL'));
    const exited = once(sidecar, 'exit');
    const pids = (await text(sidecar.stdout)).trim().split(' ').map(Number);
    await exited;
    assert.equal(pids.length, 2);
    await until(() => !pids.some(isAlive), 'the end of both processes');
  });
}
