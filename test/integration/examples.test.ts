/**
 * The examples, run as a reader runs them, and what they claim.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { quickstart } from '../../examples/quickstart/run.ts';

test('the quickstart: two agents, three servers, one sidecar, and no credential with an agent', {
  timeout: 60_000,
}, async () => {
  const said: string[] = [];
  const report = await quickstart((line) => said.push(line));

  assert.ok(report.tools['triage at everything']!.includes('echo'));
  assert.ok(!report.tools['triage at everything']!.includes('get-env'));
  assert.ok(report.tools['writer at everything']!.includes('trigger-long-running-operation'));
  assert.ok(!report.tools['writer at everything']!.includes('get-env'));
  assert.ok(report.tools['writer at research']!.includes('get-env'));
  assert.equal(report.hiddenToolError, 'Unknown tool: get-env');
  assert.match(report.quotaError, /-31429.*triage calls/);
  assert.match(report.filesystemText, /only the filesystem server can read/);
  assert.equal(report.tokenRequests, 2);
  assert.ok(
    report.eras.some((era) => era.startsWith('legacy: ')) && report.eras.some((era) => era.startsWith('auto: ')),
  );

  const calls = report.audit.filter((line) => line.method === 'tools/call');
  assert.deepEqual([...new Set(calls.map((line) => line.decision))].sort(), ['allow', 'deny', 'limit']);
  for (const line of calls) assert.match(line.traceId, /^[0-9a-f]{32}$/);
  assert.deepEqual(
    report.audit.filter((line) => line.sequence !== undefined).map((line) => line.sequence),
    report.audit.map((_line, index) => index + 1),
  );
  assert.deepEqual(report.leaks, []);
});
