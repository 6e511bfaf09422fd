/**
 * The head of a stream and its first events, held back while the answer may still be that there is no such thing: that
 * has to go out as a refusal does, and not as a stream.
 *
 * Bounded in events, bytes and time, so that a server that tells what it does, or keeps the connection alive, is heard
 * soon. What comes in order goes out in order.
 */

const EVENTS_MAX = 16;
const BYTES_MAX = 64 * 1024;
/** From the first event. A server that has no such thing says so at once. */
const HELD_MS = 500;

export class HeldHead {
  readonly #pass: (bytes: Buffer) => Promise<void> | undefined;
  #events: Buffer[] | undefined = [];
  #length = 0;
  #timer: NodeJS.Timeout | undefined;

  /** @param pass Sends the head, and what was held. */
  constructor(pass: (bytes: Buffer) => Promise<void> | undefined) {
    this.#pass = pass;
  }

  get isHeld(): boolean {
    return this.#events !== undefined;
  }

  /** @returns What to wait for where this one was too much, and all went out. */
  hold(bytes: Buffer): Promise<void> | undefined {
    this.#timer ??= setTimeout(() => this.release(), HELD_MS);
    this.#events!.push(bytes);
    this.#length += bytes.length;
    return this.#events!.length > EVENTS_MAX || this.#length > BYTES_MAX ? this.release() : undefined;
  }

  release(last?: Buffer): Promise<void> | undefined {
    const events = this.#events;
    if (events === undefined) return undefined;
    this.stop();
    this.#events = undefined;
    return this.#pass(Buffer.concat(last === undefined ? events : [...events, last]));
  }

  /** From now on, nothing goes out by itself. */
  stop(): void {
    clearTimeout(this.#timer);
  }
}
