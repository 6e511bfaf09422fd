/**
 * Keys that another parser could take for one of the protocol's.
 *
 * Go matches keys without regard to case, and by Unicode's simple folding `param\u017f` is `params` to it
 * (CVE-2026-27896); others trim white space, drop what cannot be seen, or stop at a NUL. What we judged would then not
 * be what the server acts on, so such a key is refused where keys have a meaning to the protocol or to policy.
 */
import { err, ok, type Result } from '../../policies/result.ts';
import type { JsonObject, MalformedReason } from './message.ts';

/** The protocol's keys of one kind of object. */
export interface KnownKeys {
  readonly exact: ReadonlySet<string>;
  readonly folded: ReadonlyMap<string, string>;
}

export function knownKeys(...keys: readonly string[]): KnownKeys {
  return { exact: new Set(keys), folded: new Map(keys.map((key) => [fold(key), key])) };
}

/** Names by which JavaScript reaches an object's prototype: never a key of the protocol's. */
const PROTOTYPE_KEYS = new Set(['__proto__', 'constructor', 'prototype']);

/** Refuses keys of an object that look like a known one and are not. Other unknown keys pass. */
export function refuseLookalikes(object: JsonObject, known: KnownKeys): Result<void, MalformedReason> {
  for (const key in object) {
    if (known.exact.has(key)) continue;
    if (PROTOTYPE_KEYS.has(key)) {
      return err({ kind: 'notJsonRpc', detail: `the key ${JSON.stringify(key)} is not allowed here`, id: undefined });
    }
    const looksLike = known.folded.get(fold(key));
    if (looksLike !== undefined) return err(lookalike(key, looksLike));
  }
  return PASSED;
}

/** Refuses two keys of one object that look alike: a tool's arguments, whose names we do not know. */
export function refuseTwins(object: JsonObject): Result<void, MalformedReason> {
  let seen: Map<string, string> | undefined;
  for (const key in object) {
    // Keys that fold to themselves differ from each other, so only the others need to be compared.
    if (isFolded(key)) continue;
    const folded = fold(key);
    const twin = folded !== key && Object.hasOwn(object, folded) ? folded : seen?.get(folded);
    if (twin !== undefined) return err(lookalike(key, twin));
    seen ??= new Map();
    seen.set(folded, key);
  }
  return PASSED;
}

const PASSED = ok(undefined);

/** Characters of a key in a reply and in the audit. */
const SHOWN_MAX = 64;

function lookalike(key: string, looksLike: string): MalformedReason {
  return { kind: 'lookalikeKey', key: key.slice(0, SHOWN_MAX), looksLike: looksLike.slice(0, SHOWN_MAX) };
}

/** Whether `fold` would leave it as it is: the usual case, decided without a copy. */
function isFolded(key: string): boolean {
  for (let index = 0; index < key.length; index++) {
    const code = key.charCodeAt(index);
    if (code <= 0x20 || code >= 0x7f || (code >= 0x41 && code <= 0x5a)) return false;
  }
  return true;
}

function isVisibleAscii(key: string): boolean {
  for (let index = 0; index < key.length; index++) {
    const code = key.charCodeAt(index);
    if (code <= 0x20 || code >= 0x7f) return false;
  }
  return true;
}

/** What the most lenient of parsers would compare. Two keys with the same fold look alike. */
export function fold(key: string): string {
  if (isVisibleAscii(key)) return key.toLowerCase();
  const [untilNul] = key.split('\0', 1) as [string];
  return (
    untilNul
      .toWellFormed()
      .normalize('NFKC')
      .replace(INVISIBLE, '')
      // Upper case first: dotless ı has no lower case other than itself, but shares its upper case with i.
      .toUpperCase()
      .toLowerCase()
      .normalize('NFKC')
      .replaceAll('i\u0307', 'i')
  );
}

/** White space, controls, format characters, and whatever else is drawn as nothing. */
const INVISIBLE = /[\p{C}\p{Z}\s\p{Default_Ignorable_Code_Point}]+/gu;
