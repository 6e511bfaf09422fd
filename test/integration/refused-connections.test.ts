/** What never becomes a request leaves a trace all the same, and does not fill the log. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ask, sendRaw } from '../support/raw-http.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { ALLOW_ALL, startTestSidecar } from '../support/sidecar.ts';

test('garbage is counted, and told to the audit once', async (context) => {
  const upstream = await startScriptedUpstream();
  const sidecar = await startTestSidecar(`servers: { main: { url: "${upstream.url}" } }\n${ALLOW_ALL}`);
  context.after(async () => {
    await sidecar.close();
    await upstream.close();
  });
  for (let index = 0; index < 5; index += 1) await sendRaw(sidecar.base, 'garbage\r\n\r\n');
  const { text } = await ask(sidecar.admin, { method: 'GET', path: '/metrics' });
  assert.match(text, /^mcp_sidecar_http_refused_total\{kind="malformed"\} 5$/m);
  const events = (await sidecar.auditLines()).filter((line) => line.event === 'http.refused');
  assert.deepEqual(
    events.map(({ kind, count }) => [kind, count]),
    [['malformed', 1]],
  );
});
