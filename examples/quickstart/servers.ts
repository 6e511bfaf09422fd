/**
 * The servers that the quickstart governs: `@modelcontextprotocol/server-everything`, twice, each behind a token check
 * of its own, on loopback.
 */
import { randomUUID } from 'node:crypto';
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type RequestListener,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
// @ts-expect-error the package ships no types for its server factory
import { createServer as createEverything } from '@modelcontextprotocol/server-everything/dist/server/index.js';
import { protect } from '../support/protected-server.ts';

export interface ProtectedServer {
  /** Its MCP endpoint, and the resource that tokens are for. */
  readonly url: string;
  /** Requests with `Authorization` that reached it. */
  readonly authorized: () => number;
  requireTokens(issuer: string, scopes: readonly string[]): void;
  close(): Promise<void>;
}

export async function startEverything(): Promise<ProtectedServer> {
  let handler: RequestListener = (_request, response) => response.writeHead(503).end();
  let authorized = 0;
  const server = createHttpServer((request, response) => {
    if (request.headers.authorization !== undefined) authorized += 1;
    handler(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`;
  return {
    url,
    authorized: () => authorized,
    requireTokens(issuer, scopes) {
      handler = protect(serveEverything(), { resource: new URL(url), issuer, scopes });
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** One server object for each session, as Streamable HTTP of the 2025 revisions has it. */
function serveEverything(): RequestListener {
  const sessions = new Map<string, StreamableHTTPServerTransport>();
  return (request: IncomingMessage, response: ServerResponse) => {
    void (async () => {
      const sessionId = request.headers['mcp-session-id'];
      const known = typeof sessionId === 'string' ? sessions.get(sessionId) : undefined;
      if (known !== undefined) return known.handleRequest(request, response);
      if (sessionId !== undefined) return response.writeHead(404).end();
      const { server, cleanup } = createEverything();
      const transport: StreamableHTTPServerTransport = new StreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        onsessioninitialized: (id) => {
          sessions.set(id, transport);
        },
      });
      transport.onclose = () => {
        sessions.delete(transport.sessionId ?? '');
        cleanup(transport.sessionId);
      };
      await server.connect(transport);
      return transport.handleRequest(request, response);
    })().catch(() => response.writeHead(500).end());
  };
}
