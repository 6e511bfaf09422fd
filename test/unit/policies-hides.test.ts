import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Hideable, mayHide } from '../../policies/hides.ts';
import { agent, policyOf } from '../support/policies.ts';

const ALL = { name: 'all', allow: [{ tools: ['*'], prompts: ['*'], resources: ['*'] }] };
const SOME = { name: 'some', allow: [{ tools: ['list_*'] }] };
const DENY = { name: 'hide', deny: [{ server: 'github', tools: ['drop'] }] };

describe('policy may hide', () => {
  const CASES: [what: string, document: object, hides: boolean, kind?: Hideable, server?: string][] = [
    ['nothing where all is allowed', { rules: [ALL] }, false],
    ['nothing where nothing is allowed', {}, false],
    ['nothing by default: allow', { default: 'allow' }, false],
    ['what is denied', { rules: [ALL, DENY] }, true],
    ['what is denied, by default: allow', { default: 'allow', rules: [DENY] }, true],
    ['no prompts where tools are denied', { rules: [ALL, DENY] }, false, 'prompt'],
    ['nothing of another server', { rules: [ALL, DENY] }, false, 'tool', 'crm'],
    ['what is denied to some agent', { rules: [ALL, { ...DENY, when: 'agent.name == "b"' }] }, true],
    ['nothing by what a call is like', { rules: [ALL, { ...DENY, when: 'size(args.q) > 1' }] }, false],
    ['what a deny by both hides by an error', { rules: [ALL, { ...DENY, when: 'agent.claims.x && args.y' }] }, true],
    ['nothing by a rule in audit mode', { rules: [ALL, { ...DENY, mode: 'audit' }] }, false],
    ['nothing in audit mode', { mode: 'audit', rules: [ALL, DENY] }, false],
    ['what an allow leaves out', { rules: [SOME] }, true],
    ['what the condition of an allow leaves out', { rules: [{ ...ALL, when: 'tool.name != "drop"' }] }, true],
    ['no prompts by the name of a tool', { rules: [{ ...ALL, when: 'tool.name != "drop"' }] }, false, 'prompt'],
    ['nothing where all is allowed by who asks', { rules: [{ ...ALL, when: 'agent.name == "a"' }] }, false],
    ['what another allow leaves out then', { rules: [SOME, { ...ALL, when: 'agent.name == "b"' }] }, true],
    ['nothing where all is allowed by call', { rules: [SOME, { ...ALL, when: 'args.q == 1' }] }, false],
    ['nothing where the whole name is allowed', { rules: [{ name: 'one', allow: [{ tools: ['read'] }] }] }, false],
    ['what a role may not', { roles: { r: { deny: [{ tools: ['drop'] }] } }, agents: { a: { roles: ['r'] } } }, true],
    ['nothing by the role of others', { roles: { r: { allow: [{ tools: ['x*'] }] } } }, false],
    [
      'nothing where a role may all',
      { roles: { r: { allow: [{ tools: ['*'] }] } }, agents: { '*': { roles: ['r'] } }, rules: [SOME] },
      false,
    ],
  ];
  for (const [what, document, hides, kind = 'tool', server = 'github'] of CASES)
    it(what, () => {
      const policy = policyOf({ ...(what.includes('role may not') ? { rules: [ALL] } : undefined), ...document });
      for (let time = 0; time < 2; time++) assert.equal(mayHide(policy, agent('a').agent, server, kind), hides);
    });

  it('something from one agent and nothing from another', () => {
    const policy = policyOf({ roles: { r: { allow: [{ tools: ['*'] }] } }, rules: [SOME] });
    const asked = [agent('a'), agent('a', { roles: ['r'] })].map((one) => mayHide(policy, one.agent, 'github', 'tool'));
    assert.deepEqual(asked, [true, false]);
  });

  it('in bounded memory', () => {
    const policy = policyOf({ rules: [SOME] });
    let most = 0;
    for (let index = 0; index < 10_100; index++) {
      mayHide(policy, agent(`a${index}`).agent, 'github', 'tool');
      most = Math.max(most, policy.hiding.size);
    }
    assert.equal(most, 10_000);
  });
});
