/**
 * What is evaluated natively against the library alone: an expression that is made foreign to the native functions, by a
 * ternary around it, has to come out the same, errors included.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { compileCondition, type Predicate } from '../../policies/cel.ts';
import { type Variables, variablesOf } from '../../policies/cel-variables.ts';
import type { Call, Subject, Target } from '../../policies/decision.ts';
import fc from '../support/fast-check.ts';

type Verdict = boolean | 'error';

function verdictOf(parts: readonly (Predicate | undefined)[], variables: Variables): Verdict {
  let failed = false;
  for (const part of parts) {
    const asked = part?.(variables);
    if (asked?.ok === true && !asked.value) return false;
    if (asked?.ok === false) failed = true;
  }
  return failed ? 'error' : true;
}

/** `undefined` when it is refused at load. */
function predicatesOf(expression: string): readonly (Predicate | undefined)[] | undefined {
  const condition = compileCondition(expression);
  return condition.ok ? [condition.value.stable, condition.value.perCall] : undefined;
}

const texts = ['', 'a', 'ab', 'b*', '1', 'true', 'é😀', '\ud800', 'constructor', '__proto__', 'k'];
const quoted = fc.constantFrom('""', '"a"', '"ab"', '"b*"', '"?*"', '"😀"', '"k"', '"constructor"');
const literal = fc.oneof(quoted, fc.constantFrom('0', '1', '-1', '2', '1.0', '0.5', '1u', 'true', 'false', 'null'));
const name = fc.constantFrom('k', 'm', 'constructor', 'toString', 'length');
const base = fc.constantFrom('args', 'body', 'body.params', 'agent.claims', 'user.claims', 'env', 'tool.annotations');
const path = fc.oneof(
  fc.tuple(base, name).map((parts) => parts.join('.')),
  fc.tuple(base, name, name).map((parts) => parts.join('.')),
  fc.constantFrom('agent.name', 'agent.group', 'user.sub', 'server.name', 'tool.name', 'session.id', 'method'),
  fc.constantFrom('tool.annotations.readOnlyHint', 'agent.roles', 'args', 'env.STAGE', 'now', 'user', 'body.id'),
);
const { truth } = fc.letrec<{ value: string; truth: string }>((tie) => ({
  value: fc.oneof(
    { weight: 3, arbitrary: path },
    { weight: 2, arbitrary: literal },
    path.map((one) => `size(${one})`),
    path.map((one) => `${one}.size()`),
    fc.constantFrom('now.getHours()', 'now.getMinutes()', 'now.getDayOfWeek()', 'now.getHours("UTC")', 'now.size()'),
    tie('truth'),
  ),
  truth: fc.oneof(
    { maxDepth: 3, depthSize: 'small' },
    fc
      .tuple(tie('value'), fc.constantFrom('==', '!=', '<', '<=', '>', '>=', 'in'), tie('value'))
      .map(([one, operator, other]) => `(${one} ${operator} ${other})`),
    path.map((one) => `has(${one})`),
    path,
    fc
      .tuple(path, fc.constantFrom('agent.roles', '["a", "ab"]', '[1, 2]', '[]', 'args', 'args.k', 'env'))
      .map(([one, list]) => `(${one} in ${list})`),
    fc
      .tuple(path, fc.constantFrom('startsWith', 'endsWith', 'contains', 'glob'), fc.oneof(quoted, path))
      .map(([one, method, other]) => `${one}.${method}(${other})`),
    tie('truth').map((one) => `!${one}`),
    fc
      .tuple(tie('truth'), fc.constantFrom('&&', '||'), tie('truth'))
      .map(([one, operator, other]) => `(${one} ${operator} ${other})`),
  ),
}));

const { json } = fc.letrec((tie) => ({
  json: fc.oneof(
    { maxDepth: 2, depthSize: 'small' },
    fc.constantFrom(...texts, 0, 1, -1, 0.5, 2 ** 53, true, false, null),
    fc.array(tie('json'), { maxLength: 2 }),
    fc.dictionary(fc.constantFrom('k', 'm', 'constructor', 'length'), tie('json'), { maxKeys: 3 }),
  ),
}));
const mapping = fc.dictionary(fc.constantFrom('k', 'm', 'constructor', 'toString', 'id'), json, {
  maxKeys: 4,
}) as fc.Arbitrary<Record<string, unknown>>;
const text = fc.constantFrom(...texts);
const subject: fc.Arbitrary<Subject> = fc.record({
  agent: fc.record({ name: text, group: text, roles: fc.array(text, { maxLength: 2 }), claims: mapping }),
  user: fc.option(fc.record({ sub: text, claims: mapping }), { nil: undefined }),
});
const target: fc.Arbitrary<Target> = fc.oneof(
  fc.record({ kind: fc.constant('tool' as const), server: text, name: text, annotations: mapping }),
  fc.record({ kind: fc.constant('prompt' as const), server: text, name: text }),
);
const call: fc.Arbitrary<Call> = fc.record({
  method: text,
  args: fc.option(mapping, { nil: undefined }),
  body: fc.record({ id: json, params: json, k: json }, { requiredKeys: [] }),
  sessionId: fc.option(text, { nil: undefined }),
  now: fc.constantFrom(0, 12 * 3_600_000, 1_700_000_000_000),
});
const env = fc.constantFrom({}, { STAGE: 'a', k: 'ab' });

describe('a condition', () => {
  it('is what the library makes of it', () => {
    const seen = { true: 0, false: 0, error: 0 };
    fc.assert(
      fc.property(
        truth,
        fc.array(fc.tuple(subject, target, env, fc.option(call, { nil: undefined })), { minLength: 3, maxLength: 6 }),
        (expression, asked) => {
          const condition = predicatesOf(expression);
          const foreign = predicatesOf(`(${expression}) ? true : false`);
          assert.equal(condition === undefined, foreign === undefined, 'only one of them is refused at load');
          if (condition === undefined || foreign === undefined) return;
          for (const [who, what, variables, circumstances] of asked) {
            const known = variablesOf(who, who.agent.roles, what, variables, circumstances);
            const verdict = verdictOf(condition, known);
            assert.equal(verdict, verdictOf(foreign, known));
            seen[`${verdict}`] += 1;
          }
        },
      ),
      { numRuns: 3000 },
    );
    assert.ok(Math.min(...Object.values(seen)) > 300, `hardly any of one outcome: ${JSON.stringify(seen)}`);
  });
});
