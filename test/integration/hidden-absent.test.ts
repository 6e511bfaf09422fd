/**
 * What policy hides and what the server does not have are answered alike, whatever the server says, however it says it,
 * and whatever else would have refused the call.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { askLegacy, type RawAnswer, toolCall } from '../support/raw-http.ts';
import { type ScriptedUpstream, sendJson } from '../support/scripted-upstream.ts';
import { startBehind } from '../support/sidecar.ts';

/** A sidecar in front of one server, with the policy whose lines these are. */
const under =
  (...lines: readonly string[]) =>
  (url: string) =>
    `servers: { n: { url: "${url}" } }\npolicy:\n  version: 1\n${lines.map((line) => `  ${line}\n`).join('')}`;

/** Answers with the error that `error` makes of the request; lists the tool `real`. */
function refusing(error: (json: { method: string }) => object, status = 200): ScriptedUpstream['answer'] {
  return ({ json }, response) => {
    if (json?.method === 'tools/list')
      return sendJson(response, { jsonrpc: '2.0', id: json.id, result: { tools: [{ name: 'real' }] } });
    return sendJson(response, { jsonrpc: '2.0', id: json.id, error: error(json) }, status);
  };
}

/** But for the name, which is the agent's own. */
function assertAlike(absent: RawAnswer, hidden: RawAnswer): void {
  assert.equal(absent.text.replaceAll('absent', 'hidden'), hidden.text);
  assert.equal(absent.status, hidden.status);
  assert.deepEqual(Object.keys(absent.headers), Object.keys(hidden.headers));
}

describe('a tool', () => {
  for (const [by, lines] of [
    [
      'an allow with a condition',
      ['rules: [ { name: some, allow: [ { server: n, tools: ["*"] } ], when: \'tool.name != "hidden"\' } ]'],
    ],
    ['what is not allowed', ['rules: [ { name: some, allow: [ { server: n, tools: ["a*"] } ] } ]']],
    ['a virtual server in audit mode', ['mode: audit', 'virtualServers: { some: { tools: ["n.a*"] } }']],
  ] as const)
    test(`that is hidden by ${by}`, async (context) => {
      const { upstream, sidecar } = await startBehind(context, under(...lines));
      upstream.answer = refusing(() => ({ code: -32602, message: 'Tool absent not found' }));
      const path = by.startsWith('a virtual') ? '/virtual/some/mcp' : '/mcp';
      const hidden = await askLegacy(sidecar.base, toolCall('hidden'), {}, path);
      assert.equal(hidden.json.error.message, 'Unknown tool: hidden');
      assertAlike(await askLegacy(sidecar.base, toolCall('absent'), {}, path), hidden);
    });

  test('where nothing is hidden, the server’s words are its own', async (context) => {
    const { upstream, sidecar } = await startBehind(
      context,
      under('rules: [ { name: all, allow: [ { tools: ["*"] } ] } ]'),
    );
    upstream.answer = refusing(() => ({ code: -32602, message: 'Tool absent not found' }));
    const answer = await askLegacy(sidecar.base, toolCall('absent'));
    assert.equal(answer.json.error.message, 'Tool absent not found');
  });
});
