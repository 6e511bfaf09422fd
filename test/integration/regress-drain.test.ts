/**
 * Draining cut an answer that was complete but still on its way to a slow agent; and a stream that its server opened
 * only after the drain had begun was held open until the grace was over.
 */
import assert from 'node:assert/strict';
import * as http from 'node:http';
import { type TestContext, test } from 'node:test';
import { openStream } from '../support/event-stream.ts';
import { ACCEPT_BOTH, ask } from '../support/raw-http.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { ALLOW_ALL } from '../support/sidecar.ts';
import { startSidecar } from '../support/sidecar-process.ts';
import { until } from '../support/until.ts';

async function started(context: TestContext) {
  const upstream = await startScriptedUpstream();
  context.after(() => upstream.close());
  const sidecar = await startSidecar(`
listen: { mcp: 127.0.0.1:0, admin: 127.0.0.1:0 }
servers: { main: { url: "${upstream.url}" } }
${ALLOW_ALL}`);
  context.after(() => sidecar.stop());
  const base = sidecar.mcp[0].replace(/\/mcp$/, '');
  const drain = async () => {
    process.kill(sidecar.pid, 'SIGTERM');
    const isClosed = () =>
      ask(base, {}).then(
        () => false,
        ({ code }) => code === 'ECONNREFUSED',
      );
    await until(isClosed, 'the listener to close');
  };
  return { upstream, sidecar, base, drain };
}

test('an answer that is still being read by a slow agent is read to its end', async (context) => {
  const { upstream, sidecar, base, drain } = await started(context);
  // More than the buffers of a loopback connection hold.
  const tools = Array.from({ length: 14_000 }, (_, index) => ({ name: `t-${index}`, description: 'x'.repeat(1000) }));
  upstream.answer = (seen, response) => {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ jsonrpc: '2.0', id: seen.json.id, result: { tools } }));
  };
  const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
    const headers = { accept: ACCEPT_BOTH, 'content-type': 'application/json' };
    const request = http.request(`${base}/mcp`, { method: 'POST', agent: false, headers }, resolve);
    request.on('error', reject).end('{"jsonrpc":"2.0","id":1,"method":"tools/list"}');
  });
  await drain();
  let bytes = 0;
  for await (const chunk of response) bytes += (chunk as Buffer).length;
  assert.equal(bytes, Number(response.headers['content-length']));
  assert.ok(bytes > 14_000_000);
  assert.equal(await sidecar.exited, 0);
});

test('a stream that opens during the drain ends at once', async (context) => {
  const { upstream, sidecar, base, drain } = await started(context);
  let open = () => {};
  const asked = new Promise<void>((resolve) => {
    upstream.answer = (_seen, response) => {
      open = () => response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders();
      resolve();
    };
  });
  const opening = openStream(`${base}/mcp`, { method: 'GET' });
  await asked;
  await drain();
  const opened = performance.now();
  open();
  const stream = await opening;
  await stream.ended;
  assert.equal(stream.complete(), true);
  assert.equal(await sidecar.exited, 0);
  assert.ok(performance.now() - opened < 5_000);
});
