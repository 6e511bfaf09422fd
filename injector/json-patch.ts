/**
 * JSON Patch (RFC 6902), as much of it as an injection needs: it only ever adds. PURE.
 *
 * An operation is only made for a place that is known to be there: the API server refuses the pod when a patch does not
 * apply, whatever the webhook's failure policy says.
 */
import { isRaw, type Raw } from './raw-object.ts';

export interface AddOperation {
  readonly op: 'add';
  /** JSON Pointer (RFC 6901). */
  readonly path: string;
  readonly value: unknown;
}

/** A pointer from its keys and indexes. */
export function pointer(...segments: readonly (string | number)[]): string {
  return segments.map((segment) => `/${String(segment).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('');
}

export function segmentsOf(path: string): readonly string[] {
  return path
    .split('/')
    .slice(1)
    .map((segment) => segment.replaceAll('~1', '/').replaceAll('~0', '~'));
}

/** `document` with the operations carried out, one after the other. Throws where the API server would refuse. */
export function applyPatch<T>(document: T, operations: readonly AddOperation[]): T {
  let result: unknown = document;
  for (const { path, value } of operations) result = addAt(result, segmentsOf(path), value, path);
  return result as T;
}

function addAt(target: unknown, [key, ...rest]: readonly string[], value: unknown, path: string): unknown {
  if (key === undefined) return value;
  if (Array.isArray(target)) {
    const index = key === '-' && rest.length === 0 ? target.length : Number(key);
    const last = rest.length === 0 ? target.length : target.length - 1;
    if (!/^(?:-|0|[1-9]\d*)$/.test(key) || !(index <= last)) throw new Error(`${path} leads nowhere`);
    return rest.length === 0
      ? target.toSpliced(index, 0, value)
      : target.with(index, addAt(target[index], rest, value, path));
  }
  if (!isRaw(target) || (rest.length > 0 && !Object.hasOwn(target, key))) throw new Error(`${path} leads nowhere`);
  return withMember(target, key, rest.length === 0 ? value : addAt(target[key], rest, value, path));
}

/** A copy with one member set: also one called `__proto__`, which an assignment would take for something else. */
function withMember(target: Raw, key: string, value: unknown): Raw {
  const members = Object.entries(target).filter(([name]) => name !== key);
  const at = Object.keys(target).indexOf(key);
  return Object.fromEntries(members.toSpliced(at === -1 ? members.length : at, 0, [key, value]));
}
