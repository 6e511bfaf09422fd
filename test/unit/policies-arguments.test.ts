import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { argumentPlanFor, changeArguments } from '../../policies/arguments.ts';
import { compilePolicy } from '../../policies/compile.ts';
import { policyOf } from '../support/policies.ts';

const SET = { name: 'one', tools: ['search_*'], set: { '/repo': 'acme/app', '/options/limit': 5 }, remove: ['/token'] };
const planOf = (entries: object[], tool = 'search_code', server = 'github') =>
  argumentPlanFor(policyOf({ arguments: entries }), server, tool);

describe('a plan', () => {
  it('has what the entries say', () => {
    const plan = planOf([SET]);
    assert.deepEqual(plan, {
      ok: true,
      value: {
        removes: [{ pointer: ['token'], rule: 'one' }],
        sets: [
          { pointer: ['repo'], value: 'acme/app', rule: 'one' },
          { pointer: ['options', 'limit'], value: 5, rule: 'one' },
        ],
        validatedBy: undefined,
      },
    });
  });
  it('is none for another tool or server', () => {
    assert.deepEqual(planOf([SET], 'get_issue'), { ok: true, value: undefined });
    assert.deepEqual(planOf([{ ...SET, server: 'crm' }]), { ok: true, value: undefined });
  });
  it('names the first entry that wants the schema enforced', () => {
    const plan = planOf([
      SET,
      { name: 'two', tools: ['*'], validate: true },
      { name: 'three', tools: ['*'], validate: true },
    ]);
    assert.equal(plan.ok && plan.value?.validatedBy, 'two');
  });
  it('takes the same constant twice for once', () => {
    const plan = planOf([SET, { name: 'two', tools: ['*'], set: { '/repo': 'acme/app' } }]);
    assert.equal(plan.ok && plan.value?.sets.length, 2);
  });
  const conflicts: Record<string, object> = {
    'another constant at the same place': { '/repo': 'other' },
    'a constant inside another’s': { '/repo/name': 'x' },
    'a constant around another’s': { '/options': 'x' },
    'the same constant around another’s': { '/options': 5 },
  };
  for (const [name, set] of Object.entries(conflicts))
    it(`is refused by the entry's name with ${name}`, () => {
      const plan = planOf([SET, { name: 'two', tools: ['*'], set }]);
      assert.ok(!plan.ok);
      assert.equal(plan.error.rule, 'two');
      assert.match(plan.error.detail, /^two and one put different constants at \//);
    });
  it('takes places beside each other', () => {
    const plan = planOf([SET, { name: 'two', tools: ['*'], set: { '/options/page': 5, '/repos': 1 } }]);
    assert.equal(plan.ok && plan.value?.sets.length, 4);
  });
});

describe('refused at load', () => {
  const cases: Record<string, [entry: object, path: string, words: RegExp]> = {
    'nothing to do': [{ name: 'x', tools: ['*'] }, 'arguments.0', /needs remove, set or validate/],
    'a place for many': [{ name: 'x', tools: ['*'], remove: ['/a/*'] }, 'arguments.0.remove.0', /must name one place/],
    'a place at any depth': [
      { name: 'x', tools: ['*'], remove: ['/**/a'] },
      'arguments.0.remove.0',
      /must name one place/,
    ],
    'no place': [{ name: 'x', tools: ['*'], remove: [''] }, 'arguments.0.remove.0', /must name one place/],
    'a constant too long': [
      { name: 'x', tools: ['*'], set: { '/a': 'x'.repeat(16_385) } },
      'arguments.0.set./a',
      /at most 16384/,
    ],
    'a constant with a number that JSON does not have': [
      { name: 'x', tools: ['*'], set: { '/a': [{ b: Number.NaN }] } },
      'arguments.0.set./a',
      /cannot carry exactly/,
    ],
    'a constant with a number beyond 2^53': [
      { name: 'x', tools: ['*'], set: { '/a': 2 ** 53 } },
      'arguments.0.set./a',
      /cannot carry exactly/,
    ],
    'too many places': [
      { name: 'x', tools: ['*'], set: Object.fromEntries(Array.from({ length: 101 }, (_, n) => [`/a${n}`, 1])) },
      'arguments.0.set',
      /more than 100 places/,
    ],
    'a place too long': [{ name: 'x', tools: ['*'], remove: [`/${'a'.repeat(1024)}`] }, 'arguments.0.remove.0', /./],
    'two places, one inside the other': [
      { name: 'x', tools: ['*'], set: { '/a/b': 1, '/a': {} } },
      'arguments.0.set./a',
      /beside \/a\/b of the same entry/,
    ],
    'no validation': [{ name: 'x', tools: ['*'], validate: false }, 'arguments.0.validate', /./],
    'no tools': [{ name: 'x', validate: true }, 'arguments.0.tools', /./],
  };
  for (const [name, [entry, path, words]] of Object.entries(cases))
    it(name, () => {
      const compiled = compilePolicy({ version: 1, arguments: [entry] }, { env: {} });
      assert.ok(!compiled.ok);
      const found = compiled.error.find((problem) => problem.path.join('.') === path);
      assert.ok(found, JSON.stringify(compiled.error));
      assert.match(found.message, words);
    });
  it('a name that another has', () => {
    const compiled = compilePolicy({ version: 1, arguments: [SET, SET] }, { env: {} });
    assert.match(JSON.stringify(compiled), /another entry is named one too/);
  });

  const meeting: Record<string, [other: object, isRefused: boolean]> = {
    'another constant for the same tools': [{ set: { '/repo': 'other' } }, true],
    'another constant for some of the same patterns': [{ set: { '/repo': 'other' }, tools: ['x', 'search_*'] }, true],
    'a constant inside the other’s': [{ set: { '/repo/name': 'x' } }, true],
    'the same constant': [{ set: { '/repo': 'acme/app' } }, false],
    // Told when both concern a call: whether patterns have a tool in common is not known here.
    'another constant for other patterns': [{ set: { '/repo': 'other' }, tools: ['search_code'] }, false],
    'another constant at another server': [{ set: { '/repo': 'other' }, server: 'crm' }, false],
  };
  for (const [name, [other, isRefused]] of Object.entries(meeting))
    it(`${isRefused ? '' : 'not: '}${name}`, () => {
      const entries = [SET, { name: 'two', tools: ['search_*'], ...other }];
      const compiled = compilePolicy({ version: 1, arguments: entries }, { env: {} });
      assert.equal(compiled.ok, !isRefused);
      if (compiled.ok) return;
      const { path, message } = compiled.error[0]!;
      assert.deepEqual(path.slice(0, 3), ['arguments', 1, 'set']);
      assert.equal(message, 'cannot be set beside /repo of one');
    });
});

describe('arguments as a plan makes them', () => {
  const change = (args: unknown, entry: { readonly remove?: string[]; readonly set?: object }) => {
    const plan = planOf([{ name: 'one', tools: ['*'], ...entry }]);
    assert.ok(plan.ok && plan.value !== undefined);
    return changeArguments(args, plan.value);
  };
  const made: Record<string, [args: unknown, entry: object, wanted: unknown]> = {
    'without what is removed': [{ token: 1, a: 2 }, { remove: ['/token'] }, { a: 2 }],
    'without what is removed inside': [{ a: [{ b: 1, c: 2 }] }, { remove: ['/a/0/b'] }, { a: [{ c: 2 }] }],
    'as they were where there is nothing to remove': [
      { a: 'token', l: [1] },
      { remove: ['/a/token', '/l/1', '/l/x', '/b'] },
      { a: 'token', l: [1] },
    ],
    'with the constant': [{ repo: 'other' }, { set: { '/repo': 'acme' } }, { repo: 'acme' }],
    'with objects on the way': [{}, { set: { '/a/b/c': [1] } }, { a: { b: { c: [1] } } }],
    'with the constant in a list': [{ l: [{ a: 1 }, 2] }, { set: { '/l/0/a': 0, '/l/1': 3 } }, { l: [{ a: 0 }, 3] }],
    'with the constant where all was removed': [
      { a: { b: 1 } },
      { remove: ['/a'], set: { '/a/c': 1 } },
      { a: { c: 1 } },
    ],
    'none, and some are set': [undefined, { set: { '/a': 1 } }, { a: 1 }],
    'none, and some are removed': [undefined, { remove: ['/a'] }, undefined],
    'with a key named __proto__': [{}, { set: { '/__proto__/x': 1 } }, JSON.parse('{"__proto__":{"x":1}}')],
    'with names that are written escaped': [{}, { set: { '/a~1b/~01': 1 } }, { 'a/b': { '~1': 1 } }],
    'and nothing that every object has': [{}, { set: { '/toString/x': 1 } }, { toString: { x: 1 } }],
  };
  for (const [name, [args, entry, wanted]] of Object.entries(made))
    it(name, () => {
      const before = structuredClone(args);
      assert.deepEqual(change(args, entry), { ok: true, value: wanted });
      assert.deepEqual(args, before, 'what is given is not touched');
    });

  const refusals: Record<string, [args: unknown, entry: object, words: RegExp]> = {
    'through a text': [{ a: 'x' }, { set: { '/a/b': 1 } }, /^one cannot put its constant in place: \/a is no object$/],
    'through null': [{ a: { b: null } }, { set: { '/a/b/c': 1 } }, /\/a\/b is no object/],
    'behind a list': [{ a: [1] }, { set: { '/a/1': 1 } }, /\/a has no element 1/],
    'in a list by a name': [{ a: [1] }, { set: { '/a/length': 1 } }, /\/a has no element length/],
    'in a list by another spelling of an index': [{ a: [1] }, { set: { '/a/00': 1 } }, /\/a has no element 00/],
    'an element of a list, removed': [{ a: [1] }, { remove: ['/a/0'] }, /^one cannot remove \/a\/0: an element/],
    'of a list': [[1], { set: { '/a': 1 } }, /the arguments are no object/],
    'of null': [null, { remove: ['/a'] }, /the arguments are no object/],
    'of a text': ['x', { remove: ['/a'] }, /the arguments are no object/],
  };
  for (const [name, [args, entry, words]] of Object.entries(refusals))
    it(`are refused: ${name}`, () => {
      const changed = change(args, entry);
      assert.ok(!changed.ok);
      assert.equal(changed.error.rule, 'one');
      assert.match(changed.error.detail, words);
    });
});

describe('in audit mode', () => {
  it('nothing is planned', () => {
    const policy = policyOf({ mode: 'audit', arguments: [SET] });
    assert.deepEqual(argumentPlanFor(policy, 'github', 'search_code'), { ok: true, value: undefined });
  });
});
