/**
 * The yardstick: a reverse proxy of node:http and undici without any stage. Own process.
 *
 * Fair means that it does what every streaming proxy must: keep-alive both ways, hop-by-hop headers stripped
 * (RFC 9110, section 7.6.1), the answer passed on chunk by chunk with back-pressure, the upstream request ended when
 * the caller goes. Fast means that it does nothing else: no parsing, no checks, no log.
 */
import { createServer, type IncomingMessage, type OutgoingHttpHeaders, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type Dispatcher, Pool } from 'undici';
import { answerParent } from './child.ts';

export type BareQuestion = { readonly upstream: string };

const hopByHop = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/** What the caller sent, less what belongs to its own connection. `Host` is the upstream's. */
function forwardedHeaders(request: IncomingMessage): string[] {
  const forwarded: string[] = [];
  for (let index = 0; index + 1 < request.rawHeaders.length; index += 2) {
    const name = request.rawHeaders[index]!;
    const lower = name.toLowerCase();
    if (lower !== 'host' && !hopByHop.has(lower)) forwarded.push(name, request.rawHeaders[index + 1]!);
  }
  return forwarded;
}

function answerWith(response: ServerResponse): Dispatcher.DispatchHandler {
  let upstream: Dispatcher.DispatchController | undefined;
  response.on('close', () => {
    if (!response.writableFinished) upstream?.abort(new Error('caller gone'));
  });
  return {
    onRequestStart(controller) {
      upstream = controller;
    },
    onResponseStart(_controller, status, headers) {
      const forwarded: OutgoingHttpHeaders = {};
      for (const name in headers) {
        if (!hopByHop.has(name)) forwarded[name] = headers[name];
      }
      response.writeHead(status, forwarded);
    },
    onResponseData(controller, chunk) {
      if (response.write(chunk)) return;
      controller.pause();
      response.once('drain', () => controller.resume());
    },
    onResponseEnd() {
      response.end();
    },
    onResponseError() {
      if (response.headersSent) response.destroy();
      else response.writeHead(502).end();
    },
  };
}

/** Bodies up to this many bytes go upstream in one piece: measured, that costs less than a stream through undici. */
const collectedBytesMax = 64 * 1024;

/** `whole` is called once with the body, or with the request itself where the body is long or of unknown length. */
function readBody(request: IncomingMessage, whole: (body: Buffer | IncomingMessage | null) => void): void {
  const length = Number(request.headers['content-length'] ?? 0);
  if (request.headers['transfer-encoding'] !== undefined || length > collectedBytesMax) whole(request);
  else if (length === 0) whole(null);
  else {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => whole(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)));
  }
}

async function listen({ upstream }: BareQuestion): Promise<{ origin: string }> {
  const pool = new Pool(upstream, { connections: null, pipelining: 1, keepAliveTimeout: 60_000, bodyTimeout: 0 });
  const server = createServer((request, response) => {
    const { url: path = '/', method = 'GET' } = request;
    readBody(request, (body) => {
      pool.dispatch({ path, method, headers: forwardedHeaders(request), body }, answerWith(response));
    });
  });
  server.keepAliveTimeout = 120_000;
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
  return { origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

answerParent<BareQuestion>(listen);
