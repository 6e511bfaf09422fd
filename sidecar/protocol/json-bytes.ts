/**
 * Walks JSON by its bytes, for what must not be parsed and written again: numbers beyond 2^53, key order and white
 * space survive only where nobody re-serializes them.
 *
 * Every function takes valid JSON (something that `JSON.parse` accepted) and an index into it. Nothing recurses, so
 * that depth costs no stack.
 */
import type { ByteRange } from './message.ts';

export const QUOTE = 0x22;
export const COMMA = 0x2c;
export const COLON = 0x3a;
export const BACKSLASH = 0x5c;
export const OPEN_BRACKET = 0x5b;
export const CLOSE_BRACKET = 0x5d;
export const OPEN_BRACE = 0x7b;
export const CLOSE_BRACE = 0x7d;

/** The first byte at or behind `index` that is not white space. */
export function skipSpace(bytes: Buffer, index: number): number {
  let at = index;
  while (isSpace(bytes[at])) at++;
  return at;
}

/** Where a value ends whose delimiter (`,`, `}` or `]`) stands at `index`. */
export function trimEnd(bytes: Buffer, index: number): number {
  let at = index;
  while (isSpace(bytes[at - 1])) at--;
  return at;
}

/** Just behind the string that opens at `index`. Behind the end of the text when nothing closes it. */
export function skipString(bytes: Buffer, index: number): number {
  const length = bytes.length;
  let at = index + 1;
  for (;;) {
    const searchFrom = Math.min(at + SHORT_STRING, length);
    for (; at < searchFrom; at++) {
      const byte = bytes[at];
      if (byte === QUOTE) return at + 1;
      if (byte === BACKSLASH) at++;
    }
    if (at >= length) return length + 1;
    // A long string: the native search is ten times the speed of the loop. Behind an escaped quote the loop takes over
    // again, since text with quotes in it (JSON in a string) would cost a call for each.
    const quote = bytes.indexOf(QUOTE, at);
    if (quote === -1) return length + 1;
    let backslashes = 0;
    while (quote - backslashes > at && bytes[quote - backslashes - 1] === BACKSLASH) backslashes++;
    at = quote + 1;
    if (backslashes % 2 === 0) return at;
  }
}

/** Bytes that are looked at one by one: what a native call costs. */
const SHORT_STRING = 64;

/** Just behind the value that starts at `index`. */
export function skipValue(bytes: Buffer, index: number): number {
  let depth = 0;
  let at = index;
  while (at < bytes.length) {
    switch (bytes[at]) {
      case QUOTE:
        at = skipString(bytes, at);
        if (depth === 0) return at;
        continue;
      case OPEN_BRACE:
      case OPEN_BRACKET:
        depth++;
        break;
      case CLOSE_BRACE:
      case CLOSE_BRACKET:
        if (depth === 0) return trimEnd(bytes, at);
        if (--depth === 0) return at + 1;
        break;
      case COMMA:
        if (depth === 0) return trimEnd(bytes, at);
        break;
    }
    at++;
  }
  return trimEnd(bytes, at);
}

/** Calls `visit` with each member of the object that opens at `index`: its decoded key and the range of its value. */
export function eachMember(bytes: Buffer, index: number, visit: (key: string, value: ByteRange) => void): void {
  walkMembers(bytes, index, (key, start) => {
    const end = skipValue(bytes, start);
    visit(key, { start, end });
    return end;
  });
}

/** The ranges of the elements of the array that opens at `index`. */
export function elementsOf(bytes: Buffer, index: number): ByteRange[] {
  const elements: ByteRange[] = [];
  walkElements(bytes, index, (_, start) => {
    const end = skipValue(bytes, start);
    elements.push({ start, end });
    return end;
  });
  return elements;
}

/**
 * {@link eachMember} for those who look into the values, so that no byte is looked at twice.
 *
 * @param pass Gets a decoded key and where its value starts, and answers where that ends.
 * @returns just behind the object.
 */
export function walkMembers(bytes: Buffer, index: number, pass: (key: string, start: number) => number): number {
  let at = skipSpace(bytes, index + 1);
  while (bytes[at] === QUOTE) {
    const keyEnd = skipString(bytes, at);
    const key = JSON.parse(bytes.toString('utf8', at, keyEnd)) as string;
    at = skipSpace(bytes, pass(key, skipSpace(bytes, skipSpace(bytes, keyEnd) + 1)));
    if (bytes[at] === COMMA) at = skipSpace(bytes, at + 1);
  }
  return at + 1;
}

/** The same for the array that opens at `index`. */
export function walkElements(bytes: Buffer, index: number, pass: (position: number, start: number) => number): number {
  let at = skipSpace(bytes, index + 1);
  for (let position = 0; at < bytes.length && bytes[at] !== CLOSE_BRACKET; position++) {
    at = skipSpace(bytes, pass(position, at));
    if (bytes[at] === COMMA) at = skipSpace(bytes, at + 1);
  }
  return at + 1;
}

/** Puts `text` in the place of the bytes from `start` to `end`. */
export interface Edit extends ByteRange {
  readonly text: string;
}

/** A copy with the edits made, in one allocation. Edits are in order and do not overlap. */
export function applyEdits(bytes: Buffer, edits: readonly Edit[]): Buffer {
  let length = bytes.length;
  for (const { start, end, text } of edits) length += Buffer.byteLength(text) - (end - start);
  const edited = Buffer.allocUnsafe(length);
  let from = 0;
  let to = 0;
  for (const { start, end, text } of edits) {
    to += bytes.copy(edited, to, from, start);
    to += edited.write(text, to);
    from = end;
  }
  bytes.copy(edited, to, from);
  return edited;
}

function isSpace(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}
