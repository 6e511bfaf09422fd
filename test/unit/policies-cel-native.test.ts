/**
 * What is answered without the library, and what is left to it. That such an answer is the library's is asked of
 * `compileValue`, which never answers itself.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Environment } from '@marcbachmann/cel-js';
import { compileValue } from '../../policies/cel.ts';
import { type Native, nativeOf, UNSURE } from '../../policies/cel-native.ts';
import { type Variables, variablesOf } from '../../policies/cel-variables.ts';
import { agent, callOf, tool } from '../support/policies.ts';

const language = new Environment({ unlistedVariablesAreDyn: true });

function nativeFor(expression: string): Native | undefined {
  return nativeOf(language.parse(expression).ast);
}

const ARGS = {
  text: 'select',
  emoji: 'a😀',
  n: 3,
  flag: true,
  off: false,
  nothing: null,
  list: ['a'],
  map: { k: 'v', deep: { k: 1 } },
  confusing: JSON.parse('{"constructor":"x","k":"v"}'),
};
const CALLED = variablesOf(
  { ...agent('triage', { claims: { team: 'blue' } }), user: { sub: 'ann', claims: { level: 4 } } },
  ['reader', 'writer'],
  tool('run', 'github', { title: 'T', readOnlyHint: true }),
  { STAGE: 'test' },
  callOf('run', ARGS, { now: Date.UTC(1970, 0, 1, 12, 34) }),
);
/** At a list filter: no call, and nobody signed in. */
const LISTED = variablesOf(agent('triage'), [], tool('run'), {}, undefined);

const ANSWERED: [expression: string, value: string | number | bigint | boolean][] = [
  ['true', true],
  ['"a"', 'a'],
  ['1', 1n],
  ['0.5', 0.5],
  ['method', 'tools/call'],
  ['args.text', 'select'],
  ['args.n', 3],
  ['args.off', false],
  ['args.map.k', 'v'],
  ['args.map.deep.k', 1],
  ['body.method', 'tools/call'],
  ['body.params.name', 'run'],
  ['env.STAGE', 'test'],
  ['agent.name', 'triage'],
  ['agent.group', 'support'],
  ['agent.claims.team', 'blue'],
  ['user.sub', 'ann'],
  ['user.claims.level', 4],
  ['server.name', 'github'],
  ['tool.name', 'run'],
  ['tool.annotations.title', 'T'],
  ['tool.annotations.readOnlyHint', true],
  ['session.id', 's1'],
  ['!args.flag', false],
  ['!args.off', true],
  ['args.n == 3', true],
  ['args.n == 4', false],
  ['args.n == 3.0', true],
  ['size(args.text) == 6', true],
  ['args.text == "select"', true],
  ['args.text == "x"', false],
  ['args.flag == true', true],
  ['args.flag == false', false],
  ['args.n != 3', false],
  ['args.n != 4', true],
  ['args.text != "select"', false],
  ['args.flag != false', true],
  ['args.n < 2', false],
  ['args.n < 3', false],
  ['args.n < 4', true],
  ['args.n <= 2', false],
  ['args.n <= 3', true],
  ['args.n <= 4', true],
  ['args.n > 2', true],
  ['args.n > 3', false],
  ['args.n > 4', false],
  ['args.n >= 2', true],
  ['args.n >= 3', true],
  ['args.n >= 4', false],
  ['args.text < "select"', false],
  ['args.text <= "select"', true],
  ['args.text > "select"', false],
  ['args.text >= "select"', true],
  ['size(args.text) < 7', true],
  ['args.flag && args.flag', true],
  ['args.flag && args.off', false],
  ['args.off && args.flag', false],
  ['args.off && args.missing', false],
  ['args.off || args.off', false],
  ['args.off || args.flag', true],
  ['args.flag || args.off', true],
  ['args.flag || args.missing', true],
  ['args.text in ["x", "select"]', true],
  ['args.text in ["x"]', false],
  ['"reader" in agent.roles', true],
  ['"owner" in agent.roles', false],
  ['size(args.text)', 6n],
  ['size(args.emoji)', 2n],
  ['args.text.size()', 6n],
  ['has(args.text)', true],
  ['has(args.n)', true],
  ['has(args.off)', true],
  ['has(args.nothing)', true],
  ['has(args.list)', true],
  ['has(args.map)', true],
  ['has(args.missing)', false],
  ['has(args.toString)', false],
  ['has(args.map.k)', true],
  ['has(args.map.missing)', false],
  ['has(agent.claims.team)', true],
  ['has(agent.claims.missing)', false],
  ['args.text.startsWith("sel")', true],
  ['args.text.startsWith("ect")', false],
  ['args.text.startsWith("\\n")', false],
  ['args.text.endsWith("ect")', true],
  ['args.text.endsWith("sel")', false],
  ['args.text.contains("lec")', true],
  ['args.text.contains("x")', false],
  ['args.text.glob("s*t")', true],
  ['args.text.glob("s?t")', false],
  ['now.getHours()', 12n],
  ['now.getMinutes()', 34n],
  ['now.getDayOfWeek()', 4n],
];

const LEFT_OPEN: [why: string, variables: Variables, expressions: readonly string[]][] = [
  ['what is not there', CALLED, ['args.missing', 'args.missing.k', 'args.text.k', 'args.nothing.k', 'args.list.k']],
  ['what it only inherits', CALLED, ['args.constructor', 'args.toString', 'args.map.toString']],
  ['what is not plain', CALLED, ['args.nothing', 'args.list', 'args.map', 'agent.claims', 'tool.annotations']],
  ['what is made to confuse', CALLED, ['args.confusing.k', 'has(args.confusing)', 'has(args.confusing.k)']],
  ['what is inside of nothing', CALLED, ['has(args.missing.k)', 'has(args.text.k)', 'has(args.nothing.k)']],
  ['not of what is no boolean', CALLED, ['!args.text', '!args.missing', '!args.n']],
  [
    'unlike types',
    CALLED,
    ['args.n == "3"', 'args.n != "3"', 'args.flag == 1', 'args.text == true', 'args.n < "4"', 'args.text > 1'],
  ],
  ['types that are not compared', CALLED, ['args.list == args.list', 'args.nothing != args.nothing']],
  ['an order of booleans', CALLED, ['args.off < args.flag', 'args.flag >= args.flag']],
  [
    'an operand that is open and would matter',
    CALLED,
    ['args.missing && args.off', 'args.flag && args.missing', 'args.missing || args.flag', 'args.off || args.missing'],
  ],
  ['an operand that is no boolean', CALLED, ['args.text && args.off', 'args.flag && args.text', 'args.off || args.n']],
  ['what is no text', CALLED, ['args.n in ["3"]', 'size(args.n)', 'size(args.list)', 'args.n.startsWith("3")']],
  [
    'a call where there is none',
    LISTED,
    ['method', 'args.text', 'has(args.text)', 'body.id', 'session.id', 'now.getHours()', 'now.getDayOfWeek()'],
  ],
  ['a user where there is none', LISTED, ['user.sub', 'user.claims.level']],
];

const FOREIGN: [what: string, expressions: readonly string[]][] = [
  ['a variable as a whole', ['args', 'now', 'agent', 'roles']],
  ['a value of another type', ['null', '1u', '[1]', '{"a": 1}', 'b"a"']],
  ['a field that is not known', ['user.email', 'agent.roles', 'session.user', 'now.year', 'jwt.sub', 'method.name']],
  ['an index', ['args["text"]', 'args.list[0]', 'args.list[0].k']],
  ['arithmetic', ['args.n + 1', '-args.n', 'args.n * 2', 'args.flag ? true : false']],
  ['an operand that is foreign', ['!args.list[0]', 'args.list[0] == "a"', '"a" == args.list[0]', '1 < args.list[0]']],
  ['one side that is foreign', ['args.list[0] && args.off', 'args.off && args.list[0]', 'args.flag || args.list[0]']],
  [
    'a list that is not of texts',
    ['args.text in []', 'args.text in ["a", 1]', 'args.text in ["a", method]', 'args.text in ["a", args.text]'],
  ],
  ['a list that is not known', ['"a" in args', '"a" in args.list', '"a" in env', '"a" in agent.claims']],
  ['roles that are not the agent’s', ['"a" in user.roles', '"a" in "agent".roles', '"a" in body.agent.roles']],
  ['membership of what is foreign', ['args.list[0] in ["a"]', '1 + 1 in ["a"]']],
  ['a number of operands', ['size()', 'size(args.text, args.text)', 'has(args.text, args.n)', 'args.text.size("a")']],
  ['has() of no member of a map', ['has(args)', 'has(agent.name)', 'has(agent.roles)', 'has(args.list[0].k)']],
  ['a function', ['int(args.n)', 'string(args.text)', 'int(args.map.k)', 'size(args.list[0])', 'toString(args.n)']],
  ['a method', ['args.text.lowerAscii()', 'args.text.matches("s")', 'args.list[0].size()', 'args.text.toString("a")']],
  [
    'an argument that is no literal text',
    ['args.text.startsWith(method)', 'args.text.startsWith(args.text)', 'args.text.contains(1)'],
  ],
  ['two arguments', ['args.text.startsWith("s", "e")']],
  ['a method of what is foreign', ['args.list[0].startsWith("a")', '(args.text + "a").endsWith("a")']],
  ['a glob that is none', ['args.text.glob("a\\n")']],
  ['a time that is not now', ['"now".getHours()', 'args.getHours()', 'args.n.getMinutes()']],
  ['a zone or another part of the time', ['now.getHours("UTC")', 'now.getFullYear()', 'now.toString()']],
];

describe('without the library', () => {
  for (const [expression, value] of ANSWERED)
    it(`${expression} is ${value}, as the library has it`, () => {
      assert.equal(nativeFor(expression)?.(CALLED), value);
      const library = compileValue(expression);
      assert.ok(library.ok);
      assert.deepEqual(library.value(CALLED), { ok: true, value: typeof value === 'bigint' ? String(value) : value });
    });

  for (const [why, variables, expressions] of LEFT_OPEN)
    it(`leaves open ${why}`, () => {
      for (const expression of expressions) assert.equal(nativeFor(expression)?.(variables), UNSURE, expression);
    });

  for (const [what, expressions] of FOREIGN)
    it(`does not know ${what}`, () => {
      for (const expression of expressions) assert.equal(nativeFor(expression), undefined, expression);
    });
});
