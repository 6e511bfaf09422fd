import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { decide, isVisible } from '../../policies/decide.ts';
import type { Call, Subject, Target } from '../../policies/decision.ts';
import { agent, callOf, policyOf, tool } from '../support/policies.ts';

const ALL = [{ tools: ['*'], prompts: ['*'], resources: ['*'], methods: ['*'] }];
const READER = {
  roles: { reader: { allow: [{ server: 'github', tools: ['get_*'] }], deny: [{ tools: ['get_secret'] }] } },
  agents: { triage: { roles: ['reader'] } },
};

interface Case {
  readonly policy: object;
  readonly subject?: Subject;
  readonly target?: Target;
  readonly call?: Call;
  readonly effect: 'allow' | 'hide' | 'refuse';
  readonly rule?: string | undefined;
  readonly reason?: RegExp;
  readonly wouldBe?: 'hide' | 'refuse';
}

function allowing(when?: string, mode?: string): object {
  return { name: 'yes', allow: ALL, ...(when && { when }), ...(mode && { mode }) };
}
function denying(when?: string, mode?: string): object {
  return { name: 'no', deny: ALL, ...(when && { when }), ...(mode && { mode }) };
}

const CASES: Record<string, Case> = {
  'nothing allows: hidden': { policy: {}, effect: 'hide', reason: /nothing allows it/ },
  'default allow': { policy: { default: 'allow' }, effect: 'allow' },
  'default allow, denied': { policy: { default: 'allow', rules: [denying()] }, effect: 'hide', rule: 'no' },
  'a rule allows': { policy: { rules: [allowing()] }, effect: 'allow', rule: 'yes' },
  'deny beats allow': { policy: { rules: [allowing(), denying()] }, effect: 'hide', rule: 'no' },
  'the order does not matter': { policy: { rules: [denying(), allowing()] }, effect: 'hide', rule: 'no' },
  'a role by the agent’s name': { policy: READER, target: tool('get_issue'), effect: 'allow', rule: 'role reader' },
  'a role does not reach further': { policy: READER, target: tool('push'), effect: 'hide' },
  'nor to another server': { policy: READER, target: tool('get_issue', 'gitlab'), effect: 'hide' },
  'a role denies too': { policy: READER, target: tool('get_secret'), effect: 'hide', rule: 'role reader' },
  'a role is not for others': { policy: READER, subject: agent('writer'), target: tool('get_issue'), effect: 'hide' },
  'a role from the identity': {
    policy: READER,
    subject: agent('writer', { roles: ['reader'] }),
    target: tool('get_issue'),
    effect: 'allow',
    rule: 'role reader',
  },
  'a role of every agent': {
    policy: { ...READER, agents: { '*': { roles: ['reader'] } } },
    subject: agent('anyone'),
    target: tool('get_issue'),
    effect: 'allow',
    rule: 'role reader',
  },
  'a role that the policy does not know': { policy: READER, subject: agent('a', { roles: ['root'] }), effect: 'hide' },
  'roles of the policy are seen by conditions': {
    policy: { ...READER, rules: [allowing('"reader" in agent.roles')] },
    effect: 'allow',
    rule: 'yes',
  },
  'a stable condition is false: hidden': { policy: { rules: [allowing('agent.name == "x"')] }, effect: 'hide' },
  'a condition on the call is false: refused': {
    policy: { rules: [allowing('args.n < 5')] },
    call: callOf('t', { n: 7 }),
    effect: 'refuse',
    rule: 'yes',
    reason: /does not allow this call/,
  },
  'a condition on the call is true': {
    policy: { rules: [allowing('args.n < 5')] },
    call: callOf('t', { n: 3 }),
    effect: 'allow',
    rule: 'yes',
  },
  'both parts: the stable one hides': {
    policy: { rules: [allowing('args.n < 5 && agent.name == "x"')] },
    call: callOf('t', { n: 3 }),
    effect: 'hide',
  },
  'a deny on the call: refused': {
    policy: { rules: [allowing(), denying('args.n > 5')] },
    call: callOf('t', { n: 7 }),
    effect: 'refuse',
    rule: 'no',
  },
  'a deny on the call that does not hold': {
    policy: { rules: [allowing(), denying('args.n > 5')] },
    call: callOf('t', { n: 3 }),
    effect: 'allow',
    rule: 'yes',
  },
  'a deny on the call of what is hidden anyhow': {
    policy: { rules: [denying('args.n > 5')] },
    call: callOf('t', { n: 7 }),
    effect: 'hide',
  },
  'a deny at an hour': {
    policy: { rules: [allowing(), denying('now.getHours() < 6')] },
    call: callOf('t', {}, { now: 3 * 3_600_000 }),
    effect: 'refuse',
    rule: 'no',
  },
  'an error in a deny on the call: refused': {
    policy: { rules: [allowing(), denying('args.n > 5')] },
    effect: 'refuse',
    rule: 'no',
    reason: /could not be judged: no such key at args\.n/,
  },
  'an error in a stable deny: hidden': {
    policy: { rules: [allowing(), denying('agent.claims.level > 5')] },
    effect: 'hide',
    rule: 'no',
    reason: /could not be judged/,
  },
  'an error in an allow on the call: refused by its name': {
    policy: { rules: [allowing('args.n < 5')] },
    effect: 'refuse',
    rule: 'yes',
    reason: /could not be judged: no such key at args\.n/,
  },
  'an error in a stable allow: hidden, by its name': {
    policy: { rules: [allowing('agent.claims.level > 5')] },
    effect: 'hide',
    rule: 'yes',
    reason: /could not be judged/,
  },
  'an error in an allow does not matter when another allows': {
    policy: { rules: [allowing('args.n < 5'), { name: 'other', allow: ALL }] },
    effect: 'allow',
    rule: 'other',
  },
  'an allow that fails is nothing where the default allows': {
    policy: { default: 'allow', rules: [allowing('args.n < 5')] },
    effect: 'allow',
  },
  'of several that fail the first is named': {
    policy: { rules: [allowing('args.n < 5'), { name: 'other', allow: ALL, when: 'args.m < 5' }] },
    effect: 'refuse',
    rule: 'yes',
  },
  'of several that fail as a whole the first is named': {
    policy: { rules: [allowing('agent.claims.a == 1'), { name: 'other', allow: ALL, when: 'agent.claims.b == 1' }] },
    effect: 'hide',
    rule: 'yes',
  },
  'of several that do not allow the call the first is named': {
    policy: { rules: [allowing('args.n < 5'), { name: 'other', allow: ALL, when: 'args.n < 6' }] },
    call: callOf('t', { n: 7 }),
    effect: 'refuse',
    rule: 'yes',
  },
  'of several that deny the call the first is named': {
    policy: { default: 'allow', rules: [denying('args.n > 5'), { name: 'other', deny: ALL, when: 'args.n > 6' }] },
    call: callOf('t', { n: 7 }),
    effect: 'refuse',
    rule: 'no',
  },
  'audit: let through': { policy: { mode: 'audit' }, effect: 'allow', wouldBe: 'hide' },
  'audit: refused': {
    policy: { mode: 'audit', rules: [allowing('args.n < 5')] },
    call: callOf('t', { n: 7 }),
    effect: 'allow',
    wouldBe: 'refuse',
  },
  'audit: allowed anyhow': { policy: { mode: 'audit', rules: [allowing()] }, effect: 'allow', rule: 'yes' },
  'a deny in audit mode': {
    policy: { rules: [allowing(), denying(undefined, 'audit')] },
    effect: 'allow',
    rule: 'yes',
    wouldBe: 'hide',
  },
  'a deny in audit mode that does not hold': {
    policy: { rules: [allowing(), denying('args.n > 5', 'audit')] },
    call: callOf('t', { n: 3 }),
    effect: 'allow',
    rule: 'yes',
  },
  'an allow in audit mode allows nothing': { policy: { rules: [allowing(undefined, 'audit')] }, effect: 'hide' },
  'a prompt': {
    policy: { rules: [{ name: 'p', allow: [{ prompts: ['ask_*'] }] }] },
    target: { kind: 'prompt', server: 's', name: 'ask_me' },
    effect: 'allow',
    rule: 'p',
  },
  'a tool of a prompt’s name': {
    policy: { rules: [{ name: 'p', allow: [{ prompts: ['ask_*'] }] }] },
    target: tool('ask_me'),
    effect: 'hide',
  },
  'a resource by its URI': {
    policy: { rules: [{ name: 'r', allow: [{ server: 'f*', resources: ['file:///docs/*'] }] }] },
    target: { kind: 'resource', server: 'files', uri: 'file:///docs/a/b' },
    effect: 'allow',
    rule: 'r',
  },
  'a resource elsewhere': {
    policy: { rules: [{ name: 'r', allow: [{ resources: ['file:///docs/*'] }] }] },
    target: { kind: 'resource', server: 'files', uri: 'file:///etc/passwd' },
    effect: 'hide',
  },
  'a method that nobody knows': {
    policy: { rules: [{ name: 'm', allow: [{ tools: ['*'], prompts: ['*'], resources: ['*'] }] }] },
    target: { kind: 'method', server: 's', name: 'vendor/thing' },
    effect: 'hide',
  },
  'a method that is allowed': {
    policy: { rules: [{ name: 'm', allow: [{ methods: ['vendor/*'] }] }] },
    target: { kind: 'method', server: 's', name: 'vendor/thing' },
    effect: 'allow',
    rule: 'm',
  },
  'annotations of a tool that is not known': {
    policy: { rules: [allowing('tool.annotations.readOnlyHint')] },
    effect: 'hide',
  },
  'annotations of a known tool': {
    policy: { rules: [allowing('tool.annotations.readOnlyHint')] },
    target: tool('t', 's', { readOnlyHint: true }),
    effect: 'allow',
    rule: 'yes',
  },
};

describe('a decision', () => {
  for (const [what, { policy: document, subject, target, call, effect, rule, reason, wouldBe }] of Object.entries(
    CASES,
  ))
    it(what, () => {
      const policy = policyOf(document);
      const asked = [policy, subject ?? agent('triage'), target ?? tool('t')] as const;
      // The second time it is answered from what was remembered.
      for (let time = 0; time < 2; time++) {
        const decision = decide(...asked, call ?? callOf('t'));
        assert.deepEqual([decision.effect, decision.rule], [effect, rule]);
        if (decision.effect === 'allow') assert.equal(decision.wouldBe?.effect, wouldBe);
        else assert.match(decision.reason, reason ?? /./);
        assert.equal(isVisible(...asked), effect !== 'hide');
      }
    });

  it('does not take one question for another', () => {
    const policy = policyOf({
      roles: { a: { allow: [{ tools: ['x'] }] }, b: { allow: [{ tools: ['x'] }] } },
      rules: [{ name: 'r', allow: [{ server: 's', tools: ['st'] }] }],
    });
    const x = tool('x', 's');
    assert.equal(isVisible(policy, agent('n', { roles: ['a', 'b'] }), x), true);
    assert.equal(isVisible(policy, agent('n', { roles: ['a,b'] }), x), false);
    assert.equal(isVisible(policy, agent('n', { roles: ['1:a'] }), x), false);
    assert.equal(isVisible(policy, agent('n'), tool('st', 's')), true);
    assert.equal(isVisible(policy, agent('n'), tool('t', 'ss')), false);
    assert.equal(isVisible(policy, agent('n'), { kind: 'prompt', server: 's', name: 'st' }), false);
    assert.equal(isVisible(policy, agent('n'), { kind: 'resource', server: 's', uri: 'st' }), false);
  });

  it('remembers a bounded number of questions, and none that is long', () => {
    const policy = policyOf({ rules: [allowing()] });
    let most = 0;
    for (let index = 0; index < 10_500; index++) {
      isVisible(policy, agent('a'), tool(`t${index}`));
      most = Math.max(most, policy.memo.size);
    }
    assert.equal(most, 10_000);
    const before = policy.memo.size;
    assert.equal(isVisible(policy, agent('a'), tool('x'.repeat(2000))), true);
    assert.equal(policy.memo.size, before);
  });
});
