/** The sockets on which agents connect: what may go wrong with them by themselves. (Slow callers: limits.test.ts.) */
import assert from 'node:assert/strict';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import type { Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type ListenTarget, openListener } from '../../sidecar/listener.ts';
import { sendRaw } from '../support/raw-http.ts';

const LIMITS = { headersBytes: 16_384, connections: 10 };

async function open(context: TestContext, target: ListenTarget) {
  const errors: string[] = [];
  const refused: string[] = [];
  const opened = await openListener(target, LIMITS, {
    onRequest: (request, response) => {
      const { server } = request.socket as unknown as { server: Server };
      // As the kernel says it when the machine has no file descriptor left.
      if (request.url === '/break') server.emit('error', Object.assign(new Error('accept ENFILE'), { code: 'ENFILE' }));
      response.end('served');
    },
    onError: (message) => errors.push(message),
    onRefused: (kind) => refused.push(kind),
  });
  context.after(() => {
    if (opened.ok) opened.value.stop();
    if (opened.ok) opened.value.destroy();
  });
  return { opened, errors, refused };
}

test('a connection that cannot be accepted is told, and the next one is served', async (context) => {
  const { opened, errors } = await open(context, { kind: 'tcp', host: '127.0.0.1', port: 0, tls: undefined });
  assert.ok(opened.ok);
  const { origin } = new URL(opened.value.url);
  for (const path of ['/break', '/again']) assert.equal(await (await fetch(`${origin}${path}`)).text(), 'served');
  assert.deepEqual(errors, [`a connection to ${opened.value.url} could not be accepted (ENFILE)`]);
});

test('permissions that cannot be set are a sentence, and nothing goes on listening', async (context) => {
  // An abstract socket of Linux has no file, so that there is nothing to set them on; elsewhere it cannot be listened on.
  const path = `\0mcp-sidecar-test-${process.pid}`;
  const { opened } = await open(context, { kind: 'unix', path, mode: 0o600 });
  assert.ok(!opened.ok);
  assert.match(
    opened.error,
    process.platform === 'linux' ? /^the permissions of the socket .* cannot be set \(ERR_/ : /./,
  );
  const again = await open(context, { kind: 'unix', path, mode: undefined });
  assert.equal(again.opened.ok, process.platform === 'linux');
});

test('a socket has the mode that it is given', async (context) => {
  const folder = await mkdtemp(join(tmpdir(), 'listener-'));
  context.after(() => rm(folder, { recursive: true }));
  for (const mode of [0o600, 0o666]) {
    const path = join(folder, `${mode}.sock`);
    assert.ok((await open(context, { kind: 'unix', path, mode })).opened.ok);
    assert.equal((await stat(path)).mode & 0o777, mode);
  }
});

for (const [what, bytes, kind, status] of [
  ['garbage', 'hello\r\n\r\n', 'malformed', '400'],
  [
    'two lengths',
    'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'malformed',
    '400',
  ],
  ['a head too large', `GET / HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`, 'headTooLarge', '431'],
  ['an expectation', 'POST / HTTP/1.1\r\nHost: x\r\nExpect: x\r\nContent-Length: 2\r\n\r\n{}', 'expectation', '417'],
  ['CONNECT', 'CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n', 'connect', '405'],
] as const) {
  test(`${what} is refused and told`, async (context) => {
    const { opened, refused } = await open(context, { kind: 'tcp', host: '127.0.0.1', port: 0, tls: undefined });
    assert.ok(opened.ok);
    assert.match(await sendRaw(opened.value.url, bytes), new RegExp(`^HTTP/1.1 ${status} `));
    assert.deepEqual(refused, [kind]);
  });
}
