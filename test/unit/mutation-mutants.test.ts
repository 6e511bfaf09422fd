/**
 * The mutation run counts only what it finds: so what it finds is held to here.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { applyMutant, findMutants } from '../mutation/mutants.ts';

/** `@{` stands for the start of a placeholder, which the linter would have in a template only. */
const mutated = (text: string): string[] => {
  const source = text.replaceAll('@{', `$${'{'}`);
  return findMutants(source).map((mutant) => applyMutant(source, mutant).replaceAll(`$${'{'}`, '@{'));
};

const found: Record<string, [source: string, mutants: string[]]> = {
  equality: ['a === b', ['a !== b']],
  'a relation, and its boundary': ['a < b', ['a >= b', 'a <= b']],
  'and, or': ['a && b || c', ['a || b || c', 'a && b && c']],
  'a literal': ['x = true', ['x = false']],
  negation: ['if (!a) b()', ['if (a) b()']],
  'inside a template': ['`@{a ? `@{b && c}` : "}"} && @{d}`', ['`@{a ? `@{b || c}` : "}"} && @{d}`']],
  'a division is none of a regular expression': ['a / b && c / d', ['a / b || c / d']],
  'behind a regular expression': ['/[/"&&]/.test(a) && b', ['/[/"&&]/.test(a) || b']],
};
for (const [name, [source, mutants]] of Object.entries(found)) {
  test(`found: ${name}`, () => assert.deepEqual(mutated(source), mutants));
}

const passedOver: Record<string, string> = {
  strings: `'a && b' + "!c" + 'it\\'s === '`,
  comments: '// a < b\n/* !c && true */',
  'a template’s own text': '`a && b < c \\` !`',
  arrows: '(a) => b',
  shifts: 'a >>> b << 2 >> 1',
  'logical assignment': 'a ||= b; c &&= d; e ??= f',
  'a property named like a literal': 'a.true',
};
for (const [name, source] of Object.entries(passedOver)) {
  test(`passed over: ${name}`, () => assert.deepEqual(mutated(source), []));
}

test('the line is that of the place', () => {
  assert.deepEqual(
    findMutants('`\n`;\n// x\n\nb && c').map(({ line }) => line),
    [5],
  );
});
