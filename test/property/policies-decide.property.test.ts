/**
 * Random policies and requests against a second evaluator, written for plainness: it reads the document as written,
 * asks every rule everything, matches globs by recursion, and has its conditions as functions beside their texts.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { decide, isVisible } from '../../policies/decide.ts';
import type { Call, Subject, Target } from '../../policies/decision.ts';
import { explain, type Part } from '../../policies/explain.ts';
import { compileGlob } from '../../policies/glob.ts';
import type { Question } from '../../policies/judge.ts';
import { PatternMap } from '../../policies/pattern-map.ts';
import { policyAt } from '../../policies/virtual.ts';
import fc from '../support/fast-check.ts';
import { callOf, policyOf } from '../support/policies.ts';

type Truth = boolean | 'error';
interface Fact {
  readonly text: string;
  readonly stable: boolean;
  readonly truth: (subject: Subject, target: Target, call: Call, roles: readonly string[]) => Truth;
}

/** What conditions are made of. */
const FACTS: Fact[] = [
  { text: 'agent.name == "a"', stable: true, truth: ({ agent }) => agent.name === 'a' },
  { text: 'agent.group != "g"', stable: true, truth: ({ agent }) => agent.group !== 'g' },
  { text: '"r1" in agent.roles', stable: true, truth: (_subject, _target, _call, roles) => roles.includes('r1') },
  {
    text: 'agent.claims.level > 1',
    stable: true,
    truth: ({ agent: { claims } }) => (typeof claims.level === 'number' ? claims.level > 1 : 'error'),
  },
  { text: 'user.sub == "u"', stable: true, truth: ({ user }) => (user === undefined ? 'error' : user.sub === 'u') },
  {
    text: '(server.name == "s1" || tool.name == "x")',
    stable: true,
    truth: (_subject, target) => target.server === 's1' || (target.kind === 'tool' && target.name === 'x'),
  },
  {
    text: 'tool.annotations.destructiveHint',
    stable: true,
    truth: (_subject, target) => !(target.kind === 'tool' && target.annotations?.destructiveHint === false),
  },
  { text: 'env.STAGE == "test"', stable: true, truth: () => true },
  {
    text: 'args.n < 2',
    stable: false,
    truth: (_subject, _target, { args }) => (typeof args?.n === 'number' ? args.n < 2 : 'error'),
  },
  { text: 'has(args.n)', stable: false, truth: (_subject, _target, { args }) => args?.n !== undefined },
  { text: 'now.getHours() < 6', stable: false, truth: (_subject, _target, { now }) => new Date(now).getUTCHours() < 6 },
  {
    text: 'args.flag',
    stable: false,
    truth: (_subject, _target, { args }) => (typeof args?.flag === 'boolean' ? args.flag : 'error'),
  },
  { text: 'method == "tools/call"', stable: false, truth: (_subject, _target, { method }) => method === 'tools/call' },
  {
    text: 'session.id == "s"',
    stable: false,
    truth: (_subject, _target, { sessionId }) => (sessionId === undefined ? 'error' : sessionId === 's'),
  },
];

type Condition =
  | { readonly op: 'fact'; readonly fact: Fact }
  | { readonly op: 'not'; readonly of: readonly [Condition] }
  | { readonly op: 'and' | 'or'; readonly of: readonly Condition[] };

function textOf(condition: Condition): string {
  if (condition.op === 'fact') return condition.fact.text;
  const operands = condition.of.map((one) => `(${textOf(one)})`);
  return condition.op === 'not' ? `!${operands[0]}` : operands.join(condition.op === 'and' ? ' && ' : ' || ');
}

/** An error is passed over where another operand decides. */
function truthOf(condition: Condition, ask: (fact: Fact) => Truth): Truth {
  if (condition.op === 'fact') return ask(condition.fact);
  const truths = condition.of.map((one) => truthOf(one, ask));
  if (condition.op === 'not') return truths[0] === 'error' ? 'error' : !truths[0];
  const deciding = condition.op === 'or';
  if (truths.includes(deciding)) return deciding;
  return truths.includes('error') ? 'error' : !deciding;
}

function isStable(condition: Condition): boolean {
  return condition.op === 'fact' ? condition.fact.stable : condition.of.every(isStable);
}

function conjunctsOf(condition: Condition): readonly Condition[] {
  return condition.op === 'and' ? condition.of.flatMap(conjunctsOf) : [condition];
}

/** By whole characters. */
function naiveGlob(pattern: string, text: string): boolean {
  const matches = ([first, ...pattern]: readonly string[], text: readonly string[]): boolean => {
    if (first === undefined) return text.length === 0;
    if (first === '*') return matches(pattern, text) || (text.length > 0 && matches(['*', ...pattern], text.slice(1)));
    return text.length > 0 && (first === '?' || first === text[0]) && matches(pattern, text.slice(1));
  };
  return matches([...pattern], [...text]);
}

interface Selector {
  readonly server?: string;
  readonly tools?: string[];
  readonly prompts?: string[];
  readonly resources?: string[];
}
interface Rule {
  readonly effect: 'allow' | 'deny';
  readonly selectors: Selector[];
  readonly when: Condition | undefined;
  readonly audit: boolean;
  readonly role?: string;
}
interface Document {
  readonly default: 'allow' | 'deny';
  readonly mode: 'enforce' | 'audit';
  readonly rules: Rule[];
  readonly agents: Readonly<Record<string, string[]>>;
  readonly virtual: {
    readonly tools: string[];
    readonly prompts: string[];
    readonly resources: readonly { readonly server: string; readonly uris: string[] }[];
  };
}

type Effect = 'allow' | 'hide' | 'refuse';

/** Every rule is asked everything; then the answers are weighed. */
function naiveEffect(document: Document, audited: boolean, subject: Subject, target: Target, call: Call): Effect {
  const roles = [
    ...subject.agent.roles,
    ...(document.agents[subject.agent.name] ?? []),
    ...(document.agents['*'] ?? []),
  ];
  const answers = document.rules
    .filter(({ role, audit }) => (role === undefined || roles.includes(role)) && (audited || !audit))
    .filter(({ selectors }) =>
      selectors.some((selector) => {
        const globs = { tool: selector.tools, prompt: selector.prompts, resource: selector.resources, method: [] }[
          target.kind
        ];
        const id = target.kind === 'resource' ? target.uri : target.name;
        return naiveGlob(selector.server ?? '*', target.server) && (globs ?? []).some((glob) => naiveGlob(glob, id));
      }),
    )
    .map(({ effect, when }) => {
      const conjuncts = when === undefined ? [] : conjunctsOf(when);
      const truth = (stable: boolean) =>
        truthOf({ op: 'and', of: conjuncts.filter((one) => isStable(one) === stable) }, (fact) =>
          fact.truth(subject, target, call, roles),
        );
      return { effect, stable: truth(true), perCall: truth(false), always: conjuncts.every(isStable) };
    });
  const denies = answers.filter(({ effect }) => effect === 'deny');
  const allows = answers.filter(({ effect, stable }) => effect === 'allow' && stable === true);
  if (denies.some(({ stable, always }) => stable === 'error' || (stable && always))) return 'hide';
  if (allows.length === 0 && document.default === 'deny') return 'hide';
  if (denies.some(({ stable, perCall }) => stable === true && perCall !== false)) return 'refuse';
  return document.default === 'allow' || allows.some(({ perCall }) => perCall === true) ? 'allow' : 'refuse';
}

/** Whether the virtual server has it. */
function isMember({ virtual }: Document, target: Target): boolean {
  switch (target.kind) {
    case 'tool':
      return virtual.tools.some((one) => naiveGlob(one, `${target.server}.${target.name}`));
    case 'prompt':
      return virtual.prompts.some((one) => naiveGlob(one, `${target.server}.${target.name}`));
    case 'resource':
      return virtual.resources.some(
        ({ server, uris }) => server === target.server && uris.some((one) => naiveGlob(one, target.uri)),
      );
    case 'method':
      return false;
  }
}

function written(document: Document): object {
  const roles = new Map<string, { allow?: Selector[]; deny?: Selector[] }>([
    ['r1', {}],
    ['r2', {}],
  ]);
  for (const { role, effect, selectors } of document.rules) {
    if (role === undefined) continue;
    const sides = roles.get(role)!;
    sides[effect] = [...(sides[effect] ?? []), ...selectors];
  }
  return {
    default: document.default,
    mode: document.mode,
    virtualServers: { v: document.virtual },
    roles: Object.fromEntries(roles),
    agents: Object.fromEntries(Object.entries(document.agents).map(([name, held]) => [name, { roles: held }])),
    rules: document.rules
      .filter(({ role }) => role === undefined)
      .map(({ effect, selectors, when, audit }, index) => ({
        name: `rule ${index}`,
        [effect]: selectors,
        ...(when !== undefined && { when: textOf(when) }),
        ...(audit && { mode: 'audit' }),
      })),
  };
}

const ids = fc.constantFrom('x', 'get_x', 'get_y', 'drop');
const globs = fc.array(fc.constantFrom('*', 'x', 'get_*', '*_y', 'get_?', 'd*p'), { minLength: 1, maxLength: 2 });
const selector: fc.Arbitrary<Selector> = fc
  .record(
    { server: fc.constantFrom('*', 's1', 's?'), tools: globs, prompts: globs, resources: globs },
    { requiredKeys: [] },
  )
  .map((one) => ((one.tools ?? one.prompts ?? one.resources) ? one : { ...one, tools: ['*'] }));
const { condition } = fc.letrec<{ condition: Condition }>((tie) => ({
  condition: fc.oneof(
    { maxDepth: 3, depthSize: 'small', withCrossShrink: true },
    fc.record({ op: fc.constant('fact' as const), fact: fc.constantFrom(...FACTS) }),
    fc.record({ op: fc.constant('not' as const), of: fc.tuple(tie('condition')) }),
    fc.record({
      op: fc.constantFrom('and' as const, 'and' as const, 'or' as const),
      of: fc.array(tie('condition'), { minLength: 2, maxLength: 3 }),
    }),
  ),
}));
const rule: fc.Arbitrary<Rule> = fc.oneof(
  fc.record({
    effect: fc.constantFrom('allow' as const, 'allow' as const, 'deny' as const),
    selectors: fc.array(selector, { minLength: 1, maxLength: 2 }),
    when: fc.option(condition, { nil: undefined }),
    audit: fc.boolean(),
  }),
  fc.record({
    effect: fc.constantFrom('allow' as const, 'deny' as const),
    selectors: fc.array(selector, { minLength: 1, maxLength: 2 }),
    when: fc.constant(undefined),
    audit: fc.constant(false),
    role: fc.constantFrom('r1', 'r2'),
  }),
);
const held = fc.uniqueArray(fc.constantFrom('r1', 'r2'), { maxLength: 2 });
const document: fc.Arbitrary<Document> = fc.record({
  default: fc.constantFrom('deny', 'deny', 'allow'),
  mode: fc.constantFrom('enforce', 'enforce', 'audit'),
  rules: fc.array(rule, { maxLength: 6 }),
  agents: fc.record({ a: held, '*': held }, { requiredKeys: [] }) as fc.Arbitrary<Record<string, string[]>>,
  virtual: fc.record({
    tools: fc.array(fc.constantFrom('s1.*', 's1.x', 's2.get_?', 's2.*_y', 'other.d*p'), { minLength: 1, maxLength: 3 }),
    prompts: fc.array(fc.constantFrom('s1.*', 's2.x', 'other.get_*'), { minLength: 1, maxLength: 2 }),
    resources: fc.array(fc.record({ server: fc.constantFrom('s1', 's2'), uris: globs }), {
      minLength: 1,
      maxLength: 2,
    }),
  }),
});
const subject: fc.Arbitrary<Subject> = fc.record({
  agent: fc.record({
    name: fc.constantFrom('a', 'b'),
    group: fc.constantFrom('g', 'h'),
    roles: fc.uniqueArray(fc.constantFrom('r1', 'r2', 'r3'), { maxLength: 2 }),
    claims: fc.constantFrom<Record<string, unknown>>({}, { level: 1 }, { level: 2 }),
  }),
  user: fc.constantFrom(undefined, { sub: 'u', claims: {} }, { sub: 'v', claims: {} }),
});
const server = fc.constantFrom('s1', 's2', 'other');
const target: fc.Arbitrary<Target> = fc.oneof(
  fc.record({
    kind: fc.constant('tool' as const),
    server,
    name: ids,
    annotations: fc.constantFrom(undefined, {}, { destructiveHint: false }, { destructiveHint: true }),
  }),
  fc.record({ kind: fc.constant('prompt' as const), server, name: ids }),
  fc.record({ kind: fc.constant('resource' as const), server, uri: ids }),
  fc.record({ kind: fc.constant('method' as const), server, name: ids }),
);
const call: fc.Arbitrary<Call> = fc
  .record({
    n: fc.constantFrom(undefined, 1, 2, '1'),
    hour: fc.nat(23),
    flag: fc.constantFrom(undefined, true, false, 'true'),
    sessionId: fc.constantFrom(undefined, 's', 't'),
    method: fc.constantFrom('tools/call', 'prompts/get'),
  })
  .map(({ n, hour, flag, ...change }) => {
    const args = { ...(n !== undefined && { n }), ...(flag !== undefined && { flag }) };
    return callOf('x', args, { now: hour * 3_600_000, ...change });
  });

describe('the decision', () => {
  it('is the naive one, and what is listed is what does not get hidden', () => {
    const seen = new Map<string, number>();
    fc.assert(
      fc.property(
        document,
        fc.array(fc.tuple(subject, target, call, fc.constantFrom(undefined, 'v')), { minLength: 1, maxLength: 8 }),
        (made, requests) => {
          const policy = policyOf(written(made), { STAGE: 'test' });
          for (const [who, what, circumstances, virtual] of requests) {
            const enforced = naiveEffect(made, false, who, what, circumstances);
            const audited = naiveEffect(made, true, who, what, circumstances);
            const isOutside = virtual !== undefined && !isMember(made, what);
            const effect = isOutside ? 'hide' : made.mode === 'audit' ? 'allow' : enforced;
            const refused = [enforced, audited].find((one) => one !== 'allow');
            const here = policyAt(policy, virtual)!;
            const decision = decide(here, who, what, circumstances);
            const outcome = `${virtual ?? 'server'}: ${decision.effect}`;
            seen.set(outcome, (seen.get(outcome) ?? 0) + 1);
            assert.equal(decision.effect, effect);
            if (decision.effect === 'allow') assert.equal(decision.wouldBe?.effect, refused);
            else assert.notEqual(decision.reason, '');
            assert.equal(isVisible(here, who, what), decision.effect !== 'hide');
          }
        },
      ),
      { numRuns: 1000 },
    );
    assert.equal(seen.size, 6, `the requests do not exercise every outcome: ${[...seen.keys()]}`);
  });

  it('does not depend on the order of the rules', () => {
    fc.assert(
      fc.property(document, subject, target, call, (made, ...request) => {
        const forwards = decide(policyOf(written(made), { STAGE: 'test' }), ...request);
        const backwards = decide(
          policyOf(written({ ...made, rules: made.rules.toReversed() }), { STAGE: 'test' }),
          ...request,
        );
        assert.equal(forwards.effect, backwards.effect);
      }),
      { numRuns: 200 },
    );
  });
});

/** The request that asks for `target`. */
function questionOf(who: Subject, target: Target, { args, sessionId, now }: Call): Question {
  const [method, params] = {
    tool: () => ['tools/call', { name: (target as { name: string }).name, arguments: args }],
    prompt: () => ['prompts/get', { name: (target as { name: string }).name, arguments: args }],
    resource: () => ['resources/read', { uri: (target as { uri: string }).uri, arguments: args }],
    method: () => [(target as { name: string }).name, { arguments: args }],
  }[target.kind]();
  const annotationsOf = () => (target.kind === 'tool' ? target.annotations : undefined);
  const body = { jsonrpc: '2.0', id: 1, method, params };
  return { subject: who, server: target.server, body, sessionId, now, annotationsOf };
}

/** What the parts that are told come to. */
function effectOfParts(parts: readonly Part[], allowByDefault: boolean, audited: boolean): Effect {
  const effects = parts.filter(({ audit }) => audited || !audit).map((part) => part.effect);
  if (effects.includes('hides')) return 'hide';
  if (!allowByDefault && !effects.includes('allows') && !effects.includes('shows')) return 'hide';
  if (effects.includes('refuses')) return 'refuse';
  return allowByDefault || effects.includes('allows') ? 'allow' : 'refuse';
}

describe('an explanation', () => {
  it('has the verdict of the decision, and its parts come to that verdict', () => {
    const seen = new Set<string>();
    fc.assert(
      fc.property(document, subject, target, call, (made, who, what, circumstances) => {
        const policy = policyOf(written(made), { STAGE: 'test' });
        const question = questionOf(who, what, circumstances);
        const explained = explain(policy, question);
        const method = String(question.body.method);
        const decided = decide(policy, who, what, { ...circumstances, method, body: question.body });
        assert.deepEqual(explained.decision, decided);

        const { parts } = explained.targets.at(-1)!;
        for (const { effect } of parts) seen.add(effect);
        const enforced = effectOfParts(parts, policy.allowByDefault, false);
        const audited = effectOfParts(parts, policy.allowByDefault, true);
        if (decided.effect !== 'allow') assert.equal(enforced, decided.effect);
        else if (policy.audit)
          assert.equal(decided.wouldBe?.effect ?? 'allow', enforced === 'allow' ? audited : enforced);
        else assert.deepEqual([enforced, audited], ['allow', decided.wouldBe?.effect ?? 'allow']);
      }),
      { numRuns: 600 },
    );
    assert.equal(seen.size, 5, `not every effect was seen: ${[...seen]}`);
  });
});

describe('a glob', () => {
  it('matches as it reads', () => {
    const letters = fc
      .array(fc.constantFrom('a', 'b', '😀', '*', '?', '.'), { maxLength: 9 })
      .map((all) => all.join(''));
    const text = fc.array(fc.constantFrom('a', 'b', '😀', '.'), { maxLength: 12 }).map((all) => all.join(''));
    fc.assert(
      fc.property(letters, text, (pattern, subjectText) => {
        const glob = compileGlob(pattern);
        if (pattern !== '') assert.equal(glob.ok && glob.value(subjectText), naiveGlob(pattern, subjectText));
      }),
      { numRuns: 3000 },
    );
  });

  it('is found among others exactly where it matches', () => {
    const letters = (alphabet: string[]) => fc.array(fc.constantFrom(...alphabet), { minLength: 1, maxLength: 6 });
    const pattern = letters(['a', 'b', '😀', '*', '?']).map((all) => all.join(''));
    const text = letters(['a', 'b', '😀']).map((all) => all.join(''));
    let found = 0;
    fc.assert(
      fc.property(fc.array(pattern, { maxLength: 30 }), fc.array(text, { maxLength: 5 }), (patterns, texts) => {
        const map = new PatternMap<{ pattern: string }>();
        for (const one of patterns) map.getOrMake(one, () => ({ pattern: one }));
        for (const one of texts) {
          const expected = [...new Set(patterns)].filter((glob) => naiveGlob(glob, one));
          found += expected.length;
          const got = map.find(one).map((entry) => entry.pattern);
          assert.deepEqual(got.sort(), expected.sort());
        }
      }),
      { numRuns: 1000 },
    );
    assert.ok(found > 1000);
  });
});
