import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Comparing } from '../../policies/comparison.ts';
import type { RecordedRequest } from '../../policies/recorded.ts';
import { rejudgeBy } from '../../policies/replay.ts';
import { policyOf } from '../support/policies.ts';
import { recorded } from '../support/recorded.ts';

const TOOLS = [{ tools: ['*'] }];
const ALLOW = { name: 'all', allow: TOOLS };
const READ = { method: 'resources/read', tool: undefined };
const COMPLETION = { method: 'completion/complete', tool: undefined };
const LISTEN = { method: 'subscriptions/listen', tool: undefined };

/** `true`: let through; `false`: not; else why it is unsure. */
function again(document: object, change: Partial<RecordedRequest> = {}, env: Record<string, string> = {}) {
  const judged = rejudgeBy(policyOf(document, env))(recorded(change));
  return judged.kind === 'sure' ? judged.isLetThrough : judged.why;
}

describe('a recorded request judged again', () => {
  const rows: [string, object, Partial<RecordedRequest>, boolean][] = [
    ['what nothing allows', {}, {}, false],
    ['a tool', { rules: [{ name: 'r', allow: [{ server: 'github', tools: ['list_*'] }] }] }, {}, true],
    ['another server', { rules: [{ name: 'r', allow: [{ server: 'crm', tools: ['*'] }] }] }, {}, false],
    ['a role of the policy', role({ triage: { roles: ['reader'] } }), {}, true],
    ['a role of another agent', role({ writer: { roles: ['reader'] } }), {}, false],
    ['a role that the identity brought', role({}), { roles: ['reader'] }, true],
    ['a policy in audit mode', { mode: 'audit' }, {}, true],
    ['a prompt', allow({ prompts: ['p'] }), { method: 'prompts/get', tool: undefined, prompt: 'p' }, true],
    ['a prompt is no tool', allow({ tools: ['p'] }), { method: 'prompts/get', tool: undefined, prompt: 'p' }, false],
    ['a completion of a prompt', allow({ prompts: ['p'] }), { ...COMPLETION, prompt: 'p' }, true],
    [
      'a completion of a resource',
      allow({ resources: ['file:///a*'] }),
      { ...COMPLETION, resources: ['file:///ab'] },
      true,
    ],
    ['a resource', allow({ resources: ['file:///a'] }), { ...READ, resources: ['file:///a'] }, true],
    ['both spellings', allow({ resources: ['FILE:/a'] }), { ...READ, resources: ['FILE:/a'] }, true],
    ['one spelling of two', allow({ resources: ['file:///a'] }), { ...READ, resources: ['FILE:/a'] }, false],
    [
      'a subscription',
      allow({ resources: ['file:///a', 'file:///b'] }),
      { ...LISTEN, resources: ['file:///a', 'file:///b'] },
      true,
    ],
    [
      'one subscription of two',
      allow({ resources: ['file:///a'] }),
      { ...LISTEN, resources: ['file:///a', 'file:///b'] },
      false,
    ],
    ['a subscription to no resource', {}, { ...LISTEN, resources: [] }, true],
    ['a method', allow({ methods: ['vendor/thing'] }), { method: 'vendor/thing', tool: undefined }, true],
    ['the protocol’s own', {}, { method: 'tools/list', tool: undefined }, true],
    ['a notification', {}, { method: 'notifications/progress', tool: undefined, isNotification: true }, true],
    ['a notification that has an id', {}, { method: 'notifications/progress', tool: undefined }, false],
    ['a URI that leads elsewhere', { default: 'allow' }, { ...READ, resources: ['file:///a/../b'] }, false],
    ['an argument', when('args.limit < 4'), {}, true],
    ['an argument that is too big', when('args.limit < 3'), {}, false],
    ['no arguments', when('!has(args.limit)'), { args: undefined }, true],
    ['the time', when('now.getHours() == 12'), {}, true],
    ['the user', when('user.sub == "kim"'), { user: 'kim' }, true],
    ['the session', when('session.id == "s1"'), {}, true],
    ['the group', when('agent.group == "support"'), {}, true],
    ['the annotations', when('tool.annotations.readOnlyHint'), {}, true],
    [
      'what is known of the message',
      when('body.method == "tools/call" && body.params.name == "list_issues"'),
      {},
      true,
    ],
    ['claims, where there could be none', when('agent.claims.level == 1'), {}, false],
    ['a variable that is set', when('env.STAGE == "test"'), {}, true],
  ];
  for (const [name, document, change, expected] of rows)
    it(name, () => assert.equal(again(document, change, { STAGE: 'test' }), expected));
});

describe('what a record does not hold', () => {
  const REDACTED = { args: { query: '[redacted]', limit: 3, list: [1, '[redacted]'], deep: { key: '[redacted]' } } };
  const unsure: [string, object, Partial<RecordedRequest>, RegExp][] = [
    ['redacted arguments', when('args.query == "x"'), REDACTED, /redacted/],
    ['redacted arguments below', when('args.deep.key == "x"'), REDACTED, /redacted/],
    ['an element of a list', when('args.list[1] == 1'), REDACTED, /redacted/],
    ['negated', when('!(args.query == "x")'), REDACTED, /redacted/],
    ['in the message', when('body.params.arguments.query == "x"'), REDACTED, /redacted/],
    ['all of the arguments', when('has(args.query)'), { args: '[redacted]' }, /redacted/],
    ['arguments that were left out', when('has(args.query)'), { args: 'omitted' }, /arguments were too long/],
    ['in a deny', deny('args.query == "x"'), REDACTED, /redacted/],
    ['claims', when('agent.claims.level == 1'), { isWithoutClaims: false }, /claims/],
    ['claims of the user', when('user.claims.level == 1'), { isWithoutClaims: false, user: 'kim' }, /claims/],
    [
      'annotations that were not known',
      when('tool.annotations.readOnlyHint'),
      { annotations: undefined },
      /annotations/,
    ],
    [
      'annotations that were too long',
      when('tool.annotations.readOnlyHint'),
      { annotations: 'omitted' },
      /annotations/,
    ],
    ['other parts of the message', when('has(body.params._meta)'), {}, /part of the message/],
    ['the id', when('body.id == 1'), {}, /part of the message/],
    ['a variable that is not set here', when('env.ELSE == "x"'), {}, /env\.ELSE/],
    ['a name that was cut', { default: 'allow' }, { cut: 'tool' }, /its tool was too long/],
    ['roles that were left out', { default: 'allow' }, { roles: 'omitted' }, /roles/],
    [
      'resources that were left out',
      allow({ resources: ['*'] }),
      { ...LISTEN, resources: ['file:///a'], resourcesOmitted: 1 },
      /resources/,
    ],
  ];
  for (const [name, document, change, why] of unsure)
    it(`is unsure: ${name}`, () => {
      const found = again(document, change);
      assert.ok(Array.isArray(found), `${found}`);
      assert.match(found.join(), why);
    });

  const sure: [string, object, Partial<RecordedRequest>, boolean][] = [
    ['another argument decides', when('args.query == "x" && args.limit == 4.0'), REDACTED, false],
    ['another operand decides', when('args.limit == 3.0 || args.query == "x"'), REDACTED, true],
    ['an earlier element decides', when('args.list.exists(one, one == 1.0)'), REDACTED, true],
    ['another rule allows', { rules: [ALLOW, { ...ALLOW, name: 'b', when: 'args.query == "x"' }] }, REDACTED, true],
    [
      'another rule denies',
      { rules: [...deny('args.query == "x"').rules, { name: 'e', deny: TOOLS }] },
      REDACTED,
      false,
    ],
    ['nothing allows it anyway', { rules: [{ name: 'd', deny: TOOLS, when: 'args.query == "x"' }] }, REDACTED, false],
    [
      'it concerns another tool',
      { rules: [ALLOW, { name: 'd', deny: [{ tools: ['other'] }], when: 'args.query == "x"' }] },
      REDACTED,
      true,
    ],
    [
      'a rule that only records',
      { rules: [ALLOW, { name: 'd', deny: TOOLS, when: 'args.query == "x"', mode: 'audit' }] },
      REDACTED,
      true,
    ],
    [
      'a resource that is recorded is refused',
      allow({ resources: ['x'] }),
      { ...LISTEN, resources: ['file:///a'], resourcesOmitted: 1 },
      false,
    ],
  ];
  for (const [name, document, change, expected] of sure)
    it(`is sure: ${name}`, () => assert.equal(again(document, change), expected));
});

it('a policy is asked again without what it found out of another request', () => {
  const rejudge = rejudgeBy(policyOf(when('args.query == "x"')));
  const redacted = recorded({ args: { query: '[redacted]' } });
  assert.equal(rejudge(redacted).kind, 'unsure');
  assert.deepEqual(rejudge(recorded({ args: { query: 'x' } })).kind, 'sure');
  assert.deepEqual(rejudge(redacted), { kind: 'unsure', why: ['arguments are redacted'] });
});

it('arguments nested more deeply than anybody sends are not followed', () => {
  const nested: unknown = JSON.parse(`${'['.repeat(100_000)}${']'.repeat(100_000)}`);
  assert.deepEqual(again(when('args.x[0].size() == 1'), { args: { x: nested } }), ['arguments are nested too deeply']);
});

describe('quotas over recorded requests', () => {
  const ALL = { rules: [ALLOW] };
  const at = (second: number, change: Partial<RecordedRequest> = {}) => ({
    time: recorded().time + second * 1000,
    ...change,
  });
  const compare = (document: object, calls: Partial<RecordedRequest>[], agents?: ReadonlySet<string>) => {
    const comparing = new Comparing(rejudgeBy(policyOf({ ...ALL, ...document })), agents);
    for (const [index, call] of calls.entries()) comparing.add(recorded({ sequence: index + 1, ...call }), 'a');
    const { changed, limited, freed, countedUnsurely, judged } = comparing.result;
    return {
      judged,
      changed,
      freed,
      countedUnsurely,
      limited: limited.map(({ agent, quota, count, first }) => [agent, quota, count, first.sequence]),
    };
  };
  const TWO = { quotas: [{ name: 'two', key: ['agent'], calls: '2/min' }] };
  const NONE = { changed: 0, freed: 0, countedUnsurely: 0, limited: [] };
  const LIMITED = { wasLimited: true, hasReached: false };

  const rows: [string, object, Partial<RecordedRequest>[], object][] = [
    ['nothing is stopped below the limit', TWO, [at(0), at(1)], { judged: 2, ...NONE }],
    [
      'calls beyond the limit are',
      TWO,
      [at(0), at(1), at(2), at(3)],
      { judged: 4, ...NONE, changed: 2, limited: [['triage', 'two', 2, 3]] },
    ],
    ['and not in the next window', TWO, [at(0), at(1), at(62)], { judged: 3, ...NONE }],
    ['each agent by itself', TWO, [at(0), at(1), at(2, { agent: 'writer' })], { judged: 3, ...NONE }],
    ['what was stopped then and is now, is no change', TWO, [at(0), at(1), at(2, LIMITED)], { judged: 3, ...NONE }],
    ['what was stopped then and is not now, is told', TWO, [at(0), at(1, LIMITED)], { judged: 2, ...NONE, freed: 1 }],
    [
      'what was stopped then counts when it would go on',
      TWO,
      [at(0), at(1, LIMITED), at(2)],
      { judged: 3, ...NONE, changed: 1, freed: 1, limited: [['triage', 'two', 1, 3]] },
    ],
    ['what no server saw is not counted', TWO, [at(0, { hasReached: false }), at(1), at(2)], { judged: 3, ...NONE }],
    [
      'what is refused is not counted',
      { ...TWO, rules: [{ ...ALLOW, allow: [{ tools: ['list_*'] }] }] },
      [at(0, { tool: 'x', wasLetThrough: false }), at(1), at(2)],
      { judged: 3, ...NONE },
    ],
    ['without quotas, what was stopped is told', {}, [at(0, LIMITED)], { judged: 1, ...NONE, freed: 1 }],
    ['in audit mode nothing is stopped', { ...TWO, mode: 'audit' }, [at(0), at(1), at(2)], { judged: 3, ...NONE }],
    [
      'other methods are not counted',
      TWO,
      [at(0), at(1), at(2, { method: 'tools/list', tool: undefined })],
      { judged: 3, ...NONE },
    ],
    [
      'tokens are those of the record, and may go over the limit once',
      { quotas: [{ name: 'tokens', key: ['agent'], tokens: '100/min' }] },
      [at(0, { tokensIn: 10, tokensOut: 80 }), at(1, { tokensIn: 10, tokensOut: 500 }), at(2, { tokensIn: 1 })],
      { judged: 3, ...NONE, changed: 1, limited: [['triage', 'tokens', 1, 3]] },
    ],
    [
      'a budget, by the prices of the new policy',
      {
        budgets: [{ name: 'daily', key: ['agent'], cost: '1/day' }],
        prices: [{ server: '*', tools: ['*'], perCall: 0.5 }],
      },
      [at(0), at(1), at(2)],
      { judged: 3, ...NONE, changed: 1, limited: [['triage', 'daily', 1, 3]] },
    ],
    [
      'calls at the same time are not counted',
      { quotas: [{ name: 'lanes', key: ['agent'], concurrent: 1 }] },
      [at(0), at(0)],
      { judged: 2, ...NONE },
    ],
    [
      'a condition on what is not recorded is told',
      { quotas: [{ name: 'q', key: ['agent'], calls: '9/min', when: 'args.query == "x"' }] },
      [at(0, { args: 'omitted' }), at(1, { args: { query: 'y' } })],
      { judged: 2, ...NONE, countedUnsurely: 1 },
    ],
  ];
  for (const [name, document, calls, expected] of rows)
    it(name, () => assert.deepEqual(compare(document, calls), expected));

  it('of one agent, with what others spend', () => {
    const together = { quotas: [{ name: 'all', key: ['group'], calls: '2/min' }] };
    const calls = [at(0, { agent: 'a' }), at(1, { agent: 'a' }), at(2, { agent: 'b' })];
    assert.deepEqual(compare(together, calls, new Set(['b'])), {
      judged: 1,
      ...NONE,
      changed: 1,
      limited: [['b', 'all', 1, 3]],
    });
    assert.deepEqual(compare(together, calls, new Set(['a'])), { judged: 2, ...NONE });
  });
});

describe('what an entry of arguments has refused', () => {
  const REFUSED = { wasLetThrough: false, wasRefusedByArguments: true, rule: 'declared' };
  const entry = (name: string, tools = ['list_*']) => ({ name, tools, validate: true });
  const UNSURE = ["an entry of the policy's arguments refused it, which is not judged again"];
  const rows: [string, object, Partial<RecordedRequest>, boolean | string[]][] = [
    ['an entry of its name', { rules: [ALLOW], arguments: [entry('declared')] }, {}, false],
    ['one for another tool', { rules: [ALLOW], arguments: [entry('declared', ['push_*'])] }, {}, UNSURE],
    ['another entry', { rules: [ALLOW], arguments: [entry('other')] }, {}, UNSURE],
    ['no entry', { rules: [ALLOW] }, {}, UNSURE],
    ['no entry, and nothing allows it', {}, {}, false],
    ['no entry, and an unknown that allows it', when('agent.claims.a == 1'), { isWithoutClaims: false }, UNSURE],
    [
      'an entry of its name, and an unknown that allows it',
      { ...when('agent.claims.a == 1'), arguments: [entry('declared')] },
      { isWithoutClaims: false },
      false,
    ],
    ['audit mode, which lets all through', { mode: 'audit', arguments: [entry('declared')] }, {}, true],
    // Of records that do not tell entries from rules.
    ['its name, untold', { rules: [ALLOW], arguments: [entry('declared')] }, { wasRefusedByArguments: false }, false],
  ];
  for (const [name, document, change, expected] of rows)
    it(name, () => assert.deepEqual(again(document, { ...REFUSED, ...change }), expected));

  it('is not counted by a quota', () => {
    const document = {
      rules: [ALLOW],
      arguments: [entry('declared')],
      quotas: [{ name: 'one', key: ['agent'], calls: '1/min' }],
    };
    const comparing = new Comparing(rejudgeBy(policyOf(document)));
    comparing.add(recorded({ ...REFUSED, sequence: 1 }), 'a.jsonl');
    comparing.add(recorded({ sequence: 2 }), 'a.jsonl');
    assert.equal(comparing.result.changed, 0);
  });
});

describe('the comparison', () => {
  const NO_PUSHES = { rules: [ALLOW, { name: 'no pushes', deny: [{ tools: ['push_*'] }] }] };

  it('sums up what would change, by agent and by what was asked', () => {
    const comparing = new Comparing(rejudgeBy(policyOf(NO_PUSHES)));
    for (let sequence = 1; sequence <= 3; sequence++)
      comparing.add(recorded({ tool: 'push_files', rule: 'role writer', sequence }), 'a.jsonl');
    comparing.add(recorded({ tool: 'push_files', agent: 'writer', sequence: 4 }), 'a.jsonl');
    comparing.add(recorded({ sequence: 5 }), 'a.jsonl');
    comparing.add(recorded({ wasLetThrough: false, rule: undefined, sequence: 6 }), 'b.jsonl');
    comparing.add(recorded({ tool: 'push_files', wasLetThrough: false, sequence: 7 }), 'b.jsonl');
    const { judged, changed, unsure, changes, unlisted } = comparing.result;
    assert.deepEqual([judged, changed, unsure, unlisted], [7, 5, 0, 0]);
    assert.deepEqual(
      changes.map(({ agent, matter, count, first, wasLetThrough, ruleBefore, decision }) => ({
        agent,
        name: matter.name,
        count,
        first,
        wasLetThrough,
        ruleBefore,
        effect: decision.effect,
        rule: decision.rule,
      })),
      [
        {
          agent: 'triage',
          name: 'push_files',
          count: 3,
          first: first(1, 'a.jsonl'),
          wasLetThrough: true,
          ruleBefore: 'role writer',
          effect: 'hide',
          rule: 'no pushes',
        },
        {
          agent: 'writer',
          name: 'push_files',
          count: 1,
          first: first(4, 'a.jsonl'),
          wasLetThrough: true,
          ruleBefore: undefined,
          effect: 'hide',
          rule: 'no pushes',
        },
        {
          agent: 'triage',
          name: 'list_issues',
          count: 1,
          first: first(6, 'b.jsonl'),
          wasLetThrough: false,
          ruleBefore: undefined,
          effect: 'allow',
          rule: 'all',
        },
      ],
    );
  });

  it('sums up what is unsure, by why', () => {
    const comparing = new Comparing(rejudgeBy(policyOf(when('args.query == "x"'))));
    comparing.add(recorded({ args: { query: '[redacted]' } }), 'a');
    comparing.add(recorded({ args: 'omitted' }), 'a');
    comparing.add(recorded({ args: { query: '[redacted]' } }), 'a');
    const { unsure, changed, unsureGroups } = comparing.result;
    assert.deepEqual([unsure, changed, unsureGroups.map(({ count }) => count)], [3, 0, [2, 1]]);
  });

  it('lists only so many names, and counts the rest', () => {
    const comparing = new Comparing(rejudgeBy(policyOf({})));
    for (let number = 0; number < 10_005; number++) comparing.add(recorded({ tool: `tool_${number}` }), 'a');
    const { changed, changes, unlisted } = comparing.result;
    assert.deepEqual([changed, changes.length, unlisted], [10_005, 10_000, 5]);
  });

  function first(sequence: number, file: string) {
    return { time: recorded().time, sequence, file };
  }
});

function role(agents: object) {
  return { roles: { reader: { allow: TOOLS } }, agents };
}

function allow(selector: object) {
  return { rules: [{ name: 'r', allow: [selector] }] };
}

function when(condition: string) {
  return { rules: [{ name: 'r', allow: TOOLS, when: condition }] };
}

function deny(condition: string) {
  return { rules: [ALLOW, { name: 'd', deny: TOOLS, when: condition }] };
}
