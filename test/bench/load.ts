/**
 * The load generator: a process of its own, the same one for all targets. Bounded in time, connections and requests
 * in flight. Latencies go into an HDR histogram (three significant figures).
 *
 * `closed`: each of `concurrency` connections sends its next request when the last was answered: throughput, and
 * latency at that concurrency. `open`: requests are due at a fixed rate whatever happens to those before, and
 * latency counts from when a request was *due*, so that a target which stalls cannot hide it by holding back the
 * requests that would have suffered (coordinated omission).
 */
import { createHistogram } from 'node:perf_hooks';
import { Worker } from 'node:worker_threads';
import { Client, type Dispatcher, Pool } from 'undici';
import { callWith, isReplyTo, nthId } from './call.ts';
import { answerParent } from './child.ts';

export interface LoadTarget {
  readonly origin: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
}

export type LoadQuestion =
  | { readonly kind: 'closed'; readonly target: LoadTarget; readonly concurrency: number; readonly forMs: number }
  | { readonly kind: 'open'; readonly target: LoadTarget; readonly perSecond: number; readonly forMs: number };

export interface Measured {
  readonly requests: number;
  /** Anything but the expected answer. */
  readonly errors: number;
  /** `open` only: due, but {@link inFlightMax} were in flight. They count in the latencies as the longest allowed. */
  readonly notSent: number;
  readonly firstError: string | undefined;
  readonly requestsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** `open` only: how late the generator itself was, 99th percentile. Part of the latencies above. */
  readonly lateP99Ms: number | undefined;
}

const inFlightMax = 1000;
const connectionsMax = 64;
const callMsMax = 10_000;
const clientOptions = {
  pipelining: 1,
  keepAliveTimeout: 60_000,
  headersTimeout: callMsMax,
  bodyTimeout: callMsMax,
};

let sequence = 0;

class Recorder {
  readonly latency = createHistogram();
  readonly late = createHistogram();
  errors = 0;
  notSent = 0;
  firstError: string | undefined;

  fail(error: string) {
    this.errors++;
    this.firstError ??= error;
  }

  /** @param seconds from the first request to the last answer */
  measured(seconds: number): Measured {
    const ms = (histogram: { percentile(p: number): number }, p: number) => histogram.percentile(p) / 1e6;
    const requests = this.latency.count - this.notSent;
    return {
      requests,
      errors: this.errors,
      notSent: this.notSent,
      firstError: this.firstError,
      requestsPerSecond: requests / seconds,
      p50Ms: ms(this.latency, 50),
      p99Ms: ms(this.latency, 99),
      maxMs: this.latency.max / 1e6,
      lateP99Ms: this.late.count === 0 ? undefined : ms(this.late, 99),
    };
  }
}

/** Sends one call. `done` has the error, or `undefined` when the expected answer came. Called exactly once. */
function send(dispatcher: Dispatcher, target: LoadTarget, done: (error: string | undefined) => void): void {
  const id = nthId(sequence++);
  let status = 0;
  let bytes = 0;
  let first: Buffer | undefined;
  dispatcher.dispatch(
    { path: target.path, method: 'POST', headers: target.headers, body: callWith(id) },
    {
      onRequestStart() {},
      onResponseStart(_controller, statusCode) {
        status = statusCode;
      },
      onResponseData(_controller, chunk) {
        first ??= chunk;
        bytes += chunk.length;
      },
      onResponseEnd() {
        if (status === 200 && first !== undefined && isReplyTo(id, first, bytes)) done(undefined);
        else done(`HTTP ${status}, ${bytes} bytes: ${first?.toString('utf8', 0, 300) ?? ''}`);
      },
      onResponseError(_controller, error) {
        done(`${error.name}: ${error.message}`);
      },
    },
  );
}

const sendOnce = (dispatcher: Dispatcher, target: LoadTarget): Promise<string | undefined> =>
  new Promise((resolve) => send(dispatcher, target, resolve));

/** One connection's turn: request after request until `endAt`. */
function keepSending(client: Client, target: LoadTarget, endAt: number, recorder: Recorder): Promise<void> {
  return new Promise((resolve) => {
    const next = () => {
      const startedAt = performance.now();
      if (startedAt >= endAt) return resolve();
      send(client, target, (error) => {
        if (error === undefined)
          recorder.latency.record(Math.max(1, Math.round((performance.now() - startedAt) * 1e6)));
        else recorder.fail(error);
        // A target that is down would otherwise be hammered as fast as it refuses.
        if (error === undefined) next();
        else setTimeout(next, 10);
      });
    };
    next();
  });
}

async function closedLoop(target: LoadTarget, concurrency: number, forMs: number): Promise<Measured> {
  const clients = Array.from({ length: concurrency }, () => new Client(target.origin, clientOptions));
  const recorder = new Recorder();
  try {
    await Promise.all(clients.map((client) => sendOnce(client, target)));
    const startedAt = performance.now();
    await Promise.all(clients.map((client) => keepSending(client, target, startedAt + forMs, recorder)));
    return recorder.measured((performance.now() - startedAt) / 1000);
  } finally {
    await Promise.all(clients.map((client) => client.destroy()));
  }
}

async function openLoop(target: LoadTarget, perSecond: number, forMs: number): Promise<Measured> {
  const pool = new Pool(target.origin, { ...clientOptions, connections: connectionsMax });
  const recorder = new Recorder();
  const ticks = Math.round((perSecond * forMs) / 1000);
  const now = () => performance.timeOrigin + performance.now();
  try {
    await Promise.all(Array.from({ length: 16 }, () => sendOnce(pool, target)));
    let inFlight = 0;
    let finished = 0;
    const { promise: allFinished, resolve, reject } = Promise.withResolvers<void>();
    const finish = () => {
      finished++;
      if (finished === ticks) resolve();
    };
    const startedAt = now();
    const metronome = new Worker(new URL('metronome.ts', import.meta.url), {
      workerData: { ticks, intervalMs: 1000 / perSecond },
    });
    metronome.on('error', reject);
    metronome.on('message', (dueAt: number) => {
      if (inFlight >= inFlightMax) {
        recorder.notSent++;
        recorder.latency.record(callMsMax * 1e6);
        return finish();
      }
      inFlight++;
      recorder.late.record(Math.max(1, Math.round((now() - dueAt) * 1e6)));
      send(pool, target, (error) => {
        inFlight--;
        if (error === undefined) recorder.latency.record(Math.max(1, Math.round((now() - dueAt) * 1e6)));
        else recorder.fail(error);
        finish();
      });
    });
    await allFinished;
    await metronome.terminate();
    return recorder.measured((now() - startedAt) / 1000);
  } finally {
    await pool.destroy();
  }
}

answerParent<LoadQuestion>((question) =>
  question.kind === 'closed'
    ? closedLoop(question.target, question.concurrency, question.forMs)
    : openLoop(question.target, question.perSecond, question.forMs),
);
