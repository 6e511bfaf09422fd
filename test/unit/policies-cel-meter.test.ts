/** What each operation counts, to the unit: it may be done with that much left of the bound, and not with less. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Environment, EvaluationError } from '@marcbachmann/cel-js';
import { countWork, startWork } from '../../policies/cel-meter.ts';
import { matchGlob } from '../../policies/glob.ts';

const BOUND = 2 ** 25;
const TURN = 2 ** 12;

const language = new Environment({ unlistedVariablesAreDyn: true }).registerFunction(
  'string.glob(string): bool',
  (text: string, pattern: string) => matchGlob(pattern, text),
);

type Variables = Readonly<Record<string, unknown>>;

/** Evaluates an expression of whose nodes only the outermost is counted. */
function counted(expression: string): (variables: Variables) => unknown {
  const evaluate = language.parse(expression);
  assert.ok(evaluate.check().valid, expression);
  countWork(evaluate.ast);
  return (variables) => evaluate({ ...variables });
}

const bytes = new Uint8Array(BOUND);
const sizeOf = counted('size(a)');

/** Leaves so many units. */
function leave(units: number): void {
  startWork();
  sizeOf({ a: bytes.subarray(0, BOUND - units - 1) });
}

function isTooMuch(act: () => unknown): boolean {
  try {
    act();
    return false;
  } catch (error) {
    if (error instanceof EvaluationError && error.code === 'too_much_work') return true;
    throw error;
  }
}

const text = (length: number) => 'a'.repeat(length);

const COSTS: [what: string, expression: string, variables: Variables, units: number][] = [
  ['texts that are compared, the shorter', 'a == b', { a: text(3), b: text(6) }, 4],
  ['texts that are compared, the shorter behind', 'a == b', { a: text(6), b: text(2) }, 3],
  ['texts that differ', 'a != b', { a: text(5), b: text(5) }, 6],
  ['numbers', 'a == b', { a: 1, b: 1 }, 1],
  ['null', 'a == b', { a: null, b: null }, 1],
  ['lists', 'a == b', { a: [1, 2], b: [1, 2] }, 5],
  ['maps', 'a == b', { a: { k: 'abc' }, b: { k: 'abc' } }, 5],
  ['lists in lists', 'a != b', { a: [['abc']], b: [[]] }, 7],
  ['nothing in a list', 'a == b', { a: [null], b: [null] }, 3],
  ['less', 'a < b', { a: text(4), b: text(9) }, 5],
  ['at most', 'a <= b', { a: text(4), b: text(9) }, 5],
  ['more', 'a > b', { a: text(4), b: text(9) }, 5],
  ['at least', 'a >= b', { a: text(4), b: text(9) }, 5],
  ['a text in a list', 'a in b', { a: 'abc', b: ['x', 'y'] }, 3],
  ['a list in a list', 'a in b', { a: [1], b: [[1], [2], [3]] }, 10],
  ['a list in a set', 'a in b', { a: [1], b: new Set([1, 2]) }, 7],
  ['a key of a map', 'a in b', { a: 'k', b: { k: 1, m: 2 } }, 3],
  ['a key of a Map', 'a in b', { a: 'k', b: new Map([['k', 1]]) }, 2],
  ['texts put together', 'a + b', { a: text(2), b: text(4) }, 7],
  ['numbers put together', 'a + b', { a: 1.5, b: 2 }, 3],
  ['lists put together', 'a + b', { a: [1, 2], b: [3] }, 48],
  ['a duration', 'duration(a)', { a: '12s' }, 27],
  ['a glob', 'a.glob(b)', { a: text(4), b: text(8) }, 12],
  ['contains', 'a.contains(b)', { a: text(4), b: text(512) }, 12],
  ['indexOf', 'a.indexOf(b)', { a: text(4), b: text(256) }, 8],
  ['lastIndexOf', 'a.lastIndexOf(b)', { a: text(4), b: text(256) }, 8],
  ['split', 'a.split(b)', { a: text(4), b: text(256) }, 8],
  ['join', 'a.join(b)', { a: ['ab', 'c'], b: '--' }, 39],
  ['JSON', 'a.json()', { a: Buffer.from('true') }, 64],
  ['a time zone', 'a.getHours(b)', { a: new Date(0), b: 'UTC' }, 2 ** 16],
  ['a time', 'a.getHours()', { a: new Date(0) }, 1],
  ['the start of a text', 'a.startsWith(b)', { a: text(3), b: 'a' }, 4],
  ['size of a text', 'size(a)', { a: text(3) }, 4],
  ['size of a list', 'size(a)', { a: [1, 2] }, 3],
  ['size of bytes', 'size(a)', { a: bytes.subarray(0, 4) }, 5],
  ['size of a map', 'a.size()', { a: { k: 1, m: 2, n: 3 } }, 4],
  ['size of a Map', 'size(a)', { a: new Map([['k', 1]]) }, 2],
  ['a function of a set', 'type(a)', { a: new Set([1, 2, 3]) }, 4],
  ['a function of a number', 'string(a)', { a: 5 }, 2],
  ['a function of null', 'type(a)', { a: null }, 2],
  ['turns over a list', 'a.all(x, true)', { a: [1, 2, 3] }, 3 * TURN],
  ['turns over a map', 'a.exists(x, false)', { a: { k: 1 } }, TURN],
];

describe('the work of', () => {
  for (const [what, expression, variables, units] of COSTS)
    it(`${what} (${expression}) is ${units}`, () => {
      const evaluate = counted(expression);
      leave(units);
      assert.equal(
        isTooMuch(() => evaluate(variables)),
        false,
        'as much as that is left',
      );
      for (let less = units - 1; less >= Math.max(0, units - 64); less--) {
        leave(less);
        assert.equal(
          isTooMuch(() => evaluate(variables)),
          true,
          `${less} are left`,
        );
      }
    });

  const FREE: [expression: string, variables: Variables][] = [
    ['a.k', { a: { k: 1 } }],
    ['has(a.k)', { a: { k: 1 } }],
    ['a && b', { a: true, b: true }],
    ['a ? b : b', { a: true, b: text(100) }],
    ['!a', { a: true }],
  ];
  for (const [expression, variables] of FREE)
    it(`${expression} is none`, () => {
      const evaluate = counted(expression);
      leave(0);
      assert.equal(
        isTooMuch(() => evaluate(variables)),
        false,
      );
    });
});

describe('the meter', () => {
  it('ends at a value that holds itself', () => {
    const endless: unknown[] = [];
    endless.push(endless);
    const evaluate = counted('a == b');
    leave(1000);
    assert.equal(
      isTooMuch(() => evaluate({ a: endless, b: 1 })),
      true,
    );
  });

  it('refuses all that follows what was too much, until the next evaluation', () => {
    leave(3);
    assert.equal(
      isTooMuch(() => sizeOf({ a: text(3) })),
      true,
    );
    assert.equal(
      isTooMuch(() => sizeOf({ a: '' })),
      true,
    );
    startWork();
    assert.equal(
      isTooMuch(() => sizeOf({ a: text(3) })),
      false,
    );
  });

  it('does not let pass what it has no place to count', () => {
    for (const expression of ['a == b', 'a in b', 'a + b', 'size(a)', 'a.size()'])
      assert.throws(() => countWork(language.parse(expression).ast), /has no place to count the work of/, expression);
  });
});
