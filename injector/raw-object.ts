/**
 * Kubernetes objects as they came: plain JSON, of which only what is looked at is known. PURE.
 *
 * Nothing is read into types and written again: a field that this program has never heard of stays where it is.
 */
export type Raw = { readonly [key: string]: unknown };

export function isRaw(value: unknown): value is Raw {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The object behind a path of keys; an empty one where there is none. */
export function rawAt(value: unknown, ...path: readonly string[]): Raw {
  let at = value;
  for (const key of path) at = isRaw(at) && Object.hasOwn(at, key) ? at[key] : undefined;
  return isRaw(at) ? at : {};
}

/** The objects in a list; none where there is no list. Their indexes are those of the list only when {@link isRawList} says so. */
export function rawList(value: unknown): readonly Raw[] {
  return Array.isArray(value) ? value.filter(isRaw) : [];
}

/** A list of objects only, or nothing at all. */
export function isRawList(value: unknown): boolean {
  return value === undefined || value === null || (Array.isArray(value) && value.every(isRaw));
}

export function textAt(value: Raw, key: string): string | undefined {
  const text = Object.hasOwn(value, key) ? value[key] : undefined;
  return typeof text === 'string' ? text : undefined;
}

/** A text or number as text, for a sentence or a comparison. Anything else is nobody's name: lists of lists end in no text. */
export function plainText(value: unknown): string {
  return typeof value === 'string' || typeof value === 'number' ? String(value) : '';
}

/** Whether two JSON values are the same; the order of keys does not matter. */
export function isSameJson(one: unknown, other: unknown): boolean {
  if (one === other) return true;
  if (Array.isArray(one))
    return (
      Array.isArray(other) && one.length === other.length && one.every((item, index) => isSameJson(item, other[index]))
    );
  if (!isRaw(one) || !isRaw(other)) return false;
  const keys = Object.keys(one);
  return (
    keys.length === Object.keys(other).length &&
    keys.every((key) => Object.hasOwn(other, key) && isSameJson(one[key], other[key]))
  );
}
