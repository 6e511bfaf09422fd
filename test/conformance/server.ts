/**
 * The conformance server: the fixture over Streamable HTTP, every revision from 2025-03-26 to 2026-07-28 on one URL.
 *
 * Listens on 127.0.0.1 only and answers 403 to a foreign Host or Origin. It holds no secret and checks no token.
 * `node test/conformance/server.ts` starts it alone and prints its URL.
 */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { json } from 'node:stream/consumers';
import {
  localhostHostValidation,
  localhostOriginValidation,
  type NodeIncomingMessageLike,
  toNodeHandler,
} from '@modelcontextprotocol/node';
import {
  classifyInboundRequest,
  createMcpHandler,
  createRequestStateCodec,
  InMemoryServerEventBus,
} from '@modelcontextprotocol/server';
import type { RoundState } from './fixture/input-required-tools.ts';
import { createFixtureServer } from './fixture/mcp-server.ts';
import { Sessions } from './sessions.ts';

export interface ConformanceServer {
  readonly url: string;
  close(): Promise<void>;
}

/** Starts the server on `port`, by default one that is free. */
export async function startConformanceServer(port = 0): Promise<ConformanceServer> {
  const changes = new InMemoryServerEventBus();
  const states = createRequestStateCodec<RoundState>({ key: randomBytes(32) });
  const createFixture = () => createFixtureServer({ changes, states });

  const sessions = new Sessions(createFixture);
  const modern = createMcpHandler(createFixture, { bus: changes, legacy: 'reject' });
  const serveModern = toNodeHandler(modern);
  const hostIsLocal = localhostHostValidation();
  const originIsLocal = localhostOriginValidation();

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (!hostIsLocal(request, response) || !originIsLocal(request, response)) return;
    if (request.url !== '/mcp') return void response.writeHead(404).end();
    const body = request.method === 'POST' ? await json(request) : undefined;
    return isLegacy(request, body)
      ? sessions.serve(request, response, body)
      : serveModern(request as NodeIncomingMessageLike, response, body);
  }

  const server = createServer((request, response) => {
    serve(request, response).catch((error: unknown) => {
      const isSyntax = error instanceof SyntaxError;
      if (!isSyntax) console.error(error);
      if (response.headersSent) return void response.destroy();
      response.writeHead(isSyntax ? 400 : 500, { 'content-type': 'application/json' });
      const fault = isSyntax ? { code: -32700, message: 'Parse error' } : { code: -32603, message: 'Internal error' };
      response.end(JSON.stringify({ jsonrpc: '2.0', id: null, error: fault }));
    });
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');

  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`,
    async close() {
      await sessions.close();
      await modern.close();
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

/** The era of a request, by the SDK's own rules. */
function isLegacy(request: IncomingMessage, body: unknown): boolean {
  const version = request.headers['mcp-protocol-version'];
  const method = request.headers['mcp-method'];
  const inbound = classifyInboundRequest({
    httpMethod: request.method ?? '',
    ...(typeof version === 'string' && { protocolVersionHeader: version }),
    ...(typeof method === 'string' && { mcpMethodHeader: method }),
    body,
  });
  return inbound.kind === 'legacy';
}

if (import.meta.main) console.log((await startConformanceServer(Number(process.env.PORT ?? 0))).url);
