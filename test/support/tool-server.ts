/**
 * A scripted upstream that lists tools as a server of one era does, and refuses what such a server would refuse.
 */
import type { ServerResponse } from 'node:http';
import { type ScriptedUpstream, type Seen, sendJson } from './scripted-upstream.ts';

export interface ToolServerOptions {
  readonly era: 'modern' | 'legacy';
  readonly tools: readonly object[];
  /** Tools on a page. Default: all of them. */
  readonly pageSize?: number;
  /** Answers as event streams, with a comment, a priming event and a notification before the answer. */
  readonly stream?: boolean;
}

/** The methods that arrived, in order; `DELETE` and the like for requests without a body. */
export function methodsSeen({ seen }: Pick<ScriptedUpstream, 'seen'>): string[] {
  return seen.map(({ json, method }) => json?.method ?? method);
}

export function toolServer(options: ToolServerOptions): ScriptedUpstream['answer'] {
  const answer = options.era === 'modern' ? modernAnswer : legacyAnswer();
  return (seen, response) => {
    const { status, body, headers } = answer(seen, options);
    if (options.stream && status === 200 && body !== undefined) sendStream(response, body, headers);
    else if (body === undefined) response.writeHead(status, headers).end();
    else sendJson(response, body, status, headers);
  };
}

interface Answer {
  readonly status: number;
  readonly body?: object;
  readonly headers?: Record<string, string>;
}

function modernAnswer({ json, headers, method }: Seen, options: ToolServerOptions): Answer {
  if (method !== 'POST') return { status: 405 };
  const meta = json.params?._meta;
  if (
    headers['mcp-protocol-version'] !== '2026-07-28' ||
    headers['mcp-method'] !== json.method ||
    meta?.['io.modelcontextprotocol/protocolVersion'] !== '2026-07-28' ||
    meta?.['io.modelcontextprotocol/clientCapabilities'] === undefined
  )
    return refusal(400, json.id, -32602, 'no envelope');
  const common = { resultType: 'complete', _meta: { 'io.modelcontextprotocol/serverInfo': SERVER_INFO } };
  switch (json.method) {
    case 'tools/list':
      return result(json.id, { ...common, ...page(json, options), ttlMs: 0, cacheScope: 'private' });
    case 'tools/call':
      return result(json.id, { ...common, content: [{ type: 'text', text: 'called' }] });
    default:
      return refusal(404, json.id, -32601, 'Method not found');
  }
}

function legacyAnswer(): (seen: Seen, options: ToolServerOptions) => Answer {
  const sessions = new Map<string, 'opened' | 'initialized'>();
  let opened = 0;
  return ({ json, headers, method }, options) => {
    if (json?.method === 'initialize') {
      opened += 1;
      sessions.set(`session-${opened}`, 'opened');
      return result(
        json.id,
        { protocolVersion: '2025-06-18', capabilities: { tools: {} }, serverInfo: SERVER_INFO },
        { 'mcp-session-id': `session-${opened}` },
      );
    }
    const id = String(headers['mcp-session-id']);
    const session = sessions.get(id);
    if (session === undefined) return refusal(400, null, -32000, 'Bad Request: Mcp-Session-Id header is required');
    if (headers['mcp-protocol-version'] !== '2025-06-18') return refusal(400, null, -32000, 'Bad Request: version');
    if (method === 'DELETE') {
      sessions.delete(id);
      return { status: 200 };
    }
    switch (json.method) {
      case 'notifications/initialized':
        sessions.set(id, 'initialized');
        return { status: 202 };
      case 'tools/list':
        if (session !== 'initialized') return refusal(200, json.id, -32600, 'not initialized');
        return result(json.id, page(json, options));
      default:
        return result(json.id, { content: [{ type: 'text', text: 'called' }] });
    }
  };
}

const SERVER_INFO = { name: 'tool-server', version: '1.2.3' };

function page(json: Seen['json'], { tools, pageSize = tools.length }: ToolServerOptions): object {
  const from = Number(json.params?.cursor ?? 0);
  const to = from + pageSize;
  return { tools: tools.slice(from, to), ...(to < tools.length ? { nextCursor: String(to) } : undefined) };
}

function result(id: unknown, content: object, headers: Record<string, string> = {}): Answer {
  return { status: 200, body: { jsonrpc: '2.0', id, result: content }, headers };
}

function refusal(status: number, id: unknown, code: number, message: string): Answer {
  return { status, body: { jsonrpc: '2.0', id, error: { code, message } } };
}

function sendStream(response: ServerResponse, body: object, headers: Record<string, string> = {}): void {
  response.writeHead(200, { 'content-type': 'text/event-stream', ...headers });
  const notification = { jsonrpc: '2.0', method: 'notifications/message', params: { level: 'info', data: 'x' } };
  response.write(': hello\n\nid: 1\ndata:\n\n');
  response.write(`event: message\ndata: ${JSON.stringify(notification)}\n\n`);
  response.end(`event: message\ndata: ${JSON.stringify(body)}\n\n`);
}
