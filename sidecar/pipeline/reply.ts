/**
 * The way back to the agent. Over HTTP it is the response itself; for one element of a 2025-03-26 batch it is that
 * element's share of the batch's response.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';

export interface Reply {
  /** The head is out: nothing but the rest of the body can follow. */
  readonly started: boolean;
  readonly status: number;
  readonly bytesOut: number;
  /** The agent has closed its side before the reply was whole. */
  readonly gone: boolean;
  /** Calls back once, at once when the agent has gone already. */
  onGone(listener: () => void): void;
  head(status: number, headers: Readonly<Record<string, string>>): void;
  /** Resolves when more may be written: at once while the agent keeps up (back-pressure). */
  write(chunk: Buffer): Promise<void> | undefined;
  end(chunk?: Buffer | string): void;
  /** The reply cannot be completed: the agent must see that, rather than a short answer that looks whole. */
  destroy(): void;
}

export class HttpReply implements Reply {
  bytesOut = 0;
  gone = false;
  readonly #response: ServerResponse;

  constructor(request: IncomingMessage, response: ServerResponse) {
    this.#response = response;
    response.on('close', () => {
      this.gone = !response.writableFinished;
    });
    // Each element of a batch may wait for the agent to read on, or to leave.
    response.setMaxListeners(0);
    // Without a listener a reset connection is an uncaught exception.
    response.on('error', ignore);
    request.on('error', ignore);
  }

  get started(): boolean {
    return this.#response.headersSent;
  }

  get status(): number {
    return this.#response.statusCode;
  }

  onGone(listener: () => void): void {
    if (this.gone) {
      listener();
      return;
    }
    const response = this.#response;
    response.on('close', () => {
      if (!response.writableFinished) listener();
    });
  }

  head(status: number, headers: Readonly<Record<string, string>>): void {
    this.#response.writeHead(status, headers);
    // An event stream may stay silent for long: the agent must know at once that it is open.
    if (headers['content-type']?.startsWith('text/event-stream')) this.#response.flushHeaders();
  }

  write(chunk: Buffer): Promise<void> | undefined {
    const response = this.#response;
    if (response.destroyed) return undefined;
    this.bytesOut += chunk.length;
    if (response.write(chunk)) return undefined;
    return new Promise((resolve) => {
      const done = () => {
        response.off('drain', done);
        response.off('close', done);
        resolve();
      };
      response.on('drain', done);
      response.on('close', done);
    });
  }

  end(chunk?: Buffer | string): void {
    if (chunk === undefined) {
      this.#response.end();
      return;
    }
    this.bytesOut += Buffer.byteLength(chunk);
    this.#response.end(chunk);
  }

  destroy(): void {
    this.#response.destroy();
  }
}

function ignore(): void {}
