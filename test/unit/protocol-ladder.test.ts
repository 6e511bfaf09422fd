import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createMcpHandler, McpServer } from '@modelcontextprotocol/server';
import { toWire } from '../../sidecar/pipeline/reason.ts';
import { classify, MODERN_LADDER, type ProtocolHeaders } from '../../sidecar/protocol/ladder.ts';
import type { MalformedReason } from '../../sidecar/protocol/message.ts';
import { parseBody } from '../../sidecar/protocol/parse.ts';

const VERSION = 'io.modelcontextprotocol/protocolVersion';
const CAPABILITIES = 'io.modelcontextprotocol/clientCapabilities';
const MODERN = '2026-07-28';

const ENVELOPE = { [VERSION]: MODERN, [CAPABILITIES]: {} };
const CALL = { jsonrpc: '2.0', id: 7, method: 'tools/call', params: { name: 'echo', arguments: {}, _meta: ENVELOPE } };
const CALL_HEADERS = { protocolVersion: MODERN, method: 'tools/call', name: 'echo' };
const NOTIFICATION = { jsonrpc: '2.0', method: 'notifications/progress', params: { progressToken: 1, progress: 1 } };
const LIST = { jsonrpc: '2.0', id: 7, method: 'tools/list' };
const INITIALIZE = {
  jsonrpc: '2.0',
  id: 1,
  method: 'initialize',
  params: { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'a', version: '1' } },
};
const LISTEN = { jsonrpc: '2.0', id: 1, method: 'subscriptions/listen', params: { notifications: {} } };
const RESPONSE = { jsonrpc: '2.0', id: 1, result: {} };

const withMeta = (body: { method: string; params?: object }, meta: object) => ({
  ...body,
  params: { ...body.params, _meta: meta },
});

function climb(body: unknown, headers: ProtocolHeaders) {
  const parsed = parseBody(Buffer.from(JSON.stringify(body)), { depthMax: 64, batchMax: 100 });
  assert.ok(parsed.ok, JSON.stringify(parsed));
  return classify(parsed.value, headers);
}

interface Case {
  readonly body: unknown;
  readonly headers: ProtocolHeaders;
  /** The refusal, or the era. */
  readonly expected: MalformedReason['kind'] | 'modern' | 'legacy';
  readonly protocolVersion?: string;
}

const base64 = (text: string) => `=?base64?${Buffer.from(text).toString('base64')}?=`;

const CASES: Readonly<Record<string, Case>> = {
  'a modern call': { body: CALL, headers: CALL_HEADERS, expected: 'modern', protocolVersion: MODERN },
  'white space around headers': {
    body: CALL,
    headers: { protocolVersion: ` ${MODERN}\t`, method: ' tools/call ', name: '\techo ' },
    expected: 'modern',
  },
  'a name in base64': { body: CALL, headers: { ...CALL_HEADERS, name: base64('echo') }, expected: 'modern' },
  'modern without a name to repeat': {
    body: withMeta(LIST, ENVELOPE),
    headers: { protocolVersion: MODERN, method: 'tools/list' },
    expected: 'modern',
  },
  'a method unknown to the sidecar': {
    body: withMeta({ ...LIST, method: 'vendor/thing' }, ENVELOPE),
    headers: { protocolVersion: MODERN, method: 'vendor/thing' },
    expected: 'modern',
  },
  'a modern call without a name in the body': {
    body: { ...CALL, params: { _meta: ENVELOPE } },
    headers: { ...CALL_HEADERS, name: undefined },
    expected: 'modern',
  },

  'no version in the envelope': {
    body: withMeta(CALL, { [CAPABILITIES]: {} }),
    headers: CALL_HEADERS,
    expected: 'envelopeMissing',
  },
  'no capabilities in the envelope': {
    body: withMeta(CALL, { [VERSION]: MODERN }),
    headers: CALL_HEADERS,
    expected: 'envelopeMissing',
  },
  'capabilities a string': {
    body: withMeta(CALL, { ...ENVELOPE, [CAPABILITIES]: 'all' }),
    headers: CALL_HEADERS,
    expected: 'envelopeMissing',
  },
  'no capabilities and no headers': {
    body: withMeta(CALL, { [VERSION]: MODERN }),
    headers: {},
    expected: 'envelopeMissing',
  },
  'no _meta at all': {
    body: { ...CALL, params: { name: 'echo' } },
    headers: CALL_HEADERS,
    expected: 'envelopeMissing',
  },
  'no params at all': {
    body: LIST,
    headers: { protocolVersion: MODERN, method: 'tools/list' },
    expected: 'envelopeMissing',
  },
  'a version that is no string': {
    body: withMeta(CALL, { ...ENVELOPE, [VERSION]: 20260728 }),
    headers: CALL_HEADERS,
    expected: 'envelopeMissing',
  },
  'a header that is no version and no envelope': {
    body: LIST,
    headers: { protocolVersion: 'newest', method: 'tools/list' },
    expected: 'envelopeMissing',
  },

  'version header legacy, body modern': {
    body: CALL,
    headers: { ...CALL_HEADERS, protocolVersion: '2025-11-25' },
    expected: 'headerMismatch',
  },
  'version header of another modern revision': {
    body: CALL,
    headers: { ...CALL_HEADERS, protocolVersion: '2027-01-01' },
    expected: 'headerMismatch',
  },
  'method header of another method': {
    body: CALL,
    headers: { ...CALL_HEADERS, method: 'tools/list' },
    expected: 'headerMismatch',
  },
  'method header in upper case': {
    body: CALL,
    headers: { ...CALL_HEADERS, method: 'TOOLS/CALL' },
    expected: 'headerMismatch',
  },
  'no version header': {
    body: CALL,
    headers: { ...CALL_HEADERS, protocolVersion: undefined },
    expected: 'headerMismatch',
  },
  'no method header': { body: CALL, headers: { ...CALL_HEADERS, method: undefined }, expected: 'headerMismatch' },
  'no headers': { body: CALL, headers: {}, expected: 'headerMismatch' },
  'no name header': { body: CALL, headers: { ...CALL_HEADERS, name: undefined }, expected: 'headerMismatch' },
  'name header of another tool': { body: CALL, headers: { ...CALL_HEADERS, name: 'rm' }, expected: 'headerMismatch' },
  'name header in upper case': { body: CALL, headers: { ...CALL_HEADERS, name: 'Echo' }, expected: 'headerMismatch' },
  'name in base64 of another tool': {
    body: CALL,
    headers: { ...CALL_HEADERS, name: base64('rm') },
    expected: 'headerMismatch',
  },
  'base64 without padding': {
    body: CALL,
    headers: { ...CALL_HEADERS, name: '=?base64?ZWNobw?=' },
    expected: 'headerMismatch',
  },
  'base64 with other characters': {
    body: CALL,
    headers: { ...CALL_HEADERS, name: '=?base64?ZW!!NobA==?=' },
    expected: 'headerMismatch',
  },
  'base64 prefix in upper case': {
    body: CALL,
    headers: { ...CALL_HEADERS, name: '=?BASE64?ZWNobw==?=' },
    expected: 'headerMismatch',
  },
  'base64 that is not UTF-8': {
    body: CALL,
    headers: { ...CALL_HEADERS, name: '=?base64?/w==?=' },
    expected: 'headerMismatch',
  },
  'base64 that is not UTF-8, and a name that looks like what a decoder makes of it': {
    body: { ...CALL, params: { ...CALL.params, name: '\ufffd' } },
    headers: { ...CALL_HEADERS, name: '=?base64?/w==?=' },
    expected: 'headerMismatch',
  },
  'a prompt': {
    body: { ...CALL, method: 'prompts/get' },
    headers: { ...CALL_HEADERS, method: 'prompts/get', name: 'other' },
    expected: 'headerMismatch',
  },
  'a resource': {
    body: { ...CALL, method: 'resources/read', params: { uri: 'file:///a', _meta: ENVELOPE } },
    headers: { ...CALL_HEADERS, method: 'resources/read', name: 'file:///b' },
    expected: 'headerMismatch',
  },

  'a modern revision nobody knows': {
    body: withMeta(CALL, { ...ENVELOPE, [VERSION]: '2030-01-01' }),
    headers: { ...CALL_HEADERS, protocolVersion: '2030-01-01' },
    expected: 'unsupportedVersion',
  },
  'the same without any headers': {
    body: withMeta(CALL, { ...ENVELOPE, [VERSION]: '2030-01-01' }),
    headers: {},
    expected: 'unsupportedVersion',
  },
  'an envelope that names a legacy revision': {
    body: withMeta(CALL, { ...ENVELOPE, [VERSION]: '2025-06-18' }),
    headers: { protocolVersion: '2025-06-18' },
    expected: 'unsupportedVersion',
  },
  'the same with another method in the header': {
    body: withMeta(CALL, { ...ENVELOPE, [VERSION]: '2025-06-18' }),
    headers: { protocolVersion: '2025-06-18', method: 'tools/list' },
    expected: 'headerMismatch',
  },

  'a notification, modern by its header': {
    body: NOTIFICATION,
    headers: { protocolVersion: MODERN, method: NOTIFICATION.method },
    expected: 'modern',
    protocolVersion: MODERN,
  },
  'a notification, modern by its envelope alone': {
    body: withMeta(NOTIFICATION, { [VERSION]: MODERN }),
    headers: {},
    expected: 'modern',
  },
  'a notification without a method header': {
    body: NOTIFICATION,
    headers: { protocolVersion: MODERN },
    expected: 'modern',
  },
  'a notification with another method in the header': {
    body: NOTIFICATION,
    headers: { protocolVersion: MODERN, method: 'tools/call' },
    expected: 'headerMismatch',
  },
  'a notification with another version in the header': {
    body: withMeta(NOTIFICATION, { [VERSION]: MODERN }),
    headers: { protocolVersion: '2025-06-18' },
    expected: 'headerMismatch',
  },
  'a notification of a revision nobody knows': {
    body: NOTIFICATION,
    headers: { protocolVersion: '2030-01-01' },
    expected: 'unsupportedVersion',
  },
  'a notification with a broken claim': {
    body: withMeta(NOTIFICATION, { [VERSION]: 1 }),
    headers: {},
    expected: 'envelopeMissing',
  },

  'an initialize with a modern header': {
    body: INITIALIZE,
    headers: { protocolVersion: MODERN },
    expected: 'headerMismatch',
  },
  'an initialize with a modern envelope': {
    body: withMeta(INITIALIZE, ENVELOPE),
    headers: { protocolVersion: MODERN, method: 'initialize' },
    expected: 'modern',
  },
};

/** Where a server with sessions is needed to compare with, or the SDK is laxer than the specification. */
const OWN_CASES: Readonly<Record<string, Case>> = {
  'an initialize': { body: INITIALIZE, headers: {}, expected: 'legacy', protocolVersion: '2025-06-18' },
  'an initialize with any old header': {
    body: INITIALIZE,
    headers: { protocolVersion: '1999-01-01' },
    expected: 'legacy',
  },
  'a legacy request': {
    body: LIST,
    headers: { protocolVersion: '2025-11-25' },
    expected: 'legacy',
    protocolVersion: '2025-11-25',
  },
  'a legacy request that does not say': { body: LIST, headers: {}, expected: 'legacy', protocolVersion: '2025-03-26' },
  'a legacy request whose headers contradict it': {
    body: LIST,
    headers: { method: 'tools/call', name: 'x' },
    expected: 'legacy',
  },
  'a legacy request of a revision nobody knows': {
    body: LIST,
    headers: { protocolVersion: '1999-01-01' },
    expected: 'unsupportedVersion',
  },
  'a legacy notification': { body: NOTIFICATION, headers: {}, expected: 'legacy' },
  'a response': {
    body: RESPONSE,
    headers: { protocolVersion: '2025-06-18' },
    expected: 'legacy',
    protocolVersion: '2025-06-18',
  },
  'a response with a modern header': {
    body: RESPONSE,
    headers: { protocolVersion: MODERN },
    expected: 'unsupportedVersion',
  },
  'a batch': { body: [LIST, NOTIFICATION], headers: {}, expected: 'legacy', protocolVersion: '2025-03-26' },
  'a batch of 2025-03-26': { body: [LIST], headers: { protocolVersion: '2025-03-26' }, expected: 'legacy' },
  'a batch of 2025-06-18': { body: [LIST], headers: { protocolVersion: '2025-06-18' }, expected: 'batchRefused' },
  'a batch of 2026-07-28': { body: [LIST], headers: { protocolVersion: MODERN }, expected: 'batchRefused' },
  'a batch with subscriptions/listen': { body: [LIST, LISTEN], headers: {}, expected: 'batchRefused' },
  'subscriptions/listen in the legacy era': {
    body: LISTEN,
    headers: { protocolVersion: '2025-11-25' },
    expected: 'methodUnknown',
  },
  'subscriptions/listen that does not say its revision': { body: LISTEN, headers: {}, expected: 'methodUnknown' },
  'subscriptions/listen of a revision nobody knows': {
    body: LISTEN,
    headers: { protocolVersion: '2024-01-01' },
    expected: 'unsupportedVersion',
  },
  'subscriptions/listen of 2026-07-28': {
    body: withMeta(LISTEN, ENVELOPE),
    headers: { protocolVersion: MODERN, method: LISTEN.method },
    expected: 'modern',
  },
  'a batch with a modern element': { body: [LIST, CALL], headers: {}, expected: 'batchRefused' },
  'a task': {
    body: withMeta({ ...LIST, method: 'tasks/get', params: { taskId: 'a' } }, ENVELOPE),
    headers: { protocolVersion: MODERN, method: 'tasks/get', name: 'a' },
    expected: 'modern',
  },
  'another task in the header': {
    body: withMeta({ ...LIST, method: 'tasks/cancel', params: { taskId: 'a' } }, ENVELOPE),
    headers: { protocolVersion: MODERN, method: 'tasks/cancel', name: 'b' },
    expected: 'headerMismatch',
  },
  'no task in the header': {
    body: withMeta({ ...LIST, method: 'tasks/update', params: { taskId: 'a' } }, ENVELOPE),
    headers: { protocolVersion: MODERN, method: 'tasks/update' },
    expected: 'headerMismatch',
  },
};

for (const [name, { body, headers, expected, protocolVersion }] of Object.entries({ ...CASES, ...OWN_CASES })) {
  test(`${name}: ${expected}`, () => {
    const classified = climb(body, headers);
    assert.equal(classified.ok ? classified.value.era : classified.error.kind, expected, JSON.stringify(classified));
    if (protocolVersion !== undefined) assert.equal(classified.ok && classified.value.protocolVersion, protocolVersion);
  });
}

test('the SDK answers with the same status and code, or goes on where the sidecar goes on', async () => {
  const handler = createMcpHandler(
    () => {
      const server = new McpServer({ name: 'reference', version: '1' });
      server.registerTool('echo', { description: 'echo' }, async () => ({ content: [] }));
      return server;
    },
    { legacy: 'reject' },
  );
  try {
    for (const [name, { body, headers, expected }] of Object.entries(CASES)) {
      const request = new Request('http://127.0.0.1/mcp', {
        method: 'POST',
        body: JSON.stringify(body),
        headers: {
          'content-type': 'application/json',
          accept: 'application/json, text/event-stream',
          ...(headers.protocolVersion !== undefined && { 'mcp-protocol-version': headers.protocolVersion }),
          ...(headers.method !== undefined && { 'mcp-method': headers.method }),
          ...(headers.name !== undefined && { 'mcp-name': headers.name }),
        },
      });
      const response = await handler.fetch(request);
      const text = await response.text();
      const code = /"code":(-?\d+)/.exec(text)?.[1];
      const classified = climb(body, headers);
      if (classified.ok) {
        assert.equal(expected, 'modern');
        // In-band errors (unknown method, invalid params of a method) are the server's own.
        assert.ok(response.status !== 400, `${name}: the SDK refused with ${code}: ${text}`);
      } else {
        const wire = toWire(
          { kind: 'malformed', reason: classified.error },
          { errorId: 'e', era: undefined, method: undefined },
        );
        assert.deepEqual([wire.status, String(wire.error.code)], [response.status, code], `${name}: ${text}`);
      }
    }
  } finally {
    await handler.close();
  }
});

test('an unknown modern revision is answered with the known ones, a legacy one in the words of the legacy era', () => {
  const modern = climb(withMeta(CALL, { ...ENVELOPE, [VERSION]: '2030-01-01' }), {});
  assert.deepEqual(modern, {
    ok: false,
    error: { kind: 'unsupportedVersion', requested: '2030-01-01', supported: [MODERN], id: 7, era: 'modern' },
  });
  const legacy = climb(LIST, { protocolVersion: '1999-01-01' });
  assert.equal(!legacy.ok && legacy.error.kind === 'unsupportedVersion' && legacy.error.era, 'legacy');
});

test('an earlier rung wins: the order is part of the contract', () => {
  assert.deepEqual(
    MODERN_LADDER.map(({ rung, code }) => [rung, code]),
    [
      ['envelope', -32602],
      ['version header agrees', -32020],
      ['method header agrees', -32020],
      ['version is known', -32022],
      ['version header is there', -32020],
      ['method header is there', -32020],
      ['name header', -32020],
    ],
  );
});

test('each rung names the code that its refusal becomes on the wire', () => {
  const seen = new Set<string>();
  for (const { body, headers } of Object.values(CASES)) {
    const parsed = parseBody(Buffer.from(JSON.stringify(body)), { depthMax: 64, batchMax: 1 });
    assert.ok(parsed.ok && parsed.value.kind === 'single');
    const { message } = parsed.value;
    const claimed = message.meta?.[VERSION];
    const inbound = {
      message,
      claimed: typeof claimed === 'string' ? claimed : undefined,
      version: headers.protocolVersion,
      method: headers.method,
      name: headers.name,
    };
    for (const { rung, code, refuse } of MODERN_LADDER) {
      const reason = refuse(inbound);
      if (reason === undefined) continue;
      seen.add(rung);
      assert.equal(
        toWire({ kind: 'malformed', reason }, { errorId: 'e', era: 'modern', method: undefined }).error.code,
        code,
        rung,
      );
    }
  }
  assert.equal(seen.size, MODERN_LADDER.length);
});

test('what a refusal quotes is bounded', () => {
  const classified = climb(CALL, { ...CALL_HEADERS, name: 'x'.repeat(10_000) });
  assert.ok(!classified.ok && classified.error.kind === 'headerMismatch');
  assert.ok(classified.error.detail.length < 300);
});
