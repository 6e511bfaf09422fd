/**
 * What a policy does to the arguments of a call before it is judged: members taken away, constants put in their place,
 * and whether the tool's own schema is enforced. Pure; the same by the bytes is sidecar/protocol/edit-json.ts.
 *
 * What is judged, recorded and sent is the same: the arguments as they are after this. A place that cannot be had
 * refuses the call: a constant that is not put there, or a member that stays, is never passed over.
 */
import type { ArgumentRule, CompiledPolicy, Pointer } from './policy.ts';
import { err, ok, type Result } from './result.ts';

export interface Constant {
  readonly pointer: Pointer;
  readonly value: unknown;
}

export interface ArgumentPlan {
  readonly removes: readonly { readonly pointer: Pointer; readonly rule: string }[];
  readonly sets: readonly (Constant & { readonly rule: string })[];
  /** The entry that wants the tool's schema enforced. */
  readonly validatedBy: string | undefined;
}

/** Why a plan cannot be carried out; `rule` is told, `detail` is for the audit. */
export interface ArgumentProblem {
  readonly rule: string;
  readonly detail: string;
}

/** None in audit mode, in which nothing is done to a call. */
export function argumentRulesFor(policy: CompiledPolicy, server: string, tool: string): readonly ArgumentRule[] {
  if (policy.argumentRules.length === 0 || policy.audit) return [];
  return policy.argumentRules.filter((entry) => entry.server(server) && entry.tools.some((matches) => matches(tool)));
}

/**
 * All entries that concern the tool, taken together: their order never matters. All removals come before all constants.
 *
 * @returns `undefined` when none does; an error when two put different constants at one place, or one inside another's.
 */
export function argumentPlanFor(
  policy: CompiledPolicy,
  server: string,
  tool: string,
): Result<ArgumentPlan | undefined, ArgumentProblem> {
  const entries = argumentRulesFor(policy, server, tool);
  if (entries.length === 0) return ok(undefined);
  const sets: (Constant & { readonly rule: string })[] = [];
  for (const { name: rule, set } of entries)
    for (const { pointer, value } of set) {
      const other = sets.find((one) => overlaps(one.pointer, pointer));
      if (other === undefined) sets.push({ pointer, value, rule });
      else if (areConflicting(other, { pointer, value }))
        return err({ rule, detail: `${rule} and ${other.rule} put different constants at ${show(pointer)}` });
    }
  return ok({
    removes: entries.flatMap(({ name: rule, remove }) => remove.map((pointer) => ({ pointer, rule }))),
    sets,
    validatedBy: entries.find(({ validate }) => validate)?.name,
  });
}

/** Two that cannot both be had: at one place, or one inside the other's. */
export function areConflicting(one: Constant, other: Constant): boolean {
  const isSame =
    one.pointer.length === other.pointer.length && JSON.stringify(one.value) === JSON.stringify(other.value);
  return overlaps(one.pointer, other.pointer) && !isSame;
}

/** One leads to the other's place, or through it. */
function overlaps(one: Pointer, other: Pointer): boolean {
  const length = Math.min(one.length, other.length);
  return one.slice(0, length).every((segment, index) => segment === other[index]);
}

/**
 * The arguments as the plan makes them; what is given is not touched.
 *
 * Removals first. Objects on the way to a constant are made where they are not there; a list is gone through where it
 * has the element, and nothing else.
 *
 * @param args `undefined` for a call without arguments: that has none to remove, and gets those that are set.
 */
export function changeArguments(args: unknown, { removes, sets }: ArgumentPlan): Result<unknown, ArgumentProblem> {
  let value = args;
  if (value !== undefined && !isObject(value)) {
    const rule = [...removes, ...sets][0]?.rule;
    return rule === undefined ? ok(args) : err({ rule, detail: 'the arguments are no object' });
  }
  for (const { pointer, rule } of removes) {
    const removed = removeAt(value, pointer, 0);
    if (!removed.ok) return err({ rule, detail: `${rule} cannot remove ${show(pointer)}: ${removed.error}` });
    value = removed.value;
  }
  for (const { pointer, value: constant, rule } of sets) {
    const set = setAt(value, pointer, 0, constant);
    if (!set.ok) return err({ rule, detail: `${rule} cannot put its constant in place: ${set.error}` });
    value = set.value;
  }
  return ok(value);
}

function removeAt(value: unknown, pointer: Pointer, depth: number): Result<unknown, string> {
  const segment = pointer[depth]!;
  if (!hasMember(value, segment)) return ok(value);
  if (depth < pointer.length - 1) {
    const inner = removeAt(value[segment], pointer, depth + 1);
    return inner.ok ? ok(withMember(value, segment, inner.value)) : inner;
  }
  if (Array.isArray(value)) return err('an element of a list is not removed');
  return ok(Object.fromEntries(Object.entries(value).filter(([key]) => key !== segment)));
}

function setAt(value: unknown, pointer: Pointer, depth: number, constant: unknown): Result<unknown, string> {
  const segment = pointer[depth];
  if (segment === undefined) return ok(constant);
  const holder = value === undefined ? {} : value;
  const isList = Array.isArray(holder);
  if (!isList && !isObject(holder)) return err(`${show(pointer.slice(0, depth))} is no object`);
  const isThere = hasMember(holder, segment);
  if (isList && !isThere) return err(`${show(pointer.slice(0, depth))} has no element ${segment}`);
  const inner = setAt(isThere ? holder[segment] : undefined, pointer, depth + 1, constant);
  return inner.ok ? ok(withMember(holder as Members, segment, inner.value)) : inner;
}

type Members = Readonly<Record<string, unknown>>;

/** `length`, and whatever else a list has beside its elements, is none of its members. */
function hasMember(value: unknown, key: string): value is Members {
  return Array.isArray(value)
    ? isIndex(key) && Object.hasOwn(value, key)
    : isObject(value) && Object.hasOwn(value, key);
}

/** As RFC 6901 writes an index. */
function isIndex(segment: string): boolean {
  return /^(?:0|[1-9]\d{0,8})$/.test(segment);
}

function withMember(value: Members, key: string, member: unknown): unknown {
  if (Array.isArray(value)) return value.with(Number(key), member);
  // fromEntries defines properties: assigning to a key `__proto__` would set the prototype instead.
  return Object.fromEntries([...Object.entries(value).filter(([name]) => name !== key), [key, member]]);
}

function isObject(value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** As it is written in a policy. */
function show(pointer: Pointer): string {
  return pointer.map((segment) => `/${segment.replaceAll('~', '~0').replaceAll('/', '~1')}`).join('');
}
