/**
 * A call that never reached its server (nobody listens there) was charged to the quota, since it had been tried.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { askLegacy, toolCall } from '../support/raw-http.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { startTestSidecar } from '../support/sidecar.ts';

test('a call that never reached the server is not charged, one that did is', async (context) => {
  const gone = await startScriptedUpstream();
  const port = Number(new URL(gone.url).port);
  await gone.close();
  const sidecar = await startTestSidecar(`
servers: { main: { url: "${gone.url}" } }
breaker: { failures: 1000 }
policy:
  version: 1
  default: allow
  quotas: [ { name: two, key: [agent], calls: 2/h }, { name: tokens, key: [agent], tokens: 100/h } ]
`);
  context.after(() => sidecar.close());
  const call = async () => (await askLegacy(sidecar.base, toolCall('any', { text: 'x'.repeat(100) }))).status;
  for (let index = 0; index < 5; index += 1) assert.equal(await call(), 503);

  const upstream = await startScriptedUpstream(port);
  context.after(() => upstream.close());
  // It sees the call and dies of it: that one has happened.
  upstream.answer = (_seen, response) => response.destroy();
  assert.deepEqual([await call(), await call(), await call()], [503, 503, 429]);
  assert.equal(upstream.seen.length, 2);
});
