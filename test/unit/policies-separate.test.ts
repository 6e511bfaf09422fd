/** A condition that tells calls that were let through from those that were refused, and when there is none. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { compileCondition } from '../../policies/cel.ts';
import type { RecordedRequest } from '../../policies/recorded.ts';
import { Seen } from '../../policies/seen.ts';
import { type Example, separate } from '../../policies/separate.ts';
import { recorded } from '../support/recorded.ts';

type Call = Partial<RecordedRequest>;

function seen(calls: readonly Call[]): Seen {
  const all = new Seen();
  for (const call of calls) all.add(recorded({ args: undefined, ...call }), 'audit.jsonl');
  return all;
}

const args = (value: unknown): Call => ({ args: value });
const NOON = Date.UTC(2026, 0, 7, 12);
const NIGHT = Date.UTC(2026, 0, 7, 3);
const SUNDAY = Date.UTC(2026, 0, 11, 12);
const many = (count: number, of: (index: number) => Call) => Array.from({ length: count }, (_, index) => of(index));

const rows: [string, Call[], Call[], string | undefined, (Example | undefined)?][] = [
  ['nothing tells them apart', [{}], [{}], undefined],
  ['the method', [{ method: 'b' }, { method: 'a' }], [{ method: 'c' }], 'method in ["a", "b"]', { method: 'a' }],
  ['a method of both', [{ method: 'a' }], [{ method: 'a' }, { method: 'c' }], undefined],
  [
    'the user',
    [{ user: 'kim' }, { user: 'ann' }],
    [{ user: 'lee' }, {}],
    'user.sub in ["ann", "kim"]',
    { user: 'ann' },
  ],
  ['no user', [{}], [{ user: 'lee' }], undefined],
  ['too many users', many(21, (index) => ({ user: `u${index}` })), [{ user: 'lee' }], undefined],
  [
    'as many users as are kept',
    many(20, () => ({ user: 'kim' })),
    [{ user: 'lee' }],
    'user.sub in ["kim"]',
    { user: 'kim' },
  ],
  [
    'a role',
    [{ roles: ['dba', 'x'] }, { roles: ['dba', 'y'] }],
    [{ roles: ['x'] }, {}],
    '"dba" in agent.roles',
    { roles: ['dba'] },
  ],
  ['a role that not all have', [{ roles: ['dba'] }, {}], [{}], undefined],
  ['an argument that is there', [args({ a: 1 })], [args({})], '"a" in args', { args: { a: 1 } }],
  [
    'an argument of which too much is known to show it',
    [args({ a: {} })],
    [args({})],
    '"a" in args',
    { args: { a: 'x' } },
  ],
  ['an argument that is not there', [args({})], [args({ a: 1 })], '!("a" in args)', {}],
  ['no arguments at all', [{}], [args({ a: 1 })], '!("a" in args)', {}],
  ['values', [args({ a: 'p' }), args({ a: 'o' })], [args({ a: 'q' })], 'args["a"] in ["o", "p"]', { args: { a: 'o' } }],
  ['whole numbers', [args({ a: 1 })], [args({ a: 2 })], 'args["a"] in [1.0]', { args: { a: 1 } }],
  ['huge numbers', [args({ a: 1e21 })], [args({ a: 2 })], 'args["a"] in [1e+21]', { args: { a: 1e21 } }],
  ['truths', [args({ a: true })], [args({ a: false })], 'args["a"] in [true]', { args: { a: true } }],
  ['values of several sorts', [args({ a: 'p' }), args({ a: 1 })], [args({ a: 'q' })], undefined],
  ['values where some have none', [args({ a: 'p' }), args({})], [args({ a: 'q' })], undefined],
  [
    'values where the refused have none',
    [args({ a: 'p', b: 1 })],
    [args({ b: 1 })],
    '"a" in args',
    { args: { a: 'p' } },
  ],
  [
    'a bound from above',
    many(25, (index) => args({ a: index })),
    [args({ a: 25 })],
    'args["a"] <= 24.0',
    { args: { a: 24 } },
  ],
  [
    'a bound from below',
    many(25, (index) => args({ a: index })),
    [args({ a: -1.5 })],
    'args["a"] >= 0.0',
    { args: { a: 0 } },
  ],
  ['no bound between', many(25, (index) => args({ a: index })), [args({ a: 7 })], undefined],
  ['the same bound', many(25, (index) => args({ a: index })), [args({ a: 24 })], undefined],
  [
    'a length from above',
    many(25, (index) => args({ a: 'é'.repeat(index) })),
    [args({ a: 'y'.repeat(70) })],
    'size(args["a"]) <= 24',
    { args: { a: '' } },
  ],
  [
    'a length from below',
    many(25, (index) => args({ a: 'x'.repeat(index + 5) })),
    [args({ a: 'yy' })],
    'size(args["a"]) >= 5',
    { args: { a: 'xxxxx' } },
  ],
  [
    'a length that is too much to show',
    [args({ a: 'x'.repeat(201) })],
    [args({ a: 'yy' })],
    'size(args["a"]) >= 201',
    undefined,
  ],
  ['redacted values', [args({ a: '[redacted]' })], [args({ a: 'yy' })], undefined],
  ['arguments that are not known', [args({ a: 'p' }), args('omitted')], [args({ a: 'q' })], undefined],
  [
    'too many arguments',
    [args(Object.fromEntries(many(33, () => ({})).map((_, index) => [`a${index}`, 1])))],
    [args({ a0: 2 })],
    undefined,
  ],
  [
    'the first argument that does',
    [args({ b: 1, a: 1 })],
    [args({ b: 2, a: 2 })],
    'args["a"] in [1.0]',
    { args: { a: 1 } },
  ],
  [
    'the hour',
    [{ time: NOON }, { time: NOON - 3_600_000 }],
    [{ time: NIGHT }],
    'now.getHours() in [11, 12]',
    { time: NOON },
  ],
  [
    'hours in the order of numbers',
    [{ time: NOON }, { time: Date.UTC(2026, 0, 7, 9) }],
    [{ time: NIGHT }],
    'now.getHours() in [9, 12]',
    { time: NOON },
  ],
  ['the day of the week', [{ time: NOON }], [{ time: SUNDAY }], 'now.getDayOfWeek() in [3]', { time: NOON }],
];

describe('what tells calls apart:', () => {
  for (const [name, through, refused, condition, example] of rows)
    it(name, () => {
      const found = separate(seen(through), seen(refused));
      assert.equal(found?.condition, condition);
      if (condition === undefined) return;
      assert.deepEqual(found?.example, example);
      assert.ok(compileCondition(condition).ok, condition);
    });
});

it('what was seen is told by its first and last call', () => {
  const all = seen([
    { sequence: 3, time: 5 },
    { sequence: 4, time: 9, hasFailed: true },
  ]);
  assert.deepEqual([all.count, all.failed], [2, 1]);
  assert.deepEqual(all.first, { sequence: 3, time: 5, file: 'audit.jsonl' });
  assert.deepEqual(all.last, { sequence: 4, time: 9, file: 'audit.jsonl' });
});
