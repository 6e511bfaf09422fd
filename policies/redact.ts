/**
 * Arguments as the audit may show them. Pure: the arguments that are forwarded are never touched; what changes is
 * copied along the path only.
 *
 * Paths are JSON Pointers (RFC 6901) with one addition: a segment `*` matches every index of an array and every key of
 * an object. The pointer "" is the arguments as a whole. A path that leads nowhere redacts nothing.
 */
import type { CompiledPolicy, Pointer } from './policy.ts';
import { err, ok, type Result } from './result.ts';

export const REDACTED = '[redacted]';

export function parsePointer(text: string): Result<Pointer, string> {
  if (text === '') return ok([]);
  if (!text.startsWith('/')) return err('a JSON Pointer starts with /, for example /customer/email');
  if (/~(?![01])/.test(text)) return err('in a JSON Pointer ~ is written ~0 and / inside a name ~1');
  return ok(
    text
      .slice(1)
      .split('/')
      .map((segment) => segment.replaceAll('~1', '/').replaceAll('~0', '~')),
  );
}

/**
 * @param tool The tool's name, or the prompt's for a `prompts/get`.
 * @returns the same `args` when nothing was to be redacted.
 */
export function redactArguments(
  policy: CompiledPolicy,
  server: string,
  tool: string,
  args: unknown,
): { readonly value: unknown; readonly redacted: boolean } {
  let value = args;
  if (args !== undefined)
    for (const redaction of policy.redactions)
      if (redaction.server(server) && (redaction.tools?.some((matches) => matches(tool)) ?? true))
        for (const pointer of redaction.pointers) value = redactAt(value, pointer, 0);
  return { value, redacted: value !== args };
}

function redactAt(value: unknown, pointer: Pointer, depth: number): unknown {
  const segment = pointer[depth];
  if (segment === undefined) return REDACTED;
  if (typeof value !== 'object' || value === null) return value;
  const keys = segment === '*' ? Object.keys(value) : isOwnMember(value, segment) ? [segment] : [];
  const changed = new Map<string, unknown>();
  for (const key of keys) {
    const before = (value as Readonly<Record<string, unknown>>)[key];
    const after = redactAt(before, pointer, depth + 1);
    if (after !== before) changed.set(key, after);
  }
  if (changed.size === 0) return value;
  if (Array.isArray(value)) return value.map((item, index) => changed.get(String(index)) ?? item);
  // fromEntries defines properties: assigning to a key `__proto__` would set the prototype instead.
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, changed.get(key) ?? item]));
}

/** Not an array's `length`, and nothing inherited. */
function isOwnMember(value: object, key: string): boolean {
  return Object.prototype.propertyIsEnumerable.call(value, key);
}
