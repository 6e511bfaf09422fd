/**
 * A JSON-RPC batch of revision 2025-03-26, judged element by element: each element goes through the inner pipeline as
 * an exchange of its own (own permit, quota, audit line, span), and their answers are put together again here.
 *
 * Elements run at the same time as far as there are places (`limits.inFlight`), each of its own, and in turn otherwise:
 * a batch is served whole however few there are. The answer is one event stream when any element's answer is one, and
 * a JSON array otherwise.
 */

import type { Message } from '../protocol/message.ts';
import { createFrameSplitter, encodeEvent } from '../protocol/sse.ts';
import type { Place } from './admission.ts';
import type { Next } from './compose.ts';
import { Exchange, type Parsed, type Trace } from './exchange.ts';
import type { Reply } from './reply.ts';

/**
 * Runs every element and completes the batch's reply.
 *
 * @param perElement The pipeline from `observe` inwards.
 * @param answerBytesMax What the answers may weigh together; an element beyond it gets an error in place of its answer.
 */
export async function runBatch(
  exchange: Parsed,
  messages: readonly Message[],
  traceOf: (message: Message) => Trace,
  perElement: Next<Parsed>,
  answerBytesMax: number,
): Promise<void> {
  const merge = new BatchMerge(exchange.reply, answerBytesMax);
  const expected = messages.filter((message) => message.kind === 'request').length;
  const waiting = messages.values();
  const runInTurn = async (place: Place | undefined) => {
    for (const message of waiting) {
      const reply = new ElementReply(merge, message.id);
      const element = Object.assign(new Exchange(exchange.request, reply, exchange.startedAt, exchange.started), {
        route: exchange.route,
        caller: exchange.caller,
        era: exchange.era,
        protocolVersion: exchange.protocolVersion,
        upstreamSessionId: exchange.upstreamSessionId,
        sessionHash: exchange.sessionHash,
        place,
        trace: traceOf(message),
        message,
        bytesIn: message.bytes.length,
      });
      await perElement(element);
    }
  };
  const others = placesFor(exchange, messages.length - 1);
  await Promise.all([
    runInTurn(exchange.place),
    ...others.map((place) => runInTurn(place).finally(() => place.leave())),
  ]);
  merge.finish(expected > 0);
}

/** As many places more as there are, and not more than `count`. */
function placesFor({ place }: Parsed, count: number): Place[] {
  const places: Place[] = [];
  while (place !== undefined && places.length < count) {
    const another = place.another();
    if (!another.ok) break;
    places.push(another.value);
  }
  return places;
}

class BatchMerge {
  readonly reply: Reply;
  readonly #bodies: Buffer[] = [];
  #bytesLeft: number;

  constructor(reply: Reply, bytesMax: number) {
    this.reply = reply;
    this.#bytesLeft = bytesMax;
  }

  /** Whether there is room for so much more: an array has to be held until its last element is there. */
  take(bytes: number): boolean {
    this.#bytesLeft -= bytes;
    return this.#bytesLeft >= 0;
  }

  /** An element answers with a stream: from here on the whole batch does. */
  openStream(): void {
    if (this.reply.started) return;
    this.reply.head(200, {
      'content-type': 'text/event-stream',
      'cache-control': 'no-cache',
      'x-accel-buffering': 'no',
    });
    for (const body of this.#bodies.splice(0))
      void this.reply.write(encodeEvent({ event: 'message', data: body.toString() }));
  }

  write(frame: Buffer): Promise<void> | undefined {
    return this.reply.write(frame);
  }

  addBody(body: Buffer): void {
    if (body.length === 0) return;
    if (this.reply.started) void this.reply.write(encodeEvent({ event: 'message', data: body.toString() }));
    else this.#bodies.push(body);
  }

  finish(anyRequest: boolean): void {
    if (this.reply.started) {
      this.reply.end();
    } else if (anyRequest) {
      const body = `[${this.#bodies.map((one) => one.toString()).join(',')}]`;
      this.reply.head(200, { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(body)) });
      this.reply.end(body);
    } else {
      this.reply.head(202, {});
      this.reply.end();
    }
  }
}

/** One element's share. Whole events go out as they come, so that two elements' events never mix. */
class ElementReply implements Reply {
  started = false;
  status = 0;
  bytesOut = 0;
  readonly #merge: BatchMerge;
  readonly #id: string | number | undefined;
  readonly #body: Buffer[] = [];
  #isCut = false;
  #frames: ReturnType<typeof createFrameSplitter> | undefined;

  constructor(merge: BatchMerge, id: string | number | undefined) {
    this.#merge = merge;
    this.#id = id;
  }

  get gone(): boolean {
    return this.#merge.reply.gone;
  }

  onGone(listener: () => void): void {
    this.#merge.reply.onGone(listener);
  }

  head(status: number, headers: Readonly<Record<string, string>>): void {
    this.started = true;
    this.status = status;
    if (!headers['content-type']?.startsWith('text/event-stream')) return;
    this.#frames = createFrameSplitter(Number.MAX_SAFE_INTEGER);
    this.#merge.openStream();
  }

  write(chunk: Buffer): Promise<void> | undefined {
    this.bytesOut += chunk.length;
    if (this.#frames === undefined) {
      if (this.#merge.take(chunk.length)) this.#body.push(chunk);
      else this.#isCut = true;
      return undefined;
    }
    const frames = this.#frames.push(chunk);
    if (!frames.ok || frames.value.length === 0) return undefined;
    return this.#merge.write(Buffer.concat(frames.value.map((frame) => frame.bytes)));
  }

  end(chunk?: Buffer | string): void {
    if (chunk !== undefined) void this.write(Buffer.from(chunk));
    // A 202 for a notification has nothing to add.
    if (this.#isCut) this.destroy();
    else if (this.#frames === undefined) this.#merge.addBody(Buffer.concat(this.#body));
  }

  destroy(): void {
    // The other elements' answers are still good; this one's was cut off, and its request must not stay unanswered.
    if (this.#id === undefined) return;
    const error = { code: -31502, message: 'The answer to this request was cut off' };
    this.#merge.addBody(Buffer.from(JSON.stringify({ jsonrpc: '2.0', id: this.#id, error })));
  }
}
