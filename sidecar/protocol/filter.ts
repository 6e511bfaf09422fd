/**
 * Takes items out of the lists of a JSON-RPC answer: `tools`, `prompts`, `resources`, `resourceTemplates`.
 *
 * Works on the bytes, so that order, `nextCursor`, numbers beyond 2^53 and every member that is not ours stay as the
 * server wrote them. Where the server repeats a key, every occurrence is filtered: no reading shows what was to be hidden.
 */
import { applyEdits, type Edit, eachMember, elementsOf, OPEN_BRACE, OPEN_BRACKET, skipSpace } from './json-bytes.ts';
import type { ByteRange } from './message.ts';

export type ListKind = 'tools' | 'prompts' | 'resources' | 'resourceTemplates';

const LIST_KINDS: readonly ListKind[] = ['tools', 'prompts', 'resources', 'resourceTemplates'];

/** Whether an item stays. `text` is the item as its server wrote it. */
export type Keep = (kind: ListKind, item: unknown, text: string) => boolean;

/**
 * The answer without the items that `keep` turns down; `bytes` itself when there was nothing to change. A list that is
 * filtered for one agent is no longer for everybody: its `cacheScope: "public"` becomes `"private"` (2026-07-28, caching).
 *
 * @param bytes One JSON-RPC message that `JSON.parse` accepts.
 */
export function filterLists(bytes: Buffer, keep: Keep): Buffer {
  const edits: Edit[] = [];
  const root = skipSpace(bytes, 0);
  if (bytes[root] !== OPEN_BRACE) return bytes;
  eachMember(bytes, root, (key, result) => {
    if (key !== 'result' || bytes[result.start] !== OPEN_BRACE) return;
    let hasList = false;
    const scopes: Edit[] = [];
    eachMember(bytes, result.start, (name, value) => {
      if (bytes[value.start] === OPEN_BRACKET && (LIST_KINDS as readonly string[]).includes(name)) {
        hasList = true;
        const elements = elementsOf(bytes, value.start);
        const isKept = elements.map(({ start, end }) => {
          const text = bytes.toString('utf8', start, end);
          return keep(name as ListKind, JSON.parse(text), text);
        });
        edits.push(...removals(elements, isKept));
      } else if (name === 'cacheScope' && JSON.parse(bytes.toString('utf8', value.start, value.end)) === 'public') {
        scopes.push({ ...value, text: '"private"' });
      }
    });
    if (hasList) edits.push(...scopes);
  });
  if (edits.length === 0) return bytes;
  return applyEdits(
    bytes,
    edits.sort((one, other) => one.start - other.start),
  );
}

/** An element goes with the comma behind it; those at the end with the comma before them. */
function removals(elements: readonly ByteRange[], isKept: readonly boolean[]): Edit[] {
  const lastKept = isKept.lastIndexOf(true);
  const edits: Edit[] = [];
  for (let index = 0; index < lastKept; index++) {
    if (!isKept[index]) edits.push({ start: elements[index]!.start, end: elements[index + 1]!.start, text: '' });
  }
  if (lastKept < elements.length - 1) {
    const start = lastKept === -1 ? elements[0]!.start : elements[lastKept]!.end;
    edits.push({ start, end: elements.at(-1)!.end, text: '' });
  }
  return edits;
}
