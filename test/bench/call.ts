/**
 * The one message that every target is measured with: a `tools/call` of 1 KiB in the 2026-07-28 revision
 * (stateless, so no session is in the way), answered with 1 KiB of JSON. Every request has an id of its own.
 */
const bytesOfCall = 1024;

export const toolName = 'search_documents';

/** Headers that the 2026-07-28 Streamable HTTP transport asks for on this call. */
export const callHeaders: Readonly<Record<string, string>> = {
  'content-type': 'application/json',
  accept: 'application/json, text/event-stream',
  'mcp-protocol-version': '2026-07-28',
  'mcp-method': 'tools/call',
  'mcp-name': toolName,
};

/** `params._meta` of a 2026-07-28 request. */
export const envelope = {
  'io.modelcontextprotocol/protocolVersion': '2026-07-28',
  'io.modelcontextprotocol/clientInfo': { name: 'bench', version: '1.0.0' },
  'io.modelcontextprotocol/clientCapabilities': {},
};

const prose = 'Quarterly revenue by region, without the one-off effects that were reported in March. ';

/** `text` repeated and cut so that `build` of it is exactly `bytesOfCall` bytes long. ASCII only. */
function padded(build: (text: string) => string): string {
  const length = bytesOfCall - build('').length;
  return build(prose.repeat(Math.ceil(length / prose.length)).slice(0, length));
}

/** Nine digits, so that every message has the same length. */
const firstId = 100_000_000;
export const nthId = (sequence: number): number => firstId + (sequence % (9 * firstId));

const requestTail = padded((query) =>
  JSON.stringify({
    jsonrpc: '2.0',
    id: firstId,
    method: 'tools/call',
    params: {
      name: toolName,
      arguments: { query, limit: 20, language: 'en', tags: ['finance', 'internal'] },
      _meta: envelope,
    },
  }),
).slice('{"jsonrpc":"2.0","id":'.length + 9);

const replyTail = padded((text) =>
  JSON.stringify({
    jsonrpc: '2.0',
    id: firstId,
    result: { resultType: 'complete', content: [{ type: 'text', text }], isError: false },
  }),
).slice('{"jsonrpc":"2.0","id":'.length + 9);

const head = '{"jsonrpc":"2.0","id":';

/** The bytes of the call with this id. */
export const callWith = (id: number): Buffer => Buffer.from(`${head}${id}${requestTail}`, 'latin1');

/** The bytes of the answer to the call with this id. */
export const replyTo = (id: number): Buffer => Buffer.from(`${head}${id}${replyTail}`, 'latin1');

/** Whether these bytes are the answer to that call: its length and its id, no more, to stay cheap under load. */
export const isReplyTo = (id: number, first: Buffer, bytes: number): boolean =>
  bytes === bytesOfCall && first.toString('latin1', head.length, head.length + 9) === String(id);
