/**
 * An upstream that speaks Streamable HTTP, of any revision.
 *
 * Works on undici's dispatch directly: one handler per request, no stream object between the two sockets. Never
 * follows a redirect, never decompresses, sends to the configured origin only. Timeouts are four and separate:
 * connect, headers, idle between chunks, total; streams that the server pushes (`GET`, `subscriptions/listen`) may
 * stay silent for as long as TCP keep-alive finds the peer there.
 */
import type { IncomingHttpHeaders } from 'node:http';
// The package's index loads fetch, WebSocket and caches as well, which doubles the time to ready and costs 15 MiB.
import type { Dispatcher } from 'undici';
import Pool from 'undici/lib/dispatcher/pool.js';
import { err, ok, type Result } from '../../policies/result.ts';
import { ChunkQueue } from './chunk-queue.ts';
import {
  type Upstream,
  UpstreamBroken,
  type UpstreamFailure,
  type UpstreamRequest,
  type UpstreamResponse,
} from './upstream.ts';

export interface HttpUpstreamOptions {
  readonly name: string;
  readonly url: URL;
  /** PEM texts for private authorities and mutual TLS. */
  readonly tls: { readonly ca?: string; readonly cert?: string; readonly key?: string } | undefined;
  /** Milliseconds. `total` bounds a whole exchange whose answer is not an event stream. */
  readonly timeouts: {
    readonly connectMs: number;
    readonly headersMs: number;
    readonly idleMs: number;
    readonly totalMs: number;
  };
}

export function createHttpUpstream(options: HttpUpstreamOptions): Upstream {
  const { url, timeouts } = options;
  const pool = new Pool(url.origin, {
    connect: { timeout: timeouts.connectMs, ...options.tls },
    // HTTP/1.1 only: one framing to reason about, on both sides of the proxy.
    allowH2: false,
    headersTimeout: timeouts.headersMs,
    bodyTimeout: timeouts.idleMs,
  });
  const path = url.pathname + url.search;

  return {
    name: options.name,
    target: { transport: 'tcp', address: url.hostname, port: portOf(url) },

    send(request: UpstreamRequest): Promise<Result<UpstreamResponse, UpstreamFailure>> {
      if (request.signal?.aborted) return Promise.resolve(err({ kind: 'aborted', sent: false }));
      return new Promise((resolve) => {
        const pushedByServer = request.method === 'GET' || request.message?.method === 'subscriptions/listen';
        pool.dispatch(
          {
            path,
            method: request.method,
            headers: request.headers as Record<string, string>,
            body: request.body ?? null,
            ...(pushedByServer ? { bodyTimeout: 0 } : undefined),
          },
          new AnswerHandler(request, pushedByServer, timeouts, resolve),
        );
      });
    },

    async close(graceMs: number): Promise<void> {
      const timer = setTimeout(() => void pool.destroy().catch(() => undefined), graceMs);
      await pool.close().catch(() => undefined);
      clearTimeout(timer);
    },
  };
}

type Resolve = (result: Result<UpstreamResponse, UpstreamFailure>) => void;

/** Turns undici's callbacks for one request into one {@link UpstreamResponse}. */
class AnswerHandler implements Dispatcher.DispatchHandler {
  readonly #signal: AbortSignal | undefined;
  readonly #timeouts: HttpUpstreamOptions['timeouts'];
  readonly #resolve: Resolve;
  #controller: Dispatcher.DispatchController | undefined;
  #queue: ChunkQueue | undefined;
  #totalTimer: NodeJS.Timeout | undefined;
  /** Set before the controller is aborted by us, so that the error which follows is told from the server's own. */
  #ownFailure: UpstreamFailure | undefined;

  constructor(
    { signal }: UpstreamRequest,
    isPush: boolean,
    timeouts: HttpUpstreamOptions['timeouts'],
    resolve: Resolve,
  ) {
    this.#signal = signal;
    this.#timeouts = timeouts;
    this.#resolve = resolve;
    signal?.addEventListener('abort', this.#onAbort);
    if (isPush) return;
    const afterMs = timeouts.totalMs;
    this.#totalTimer = setTimeout(
      () => this.#abort({ kind: 'timeout', phase: 'total', afterMs, sent: this.#controller !== undefined }),
      afterMs,
    );
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#signal?.aborted) this.#onAbort();
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number, headers: IncomingHttpHeaders): void {
    // 1xx: the final head is still to come.
    if (status < 200) return;
    const queue = new ChunkQueue({
      pause: () => controller.pause(),
      resume: () => controller.resume(),
      cancel: () => this.#abort({ kind: 'aborted', sent: true }),
    });
    this.#queue = queue;
    const flat = flatten(headers);
    // A stream has an idle timeout only: progress may go on for as long as it likes.
    if (flat['content-type']?.startsWith('text/event-stream')) clearTimeout(this.#totalTimer);
    this.#resolve(ok({ status, headers: flat, body: queue, cancel: () => queue.cancel() }));
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#queue?.push(chunk);
  }

  onResponseEnd(): void {
    this.#release();
    this.#queue?.end();
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#release();
    const failure = this.#ownFailure ?? failureOf(error, this.#controller !== undefined, this.#timeouts);
    if (this.#queue === undefined) this.#resolve(err(failure));
    else this.#queue.fail(new UpstreamBroken(failure));
  }

  readonly #onAbort = (): void => this.#abort({ kind: 'aborted', sent: this.#controller !== undefined });

  #abort(failure: UpstreamFailure): void {
    this.#ownFailure ??= failure;
    this.#controller?.abort(new Error(failure.kind));
    // Still waiting for a connection: there is nothing to abort yet, and nobody waits any longer.
    this.#resolve(err(failure));
  }

  #release(): void {
    clearTimeout(this.#totalTimer);
    this.#signal?.removeEventListener('abort', this.#onAbort);
  }
}

/** `started`: the request was put on a connection, so the server may have seen it. */
function failureOf(
  error: Error & { code?: string },
  started: boolean,
  timeouts: HttpUpstreamOptions['timeouts'],
): UpstreamFailure {
  switch (error.code) {
    case 'UND_ERR_CONNECT_TIMEOUT':
      return { kind: 'timeout', phase: 'connect', afterMs: timeouts.connectMs, sent: false };
    case 'UND_ERR_HEADERS_TIMEOUT':
      return { kind: 'timeout', phase: 'headers', afterMs: timeouts.headersMs, sent: true };
    case 'UND_ERR_BODY_TIMEOUT':
      return { kind: 'timeout', phase: 'idle', afterMs: timeouts.idleMs, sent: true };
    case 'UND_ERR_HEADERS_OVERFLOW':
    case 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH':
      return { kind: 'garbage', detail: `broken HTTP: ${error.code}`, sent: true };
    default:
      if (error.name === 'HTTPParserError')
        return { kind: 'garbage', detail: `broken HTTP: ${error.message}`, sent: true };
      return { kind: 'unreachable', detail: error.code ?? error.name, sent: started };
  }
}

/** Repeated headers are joined, as RFC 9110 section 5.3 allows. */
function flatten(headers: IncomingHttpHeaders): Record<string, string> {
  const flat: Record<string, string> = {};
  for (const name in headers) {
    const value = headers[name];
    if (value !== undefined) flat[name] = typeof value === 'string' ? value : value.join(', ');
  }
  // Media types are case-insensitive (RFC 9110 section 8.3.1), and everybody here compares them.
  if (flat['content-type'] !== undefined) flat['content-type'] = flat['content-type'].toLowerCase();
  return flat;
}

function portOf(url: URL): number {
  if (url.port !== '') return Number(url.port);
  return url.protocol === 'https:' ? 443 : 80;
}
