/**
 * Changes members of a JSON object by its bytes: what is not changed stays as it was written, numbers beyond 2^53,
 * order and white space included. PURE.
 *
 * Every function takes JSON that `JSON.parse` accepts, without repeated keys, as `parseBody` guarantees of a body.
 */
import {
  applyEdits,
  CLOSE_BRACE,
  COMMA,
  eachMember,
  elementsOf,
  OPEN_BRACE,
  OPEN_BRACKET,
  QUOTE,
  skipSpace,
  trimEnd,
} from './json-bytes.ts';
import type { ByteRange } from './message.ts';

type Pointer = readonly string[];

/** The text without the member at `pointer`; the same bytes where it leads nowhere. An element of an array is not removed. */
export function removeMember(bytes: Buffer, pointer: Pointer): Buffer {
  const holder = walk(bytes, pointer.slice(0, -1));
  if (holder === undefined || bytes[holder.start] !== OPEN_BRACE) return bytes;
  const found = memberOf(bytes, holder.start, pointer.at(-1)!);
  if (found === undefined) return bytes;
  const keyStart = startOfKey(bytes, found.start);
  const before = trimEnd(bytes, keyStart) - 1;
  if (bytes[before] === COMMA) return applyEdits(bytes, [{ start: before, end: found.end, text: '' }]);
  const behind = skipSpace(bytes, found.end);
  const end = bytes[behind] === COMMA ? skipSpace(bytes, behind + 1) : behind;
  return applyEdits(bytes, [{ start: keyStart, end, text: '' }]);
}

/**
 * The text with the constant at `pointer`; objects on the way are made where they are not there.
 *
 * @param pointer For which there is a place, as policies/arguments.ts says.
 * @param json JSON text.
 */
export function setMember(bytes: Buffer, pointer: Pointer, json: string): Buffer {
  let at = skipSpace(bytes, 0);
  for (const [depth, segment] of pointer.entries()) {
    const found = memberOrElement(bytes, at, segment);
    if (found !== undefined) {
      if (depth === pointer.length - 1) return applyEdits(bytes, [{ ...found, text: json }]);
      at = found.start;
      continue;
    }
    if (bytes[at] !== OPEN_BRACE) throw new Error('there is no place for the constant');
    const rest = pointer.slice(depth + 1);
    const value = rest.reduceRight((inner, key) => `{${JSON.stringify(key)}:${inner}}`, json);
    const member = `${JSON.stringify(segment)}:${value}`;
    const isEmpty = bytes[skipSpace(bytes, at + 1)] === CLOSE_BRACE;
    return applyEdits(bytes, [{ start: at + 1, end: at + 1, text: isEmpty ? member : `${member},` }]);
  }
  return Buffer.from(json);
}

/** Where the value stands that `pointer` leads to. */
function walk(bytes: Buffer, pointer: Pointer): ByteRange | undefined {
  let range: ByteRange | undefined = { start: skipSpace(bytes, 0), end: bytes.length };
  for (const segment of pointer) range = range && memberOrElement(bytes, range.start, segment);
  return range;
}

function memberOrElement(bytes: Buffer, holder: number, segment: string): ByteRange | undefined {
  if (bytes[holder] === OPEN_BRACE) return memberOf(bytes, holder, segment);
  // As RFC 6901 writes an index.
  if (bytes[holder] !== OPEN_BRACKET || !/^(?:0|[1-9]\d{0,8})$/.test(segment)) return undefined;
  return elementsOf(bytes, holder)[Number(segment)];
}

function memberOf(bytes: Buffer, object: number, key: string): ByteRange | undefined {
  let found: ByteRange | undefined;
  eachMember(bytes, object, (name, value) => {
    if (name === key) found = value;
  });
  return found;
}

/** The opening quote of the key whose value begins at `value`: from its object's side, since a key may hold quotes. */
function startOfKey(bytes: Buffer, value: number): number {
  // Back over white space, the colon and white space: there the key's closing quote is.
  const colon = trimEnd(bytes, value) - 1;
  let at = trimEnd(bytes, colon) - 2;
  for (;;) {
    at = bytes.lastIndexOf(QUOTE, at);
    let backslashes = 0;
    while (bytes[at - 1 - backslashes] === 0x5c) backslashes++;
    if (backslashes % 2 === 0) return at;
    at -= 1;
  }
}
