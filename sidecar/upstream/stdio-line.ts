/**
 * The framing of MCP over stdio: one JSON-RPC message a line (specification, "Transports", section stdio).
 * Pure: bytes in, bytes out.
 */

const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;

/** U+0085, U+2028 and U+2029 in UTF-8, read as Latin-1. */
const UNICODE_LINE_END = /\xc2\x85|\xe2\x80[\xa8\xa9]/g;

/**
 * A JSON text on one line, its meaning and its numbers untouched, with the line feed that ends it.
 *
 * In valid JSON a raw line break stands between tokens only, where a space means the same. U+0085, U+2028 and U+2029
 * may stand in strings, and some servers' line readers (Node's `readline`, Python's `splitlines`) end a line there: an
 * agent could hide a second message in an argument, which no policy has seen. So they are written as escapes.
 */
export function toLine(json: Buffer): Buffer {
  let text = withoutLineBreaks(json).toString('latin1');
  if (text.includes('\xc2\x85') || text.includes('\xe2\x80')) text = text.replace(UNICODE_LINE_END, escapeLineEnd);
  return Buffer.from(`${text}\n`, 'latin1');
}

/** `json` with a space for each raw line feed and carriage return. */
export function withoutLineBreaks(json: Buffer): Buffer {
  if (!json.includes(LINE_FEED) && !json.includes(CARRIAGE_RETURN)) return json;
  return Buffer.from(json.toString('latin1').replace(/[\r\n]/g, ' '), 'latin1');
}

function escapeLineEnd(utf8: string): string {
  if (utf8 === '\xc2\x85') return '\\u0085';
  return utf8.endsWith('\xa8') ? '\\u2028' : '\\u2029';
}

/** Cuts a stream of bytes into lines, and holds no more of an unfinished one than allowed. */
export class LineSplitter {
  readonly #bytesMax: number;
  readonly #onLine: (line: Buffer) => void;
  readonly #onTooLong: () => void;
  #parts: Buffer[] = [];
  #bytes = 0;
  #skipping = false;

  /** `onTooLong` is told once for each line over `bytesMax`; the line itself is skipped. */
  constructor(bytesMax: number, onLine: (line: Buffer) => void, onTooLong: () => void) {
    this.#bytesMax = bytesMax;
    this.#onLine = onLine;
    this.#onTooLong = onTooLong;
  }

  push(chunk: Buffer): void {
    let start = 0;
    for (let end = chunk.indexOf(LINE_FEED); end !== -1; end = chunk.indexOf(LINE_FEED, start)) {
      this.#add(chunk.subarray(start, end));
      this.#finishLine();
      start = end + 1;
    }
    this.#add(chunk.subarray(start));
  }

  #add(part: Buffer): void {
    if (part.length === 0 || this.#skipping) return;
    this.#bytes += part.length;
    this.#parts.push(part);
    if (this.#bytes <= this.#bytesMax) return;
    this.#skipping = true;
    this.#parts = [];
    this.#onTooLong();
  }

  #finishLine(): void {
    const parts = this.#parts;
    this.#parts = [];
    this.#bytes = 0;
    if (this.#skipping) this.#skipping = false;
    else if (parts.length === 1) this.#onLine(parts[0]!);
    else if (parts.length > 1) this.#onLine(Buffer.concat(parts));
  }
}
