/**
 * A server that repeats the credential in the Content-Type or Content-Encoding of its answer had it written to the
 * audit, which quoted these headers.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { askLegacy, toolCall } from '../support/raw-http.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { ALLOW_ALL, startTestSidecar } from '../support/sidecar.ts';

test('what a server says back of its credential is not in the audit', async (context) => {
  const upstream = await startScriptedUpstream();
  context.after(() => upstream.close());
  const token = randomBytes(18).toString('base64url');
  const sidecar = await startTestSidecar(
    `servers: { main: { url: "${upstream.url}", auth: { type: bearer, token: { file: token } } } }\n${ALLOW_ALL}`,
    { token },
  );
  context.after(() => sidecar.close());
  for (const headers of [
    { 'content-type': `Bearer ${token}` },
    { 'content-type': token },
    { 'content-type': 'application/json', 'content-encoding': token },
  ]) {
    upstream.answer = (_seen, response) => response.writeHead(200, headers).end('{}');
    assert.equal((await askLegacy(sidecar.base, toolCall('any'))).status, 502);
  }
  upstream.answer = (_seen, response) => response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end();
  assert.equal((await askLegacy(sidecar.base, toolCall('any'))).status, 502);

  const lines = (await sidecar.auditLines()).filter((line) => line.event === undefined);
  assert.ok(!JSON.stringify(lines).includes(token));
  // What it is stays readable where it is a media type.
  assert.match(lines.at(-1).reason, /status 200 with text\/html for a request/);
});
