/**
 * An upstream that answers as a test tells it to, over a real socket, and counts what reached it.
 */
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Seen {
  readonly method: string;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: string;
  /** Parsed body; `undefined` when there was none. */
  // biome-ignore lint/suspicious/noExplicitAny: a test reads what it sent
  readonly json: any;
}

export interface ScriptedUpstream {
  readonly url: string;
  readonly seen: Seen[];
  /** Bytes that arrived on any connection, of heads and bodies alike. */
  bytesReceived(): number;
  answer: (seen: Seen, response: http.ServerResponse, request: http.IncomingMessage) => void;
  close(): Promise<void>;
}

/**
 * Answers `tools/call` with the text `ok` and other requests with an empty result, unless `answer` is replaced.
 * @param port 0 for any.
 */
export async function startScriptedUpstream(port = 0): Promise<ScriptedUpstream> {
  let received = 0;
  const server = http.createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = Buffer.concat(chunks).toString();
      const seen: Seen = {
        method: request.method ?? '',
        headers: request.headers,
        body,
        json: body === '' ? undefined : JSON.parse(body),
      };
      upstream.seen.push(seen);
      upstream.answer(seen, response, request);
    });
  });
  server.on('connection', (socket) => {
    socket.on('data', (chunk: Buffer) => {
      received += chunk.length;
    });
  });
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));

  const upstream: ScriptedUpstream = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`,
    seen: [],
    bytesReceived: () => received,
    answer: (seen, response) => sendJson(response, resultOf(seen)),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  return upstream;
}

function resultOf({ json }: Seen): unknown {
  if (json?.id === undefined) return undefined;
  const result = json.method === 'tools/call' ? { content: [{ type: 'text', text: 'ok' }] } : {};
  return { jsonrpc: '2.0', id: json.id, result };
}

/** A JSON answer; nothing (202) for a notification. */
export function sendJson(
  response: http.ServerResponse,
  value: unknown,
  status = 200,
  headers: http.OutgoingHttpHeaders = {},
): void {
  if (value === undefined) {
    response.writeHead(202).end();
    return;
  }
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify(value));
}
