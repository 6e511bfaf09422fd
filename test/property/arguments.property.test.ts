/**
 * Members changed by the bytes against the same done to the value; and redaction: nothing at a pointer survives, and
 * nothing else changes.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { changeArguments } from '../../policies/arguments.ts';
import { REDACTED } from '../../policies/redact.ts';
import { redactResult } from '../../sidecar/pipeline/redact-result.ts';
import { removeMember, setMember } from '../../sidecar/protocol/edit-json.ts';
import fc from '../support/fast-check.ts';

type Json = Record<string, unknown>;
const key = fc.constantFrom('a', 'b', 'c"', '\\d', 'é', '__proto__', '0');
const { value } = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom(1, 'text', null, true, 'a"b\\', 1.5),
    fc.array(tie('value'), { maxLength: 3 }),
    fc.array(fc.tuple(key, tie('value')), { maxLength: 4 }).map((members) => objectOf(members)),
  ),
}));
/** A member called `__proto__` is a member. */
function objectOf(members: readonly (readonly [string, unknown])[]): Json {
  const object = {};
  for (const [name, member] of members)
    Object.defineProperty(object, name, { value: member, enumerable: true, writable: true, configurable: true });
  return object;
}
const object = fc.array(fc.tuple(key, value), { maxLength: 4 }).map(objectOf);
const pointer = fc.array(key, { minLength: 1, maxLength: 3 });
const space = fc.constantFrom(undefined, 1, '\t');

/** JSON in which a number is written as nobody would write it who has read it. */
const LONG = '1.50000000000000000000';
function written(value: unknown, indent: string | number | undefined): Buffer {
  return Buffer.from(JSON.stringify(value, undefined, indent).replaceAll('1.5', LONG));
}
function assertAsWritten(after: Buffer): void {
  assert.equal(after.toString().replaceAll(LONG, '').includes('1.5'), false, 'a number was read and written again');
}

/** `undefined`: it is there, and cannot be removed. */
function removeFrom(target: unknown, [first, ...rest]: readonly string[]): unknown {
  if (Array.isArray(target)) {
    const index = target.findIndex((_, position) => String(position) === first);
    if (index === -1) return target;
    const inner = rest.length === 0 ? undefined : removeFrom(target[index], rest);
    return inner === undefined ? undefined : target.with(index, inner);
  }
  if (typeof target !== 'object' || target === null) return target;
  const members = Object.entries(target);
  if (rest.length === 0) return objectOf(members.filter(([name]) => name !== first));
  const changed = members.map(([name, member]) => [name, name === first ? removeFrom(member, rest) : member] as const);
  return changed.some(([, member]) => member === undefined) ? undefined : objectOf(changed);
}

/** `undefined`: there is no place for it. */
function setIn(target: unknown, [first, ...rest]: readonly string[], constant: unknown): unknown {
  if (first === undefined) return constant;
  if (Array.isArray(target)) {
    const index = Number(first);
    if (!(index < target.length)) return undefined;
    const inner = setIn(target[index], rest, constant);
    return inner === undefined ? undefined : target.with(index, inner);
  }
  if (typeof target !== 'object' || target === null) return undefined;
  const inner = setIn(Object.hasOwn(target, first) ? (target as Json)[first] : {}, rest, constant);
  if (inner === undefined) return undefined;
  return objectOf([...Object.entries(target).filter(([name]) => name !== first), [first, inner]]);
}

test('what is removed from the bytes is removed from the value, and nothing else', () => {
  fc.assert(
    fc.property(object, pointer, space, (target, path, indent) => {
      const bytes = written(target, indent);
      const changed = changeArguments(target, {
        removes: [{ pointer: path, rule: 'one' }],
        sets: [],
        validatedBy: undefined,
      });
      const wanted = removeFrom(target, path);
      assert.equal(changed.ok, wanted !== undefined);
      if (!changed.ok) return;
      assert.deepEqual(changed.value, wanted);
      const after = removeMember(bytes, path);
      assertAsWritten(after);
      assert.deepEqual(JSON.parse(after.toString()), JSON.parse(JSON.stringify(wanted)));
    }),
    { numRuns: 1000 },
  );
});

test('what is set in the bytes is set in the value, or has no place in either', () => {
  fc.assert(
    fc.property(object, pointer, value, space, (target, path, constant, indent) => {
      const bytes = written(target, indent);
      const wanted = setIn(target, path, constant);
      const sets = [{ pointer: path, value: constant, rule: 'one' }];
      const changed = changeArguments(target, { removes: [], sets, validatedBy: undefined });
      assert.equal(changed.ok, wanted !== undefined);
      if (!changed.ok) return;
      assert.deepEqual(changed.value, wanted);
      const after = setMember(bytes, path, written(constant, undefined).toString());
      assertAsWritten(after);
      assert.deepEqual(JSON.parse(after.toString()), JSON.parse(JSON.stringify(wanted)));
    }),
    { numRuns: 1000 },
  );
});

const segment = fc.oneof(key, fc.constantFrom('*', '**', '1'));

/** Every path that leads to a value, and whether one of the pointers names it: by expanding `**`, slow and plain. */
function isNamed(path: readonly string[], found: readonly string[]): boolean {
  const [first, ...rest] = found;
  if (first === undefined) return path.length === 0;
  if (first === '**') return isNamed(path, rest) || (path.length > 0 && isNamed(path.slice(1), found));
  return path.length > 0 && (first === '*' || first === path[0]) && isNamed(path.slice(1), rest);
}

function redacted(target: unknown, path: readonly string[], pointers: readonly (readonly string[])[]): unknown {
  if (pointers.some((one) => isNamed(path, one))) return REDACTED;
  if (Array.isArray(target)) return target.map((item, index) => redacted(item, [...path, String(index)], pointers));
  if (typeof target !== 'object' || target === null) return target;
  return objectOf(Object.entries(target).map(([name, member]) => [name, redacted(member, [...path, name], pointers)]));
}

test('in a result exactly what the pointers name is redacted', () => {
  const pointers = fc.array(fc.array(segment, { maxLength: 4 }), { maxLength: 3 });
  fc.assert(
    fc.property(object, pointers, space, (result, found, indent) => {
      const bytes = written({ jsonrpc: '2.0', id: 1, result }, indent);
      const text = redactResult(bytes, found);
      assertAsWritten(text);
      const after = JSON.parse(text.toString());
      assert.deepEqual(
        after,
        JSON.parse(JSON.stringify({ jsonrpc: '2.0', id: 1, result: redacted(result, [], found) })),
      );
    }),
    { numRuns: 1000 },
  );
});
