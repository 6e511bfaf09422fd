/**
 * That the work of a condition is bounded, whatever the expression and the message. Bounds are on how often the message
 * is looked at, which the message itself counts, never on time.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { compileCondition, compileValue } from '../../policies/cel.ts';
import { variablesOf } from '../../policies/cel-variables.ts';
import { agent, callOf, tool } from '../support/policies.ts';

function evaluate(expression: string, args: Record<string, unknown>): boolean | string {
  const condition = compileCondition(expression);
  if (!condition.ok) return `load: ${condition.error}`;
  const variables = variablesOf(agent('a'), [], tool('t'), {}, callOf('t', args));
  for (const part of [condition.value.stable, condition.value.perCall]) {
    const asked = part?.(variables);
    if (asked?.ok === false) return asked.error;
    if (asked?.value === false) return false;
  }
  return true;
}

/** `n` of every element is 1, and counts how often it is looked at. */
function counting(elements: number): { readonly args: Record<string, unknown>; readonly looks: () => number } {
  let looks = 0;
  const element = {};
  const get = () => {
    looks += 1;
    return 1;
  };
  Object.defineProperty(element, 'n', { enumerable: true, get });
  return { args: { list: Array(elements).fill(element), one: element, text: 'aaaa' }, looks: () => looks };
}

/** More than that no evaluation looks at anything. */
const LOOKS_MAX = 2 ** 13;
/** Of several errors the first one is told. */
const ENDED = /^(?:too much work at |no such overload at args\.one\.n \+ 1$|cannot be evaluated$)/;
const TEN = '[1,2,3,4,5,6,7,8,9,10]';
const MANY = 1_000_000;
const members = Object.fromEntries(Array.from({ length: 20_000 }, (_, index) => [`k${index}`, 0]));

describe('a hostile expression', () => {
  const LOOPS: [what: string, expression: string][] = [
    ['loops in loops', `${`${TEN}.all(a, `.repeat(9)}args.one.n == 1${')'.repeat(9)}`],
    ['loops in loops that find nothing', `${`${TEN}.exists(a, `.repeat(9)}args.one.n == 2${')'.repeat(9)}`],
    ['loops in loops of errors', `${`${TEN}.all(a, `.repeat(9)}args.one.n + 1 == 2${')'.repeat(9)}`],
    ['loops of filters', `${`${TEN}.filter(a, `.repeat(9)}args.one.n == 1${').size() > 0'.repeat(9)}`],
    [
      'loops in an operand that does not matter',
      `${`${TEN}.all(a, `.repeat(9)}args.one.n == 1${')'.repeat(9)} || true`,
    ],
    ['a loop over a long list', 'args.list.all(x, x.n == 1)'],
    ['a loop of errors', 'args.list.all(x, x.n + 1 == 2)'],
    ['loops one after another', Array(9).fill('args.list.exists(x, x.n == 2)').join(' || ')],
    ['a loop over what a loop made', 'args.list.map(x, x).filter(x, x.n == 1).size() > 0'],
  ];
  for (const [what, expression] of LOOPS)
    it(`with ${what} looks at no more than it may`, () => {
      const { args, looks } = counting(MANY);
      const result = evaluate(expression, args);
      assert.ok(looks() <= LOOKS_MAX, `${looks()} looks`);
      if (expression.endsWith('|| true')) assert.equal(result, true);
      else assert.match(String(result), ENDED);
    });

  const GROWING: [what: string, expression: string, args: Record<string, unknown>][] = [
    ['text that doubles', `[args.s]${'.map(x, x + x)'.repeat(30)}.all(x, x.contains("b"))`, { s: 'a' }],
    ['a list that doubles', `[args.l]${'.map(x, x + x)'.repeat(30)}.all(x, x.size() > 5)`, { l: [1] }],
    ['lists of lists', `[args.l]${'.map(x, [x, x])'.repeat(30)} == [args.l]`, { l: [1] }],
    ['a text again and again', `${TEN}.map(i, args.s).join(args.s).size() > 5`, { s: 'a'.repeat(4_000_000) }],
    ['texts joined by a text', 'args.l.join(args.s).size() > 5', { l: Array(1000).fill(''), s: 'a'.repeat(100_000) }],
    ['a long duration', 'duration(args.s) > duration("1s")', { s: '1'.repeat(2000) }],
    ['a map that is looked for', 'args.m in args.l', { m: members, l: Array(10_000).fill({}) }],
    ['a list that is looked for', 'args.m in args.l', { m: [members], l: Array(10_000).fill([{}]) }],
    ['text that is searched for text', 'args.s.contains(args.t)', { s: 'a'.repeat(500_000), t: 'a'.repeat(250_000) }],
    [
      'text that is split by text',
      'args.s.split(args.t).size() > 1',
      { s: 'a'.repeat(500_000), t: 'a'.repeat(250_000) },
    ],
    ['a glob of the message', 'args.s.glob(args.t)', { s: 'a'.repeat(4_000_000), t: `${'*a'.repeat(100)}b` }],
    ['time zones', 'args.l.all(z, now.getHours(z) > 5)', { l: Array(MANY).fill('Asia/Tokyo') }],
    ['time zones that are none', 'args.l.all(z, now.getHours(z) > 5)', { l: Array(5000).fill('Mars') }],
  ];
  for (const [what, expression, args] of GROWING)
    it(`with ${what} ends`, () => {
      const result = evaluate(expression, args);
      // What is a list inside of lists has as many ends as it had.
      if (what === 'lists of lists') assert.match(String(result), /^false$|^too much work/);
      else assert.match(String(result), ENDED);
    });

  it('has no more work to do in its value than in its truth', () => {
    const value = compileValue('args.list.map(x, string(x.n)).join()');
    const { args, looks } = counting(MANY);
    assert.ok(value.ok);
    const asked = value.value(variablesOf(agent('a'), [], tool('t'), {}, callOf('t', args)));
    assert.match(asked.ok ? '' : asked.error, /^too much work at /);
    assert.ok(looks() <= LOOKS_MAX);
  });

  it('takes nothing of the next evaluation', () => {
    const { args } = counting(MANY);
    assert.match(String(evaluate('args.list.all(x, x.n == 1)', args)), /too much work/);
    assert.equal(evaluate('[args.one].all(x, x.n == 1)', args), true);
  });
});

describe('a large message', () => {
  const long = 'a'.repeat(2_000_000);
  const FINE: [expression: string, args: Record<string, unknown>][] = [
    ['args.list.all(x, x.n == 1)', counting(5000).args],
    ['args.list.size() > 100000', counting(MANY).args],
    ['size(args.s) < 4000000 && !args.s.contains("secret") && !args.s.lowerAscii().contains("drop")', { s: long }],
    ['args.s.glob("a*") && args.s.startsWith("a") && args.s == args.s', { s: long }],
    ['"k5" in args.m && args.m == args.m', { m: members }],
    ['args.s in ["a", "b"] || args.s.split("b").size() == 1', { s: long }],
    ['duration(args.d) < duration("1h") && now.getHours("Asia/Tokyo") == 21', { d: '2m30.5s' }],
  ];
  for (const [expression, args] of FINE)
    it(`can be judged by ${expression}`, () => assert.equal(evaluate(expression, args), true));
});
