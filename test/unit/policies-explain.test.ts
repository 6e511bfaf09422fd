/** What an explanation says of each part; that it agrees with the decision is a property test's. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { explain, type Part } from '../../policies/explain.ts';
import type { Question } from '../../policies/judge.ts';
import { messageOf, type Request } from '../../policies/request.ts';
import { agent, policyOf } from '../support/policies.ts';

const POLICY = {
  roles: {
    reader: { allow: [{ server: 'hub', tools: ['get_*'] }, { tools: ['ping', 'get_x'] }], deny: [{ tools: ['drop'] }] },
    admin: { allow: [{ tools: ['*'] }] },
  },
  agents: { triage: { roles: ['reader'] } },
  rules: [
    { name: 'pushes', allow: [{ tools: ['push'] }], when: 'agent.name == "triage" && args.n < 5' },
    { name: 'no nights', deny: [{ tools: ['push'] }], when: 'now.getHours() < 6' },
    { name: 'never', deny: [{ tools: ['drop'] }] },
    { name: 'soon', mode: 'audit', deny: [{ tools: ['get_x'] }], when: 'args.n > 1' },
    { name: 'files', allow: [{ resources: ['file:///docs/*'] }] },
  ],
  quotas: [{ name: 'calls', key: ['agent'], calls: '60/min', burst: '5/s' }],
};

function explained(request: Request, change: Partial<Question> = {}, document: object = POLICY) {
  const now = 12 * 3_600_000;
  return explain(policyOf(document), {
    subject: agent('triage'),
    ...messageOf(request),
    sessionId: undefined,
    now,
    annotationsOf: () => undefined,
    ...change,
  });
}

/** `label effect[ stable/perCall][ #selectors]`, of those that have a part. */
function show({ label, effect, stable, perCall, selectors }: Part): string {
  const truth = stable === undefined && perCall === undefined ? '' : ` ${stable ?? '-'}/${perCall ?? '-'}`;
  return `${label} ${effect}${truth} #${selectors.join()}`;
}

describe('the parts', () => {
  for (const [name, request, change, expected] of [
    ['a role, by which selectors', { tool: 'hub.get_x' }, {}, ['role reader allows #0,1', 'soon refuses -/error #0']],
    [
      'an audited rule on the call',
      { tool: 'hub.get_x', args: { n: 1 } },
      {},
      ['role reader allows #0,1', 'soon nothing -/false #0'],
    ],
    [
      'both halves of a condition',
      { tool: 'hub.push', args: { n: 3 } },
      {},
      ['pushes allows true/true #0', 'no nights nothing -/false #0'],
    ],
    [
      'seen, but not this call',
      { tool: 'hub.push', args: { n: 7 } },
      { now: 0 },
      ['pushes shows true/false #0', 'no nights refuses -/true #0'],
    ],
    [
      'an allow that cannot be judged',
      { tool: 'hub.push', args: {} },
      {},
      ['pushes shows true/error #0', 'no nights nothing -/false #0'],
    ],
    [
      'not for this agent',
      { tool: 'hub.push', args: { n: 3 } },
      { subject: agent('other') },
      ['pushes nothing false/true #0', 'no nights nothing -/false #0'],
    ],
    ['a side of a role that denies', { tool: 'hub.drop' }, {}, ['role reader hides #0', 'never hides #0']],
    ['a resource', { resource: { server: 'hub', uri: 'file:///docs/a' } }, {}, ['files allows #0']],
    ['nothing', { prompt: 'hub.p' }, {}, []],
  ] as [string, Request, Partial<Question>, string[]][])
    it(name, () => {
      const { targets } = explained(request, change);
      const parts = targets.flatMap((target) => target.parts).filter(({ apart }) => apart === undefined);
      assert.deepEqual(parts.map(show), expected);
    });

  it('say why a rule has none', () => {
    const { targets } = explained({ tool: 'hub.push', args: { n: 1 } });
    assert.deepEqual(
      targets[0]!.parts
        .filter(({ apart }) => apart !== undefined)
        .map(({ label, side, apart }) => `${label} ${side} ${apart}`),
      [
        'role reader deny notSelected',
        'role reader allow notSelected',
        'role admin allow roleNotHeld',
        'never deny notSelected',
        'soon deny notSelected',
        'files allow notSelected',
      ],
    );
  });

  it('tell what could not be judged, and no value of the message', () => {
    const { targets } = explained({ tool: 'hub.push', args: { n: 'secret' } });
    const part = targets[0]!.parts.find(({ label }) => label === 'pushes');
    assert.match(part?.error ?? '', /args\.n < 5/);
    assert.doesNotMatch(JSON.stringify(part), /secret/);
  });
});

it('tells all roles, and what the call is counted by when it is let through', () => {
  const subject = agent('triage', { roles: ['admin'] });
  const { roles, charges } = explained({ tool: 'hub.get_y' }, { subject });
  assert.deepEqual(roles, ['admin', 'reader']);
  assert.deepEqual(
    charges.map(({ quota, dimension, limit, windowMs }) => [quota, dimension, limit, windowMs]),
    [
      ['calls', 'calls', 60, 60_000],
      ['calls', 'calls', 5, 1000],
    ],
  );
  assert.deepEqual(explained({ tool: 'hub.drop' }).charges, []);
});

it('a URI that can be written in two ways is two targets, and the first that is refused decides', () => {
  const both = explained(
    { resource: { server: 'hub', uri: 'FILE:///docs/a' } },
    {},
    {
      rules: [{ name: 'files', allow: [{ resources: ['*'] }] }],
    },
  );
  assert.deepEqual(
    both.targets.map(({ target }) => (target.kind === 'resource' ? target.uri : '')),
    ['FILE:///docs/a', 'file:///docs/a'],
  );
  const one = explained({ resource: { server: 'hub', uri: 'FILE:///secret/a' } });
  assert.deepEqual([one.decision.effect, one.targets.length], ['hide', 1]);
});

it('in audit mode, the first that would be refused is told', () => {
  const rules = [
    { name: 'written so', allow: [{ resources: ['file:///*'] }] },
    { name: 'x', deny: [{ resources: ['FILE:*'] }] },
  ];
  const { decision } = explained({ resource: { server: 'hub', uri: 'FILE:///docs/a' } }, {}, { mode: 'audit', rules });
  assert.equal(decision.effect === 'allow' && decision.wouldBe?.rule, 'x');
});

describe('a message as such', () => {
  const effectOf = (body: Record<string, unknown>) => explained({ body, server: 'hub' }).decision.effect;
  for (const [name, body, expected] of [
    ['the protocol’s own', { id: 1, method: 'tools/list' }, 'allow'],
    ['a notification', { method: 'notifications/progress' }, 'allow'],
    ['what only looks like one', { id: 1, method: 'notifications/progress' }, 'hide'],
    ['a notification of somebody’s own', { method: 'notifications/own' }, 'hide'],
    ['a response', { id: 1, result: {} }, 'allow'],
    ['params that are null', { id: 1, method: 'tools/call', params: null }, 'refuse'],
    ['params that are text', { id: 1, method: 'tools/call', params: 'name' }, 'refuse'],
    ['arguments that are null', { id: 1, method: 'tools/call', params: { name: 'get_y', arguments: null } }, 'allow'],
  ] as [string, Record<string, unknown>, string][])
    it(name, () => assert.equal(effectOf(body), expected));

  it('arguments that are no object are malformed', () => {
    for (const args of ['text', 1, ['n']]) {
      const body = { id: 1, method: 'tools/call', params: { name: 'get_y', arguments: args } };
      assert.equal(effectOf(body), 'refuse');
    }
  });
});
