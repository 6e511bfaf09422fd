/**
 * One HTTP-shaped answer made of a child's messages, as a Streamable HTTP server would give it: `application/json`
 * when the response is all there is, `text/event-stream` as soon as anything comes before it.
 *
 * Keeps the times of the answer and bounds what waits for a slow reader. Gives up exactly once, and then says so to
 * whoever feeds it.
 */
import { err, ok, type Result } from '../../policies/result.ts';
import { ChunkQueue } from './chunk-queue.ts';
import { UpstreamBroken, type UpstreamFailure, type UpstreamResponse } from './upstream.ts';

/** Calls back after `ms` milliseconds; gives the function that prevents it. */
export type SetTimer = (callback: () => void, ms: number) => () => void;

export interface AnswerOptions {
  /** Headers of the answer; an error that is the whole answer goes without them. */
  readonly headers: Readonly<Record<string, string>>;
  readonly signal: AbortSignal | undefined;
  readonly setTimer: SetTimer;
  /** Until the first message; `undefined`: as long as it takes. */
  readonly first: { readonly ms: number; readonly phase: 'headers' | 'total' } | undefined;
  /** Between two messages; `undefined`: as long as it takes. */
  readonly idleMs: number | undefined;
  /** What may wait for a reader that has stopped reading, in events and in bytes. */
  readonly waiting: { readonly eventsMax: number; readonly bytesMax: number };
  /** The reader has gone, or took too long to read, or the child took too long to write. Nobody waits any more. */
  readonly onDropped: () => void;
}

const EVENT_STREAM = {
  'content-type': 'text/event-stream',
  'cache-control': 'no-cache, no-transform',
  'x-accel-buffering': 'no',
};
const BEFORE_DATA = Buffer.from('event: message\ndata: ');
const AFTER_DATA = Buffer.from('\n\n');

export class StdioAnswer {
  readonly result: Promise<Result<UpstreamResponse, UpstreamFailure>>;
  readonly #resolve: (result: Result<UpstreamResponse, UpstreamFailure>) => void;
  readonly #options: AnswerOptions;
  readonly #queue: ChunkQueue;
  #streaming = false;
  #open = true;
  #cancelTimer: (() => void) | undefined;
  /** While the reader has stopped: what has come since. */
  #stalled: { events: number; bytes: number } | undefined;

  constructor(options: AnswerOptions) {
    const { promise, resolve } = Promise.withResolvers<Result<UpstreamResponse, UpstreamFailure>>();
    this.result = promise;
    this.#resolve = resolve;
    this.#options = options;
    this.#queue = new ChunkQueue({
      pause: () => {
        this.#stalled = { events: 0, bytes: 0 };
      },
      resume: () => {
        this.#stalled = undefined;
      },
      cancel: this.#onAbort,
    });
    if (options.first !== undefined) this.#expectWithin(options.first.ms, options.first.phase);
    options.signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  /** Makes it an event stream, though nothing has come yet. */
  startStream(): void {
    if (!this.#open || this.#streaming) return;
    this.#streaming = true;
    this.#expectWithin(this.#options.idleMs, 'idle');
    this.#resolve(ok(response(200, { ...this.#options.headers, ...EVENT_STREAM }, this.#queue)));
  }

  /** One message that is not the response. */
  event(json: Buffer): void {
    if (!this.#open) return;
    this.startStream();
    this.#expectWithin(this.#options.idleMs, 'idle');
    this.#push(json);
  }

  /** The response, which ends the answer. `status` counts when it is all there is. */
  respond(json: Buffer, status: number, isError: boolean): void {
    if (!this.#open) return;
    if (this.#streaming) {
      this.#push(json);
    } else {
      const headers = {
        ...(isError ? {} : this.#options.headers),
        'content-type': 'application/json',
        'content-length': String(json.length),
      };
      this.#queue.push(json);
      this.#resolve(ok(response(status, headers, this.#queue)));
    }
    this.end();
  }

  end(): void {
    if (this.#close()) this.#queue.end();
  }

  fail(failure: UpstreamFailure): void {
    if (!this.#close()) return;
    if (this.#streaming) this.#queue.fail(new UpstreamBroken(failure));
    else this.#resolve(err(failure));
  }

  #push(json: Buffer): void {
    const stalled = this.#stalled;
    if (stalled !== undefined) {
      stalled.events += 1;
      stalled.bytes += json.length;
      const { eventsMax, bytesMax } = this.#options.waiting;
      if (stalled.events > eventsMax || stalled.bytes > bytesMax) {
        this.#drop({
          kind: 'unreachable',
          detail: 'the agent does not read its event stream, and too much is waiting for it',
          sent: true,
        });
        return;
      }
    }
    this.#queue.push(Buffer.concat([BEFORE_DATA, json, AFTER_DATA]));
  }

  readonly #onAbort = (): void => this.#drop({ kind: 'aborted', sent: true });

  #drop(failure: UpstreamFailure): void {
    if (!this.#open) return;
    this.fail(failure);
    this.#options.onDropped();
  }

  #expectWithin(ms: number | undefined, phase: 'headers' | 'idle' | 'total'): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    if (ms === undefined) return;
    this.#cancelTimer = this.#options.setTimer(
      () => this.#drop({ kind: 'timeout', phase, afterMs: ms, sent: true }),
      ms,
    );
  }

  /** False when it was closed before. */
  #close(): boolean {
    if (!this.#open) return false;
    this.#open = false;
    this.#cancelTimer?.();
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
    return true;
  }
}

/** An answer that the sidecar gives in the child's place. */
export function immediateResponse(
  status: number,
  headers: Readonly<Record<string, string>>,
  body: string,
): UpstreamResponse {
  const queue = new ChunkQueue({ pause() {}, resume() {}, cancel() {} });
  if (body !== '') queue.push(Buffer.from(body));
  queue.end();
  const own =
    body === ''
      ? headers
      : { ...headers, 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(body)) };
  return response(status, own, queue);
}

function response(status: number, headers: Readonly<Record<string, string>>, queue: ChunkQueue): UpstreamResponse {
  return { status, headers, body: queue, cancel: () => queue.cancel() };
}
