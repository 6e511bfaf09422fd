/**
 * A request of the 2025 eras that its agent had cancelled and left stayed open: the server owes it no answer, so its
 * stream never ended, held a place among the requests under way, and kept the sidecar from draining.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { openStream } from '../support/event-stream.ts';
import { askLegacy, toolCall } from '../support/raw-http.ts';
import { type ScriptedUpstream, sendJson, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { ALLOW_ALL, startTestSidecar, type TestSidecar } from '../support/sidecar.ts';
import { until } from '../support/until.ts';

let upstream: ScriptedUpstream;
let sidecar: TestSidecar;
/** Calls whose stream is open at the server, by id. */
const open = new Set<number>();
before(async () => {
  upstream = await startScriptedUpstream();
  upstream.answer = ({ json }, response) => {
    if (json.id === undefined) return sendJson(response, undefined);
    if (json.method === 'initialize')
      return sendJson(response, { jsonrpc: '2.0', id: json.id, result: {} }, 200, { 'mcp-session-id': 'inner' });
    open.add(json.id);
    response.on('close', () => open.delete(json.id));
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write('data: {"jsonrpc":"2.0","method":"notifications/message","params":{}}\n\n');
    return undefined;
  };
  sidecar = await startTestSidecar(`servers: { main: { url: "${upstream.url}" } }\n${ALLOW_ALL}`);
});
after(async () => {
  await upstream.close();
  await sidecar.close();
});

async function openSession(): Promise<{ 'mcp-session-id': string }> {
  const opened = await askLegacy(sidecar.base, { jsonrpc: '2.0', id: 0, method: 'initialize', params: {} });
  return { 'mcp-session-id': String(opened.headers['mcp-session-id']) };
}

async function call(id: number, headers: Record<string, string>) {
  const stream = await openStream(`${sidecar.base}/mcp`, { headers, body: JSON.stringify(toolCall('slow', {}, id)) });
  await stream.waitFor(1);
  return stream;
}

const cancel = (requestId: number, headers: Record<string, string>) =>
  askLegacy(sidecar.base, { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId } }, headers);

async function inFlight(): Promise<number> {
  const text = await (await fetch(`${sidecar.admin}/metrics`)).text();
  return Number(/^mcp_sidecar_requests_in_flight (\d+)$/m.exec(text)?.[1]);
}

for (const order of ['cancelled, then left', 'left, then cancelled'] as const) {
  test(`${order}: the request ends at the server as well`, async () => {
    const session = await openSession();
    const stream = await call(1, session);
    const neighbour = await call(2, session);
    if (order === 'left, then cancelled') stream.close();
    assert.equal((await cancel(1, session)).status, 202);
    stream.close();
    await until(() => !open.has(1), 'the end of the stream');
    assert.ok(open.has(2));
    neighbour.close();
    await cancel(2, session);
    await until(async () => (await inFlight()) === 0, 'its place to be free');
  });
}

test('a request that was only left runs on, and so does one of another id or without a session', async () => {
  const session = await openSession();
  const left = await call(3, session);
  left.close();
  await cancel(4, session);
  const sessionless = await call(5, {});
  sessionless.close();
  await cancel(5, {});
  await cancel(3, {});
  // A later exchange has gone all the way, so that what was to end would have ended.
  await openSession();
  assert.deepEqual([...open].sort(), [3, 5]);
});
