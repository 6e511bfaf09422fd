/**
 * The MCP server behind every target, as lean as it can be so that it is not what is measured. Own process.
 *
 * Answers `tools/call` with 1 KiB of JSON, `subscriptions/listen` and GET with an SSE stream that stays open, and
 * just enough of the 2025 eras for a whole session. With `tls` it speaks HTTPS; once told to `protect` itself it wants
 * an access token and verifies it. It is no example of an MCP server: it trusts its callers.
 */
import { randomUUID } from 'node:crypto';
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type RequestListener,
  type ServerResponse,
} from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { protect } from '../../examples/support/protected-server.ts';
import { replyTo, toolName } from './call.ts';
import { answerParent } from './child.ts';

export type UpstreamQuestion =
  | { readonly kind: 'listen'; readonly tls?: { readonly key: string; readonly cert: string } }
  /** From now on only with an access token of this issuer for this resource. */
  | { readonly kind: 'protect'; readonly resource: string; readonly issuer: string; readonly scopes: readonly string[] }
  /** Sends one event on every open stream; answers how many there are. */
  | { readonly kind: 'notify' };

type Rpc = { readonly id?: string | number; readonly method?: string; readonly params?: Record<string, unknown> };

const streams = new Set<ServerResponse>();
let handle: RequestListener = serve;

function sendJson(response: ServerResponse, status: number, value: unknown, headers: Record<string, string> = {}) {
  const body = Buffer.from(JSON.stringify(value));
  response
    .writeHead(status, { 'content-type': 'application/json', 'content-length': body.length, ...headers })
    .end(body);
}

function openStream(response: ServerResponse, first: unknown) {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
  response.write(first === undefined ? ': open\n\n' : `data: ${JSON.stringify(first)}\n\n`);
  streams.add(response);
  response.on('close', () => streams.delete(response));
}

const tool = {
  name: toolName,
  description: 'Finds documents.',
  inputSchema: { type: 'object', properties: { query: { type: 'string' } }, required: ['query'] },
};

function answerRpc(rpc: Rpc, response: ServerResponse) {
  const { id, method } = rpc;
  const result = (value: unknown, headers?: Record<string, string>) =>
    sendJson(response, 200, { jsonrpc: '2.0', id, result: value }, headers);
  if (method === 'tools/call') {
    // The measured call has a numeric id of nine digits; the SDK's own ids are small.
    if (typeof id === 'number' && id >= 100_000_000) {
      const body = replyTo(id);
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length }).end(body);
    } else result({ content: [{ type: 'text', text: 'Nothing found.' }] });
  } else if (id === undefined) response.writeHead(202).end();
  else if (method === 'initialize') {
    const serverInfo = { name: 'bench-upstream', version: '1.0.0' };
    const protocolVersion = rpc.params?.protocolVersion ?? '2025-11-25';
    result({ protocolVersion, capabilities: { tools: {} }, serverInfo }, { 'mcp-session-id': randomUUID() });
  } else if (method === 'tools/list') result({ tools: [tool] });
  else if (method === 'ping') result({});
  else if (method === 'subscriptions/listen') {
    const params = { notifications: {}, _meta: { 'io.modelcontextprotocol/subscriptionId': id } };
    openStream(response, { jsonrpc: '2.0', method: 'notifications/subscriptions/acknowledged', params });
  } else {
    const error = { code: -32601, message: 'Method not found' };
    sendJson(response, 404, { jsonrpc: '2.0', id, error });
  }
}

function serve(request: IncomingMessage, response: ServerResponse): void {
  if (request.method === 'GET') openStream(response, undefined);
  else if (request.method === 'DELETE') response.writeHead(200).end();
  else {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const bytes = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
      answerRpc(JSON.parse(bytes.toString('utf8')) as Rpc, response);
    });
  }
}

async function listen({ tls }: Extract<UpstreamQuestion, { kind: 'listen' }>): Promise<{ origin: string }> {
  const listener: RequestListener = (request, response) => handle(request, response);
  const server = tls === undefined ? createHttpServer(listener) : createHttpsServer(tls, listener);
  server.keepAliveTimeout = 120_000;
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
  return { origin: `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

answerParent<UpstreamQuestion>((question) => {
  if (question.kind === 'listen') return listen(question);
  if (question.kind === 'protect') {
    const { resource, issuer, scopes } = question;
    handle = protect(serve, { resource: new URL(resource), issuer, scopes });
    return undefined;
  }
  const event = `data: ${JSON.stringify({ jsonrpc: '2.0', method: 'notifications/tools/list_changed' })}\n\n`;
  for (const stream of streams) stream.write(event);
  return streams.size;
});
