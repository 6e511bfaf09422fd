/**
 * Arguments as the audit may show them, and what of a result an agent may not. Pure: what is forwarded is never touched
 * here; what changes is copied along the path only.
 *
 * Paths are JSON Pointers (RFC 6901) with two additions: a segment `*` matches every index of an array and every key of
 * an object, and `**` any number of them, none included. The pointer "" is the whole. A path that leads nowhere redacts
 * nothing.
 */
import type { CompiledPolicy, Pointer, Redaction } from './policy.ts';
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
  if (args === undefined) return { value: args, redacted: false };
  const pointers = policy.redactions.filter((one) => concerns(one, server, tool)).flatMap((one) => one.pointers);
  const value = redactAt(args, Places.of(pointers), 0);
  return { value, redacted: value !== args };
}

/**
 * Where the result of a tool call is to be redacted.
 *
 * @param tool `undefined`: of a call that is not known, as on a stream that is taken up again. Then all of them count.
 */
export function resultPointersFor(
  policy: CompiledPolicy,
  server: string,
  tool: string | undefined,
): readonly Pointer[] {
  if (policy.redactions.length === 0) return [];
  return policy.redactions.filter((one) => concerns(one, server, tool)).flatMap(({ result }) => result);
}

function concerns(redaction: Redaction, server: string, tool: string | undefined): boolean {
  if (!redaction.server(server)) return false;
  return tool === undefined || (redaction.tools?.some((matches) => matches(tool)) ?? true);
}

/**
 * What is left of pointers some steps further down. Steps are remembered, and each way on is kept once: rows of a table
 * take the same steps, and several `**` in a pointer would else be ways without end.
 */
export class Places {
  /** One of the pointers ends here. */
  readonly isHere: boolean;
  /** None leads on from here, or ends here. */
  readonly isEmpty: boolean;
  readonly #pointers: readonly Pointer[];
  readonly #named: ReadonlySet<string>;
  readonly #namesIndex: boolean;
  readonly #steps = new Map<string, Places>();
  /** Where every key leads that no pointer names. */
  #other: Places | undefined;

  private constructor(pointers: readonly Pointer[]) {
    this.#pointers = pointers;
    this.#named = new Set(pointers.map(([segment]) => segment).filter((one) => one !== undefined));
    this.#namesIndex = [...this.#named].some((name) => /^\d+$/.test(name));
    this.isHere = pointers.some((pointer) => pointer.length === 0);
    this.isEmpty = pointers.length === 0;
  }

  static of(pointers: readonly Pointer[]): Places {
    return new Places(distinct(pointers.flatMap((pointer) => [...waysOn(pointer)])));
  }

  into(key: string): Places {
    if (!this.#named.has(key)) return this.#intoOther();
    let step = this.#steps.get(key);
    if (step === undefined) {
      step = Places.of(this.#after(key));
      this.#steps.set(key, step);
    }
    return step;
  }

  intoElement(index: number): Places {
    return this.#namesIndex ? this.into(String(index)) : this.#intoOther();
  }

  #intoOther(): Places {
    if (this.isEmpty) return this;
    this.#other ??= Places.of(this.#after(undefined));
    return this.#other;
  }

  #after(key: string | undefined): Pointer[] {
    return this.#pointers.flatMap((pointer) => {
      const [segment] = pointer;
      if (segment === '**') return [pointer];
      return segment === '*' || (segment !== undefined && segment === key) ? [pointer.slice(1)] : [];
    });
  }
}

/** The pointer, and what it is when each `**` that it begins with stands for nothing. */
function* waysOn(pointer: Pointer): Generator<Pointer> {
  yield pointer;
  for (let skipped = 1; pointer[skipped - 1] === '**'; skipped++) yield pointer.slice(skipped);
}

function distinct(pointers: readonly Pointer[]): readonly Pointer[] {
  return [...new Map(pointers.map((pointer) => [JSON.stringify(pointer), pointer])).values()];
}

/** Deeper values are redacted as a whole: nobody writes them, and a walk must end. */
export const REDACTION_DEPTH_MAX = 64;

function redactAt(value: unknown, places: Places, depth: number): unknown {
  if (places.isEmpty) return value;
  if (places.isHere) return REDACTED;
  if (typeof value !== 'object' || value === null) return value;
  if (depth === REDACTION_DEPTH_MAX) return REDACTED;
  const changed = new Map<string, unknown>();
  for (const key of Object.keys(value)) {
    const before = (value as Readonly<Record<string, unknown>>)[key];
    const after = redactAt(before, places.into(key), depth + 1);
    if (after !== before) changed.set(key, after);
  }
  if (changed.size === 0) return value;
  if (Array.isArray(value)) return value.map((item, index) => changed.get(String(index)) ?? item);
  // fromEntries defines properties: assigning to a key `__proto__` would set the prototype instead.
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, changed.get(key) ?? item]));
}
