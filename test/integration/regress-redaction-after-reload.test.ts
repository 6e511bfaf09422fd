/**
 * The arguments of a call were redacted by the policy in force when it ended: a reload in the meantime that no longer
 * redacted them put them into the audit in clear.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { askLegacy, toolCall } from '../support/raw-http.ts';
import { sendJson, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { startTestSidecar } from '../support/sidecar.ts';

test('the policy that judged a call redacts its arguments, whatever was loaded since', async (context) => {
  const folder = await mkdtemp(join(tmpdir(), 'redaction-'));
  context.after(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, 'policy.yaml');
  const policy = 'version: 1\nrules: [ { name: all, allow: [ { tools: ["*"] } ] } ]\n';
  await writeFile(file, `${policy}redact: [ { server: main, arguments: [/secret] } ]\n`);
  const upstream = await startScriptedUpstream();
  context.after(() => upstream.close());
  const sidecar = await startTestSidecar(`servers: { main: { url: "${upstream.url}" } }\npolicy: ${file}\n`);
  context.after(() => sidecar.close());

  upstream.answer = async (seen, response) => {
    await writeFile(file, policy);
    await sidecar.reloadPolicy();
    sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: { content: [] } });
  };
  assert.equal((await askLegacy(sidecar.base, toolCall('any', { secret: 'canary' }))).status, 200);
  const lines = await sidecar.auditLines();
  assert.ok(lines.some((line) => line.event === 'policy.reloaded'));
  assert.ok(lines.some((line) => line.tool === 'any'));
  assert.doesNotMatch(JSON.stringify(lines), /canary/);
});
