/**
 * Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), cut into frames by their bytes.
 *
 * A frame goes on as soon as its blank line is there, and the frames put together are the stream, byte for byte. What is
 * not forwarded is only a copy of the bytes of the event under way, at most `eventBytesMax`. Fields are read when asked for.
 */
import { err, ok, type Result } from '../../policies/result.ts';

const LF = 0x0a;
const CR = 0x0d;

/** An event, or a group of comment lines, with the blank line that ends it. */
export class Frame {
  /** As received. Begins with the LF of the frame before when a CRLF came in two pieces. */
  readonly bytes: Buffer;
  #fields: Fields | undefined;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  /** The data lines, joined by LF; `''` for an empty one (priming events); `undefined` without any (comments, `retry`). */
  get data(): string | undefined {
    return this.#read().data;
  }

  get event(): string | undefined {
    return this.#read().event;
  }

  get id(): string | undefined {
    return this.#read().id;
  }

  #read(): Fields {
    this.#fields ??= readFields(this.bytes.toString());
    return this.#fields;
  }
}

interface Fields {
  readonly data: string | undefined;
  readonly event: string | undefined;
  readonly id: string | undefined;
}

export interface EventTooLarge {
  readonly kind: 'eventTooLarge';
  readonly bytesMax: number;
}

export interface FrameSplitter {
  /** The frames that `chunk` completes. After an error every further call is the same error. */
  push(chunk: Buffer): Result<Frame[], EventTooLarge>;
  /**
   * What is left at the end of the stream: nothing, or one frame without a blank line. An event that is not ended is
   * not an event (the specification drops it), but a lenient client may take it for one.
   */
  end(): Frame[];
}

/** @param eventBytesMax Bytes of one event with its blank line. */
export function createFrameSplitter(eventBytesMax: number): FrameSplitter {
  const tooLarge = err<EventTooLarge>({ kind: 'eventTooLarge', bytesMax: eventBytesMax });
  const rest = new Rest();
  /** Nothing of the line under way has come yet. */
  let isLineEmpty = true;
  /** The last byte was a CR: an LF behind it ends the same line. */
  let wasCr = false;
  let failed = false;

  return {
    push(chunk) {
      if (failed) return tooLarge;
      const frames: Frame[] = [];
      let start = 0;
      for (let at = 0; at < chunk.length; at++) {
        const byte = chunk[at];
        if (byte === LF && wasCr) {
          wasCr = false;
          continue;
        }
        wasCr = byte === CR;
        if (byte !== LF && byte !== CR) {
          isLineEmpty = false;
          continue;
        }
        if (!isLineEmpty) {
          isLineEmpty = true;
          continue;
        }
        // A blank line. Waiting for the LF that may follow a CR would hold the event back until the next one comes, so
        // that LF is taken along when it is here already, and opens the next frame otherwise.
        const end = byte === CR && chunk[at + 1] === LF ? at + 2 : at + 1;
        if (rest.length + end - start > eventBytesMax) {
          failed = true;
          return tooLarge;
        }
        frames.push(new Frame(rest.take(chunk.subarray(start, end))));
        start = end;
      }
      if (rest.length + chunk.length - start > eventBytesMax) {
        failed = true;
        return tooLarge;
      }
      rest.add(chunk.subarray(start));
      return ok(frames);
    },
    end() {
      return rest.length === 0 ? [] : [new Frame(rest.take(NOTHING))];
    },
  };
}

const NOTHING = Buffer.alloc(0);

/** The bytes of a frame under way. One buffer that doubles: a list of chunks of one byte each would cost a hundred times their bytes. */
class Rest {
  length = 0;
  #bytes = NOTHING;

  add(chunk: Buffer): void {
    if (this.length + chunk.length > this.#bytes.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(2 * this.#bytes.length, this.length + chunk.length));
      this.#bytes.copy(grown, 0, 0, this.length);
      this.#bytes = grown;
    }
    chunk.copy(this.#bytes, this.length);
    this.length += chunk.length;
  }

  /** All of it with `last` behind. Copies nothing when the frame came in one chunk. */
  take(last: Buffer): Buffer {
    if (this.length === 0) return last;
    this.add(last);
    const whole = this.#bytes.subarray(0, this.length);
    this.#bytes = NOTHING;
    this.length = 0;
    return whole;
  }
}

function readFields(text: string): Fields {
  const data: string[] = [];
  let event: string | undefined;
  let id: string | undefined;
  // A byte order mark may open the stream. Dropped from every frame: to read more as data than a client does is safe.
  for (const line of text.replace(/^\ufeff/, '').split(/\r\n|\n|\r/)) {
    const colon = line.indexOf(':');
    if (line === '' || colon === 0) continue;
    const name = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
    if (name === 'data') data.push(value);
    else if (name === 'event') event = value;
    else if (name === 'id' && !value.includes('\0')) id = value;
  }
  return { data: data.length === 0 ? undefined : data.join('\n'), event, id };
}

/** One event. `id` and `event` hold no line ends (those of a {@link Frame} never do). */
export function encodeEvent({
  id,
  event,
  data,
}: {
  readonly id?: string;
  readonly event?: string;
  readonly data: string;
}): Buffer {
  let text = event === undefined ? '' : `event: ${event}\n`;
  if (id !== undefined) text += `id: ${id}\n`;
  for (const line of data.split(/\r\n|\n|\r/)) text += `data: ${line}\n`;
  return Buffer.from(`${text}\n`);
}
