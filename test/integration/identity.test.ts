import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { lstat, mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { connect, createServer } from 'node:net';
import { platform, tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { ok, type Result } from '../../policies/result.ts';
import { createApiKeyIdentity } from '../../sidecar/identity/api-key.ts';
import { createGroupIdentity } from '../../sidecar/identity/group.ts';
import type { Identification, IdentityMethod } from '../../sidecar/identity/identify.ts';
import type { Row } from '../../sidecar/identity/proc-net-tcp.ts';
import { createSocketIdentity } from '../../sidecar/identity/socket.ts';
import { removeStaleSocket } from '../../sidecar/identity/socket-file.ts';
import { createUidIdentity, type OwnerLookup } from '../../sidecar/identity/uid.ts';
import { askIdentity, askIdentityAs, oneConnection, serveIdentity } from '../support/identify-request.ts';

const OWN_UID = process.getuid?.() ?? -1;
const OTHER_UID = 10001;
const onLinux = platform() === 'linux';
const asRoot = onLinux && OWN_UID === 0;

function expectOk<T>(result: Result<T, string>): T {
  assert.ok(result.ok, result.ok ? '' : result.error);
  return result.value;
}

function nameOf(found: Identification): string {
  if (found.kind === 'known') return `${found.caller.method}:${found.caller.agent}`;
  return found.kind === 'refused' ? `refused: ${found.detail}` : 'absent';
}

async function serve(context: TestContext, method: IdentityMethod, host: string) {
  const server = await serveIdentity((request) => method.identify(request), { host });
  context.after(() => server.close());
  return server;
}

async function temporaryFolder(context: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'identity-'));
  context.after(() => rm(folder, { recursive: true }));
  return folder;
}

for (const [host, target] of [
  ['127.0.0.1', '127.0.0.1'],
  ['127.0.0.1', '::ffff:127.0.0.1'],
  ['::1', '::1'],
  ['::', '127.0.0.1'],
  ['127.0.0.2', '127.0.0.2'],
] as const) {
  test(`uid: listening on ${host}, called at ${target}`, { skip: !onLinux && 'needs Linux' }, async (context) => {
    const method = expectOk(createUidIdentity({ agents: { [OWN_UID]: 'triage' } }));
    const { port } = await serve(context, method, host);
    assert.equal(nameOf(await askIdentity({ host: target, port })), 'uid:triage');
  });
}

test('uid: two users are two agents', {
  skip: !asRoot && 'needs root, to run a client as another user',
}, async (context) => {
  const method = expectOk(createUidIdentity({ agents: { [OWN_UID]: 'triage', [OTHER_UID]: 'writer' } }));
  const { port } = await serve(context, method, '127.0.0.1');
  const both = await Promise.all([
    askIdentity({ host: '127.0.0.1', port }),
    askIdentityAs(OTHER_UID, { host: '127.0.0.1', port }),
  ]);
  assert.deepEqual(both.map(nameOf), ['uid:triage', 'uid:writer']);
});

test('uid: an unknown user is refused', {
  skip: !asRoot && 'needs root, to run a client as another user',
}, async (context) => {
  const method = expectOk(createUidIdentity({ agents: { [OWN_UID]: 'triage' } }));
  const { port } = await serve(context, method, '127.0.0.1');
  assert.equal(
    nameOf(await askIdentityAs(OTHER_UID, { host: '127.0.0.1', port })),
    'refused: uid 10001 is not configured',
  );
});

/** An owner lookup that answers from a list, and counts. */
function scriptedLookup(answers: readonly (number | undefined)[]) {
  const asked: (readonly Row[])[] = [];
  const lookUpOwner: OwnerLookup = async (rows) => {
    asked.push(rows);
    return ok(answers[asked.length - 1]);
  };
  return { asked, lookUpOwner };
}

test('uid: looked up once for each connection', { skip: !onLinux && 'needs Linux' }, async (context) => {
  const { asked, lookUpOwner } = scriptedLookup([7, 8]);
  const method = expectOk(createUidIdentity({ agents: { 7: 'triage', 8: 'writer' }, lookUpOwner }));
  const { port } = await serve(context, method, '127.0.0.1');
  const agent = oneConnection();
  context.after(() => agent.destroy());
  const names: string[] = [];
  for (let at = 0; at < 3; at += 1) names.push(nameOf(await askIdentity({ host: '127.0.0.1', port, agent })));
  assert.deepEqual(names, ['uid:triage', 'uid:triage', 'uid:triage']);
  assert.equal(asked.length, 1);
  assert.equal(nameOf(await askIdentity({ host: '127.0.0.1', port })), 'uid:writer');
});

test('uid: a missing row is looked for once more, then refused', {
  skip: !onLinux && 'needs Linux',
}, async (context) => {
  const late = scriptedLookup([undefined, 7]);
  const never = scriptedLookup([]);
  const agents = { 7: 'triage' };
  const first = await serve(
    context,
    expectOk(createUidIdentity({ agents, lookUpOwner: late.lookUpOwner })),
    '127.0.0.1',
  );
  const second = await serve(
    context,
    expectOk(createUidIdentity({ agents, lookUpOwner: never.lookUpOwner })),
    '127.0.0.1',
  );
  assert.equal(nameOf(await askIdentity({ host: '127.0.0.1', port: first.port })), 'uid:triage');
  assert.match(
    nameOf(await askIdentity({ host: '127.0.0.1', port: second.port })),
    /^refused: no established socket for 127\.0\.0\.1:/,
  );
  assert.equal(never.asked.length, 2);
});

test('uid: an unreadable table refuses', { skip: !onLinux && 'needs Linux' }, async (context) => {
  const lookUpOwner: OwnerLookup = async () => ({ ok: false, error: 'cannot be read' });
  const { port } = await serve(
    context,
    expectOk(createUidIdentity({ agents: { 7: 'triage' }, lookUpOwner })),
    '127.0.0.1',
  );
  assert.equal(nameOf(await askIdentity({ host: '127.0.0.1', port })), 'refused: cannot be read');
});

test('uid: a connection that ended during the look is refused, whoever has its port now', {
  skip: !onLinux && 'needs Linux',
}, async (context) => {
  let answer: (uid: number) => void = () => undefined;
  const looking = Promise.withResolvers<void>();
  const lookUpOwner: OwnerLookup = () => {
    looking.resolve();
    return new Promise((resolve) => {
      answer = (uid) => resolve(ok(uid));
    });
  };
  const method = expectOk(createUidIdentity({ agents: { 7: 'triage' }, lookUpOwner }));
  const identified = Promise.withResolvers<Identification>();
  const server = await serveIdentity(
    async (request: IncomingMessage) => {
      request.socket.once('close', () => answer(7));
      const found = await method.identify(request);
      identified.resolve(found);
      return found;
    },
    { host: '127.0.0.1' },
  );
  context.after(() => server.close());
  const socket = connect({ host: '127.0.0.1', port: server.port });
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  await looking.promise;
  socket.resetAndDestroy();
  assert.match(nameOf(await identified.promise), /^refused: the connection ended/);
});

test('uid: a connection over a unix socket is left to the next method', {
  skip: !onLinux && 'needs Linux',
}, async (context) => {
  const path = join(await temporaryFolder(context), 'a.sock');
  const method = expectOk(createUidIdentity({ agents: { [OWN_UID]: 'triage' } }));
  const server = await serveIdentity((request) => method.identify(request), { path });
  context.after(() => server.close());
  assert.equal(nameOf(await askIdentity({ socketPath: path })), 'absent');
});

test('socket: the listener that took the connection names the agent', async (context) => {
  const folder = await temporaryFolder(context);
  const paths = { triage: join(folder, 'triage.sock'), writer: join(folder, 'writer.sock') };
  const identity = expectOk(createSocketIdentity(paths));
  for (const { path, agent } of identity.listeners()) {
    expectOk(await removeStaleSocket(path));
    const server = await serveIdentity(
      (request) => identity.method.identify(request),
      { path },
      (socket) => identity.onConnection(agent, socket),
    );
    context.after(() => server.close());
  }
  const agents = await Promise.all([paths.writer, paths.triage].map((socketPath) => askIdentity({ socketPath })));
  assert.deepEqual(agents.map(nameOf), ['socket:writer', 'socket:triage']);
  const { port } = await serve(context, identity.method, '127.0.0.1');
  assert.equal(nameOf(await askIdentity({ host: '127.0.0.1', port })), 'absent');
});

test('socket: two agents cannot share a path', () => {
  const shared = createSocketIdentity({ triage: '/run/one.sock', writer: '/run/one.sock' });
  assert.match(shared.ok ? '' : shared.error, /triage and writer share/);
});

/** The file that a killed process leaves behind. */
async function leaveStaleSocket(path: string): Promise<void> {
  const code = `require('node:net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`;
  await once(spawn(process.execPath, ['-e', code, path]), 'exit');
}

test('socket file: a stale one is removed', async (context) => {
  const path = join(await temporaryFolder(context), 'a.sock');
  await leaveStaleSocket(path);
  assert.ok((await lstat(path)).isSocket());
  expectOk(await removeStaleSocket(path));
  await assert.rejects(lstat(path), { code: 'ENOENT' });
});

test('socket file: one that somebody listens on is left alone', async (context) => {
  const path = join(await temporaryFolder(context), 'a.sock');
  const server = createServer().listen(path);
  context.after(() => server.close());
  await once(server, 'listening');
  const result = await removeStaleSocket(path);
  assert.match(result.ok ? '' : result.error, /another process listens/);
  assert.ok((await lstat(path)).isSocket());
});

test('socket file: a regular file is left alone', async (context) => {
  const path = join(await temporaryFolder(context), 'notes.txt');
  await writeFile(path, 'mine');
  const result = await removeStaleSocket(path);
  assert.match(result.ok ? '' : result.error, /is not a socket/);
  assert.ok((await lstat(path)).isFile());
});

test('socket file: a missing folder and a path too long are sentences', async (context) => {
  const folder = await temporaryFolder(context);
  const missing = await removeStaleSocket(join(folder, 'nowhere', 'a.sock'));
  assert.match(missing.ok ? '' : missing.error, /folder .* does not exist/);
  const long = await removeStaleSocket(join(folder, 'a'.repeat(120)));
  assert.match(long.ok ? '' : long.error, /longer than 103 bytes/);
});

test('api key: who presents which', async (context) => {
  const [triage, writer] = [randomBytes(16).toString('hex'), randomBytes(16).toString('hex')];
  const method = expectOk(createApiKeyIdentity({ triage: () => ok(triage), writer: () => ok(writer) }));
  const { port } = await serve(context, method, '127.0.0.1');
  const ask = async (headers: Record<string, string>) =>
    nameOf(await askIdentity({ host: '127.0.0.1', port, headers }));
  assert.equal(await ask({ authorization: `Bearer ${triage}` }), 'apiKey:triage');
  assert.equal(await ask({ authorization: `bearer ${writer}` }), 'apiKey:writer');
  assert.equal(await ask({ 'x-api-key': writer }), 'apiKey:writer');
  assert.equal(await ask({ authorization: `Bearer ${writer}`, 'x-api-key': writer }), 'apiKey:writer');
  assert.equal(await ask({}), 'absent');
  assert.equal(await ask({ authorization: 'Basic dXNlcjp3b3Jk' }), 'absent');
  assert.equal(await ask({ authorization: 'Bearer' }), "refused: the key is nobody's");
  assert.equal(await ask({ 'x-api-key': '' }), "refused: the key is nobody's");
  assert.equal(await ask({ 'x-api-key': `${writer}0` }), "refused: the key is nobody's");
  assert.match(await ask({ authorization: `Bearer ${writer}`, 'x-api-key': triage }), /^refused: .* different keys/);
});

test('api key: a rotated key counts from the next request on, an unreadable one refuses', async (context) => {
  let current: Result<string, string> = ok('first');
  const method = expectOk(createApiKeyIdentity({ triage: () => current, writer: () => ok('other') }));
  const { port } = await serve(context, method, '127.0.0.1');
  const ask = async (key: string) =>
    nameOf(await askIdentity({ host: '127.0.0.1', port, headers: { 'x-api-key': key } }));
  current = ok('second');
  assert.equal(await ask('first'), "refused: the key is nobody's");
  assert.equal(await ask('second'), 'apiKey:triage');
  current = { ok: false, error: 'the file is gone' };
  assert.match(await ask('second'), /^refused: .*the file is gone/);
  current = ok('other');
  assert.match(await ask('other'), /^refused: more than one agent/);
});

test('api key: what cannot work is said at start, and names no key', () => {
  const same = createApiKeyIdentity({ triage: () => ok('hunter2'), writer: () => ok('hunter2') });
  assert.match(same.ok ? '' : same.error, /^agents triage and writer have the same API key/);
  assert.doesNotMatch(JSON.stringify(same), /hunter2/);
  const unreadable = createApiKeyIdentity({ triage: () => ({ ok: false, error: 'the file is gone' }) });
  assert.match(unreadable.ok ? '' : unreadable.error, /agent triage: the file is gone/);
  assert.equal(createApiKeyIdentity({ triage: () => ok('') }).ok, false);
});

test('group: everyone is the group', async (context) => {
  const { port } = await serve(context, createGroupIdentity('support'), '127.0.0.1');
  assert.equal(nameOf(await askIdentity({ host: '127.0.0.1', port })), 'group:support');
});
