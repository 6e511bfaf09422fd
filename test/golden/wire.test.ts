/**
 * What goes over the wire for each reason: DESIGN.md 2.6, row by row.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Reason, toWire } from '../../sidecar/pipeline/reason.ts';

const context = { errorId: 'e1', era: 'legacy', method: 'tools/call' } as const;
const id = 7;

const GOLDEN: readonly (readonly [Reason, number, number, string, unknown?])[] = [
  [
    { kind: 'unidentified', challenge: 'Bearer x', detail: 'canary' },
    401,
    -31401,
    'Caller not identified',
    { errorId: 'e1' },
  ],
  [{ kind: 'hidden', what: 'tool', name: 'x', rule: 'canary', detail: 'canary' }, 200, -32602, 'Unknown tool: x'],
  [{ kind: 'hidden', what: 'prompt', name: 'x', rule: 'canary', detail: 'canary' }, 200, -32602, 'Unknown prompt: x'],
  [
    { kind: 'hidden', what: 'resource', name: 'x', rule: 'canary', detail: 'canary' },
    200,
    -32002,
    'Resource not found: x',
  ],
  [{ kind: 'hidden', what: 'method', name: 'x', rule: 'canary', detail: 'canary' }, 200, -32601, 'Method not found'],
  [
    { kind: 'forbidden', rule: 'no pushes', detail: 'canary' },
    200,
    -31403,
    'Refused by policy rule "no pushes" (error e1)',
    { rule: 'no pushes', errorId: 'e1' },
  ],
  [
    { kind: 'argumentsRefused', rule: 'ours', detail: 'canary' },
    200,
    -31403,
    'Refused by policy rule "ours" (error e1)',
    { rule: 'ours', errorId: 'e1' },
  ],
  [
    { kind: 'argumentsRefused', rule: 'as declared', detail: 'canary', told: '/limit breaks maximum' },
    200,
    -31403,
    'Refused by policy rule "as declared": /limit breaks maximum (error e1)',
    { rule: 'as declared', errorId: 'e1' },
  ],
  [
    { kind: 'drifted', detail: 'the tool is not as sidecar.lock has it' },
    200,
    -31403,
    'Blocked: the tool is not as sidecar.lock has it (error e1)',
    { rule: 'pin', errorId: 'e1' },
  ],
  [
    { kind: 'quota', what: 'quota', quota: 'calls', retryAfterMs: 1500, asToolError: false },
    429,
    -31429,
    'Quota "calls" is spent; try again in 2 s (error e1)',
    { quota: 'calls', retryAfterMs: 1500, errorId: 'e1' },
  ],
  [
    { kind: 'quota', what: 'budget', quota: 'daily', retryAfterMs: 1500, asToolError: false },
    429,
    -31429,
    'Budget "daily" is spent; try again in 2 s (error e1)',
    { quota: 'daily', retryAfterMs: 1500, errorId: 'e1' },
  ],
  [
    { kind: 'noCredential', detail: 'canary', retryAfterMs: 0 },
    502,
    -31502,
    'The sidecar could not get its credential for this server (error e1)',
    { errorId: 'e1' },
  ],
  [
    { kind: 'upstreamGarbage', detail: 'canary' },
    502,
    -31502,
    'The server answered something that is not MCP (error e1)',
    { errorId: 'e1' },
  ],
  [
    { kind: 'unavailable', why: 'breaker', detail: 'canary', retryAfterMs: 100 },
    503,
    -31503,
    'The server has failed repeatedly and is given time to recover (error e1)',
    { errorId: 'e1', retryAfterMs: 100 },
  ],
  [
    { kind: 'upstreamTimeout', phase: 'canary', afterMs: 1 },
    504,
    -31504,
    'The server did not answer in time (error e1)',
    { errorId: 'e1' },
  ],
  [
    { kind: 'malformed', reason: { kind: 'notJson', detail: 'the body is empty' } },
    400,
    -32700,
    'Parse error: the body is empty',
  ],
  [
    { kind: 'malformed', reason: { kind: 'tooDeep', depthMax: 64 } },
    400,
    -32600,
    'Invalid request: nested deeper than 64 levels',
  ],
  [
    { kind: 'malformed', reason: { kind: 'tooManyMembers', membersMax: 50_000 } },
    400,
    -32600,
    'Invalid request: more than 50000 members of objects',
  ],
  [
    { kind: 'malformed', reason: { kind: 'tooLarge', bytesMax: 10 } },
    413,
    -32600,
    'Invalid request: larger than 10 bytes',
  ],
  [{ kind: 'malformed', reason: { kind: 'headerMismatch', detail: 'd', id } }, 400, -32020, 'Header mismatch: d'],
  [
    {
      kind: 'malformed',
      reason: { kind: 'unsupportedVersion', requested: '2027-01-01', supported: ['2026-07-28'], id, era: 'modern' },
    },
    400,
    -32022,
    'Unsupported protocol version: 2027-01-01',
    { supported: ['2026-07-28'], requested: '2027-01-01' },
  ],
  [{ kind: 'hostNotAllowed', value: 'canary' }, 403, -31403, 'Host not allowed', { errorId: 'e1' }],
  [{ kind: 'internal', detail: 'canary' }, 500, -32603, 'Internal error (error e1)', { errorId: 'e1' }],
];

describe('reason → wire', () => {
  for (const [reason, status, code, message, data] of GOLDEN) {
    test(`${reason.kind} ${'what' in reason ? reason.what : ''}${'why' in reason ? reason.why : ''}`, () => {
      const wire = toWire(reason, context);
      assert.equal(wire.status, status);
      assert.deepEqual(wire.error, data === undefined ? { code, message } : { code, message, data });
      assert.doesNotMatch(JSON.stringify(wire), /canary/);
      assert.equal(wire.headers['retry-after'] !== undefined, status === 429 || status === 503);
      // Own codes lie outside JSON-RPC's reserved range, which ends at -32000.
      assert.ok(code > -32000 || [-32700, -32600, -32601, -32602, -32603, -32002, -32020, -32022].includes(code));
    });
  }

  test('server/discover is never answered with a 4xx or a 200 of ours', () => {
    for (const [reason] of GOLDEN) {
      if (reason.kind === 'malformed') continue;
      const wire = toWire(reason, { ...context, era: 'modern', method: 'server/discover' });
      assert.ok(wire.status >= 500, `${reason.kind}: ${wire.status}`);
    }
  });
});
