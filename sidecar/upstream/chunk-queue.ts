/**
 * A single-producer, single-consumer queue of body chunks with back-pressure: the producer is paused while more than
 * a few chunks wait. Exists because a stream object per answer costs more than the whole pipeline does.
 */

/** Bytes that may wait before the producer is paused. */
const HIGH_WATER_BYTES = 256 * 1024;

export interface Flow {
  pause(): void;
  resume(): void;
  /** The consumer wants no more. */
  cancel(): void;
}

export class ChunkQueue implements AsyncIterable<Buffer>, AsyncIterator<Buffer> {
  readonly #flow: Flow;
  readonly #chunks: Buffer[] = [];
  #waitingBytes = 0;
  #paused = false;
  #ended = false;
  #error: Error | undefined;
  #waiter: { resolve(result: IteratorResult<Buffer>): void; reject(error: Error): void } | undefined;

  constructor(flow: Flow) {
    this.#flow = flow;
  }

  push(chunk: Buffer): void {
    if (this.#ended) return;
    const waiter = this.#waiter;
    if (waiter !== undefined) {
      this.#waiter = undefined;
      waiter.resolve({ done: false, value: chunk });
      return;
    }
    this.#chunks.push(chunk);
    this.#waitingBytes += chunk.length;
    if (!this.#paused && this.#waitingBytes > HIGH_WATER_BYTES) {
      this.#paused = true;
      this.#flow.pause();
    }
  }

  end(): void {
    this.#finish(undefined);
  }

  fail(error: Error): void {
    this.#finish(error);
  }

  /** Drops what waits and tells the producer to stop. Safe at any time, and twice. */
  cancel(): void {
    if (this.#ended && this.#chunks.length === 0) return;
    this.#chunks.length = 0;
    if (this.#ended) return;
    this.#finish(undefined);
    this.#flow.cancel();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<Buffer>> {
    const chunk = this.#chunks.shift();
    if (chunk !== undefined) {
      this.#waitingBytes -= chunk.length;
      if (this.#paused && this.#waitingBytes <= HIGH_WATER_BYTES / 2) {
        this.#paused = false;
        this.#flow.resume();
      }
      return Promise.resolve({ done: false, value: chunk });
    }
    if (this.#error !== undefined) {
      const error = this.#error;
      this.#error = undefined;
      return Promise.reject(error);
    }
    if (this.#ended) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject };
    });
  }

  return(): Promise<IteratorResult<Buffer>> {
    this.cancel();
    return Promise.resolve({ done: true, value: undefined });
  }

  #finish(error: Error | undefined): void {
    if (this.#ended) return;
    this.#ended = true;
    const waiter = this.#waiter;
    this.#waiter = undefined;
    if (waiter === undefined) this.#error = error;
    else if (error !== undefined) waiter.reject(error);
    else waiter.resolve({ done: true, value: undefined });
  }
}
