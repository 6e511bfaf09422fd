/** Two definitions have one canonical text exactly when they mean the same, and words exactly when they do not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeDrift } from '../../policies/drift.ts';
import { definitionOf } from '../../policies/tool-definition.ts';
import fc from '../support/fast-check.ts';

const key = fc.oneof(
  fc.constantFrom('type', 'properties', 'required', 'items', 'description', 'constructor', '__proto__', '10', '9'),
  fc.string({ unit: 'binary', maxLength: 5 }),
);
const { value } = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    fc.oneof(fc.constantFrom(null, true, false, 0, 1, 'string', 'x'), fc.string({ unit: 'binary', maxLength: 6 })),
    fc.array(tie('value'), { maxLength: 3 }),
    fc.array(fc.tuple(key, tie('value')), { maxLength: 4 }).map((members) => Object.fromEntries(members)),
  ),
}));
const item = fc.record(
  {
    name: fc.string({ maxLength: 4 }),
    title: value,
    description: value,
    inputSchema: value,
    outputSchema: value,
    annotations: value,
    icons: value,
  },
  { requiredKeys: ['name'] },
);

function defined(text: string) {
  const result = definitionOf(JSON.parse(text));
  assert.ok(result.ok);
  return result.value;
}

/** Members the other way round, and white space everywhere. */
function rewrite(value: unknown): string {
  if (Array.isArray(value)) return `[ ${value.map(rewrite).join(' ,\n')} ]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const members = Object.entries(value).reverse();
  return `{ ${members.map(([name, inner]) => `${JSON.stringify(name)} :\t${rewrite(inner)}`).join(' , ')} }`;
}

test('the order of members and white space do not matter', () => {
  fc.assert(
    fc.property(item, (one) => {
      const [before, after] = [defined(JSON.stringify(one)), defined(rewrite(one))];
      assert.equal(after.canonical, before.canonical);
      assert.deepEqual(describeDrift(before.definition, after.definition), []);
    }),
  );
});

test('every other difference does, and has words on one visible line each', () => {
  const pinned = ({ icons: _, ...rest }: Record<string, unknown>) => rest;
  const near = fc.tuple(
    item,
    item,
    fc.constantFrom('title', 'description', 'inputSchema', 'outputSchema', 'annotations'),
  );
  fc.assert(
    fc.property(near, ([one, source, part]) => {
      const other = { ...one, [part]: source[part as keyof typeof source] };
      const [before, after] = [defined(JSON.stringify(one)), defined(JSON.stringify(other))];
      let isSame = true;
      try {
        assert.deepStrictEqual(pinned(JSON.parse(JSON.stringify(other))), pinned(JSON.parse(JSON.stringify(one))));
      } catch {
        isSame = false;
      }
      assert.equal(after.canonical === before.canonical, isSame);
      const words = describeDrift(before.definition, after.definition);
      assert.equal(words.length === 0, isSame);
      for (const sentence of words) assert.doesNotMatch(sentence, /[\p{Cc}\p{Cs}]/u);
    }),
    { numRuns: 500 },
  );
});
