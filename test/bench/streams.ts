/** What the sidecar weighs with many SSE streams open at the same time, each through its own connections. */
import { setTimeout as delay } from 'node:timers/promises';
import { Agent } from 'undici';
import { callHeaders, envelope } from './call.ts';
import type { Child } from './child.ts';
import { residentMiB, type Sidecar } from './sidecar.ts';

interface Stream {
  readonly events: number;
  close(): void;
}

/** Opens one `subscriptions/listen` stream (2026-07-28) and resolves when its first event is here. */
function openStream(agent: Agent, sidecar: Sidecar, id: number): Promise<Stream> {
  const { promise, resolve, reject } = Promise.withResolvers<Stream>();
  const params = { notifications: { toolsListChanged: true }, _meta: envelope };
  const { 'mcp-name': _none, ...headers } = callHeaders;
  let status = 0;
  let events = 0;
  agent.dispatch(
    {
      origin: sidecar.mcp.origin,
      path: sidecar.mcp.pathname,
      method: 'POST',
      headers: { ...headers, ...sidecar.headers, 'mcp-method': 'subscriptions/listen' },
      body: JSON.stringify({ jsonrpc: '2.0', id, method: 'subscriptions/listen', params }),
      bodyTimeout: 0,
    },
    {
      onRequestStart() {},
      onResponseStart(_controller, statusCode) {
        status = statusCode;
      },
      onResponseData(controller, chunk) {
        const text = chunk.toString('utf8');
        if (status !== 200) return reject(new Error(`stream ${id}: HTTP ${status} ${text.slice(0, 300)}`));
        events += text.split('\n\n').length - 1;
        const close = () => controller.abort(new Error('done'));
        resolve({
          get events() {
            return events;
          },
          close,
        });
      },
      onResponseEnd() {
        reject(new Error(`stream ${id}: HTTP ${status}, ended by the server`));
      },
      onResponseError(_controller, error) {
        reject(new Error(`stream ${id}: ${error.message}`));
      },
    },
  );
  return promise;
}

/**
 * Opens `count` streams, sends one event through each, and answers the sidecar's VmRSS after `settleMs`, while all
 * are open. Throws when a stream cannot be opened, or when an event is missing after ten seconds.
 */
export async function measureStreams(
  sidecar: Sidecar,
  upstream: Child,
  count: number,
  settleMs: number,
): Promise<number> {
  const agent = new Agent({ pipelining: 1 });
  const streams: Stream[] = [];
  try {
    for (let from = 0; from < count; from += 50) {
      const ids = Array.from({ length: Math.min(50, count - from) }, (_, index) => from + index + 1);
      streams.push(...(await Promise.all(ids.map((id) => openStream(agent, sidecar, id)))));
    }
    const upstreamStreams = await upstream.ask<number>({ kind: 'notify' });
    if (upstreamStreams !== count) throw new Error(`the server sees ${upstreamStreams} of ${count} streams`);
    for (let attempt = 0; attempt < 200 && streams.some((stream) => stream.events < 2); attempt++) await delay(50);
    const missing = streams.filter((stream) => stream.events < 2).length;
    if (missing > 0) throw new Error(`${missing} of ${count} streams never saw their event`);
    await delay(settleMs);
    return residentMiB(sidecar.pid);
  } finally {
    for (const stream of streams) stream.close();
    await agent.destroy();
  }
}
