/**
 * A server's message that is a request and an answer at once, or an error with a result beside it, was passed on as it
 * came: past the filter of lists, past pins, past redaction.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { askLegacy, toolCall } from '../support/raw-http.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { startTestSidecar } from '../support/sidecar.ts';

const LIST = { tools: [{ name: 'hidden', inputSchema: {} }] };
const answers: Record<string, [status: number, type: string, make: (id: unknown) => string]> = {
  'a method beside the result': [
    200,
    'application/json',
    (id) => JSON.stringify({ jsonrpc: '2.0', id, method: 'x', result: LIST }),
  ],
  'a method beside the result, on a stream': [
    200,
    'text/event-stream',
    (id) => `data: ${JSON.stringify({ jsonrpc: '2.0', id, method: 'x', result: LIST })}\n\n`,
  ],
  'a result beside the error': [
    400,
    'application/json',
    (id) => JSON.stringify({ jsonrpc: '2.0', id, error: { code: 1, message: 'x' }, result: LIST }),
  ],
};
for (const [name, [status, type, make]] of Object.entries(answers))
  test(`does not pass: ${name}`, async (context) => {
    const upstream = await startScriptedUpstream();
    context.after(() => upstream.close());
    upstream.answer = (seen, response) => response.writeHead(status, { 'content-type': type }).end(make(seen.json.id));
    const sidecar = await startTestSidecar(`
servers: { main: { url: "${upstream.url}" } }
policy: { version: 1, default: allow, rules: [ { name: hide, deny: [ { tools: [hidden] } ] } ] }
`);
    context.after(() => sidecar.close());
    for (const message of [{ jsonrpc: '2.0', id: 1, method: 'tools/list' }, toolCall('any')])
      assert.equal((await askLegacy(sidecar.base, message)).text.includes('hidden'), false);
  });
