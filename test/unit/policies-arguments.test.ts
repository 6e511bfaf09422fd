import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { argumentPlanFor } from '../../policies/arguments.ts';
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
});
