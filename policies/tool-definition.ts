/**
 * What is pinned of a tool, and the one way to write it: two definitions mean the same exactly when their canonical
 * texts are equal. Pure; the fingerprint is the SHA-256 of that text, made where there is I/O.
 *
 * The canonical form is that of RFC 8785: members by the UTF-16 units of their names, no white space, numbers as
 * ECMAScript writes them. As there, numbers are doubles: what differs beyond 2^53 is the same.
 */
import { hiddenIn, showHidden } from './hidden-characters.ts';
import { err, ok, type Result } from './result.ts';

/** All that a model or its client judges a tool by. Icons, `execution` and `_meta` are not. */
export const PINNED_PARTS = ['name', 'title', 'description', 'inputSchema', 'outputSchema', 'annotations'] as const;

/** The pinned parts that a tool has, as its server wrote them. */
export type ToolDefinition = { readonly name: string } & Readonly<
  Partial<Record<(typeof PINNED_PARTS)[number], unknown>>
>;

export interface Defined {
  readonly definition: ToolDefinition;
  readonly canonical: string;
}

/** Nobody has bounded how deep a server nests, and all that walks a definition recurses. */
const DEPTH_MAX = 64;
/** Of the canonical text, in UTF-16 units. */
const LENGTH_MAX = 256 * 1024;
/** Places with hidden characters that are told of one tool, and characters of one place. */
const PLACES_MAX = 10;
const CHARACTERS_MAX = 8;

/** @param item One item of a `tools/list` result, as `JSON.parse` gives it. The error completes «the tool …». */
export function definitionOf(item: unknown): Result<Defined, string> {
  if (typeof (item as { name?: unknown } | null)?.name !== 'string') return err('has no name');
  const parts = PINNED_PARTS.filter((part) => Object.hasOwn(item as object, part));
  const entries = parts.map((part) => [part, (item as Record<string, unknown>)[part]]);
  const definition = Object.fromEntries(entries) as ToolDefinition;
  if (isDeeperThan(definition, DEPTH_MAX)) return err(`is nested deeper than ${DEPTH_MAX} levels`);
  const canonical = canonicalJson(definition);
  return canonical.length > LENGTH_MAX ? err(`is longer than ${LENGTH_MAX} characters`) : ok({ definition, canonical });
}

/** @param value As `JSON.parse` gives it, of bounded depth. */
export function canonicalJson(value: unknown): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  const members = Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1));
  return `{${members.map(([key, inner]) => `${JSON.stringify(key)}:${canonicalJson(inner)}`).join(',')}}`;
}

/** Where a definition has hidden characters, in words: names of members count as well. Empty when it has none. */
export function hiddenCharactersOf(definition: ToolDefinition): string[] {
  const places: string[] = [];
  const look = (text: string, place: string) => {
    const found = hiddenIn(text);
    if (found.length === 0) return;
    const shown = found.slice(0, CHARACTERS_MAX).join(' ');
    places.push(
      `${place} has ${found.length > CHARACTERS_MAX ? `${found.length} hidden characters: ${shown} …` : shown}`,
    );
  };
  const walk = (value: unknown, place: string) => {
    if (places.length >= PLACES_MAX) return;
    if (typeof value === 'string') look(value, place);
    else if (typeof value === 'object' && value !== null)
      for (const [key, inner] of Object.entries(value)) {
        const inside = place === '' ? key : `${place}.${showHidden(key.slice(0, 60))}`;
        if (!Array.isArray(value)) look(key, `the name of ${inside}`);
        walk(inner, inside);
      }
  };
  walk(definition, '');
  return places.slice(0, PLACES_MAX);
}

/** Without recursion: what is being measured is how much of that there may be. */
function isDeeperThan(value: object, depthMax: number): boolean {
  let level: object[] = [value];
  for (let depth = 1; level.length > 0; depth++) {
    if (depth > depthMax) return true;
    level = level.flatMap((one) => Object.values(one).filter((inner) => typeof inner === 'object' && inner !== null));
  }
  return false;
}
