/**
 * Takes values out of the result of a tool call, by the bytes: everything else stays as its server wrote it. Pure.
 *
 * A server that gives `structuredContent` gives it once more as JSON text in `content` (2025-06-18, tools, structured
 * content): there, and in the text of a resource that it embeds, the same values are taken out, also where single lines
 * are JSON. Other text is not searched, but what begins like an object and is none goes as a whole. Linear in the bytes;
 * values nested deeper than is looked at go as a whole.
 */
import type { Pointer } from '../../policies/policy.ts';
import { Places, REDACTED, REDACTION_DEPTH_MAX } from '../../policies/redact.ts';
import { err, ok, type Result } from '../../policies/result.ts';
import {
  applyEdits,
  type Edit,
  eachMember,
  elementsOf,
  OPEN_BRACE,
  OPEN_BRACKET,
  QUOTE,
  skipSpace,
  skipValue,
  walkElements,
  walkMembers,
} from '../protocol/json-bytes.ts';
import type { ByteRange } from '../protocol/message.ts';

const REDACTED_JSON = JSON.stringify(REDACTED);

/** Where a message has the result of a tool call: in its own answer, in that of a task, in the notice of one. */
export type ResultPlace = 'result' | 'taskResult' | 'noticeResult';

const PATHS: Readonly<Record<ResultPlace, Pointer>> = {
  result: ['result'],
  taskResult: ['result', 'result'],
  noticeResult: ['params', 'result'],
};

/**
 * @param bytes One JSON-RPC message that `JSON.parse` accepts.
 * @param pointers Into the result.
 */
export function redactResult(bytes: Buffer, pointers: readonly Pointer[], place: ResultPlace = 'result'): Buffer {
  if (pointers.length === 0) return bytes;
  const places = Places.of(pointers);
  const edits = rangesAt(bytes, skipSpace(bytes, 0), PATHS[place]).flatMap((result) => {
    const own: Edit[] = [];
    collect(bytes, result.start, places, 0, own);
    return withMirrors(bytes, result, places.into('structuredContent'), own);
  });
  return edits.length === 0 ? bytes : applyEdits(bytes, edits);
}

/** All that stand there: a server may repeat a key, and who reads it may take the first. */
function rangesAt(bytes: Buffer, start: number, [key, ...rest]: Pointer): readonly ByteRange[] {
  const found: ByteRange[] = [];
  if (bytes[start] !== OPEN_BRACE) return found;
  eachMember(bytes, start, (name, value) => {
    if (name !== key) return;
    if (rest.length === 0) found.push(value);
    else found.push(...rangesAt(bytes, value.start, rest));
  });
  return found;
}

/** @returns just behind the value. */
function collect(bytes: Buffer, start: number, places: Places, depth: number, edits: Edit[]): number {
  const opening = bytes[start];
  const isContainer = opening === OPEN_BRACE || opening === OPEN_BRACKET;
  if (places.isEmpty) return skipValue(bytes, start);
  if (places.isHere || (isContainer && depth === REDACTION_DEPTH_MAX)) {
    const end = skipValue(bytes, start);
    edits.push({ start, end, text: REDACTED_JSON });
    return end;
  }
  if (opening === OPEN_BRACE)
    return walkMembers(bytes, start, (key, at) => collect(bytes, at, places.into(key), depth + 1, edits));
  if (opening === OPEN_BRACKET)
    return walkElements(bytes, start, (index, at) => collect(bytes, at, places.intoElement(index), depth + 1, edits));
  return skipValue(bytes, start);
}

/** With what is taken out of the texts of `content`, in order. Text that is taken out itself is not looked into. */
function withMirrors(bytes: Buffer, result: ByteRange, mirrored: Places, edits: readonly Edit[]): readonly Edit[] {
  if (mirrored.isEmpty) return edits;
  const all: Edit[] = [];
  let next = 0;
  for (const range of textsOf(bytes, result)) {
    while (next < edits.length && edits[next]!.start <= range.start) all.push(edits[next++]!);
    if ((all.at(-1)?.end ?? 0) > range.start) continue;
    const before: string = JSON.parse(bytes.toString('utf8', range.start, range.end));
    const after = redactText(before, mirrored);
    if (after !== before) all.push({ ...range, text: JSON.stringify(after) });
  }
  return [...all, ...edits.slice(next)];
}

/** Text that begins like an object and cannot be read goes as a whole: nobody knows what is in it. */
function redactText(text: string, places: Places): string {
  const whole = redactJson(text, places);
  if (whole.ok) return whole.value;
  const lines = text.split('\n').map((line) => ({ line, redacted: redactJson(line, places) }));
  if (/^\s*\{/.test(text) && lines.some(({ line, redacted }) => line.trim() !== '' && !redacted.ok)) return REDACTED;
  return lines.map(({ line, redacted }) => (redacted.ok ? redacted.value : line)).join('\n');
}

const BYTE_ORDER_MARK = '\ufeff';

function redactJson(given: string, places: Places): Result<string, 'no JSON'> {
  const text = given.startsWith(BYTE_ORDER_MARK) ? given.slice(1) : given;
  if (!(places.isHere ? /^\s*\S/ : /^\s*[{[]/).test(text)) return err('no JSON');
  try {
    JSON.parse(text);
  } catch {
    return err('no JSON');
  }
  const bytes = Buffer.from(text);
  const edits: Edit[] = [];
  collect(bytes, skipSpace(bytes, 0), places, 0, edits);
  return ok(edits.length === 0 ? given : applyEdits(bytes, edits).toString());
}

/** Where the texts of the content items stand, in order, quotes included. */
function textsOf(bytes: Buffer, result: ByteRange): ByteRange[] {
  const texts: ByteRange[] = [];
  const noteText = (field: string, value: ByteRange) => {
    if (field === 'text' && bytes[value.start] === QUOTE) texts.push(value);
    if (field === 'resource' && bytes[value.start] === OPEN_BRACE)
      eachMember(bytes, value.start, (inner, text) => {
        if (inner === 'text' && bytes[text.start] === QUOTE) texts.push(text);
      });
  };
  if (bytes[result.start] !== OPEN_BRACE) return texts;
  eachMember(bytes, result.start, (key, content) => {
    if (key !== 'content' || bytes[content.start] !== OPEN_BRACKET) return;
    for (const item of elementsOf(bytes, content.start))
      if (bytes[item.start] === OPEN_BRACE) eachMember(bytes, item.start, noteText);
  });
  return texts;
}
