/**
 * Keys that another parser could take for one of the protocol's.
 *
 * Go matches keys without regard to case, and by Unicode's simple folding `param\u017f` is `params` to it
 * (CVE-2026-27896); others trim white space, drop what cannot be seen, or stop at a NUL. What we judged would then not
 * be what the server acts on, so such a key is refused where keys have a meaning to the protocol or to policy.
 */
import type { JsonObject, MalformedReason } from './message.ts';

/** The protocol's keys of one kind of object. */
export interface KnownKeys {
  readonly exact: ReadonlySet<string>;
  readonly folded: ReadonlyMap<string, string>;
}

export function knownKeys(...keys: readonly string[]): KnownKeys {
  return { exact: new Set(keys), folded: new Map(keys.map((key) => [fold(key), key])) };
}

/**
 * Characters of different keys outside ASCII that are folded for one body, in UTF-16 units. Folding is linear, but
 * takes up to a microsecond for each: together at most some 30 ms.
 */
const FOLDED_MAX = 32_768;

/** The folds of one body's keys. Rows of a table share their keys, hence what was folded is remembered. */
export class KeyFolds {
  /** Made when it is needed: most bodies have none. */
  #known: Map<string, string> | undefined;
  #left = FOLDED_MAX;

  /** `undefined` when the body has more of such keys than are looked at. */
  of(key: string): string | undefined {
    if (isVisibleAscii(key)) return key.toLowerCase();
    const known = this.#known?.get(key);
    if (known !== undefined) return known;
    this.#left -= key.length;
    if (this.#left < 0) return undefined;
    const folded = fold(key);
    this.#known ??= new Map();
    this.#known.set(key, folded);
    return folded;
  }
}

const TOO_MANY_FOLDS: MalformedReason = {
  kind: 'notJsonRpc',
  detail: `more than ${FOLDED_MAX} characters of keys outside ASCII`,
  id: undefined,
};

/** Names by which JavaScript reaches an object's prototype: never a key of the protocol's. */
const PROTOTYPE_KEYS = new Set(['__proto__', 'constructor', 'prototype']);

/** Refuses keys of an object that look like a known one and are not. Other unknown keys pass. */
export function refuseLookalikes(object: JsonObject, known: KnownKeys, folds: KeyFolds): MalformedReason | undefined {
  for (const key in object) {
    if (known.exact.has(key)) continue;
    if (PROTOTYPE_KEYS.has(key)) {
      return { kind: 'notJsonRpc', detail: `the key ${JSON.stringify(key)} is not allowed here`, id: undefined };
    }
    const folded = folds.of(key);
    if (folded === undefined) return TOO_MANY_FOLDS;
    const looksLike = known.folded.get(folded);
    if (looksLike !== undefined) return lookalike(key, looksLike);
  }
  return undefined;
}

/**
 * Refuses two keys of one object that look alike, in `value` and in all that it holds: a tool's arguments, whose names
 * we do not know. Recurses as deep as `scan` has allowed.
 */
export function refuseTwins(value: object, folds: KeyFolds): MalformedReason | undefined {
  if (Array.isArray(value)) {
    for (const element of value) {
      const reason = typeof element === 'object' && element !== null ? refuseTwins(element, folds) : undefined;
      if (reason !== undefined) return reason;
    }
    return undefined;
  }
  const object = value as JsonObject;
  let seen: Map<string, string> | undefined;
  for (const key in object) {
    const member = object[key];
    const reason = typeof member === 'object' && member !== null ? refuseTwins(member, folds) : undefined;
    if (reason !== undefined) return reason;
    // Keys that fold to themselves differ from each other, so only the others need to be compared.
    if (isFolded(key)) continue;
    const folded = folds.of(key);
    if (folded === undefined) return TOO_MANY_FOLDS;
    const twin = folded !== key && Object.hasOwn(object, folded) ? folded : seen?.get(folded);
    if (twin !== undefined) return lookalike(key, twin);
    seen ??= new Map();
    seen.set(folded, key);
  }
  return undefined;
}

/**
 * A key on the way to `path` that looks like the one that is meant, where that is not there: what a more lenient parser
 * would find in its place.
 *
 * @param value Without twins.
 */
export function findLookalike(value: unknown, path: readonly string[], folds: KeyFolds): string | undefined {
  let at = value;
  for (const segment of path) {
    if (typeof at !== 'object' || at === null) return undefined;
    if (Object.hasOwn(at, segment)) {
      at = (at as JsonObject)[segment];
      continue;
    }
    if (Array.isArray(at)) return undefined;
    const wanted = fold(segment);
    // More such keys than are looked at may hide one.
    const found = Object.keys(at).find((key) => (folds.of(key) ?? wanted) === wanted);
    return found?.slice(0, SHOWN_MAX);
  }
  return undefined;
}

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

/**
 * Longest text that is normalised, in UTF-16 units of what can be seen: normalising takes time quadratic in a run of
 * combining marks. Three times what any known key could be written in, so a longer key is none of them in disguise.
 */
const NORMALISED_MAX = 128;

/** What the most lenient of parsers would compare. Two keys with the same fold look alike. Time is linear in the key. */
export function fold(key: string): string {
  if (isVisibleAscii(key)) return key.toLowerCase();
  const [untilNul] = key.split('\0', 1) as [string];
  const visible = untilNul.toWellFormed().replace(INVISIBLE, '');
  if (visible.length > NORMALISED_MAX) return visible.toLowerCase();
  return (
    visible
      .normalize('NFKC')
      // Normalising writes some marks with a space before them.
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
