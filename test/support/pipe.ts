/**
 * Two proxies that know nothing of MCP, as yardsticks for tests of the real one. `stream` passes every byte on as it
 * comes and keeps the Host header; `buffer` holds an answer back until its end, which breaks whatever relies on a
 * stream: what a test of transparency must be able to notice.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse, request as sendRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';

export interface Pipe {
  /** The pipe's own URL for the target's path. */
  readonly url: string;
  close(): Promise<void>;
}

/** Starts a pipe to `target` on a free loopback port. */
export async function startPipe(target: string, mode: 'stream' | 'buffer'): Promise<Pipe> {
  const { hostname, port, pathname } = new URL(target);

  function forward(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const upstream = sendRequest({
      hostname,
      port,
      method: incoming.method,
      path: incoming.url,
      headers: incoming.headers,
      agent: false,
    });
    outgoing.once('close', () => upstream.destroy());
    upstream.once('error', () => outgoing.destroy());
    upstream.once('response', (answer) => {
      relay(answer, outgoing).catch(() => outgoing.destroy());
    });
    incoming.pipe(upstream);
  }

  async function relay(answer: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const whole = mode === 'buffer' ? await buffer(answer) : undefined;
    outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
    if (whole !== undefined) return void outgoing.end(whole);
    // An event stream that is silent so far has headers to pass on all the same.
    outgoing.flushHeaders();
    await pipeline(answer, outgoing);
  }

  const server = createServer(forward);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}${pathname}`,
    async close() {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}
