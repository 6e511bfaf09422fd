import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { compilePolicy } from '../../policies/compile.ts';
import { decide, isVisible } from '../../policies/decide.ts';
import type { Target } from '../../policies/decision.ts';
import { mayHide } from '../../policies/hides.ts';
import { policyAt } from '../../policies/virtual.ts';
import { serverBehind } from '../../sidecar/config/virtual-endpoint.ts';
import { agent, callOf, policyOf, tool } from '../support/policies.ts';

const SUPPORT = {
  tools: ['github.list_issues', 'crm.update_*'],
  prompts: ['crm.greeting'],
  resources: [{ server: 'files', uris: ['file:/docs/*'] }],
};
const VALID = {
  version: 1,
  rules: [
    { name: 'all', allow: [{ tools: ['*'], prompts: ['*'], resources: ['*'], methods: ['*'] }] },
    { name: 'no lists', deny: [{ tools: ['list_*'] }], when: 'has(args.secret)' },
    { name: 'no rights', deny: [{ tools: ['update_rights'] }] },
  ],
  virtualServers: { support: SUPPORT, empty: { tools: ['github.nothing'] } },
};

const prompt = (name: string): Target => ({ kind: 'prompt', server: 'crm', name });
const resource = (uri: string, server = 'files'): Target => ({ kind: 'resource', server, uri });

describe('a virtual server', () => {
  const CASES: [what: string, target: Target, effect: string, rule: string | undefined, document?: object][] = [
    ['a tool that it names', tool('list_issues'), 'allow', 'all'],
    ['a tool that its glob names', tool('update_ticket', 'crm'), 'allow', 'all'],
    ['that tool of another server', tool('list_issues', 'crm'), 'hide', 'virtual server support'],
    ['a tool that it does not name', tool('get_issue'), 'hide', 'virtual server support'],
    ['a tool of the same beginning', tool('list_issues_all'), 'hide', 'virtual server support'],
    ['a prompt', prompt('greeting'), 'allow', 'all'],
    ['a prompt that is named as a tool is', prompt('update_ticket'), 'hide', 'virtual server support'],
    ['a resource', resource('file:/docs/a'), 'allow', 'all'],
    ['a resource in its normal form', resource('file:///docs/a'), 'allow', 'all'],
    ['a resource elsewhere', resource('file:///etc/passwd'), 'hide', 'virtual server support'],
    ['a resource of another server', resource('file:///docs/a', 'crm'), 'hide', 'virtual server support'],
    ['a method', { kind: 'method', server: 'crm', name: 'tasks/get' }, 'hide', 'virtual server support'],
    ['a member that is denied', tool('update_rights', 'crm'), 'hide', 'no rights'],
    ['a member that nothing allows', tool('list_issues'), 'hide', undefined, { rules: [] }],
    ['in audit mode, a member', tool('update_rights', 'crm'), 'allow', undefined, { mode: 'audit' }],
    ['in audit mode, no member', tool('get_issue'), 'hide', 'virtual server support', { mode: 'audit' }],
    ['by default allow, no member', tool('get_issue'), 'hide', 'virtual server support', { default: 'allow' }],
  ];
  for (const [what, target, effect, rule, change] of CASES)
    it(`${what}: ${effect}`, () => {
      const policy = policyAt(policyOf({ ...VALID, ...change }), 'support')!;
      // What another endpoint remembers is not taken for this one's.
      for (let time = 0; time < 2; time++) {
        const decision = decide(policy, agent('a'), target, callOf('x'));
        assert.deepEqual([decision.effect, decision.rule], [effect, rule]);
        assert.equal(isVisible(policy, agent('a'), target), effect !== 'hide');
      }
    });

  it('leaves the servers themselves as they are', () => {
    const policy = policyOf(VALID);
    assert.equal(policyAt(policy, undefined), policy);
    assert.equal(decide(policyAt(policy, 'empty')!, agent('a'), tool('get_issue'), callOf('x')).effect, 'hide');
    assert.equal(decide(policy, agent('a'), tool('get_issue'), callOf('x')).effect, 'allow');
    assert.equal(decide(policyAt(policy, 'empty')!, agent('a'), tool('get_issue'), callOf('x')).effect, 'hide');
  });

  it('hides tools, so that the words of a server must not tell which of them exist', () => {
    const policy = policyOf({ ...VALID, rules: [VALID.rules[0]] });
    const hides = (virtual: string | undefined) =>
      mayHide(policyAt(policy, virtual)!, agent('a').agent, 'github', 'tool');
    assert.deepEqual([hides(undefined), hides('support')], [false, true]);
  });

  it('is not there by another name', () => {
    for (const name of ['', 'Support', 'constructor', '__proto__'])
      assert.equal(policyAt(policyOf(VALID), name), undefined);
  });
});

describe('a virtual server as written', () => {
  const at = (document: unknown) => ({ ...VALID, virtualServers: document });
  const BROKEN: [what: string, document: unknown, problem: RegExp][] = [
    ['nothing in it', { support: {} }, /^virtualServers\.support: needs at least one of tools, prompts and resources/],
    ['an empty list', { support: { tools: [] } }, /^virtualServers\.support\.tools: /],
    ['no server', { support: { tools: ['list_*'] } }, /^virtualServers\.support\.tools\.0: must be <server>\.<glob>/],
    ['a server by glob', { support: { tools: ['*.list'] } }, /^virtualServers\.support\.tools\.0: must be <server>/],
    ['no prompt', { support: { prompts: ['crm.'] } }, /^virtualServers\.support\.prompts\.0: must be <server>/],
    [
      'an unknown key',
      { support: { ...SUPPORT, methods: ['x'] } },
      /^virtualServers\.support\.methods: is not a known/,
    ],
    ['a name that is no path', { 'a/b': SUPPORT }, /^virtualServers\.a\/b: is not a server name/],
    [
      'a resource without server',
      { support: { resources: [{ uris: ['*'] }] } },
      /^virtualServers\.support\.resources\.0\.server: /,
    ],
    ['a long glob', { support: { tools: [`crm.${'x'.repeat(257)}`] } }, /tools\.0: a glob must not be longer/],
    ['a very long one', { support: { tools: [`crm.${'x'.repeat(5000)}`] } }, /tools\.0: /],
  ];
  for (const [what, document, problem] of BROKEN)
    it(`is refused with ${what}`, () => {
      const compiled = compilePolicy(at(document), { env: {} });
      assert.ok(!compiled.ok);
      const problems = compiled.error.map(({ path, message }) => `${path.join('.')}: ${message}`);
      assert.match(problems.join('\n'), problem);
    });

  it('has an endpoint when its members are of one server that is configured', () => {
    const { virtualServers } = policyOf(
      at({ several: SUPPORT, one: { tools: ['crm.a', 'crm.b'], prompts: ['crm.c'] }, none: { tools: ['gone.x'] } }),
    );
    const behind = (name: string) => serverBehind(name, virtualServers.get(name)!, (server) => server === 'crm');
    assert.deepEqual(behind('one'), { ok: true, value: 'crm' });
    const [several, none] = [behind('several'), behind('none')];
    assert.match(several.ok ? '' : several.error, /^virtual server several spans the servers github, crm, files, and/);
    assert.match(none.ok ? '' : none.error, /^virtual server none is of server gone, which is not configured$/);
  });
});
