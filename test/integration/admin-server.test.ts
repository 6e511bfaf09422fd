import assert from 'node:assert/strict';
import { request } from 'node:http';
import { connect } from 'node:net';
import { type TestContext, test } from 'node:test';
import { type AdminServerOptions, createAdminServer } from '../../sidecar/admin/server.ts';

async function opened(context: TestContext, changes: Partial<AdminServerOptions> = {}) {
  const created = await createAdminServer({
    key: 'listen.admin',
    listen: { host: '127.0.0.1', port: 0 },
    probes: [],
    metricsText: () => 'up 1\n',
    ...changes,
  });
  assert.ok(created.ok, created.ok ? '' : created.error);
  context.after(() => created.value.close());
  const { port } = created.value.address;
  const ask = (path: string, options: { method?: string; host?: string } = {}) =>
    new Promise<{ status: number; type: string | undefined; allow: string | undefined; body: string }>(
      (resolve, reject) => {
        const headers = { host: options.host ?? `127.0.0.1:${port}` };
        request(
          { host: '127.0.0.1', port, path, method: options.method ?? 'GET', headers, agent: false },
          (response) => {
            let body = '';
            response.setEncoding('utf8').on('data', (chunk) => {
              body += chunk;
            });
            response.on('end', () => {
              const { 'content-type': type, allow } = response.headers;
              resolve({ status: response.statusCode!, type, allow, body });
            });
          },
        )
          .on('error', reject)
          .end();
      },
    );
  return { server: created.value, port, ask };
}

test('alive, ready, metrics and the page', async (context) => {
  const { ask } = await opened(context);
  assert.deepEqual(await ask('/livez'), {
    status: 200,
    type: 'text/plain; charset=utf-8',
    allow: undefined,
    body: 'alive\n',
  });
  assert.equal((await ask('/readyz')).body, 'ready\n');
  assert.equal((await ask('/readyz?verbose')).status, 200);
  const metrics = await ask('/metrics');
  assert.deepEqual(
    [metrics.status, metrics.type, metrics.body],
    [200, 'text/plain; version=0.0.4; charset=utf-8', 'up 1\n'],
  );
  assert.match((await ask('/')).body, /\/readyz/);
  assert.equal((await ask('/mcp')).status, 404);
});

test('not ready: a list of what is missing, while it is missing', async (context) => {
  let policy: string | undefined = 'not loaded yet';
  const { ask } = await opened(context, {
    probes: [
      { name: 'policy', failing: () => policy },
      { name: 'audit', failing: () => undefined },
      {
        name: 'broken',
        failing: () => {
          if (policy === undefined) return undefined;
          throw new Error('a bug');
        },
      },
    ],
  });
  const answer = await ask('/readyz');
  assert.deepEqual([answer.status, answer.type], [503, 'application/json']);
  assert.deepEqual(JSON.parse(answer.body), {
    ready: false,
    missing: [
      { name: 'policy', reason: 'not loaded yet' },
      { name: 'broken', reason: 'the probe itself failed' },
    ],
  });
  assert.equal((await ask('/livez')).status, 200);
  policy = undefined;
  assert.equal((await ask('/readyz')).status, 200);
});

test('only GET and HEAD', async (context) => {
  const { ask } = await opened(context);
  for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']) {
    const answer = await ask('/readyz', { method });
    assert.deepEqual([answer.status, answer.allow], [405, 'GET, HEAD'], method);
  }
  assert.deepEqual((({ status, body }) => [status, body])(await ask('/livez', { method: 'HEAD' })), [200, '']);
});

test('a page that reaches us by another name is refused; probes are not', async (context) => {
  const { ask } = await opened(context);
  for (const host of [
    'evil.example',
    'evil.example:4181',
    '127.0.0.1.evil.example',
    'localhost.evil.example',
    '[::1',
    '[evil]',
  ]) {
    assert.equal((await ask('/', { host })).status, 403, host);
    assert.equal((await ask('/metrics', { host })).status, 403, host);
    assert.equal((await ask('/livez', { host })).status, 200, host);
    assert.equal((await ask('/readyz', { host })).status, 200, host);
  }
  for (const host of ['127.0.0.1', 'LOCALHOST:4181', '[::1]:4181', '10.0.0.7:4181']) {
    assert.equal((await ask('/metrics', { host })).status, 200, host);
  }
});

test('metrics that cannot be collected are an answer, not a crash', async (context) => {
  const { ask } = await opened(context, { metricsText: () => Promise.reject(new Error('no')) });
  assert.deepEqual((({ status, body }) => [status, body])(await ask('/metrics')), [
    500,
    'the metrics cannot be collected\n',
  ]);
  assert.equal((await ask('/livez')).status, 200);
});

test('what is not HTTP is cut off', async (context) => {
  const { port, ask } = await opened(context);
  const socket = connect(port, '127.0.0.1');
  let received = '';
  socket.on('data', (chunk) => {
    received += chunk;
  });
  socket.on('error', () => {});
  socket.write('\u0016\u0003\u0001 not http\r\n\r\n');
  await new Promise((resolve) => socket.on('close', resolve));
  assert.equal(received, '');
  assert.equal((await ask('/livez')).status, 200);
});

test('an address that is taken is a sentence', async (context) => {
  const { port } = await opened(context);
  const second = await createAdminServer({
    key: 'listen.admin',
    listen: { host: '127.0.0.1', port },
    probes: [],
    metricsText: () => '',
  });
  assert.ok(!second.ok);
  assert.equal(
    second.error,
    `listen.admin: cannot listen on 127.0.0.1 port ${port}: it is in use by another process: stop it, or choose another address (listen.admin)`,
  );
});

test('close cuts what is open, and may be called twice', async (context) => {
  const { server, port } = await opened(context);
  const socket = connect(port, '127.0.0.1');
  await new Promise((resolve) => socket.on('connect', resolve));
  const cut = new Promise((resolve) => socket.on('error', () => {}).on('close', resolve));
  await Promise.all([server.close(), cut]);
  await server.close();
});
