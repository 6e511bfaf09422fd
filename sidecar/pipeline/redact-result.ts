/**
 * Takes values out of the result of a tool call, by the bytes: everything else stays as its server wrote it. Pure.
 *
 * A server that gives `structuredContent` gives it once more as JSON text in `content` (2025-06-18, tools, structured
 * content): there the same values are taken out. Text that is no JSON is not searched.
 */
import type { Pointer } from '../../policies/policy.ts';
import { endsHere, REDACTED, REDACTION_DEPTH_MAX, redactValue, stepInto } from '../../policies/redact.ts';
import {
  applyEdits,
  type Edit,
  eachMember,
  elementsOf,
  OPEN_BRACE,
  OPEN_BRACKET,
  QUOTE,
  skipSpace,
} from '../protocol/json-bytes.ts';
import type { ByteRange } from '../protocol/message.ts';

const REDACTED_JSON = JSON.stringify(REDACTED);
const STRUCTURED = 'structuredContent';

/**
 * @param bytes One JSON-RPC message that `JSON.parse` accepts.
 * @param pointers Into its `result`.
 */
export function redactResult(bytes: Buffer, pointers: readonly Pointer[]): Buffer {
  if (pointers.length === 0) return bytes;
  const root = skipSpace(bytes, 0);
  if (bytes[root] !== OPEN_BRACE) return bytes;
  const edits: Edit[] = [];
  eachMember(bytes, root, (key, value) => {
    if (key === 'result') collect(bytes, value, pointers, 0, edits);
  });
  const mirrored = mirrorEdits(bytes, root, pointers, edits);
  const all = [...edits, ...mirrored].sort((one, other) => one.start - other.start);
  return all.length === 0 ? bytes : applyEdits(bytes, all);
}

function collect(bytes: Buffer, range: ByteRange, pointers: readonly Pointer[], depth: number, edits: Edit[]): void {
  if (pointers.length === 0) return;
  const opening = bytes[range.start];
  const isContainer = opening === OPEN_BRACE || opening === OPEN_BRACKET;
  if (endsHere(pointers) || (isContainer && depth === REDACTION_DEPTH_MAX)) {
    edits.push({ ...range, text: REDACTED_JSON });
    return;
  }
  if (opening === OPEN_BRACE)
    eachMember(bytes, range.start, (key, value) => collect(bytes, value, stepInto(pointers, key), depth + 1, edits));
  else if (opening === OPEN_BRACKET)
    for (const [index, element] of elementsOf(bytes, range.start).entries())
      collect(bytes, element, stepInto(pointers, String(index)), depth + 1, edits);
}

/** The texts of `result.content` that are JSON, with what the pointers say of the structured content taken out. */
function mirrorEdits(bytes: Buffer, root: number, pointers: readonly Pointer[], done: readonly Edit[]): Edit[] {
  const mirrored = [...stepInto(pointers, STRUCTURED), ...pointers.filter(([first]) => first === '**')];
  if (mirrored.length === 0) return [];
  const edits: Edit[] = [];
  for (const range of textsOf(bytes, root)) {
    if (done.some(({ start, end }) => start <= range.start && range.end <= end)) continue;
    const text = JSON.parse(bytes.toString('utf8', range.start, range.end)) as string;
    const after = redactText(text, mirrored);
    if (after !== text) edits.push({ ...range, text: JSON.stringify(after) });
  }
  return edits;
}

function redactText(text: string, pointers: readonly Pointer[]): string {
  if (!/^\s*[{[]/.test(text)) return text;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return text;
  }
  const after = redactValue(value, pointers);
  return after === value ? text : JSON.stringify(after);
}

/** Where the texts of the content items stand, quotes included. */
function textsOf(bytes: Buffer, root: number): ByteRange[] {
  const texts: ByteRange[] = [];
  eachMember(bytes, root, (name, result) => {
    if (name !== 'result' || bytes[result.start] !== OPEN_BRACE) return;
    eachMember(bytes, result.start, (key, content) => {
      if (key !== 'content' || bytes[content.start] !== OPEN_BRACKET) return;
      for (const item of elementsOf(bytes, content.start))
        if (bytes[item.start] === OPEN_BRACE)
          eachMember(bytes, item.start, (field, value) => {
            if (field === 'text' && bytes[value.start] === QUOTE) texts.push(value);
          });
    });
  });
  return texts;
}
