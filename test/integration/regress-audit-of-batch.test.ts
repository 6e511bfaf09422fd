/**
 * A batch had, beside the lines of its messages, one of its own that said `error` with status 200 and no method; and
 * what is served without a verdict (the metadata of the resource) said `error` as well.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ask, askLegacy, toolCall } from '../support/raw-http.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { ALLOW_ALL, startTestSidecar } from '../support/sidecar.ts';

test('what went well is nowhere recorded as an error', async (context) => {
  const upstream = await startScriptedUpstream();
  context.after(() => upstream.close());
  process.env.REGRESS_BATCH_KEY = `key-${process.pid}`;
  const sidecar = await startTestSidecar(`
identify: [ { type: apiKey, agents: { triage: { env: REGRESS_BATCH_KEY } } } ]
servers: { main: { url: "${upstream.url}" } }
${ALLOW_ALL}`);
  context.after(() => sidecar.close());
  const headers = { 'x-api-key': process.env.REGRESS_BATCH_KEY, 'mcp-protocol-version': '2025-03-26' };
  assert.equal((await askLegacy(sidecar.base, [toolCall('a', {}, 1), toolCall('b', {}, 2)], headers)).json.length, 2);
  assert.equal(
    (await ask(sidecar.base, { method: 'GET', path: '/.well-known/oauth-protected-resource/mcp' })).status,
    200,
  );

  const lines = (await sidecar.auditLines()).filter((line) => line.event === undefined);
  assert.deepEqual(lines.map((line) => `${line.method} ${line.decision}`).sort(), [
    'GET allow',
    'tools/call allow',
    'tools/call allow',
  ]);
  const metrics = await (await fetch(`${sidecar.admin}/metrics`)).text();
  assert.doesNotMatch(metrics, /^mcp_sidecar_requests_total\{.*decision="error"/m);
});
