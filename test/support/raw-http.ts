/**
 * Bytes over a socket and what came back: for requests that no HTTP client would send.
 */
import * as http from 'node:http';
import { connect } from 'node:net';

export interface RawAnswer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: a test reads replies by field
  readonly json: any;
}

export interface Asked {
  readonly method?: string;
  readonly path?: string;
  readonly headers?: http.OutgoingHttpHeaders;
  readonly body?: string | Buffer;
}

/** One request on a connection of its own. Sends exactly the headers given, plus Host and Content-Length. */
export function ask(base: string, { method = 'POST', path = '/mcp', headers = {}, body }: Asked): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const request = http.request(`${base}${path}`, {
      method,
      agent: false,
      headers: {
        ...(body === undefined
          ? undefined
          : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
        ...headers,
      },
    });
    request.on('error', reject);
    request.on('response', (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        const isJson = response.headers['content-type']?.startsWith('application/json') === true;
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          text,
          json: isJson ? JSON.parse(text) : undefined,
        });
      });
    });
    request.end(body);
  });
}

export const ACCEPT_BOTH = 'application/json, text/event-stream';

/** A `tools/call`, to be sent as it is in the 2025 eras and by {@link askModern} in 2026-07-28. */
export function toolCall(name: string, args: Record<string, unknown> = {}, id: string | number = 7) {
  return { jsonrpc: '2.0', id, method: 'tools/call', params: { name, arguments: args } };
}

/** A JSON-RPC request in the manner of the 2025 eras. */
export function askLegacy(
  base: string,
  message: unknown,
  headers: http.OutgoingHttpHeaders = {},
  path = '/mcp',
): Promise<RawAnswer> {
  return ask(base, {
    path,
    headers: { accept: ACCEPT_BOTH, 'mcp-protocol-version': '2025-11-25', ...headers },
    body: JSON.stringify(message),
  });
}

/** A 2026-07-28 request with its envelope and headers. */
export function askModern(
  base: string,
  message: { id: string | number; method: string; params?: Record<string, unknown> },
  headers: http.OutgoingHttpHeaders = {},
  path = '/mcp',
): Promise<RawAnswer> {
  const { name, uri, _meta, ...rest } = (message.params ?? {}) as Record<string, unknown> & { _meta?: object };
  const target = name ?? uri;
  const params = {
    ...rest,
    ...(name === undefined ? undefined : { name }),
    ...(uri === undefined ? undefined : { uri }),
    _meta: {
      'io.modelcontextprotocol/protocolVersion': '2026-07-28',
      'io.modelcontextprotocol/clientCapabilities': {},
      ..._meta,
    },
  };
  return ask(base, {
    path,
    headers: {
      accept: ACCEPT_BOTH,
      'mcp-protocol-version': '2026-07-28',
      'mcp-method': message.method,
      ...(typeof target === 'string' ? { 'mcp-name': target } : undefined),
      ...headers,
    },
    body: JSON.stringify({ jsonrpc: '2.0', id: message.id, method: message.method, params }),
  });
}

/** Sends `bytes` as they are and answers everything that came back until the peer closed or `waitMs` passed. */
export function sendRaw(base: string, bytes: string | Buffer, waitMs = 2_000): Promise<string> {
  const { hostname, port } = new URL(base);
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    const socket = connect(Number(port), hostname.replace(/^\[|\]$/g, ''));
    const done = () => {
      clearTimeout(timer);
      socket.destroy();
      resolve(Buffer.concat(chunks).toString());
    };
    const timer = setTimeout(done, waitMs);
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.on('close', done);
    socket.on('error', done);
    socket.write(bytes);
  });
}
