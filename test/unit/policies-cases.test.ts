import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Case, coverageOf, type Expectation, runCase } from '../../policies/cases.ts';
import { messageOf, type Request } from '../../policies/request.ts';
import { agent, policyOf } from '../support/policies.ts';

const POLICY = policyOf({
  roles: { reader: { allow: [{ server: 'hub', tools: ['get_*'] }] }, idle: { deny: [{ tools: ['x'] }] } },
  agents: { triage: { roles: ['reader'] } },
  rules: [
    { name: 'pushes', allow: [{ server: 'hub', tools: ['push'] }] },
    { name: 'not at night', deny: [{ server: 'hub', tools: ['push'] }], when: 'now.getHours() < 6' },
    { name: 'soon', mode: 'audit', deny: [{ server: 'hub', tools: ['get_secret'] }] },
  ],
  quotas: [
    { name: 'calls', key: ['agent'], calls: '60/min', burst: '5/s' },
    { name: 'pushes', key: ['agent'], calls: '1/min', when: 'tool.name == "push"' },
  ],
  redact: [{ server: 'hub', arguments: ['/token'] }],
  virtualServers: { support: { tools: ['hub.push'] } },
});

const READING: Request = { tool: 'hub.get_issue', args: { token: 't', b: 1, a: 2 } };

function caseOf(request: Request, expected: Expectation, change: Partial<Case['question']> = {}): Case {
  const now = 12 * 3_600_000;
  const annotationsOf = () => undefined;
  return {
    name: 'a case',
    question: { subject: agent('triage'), ...messageOf(request), sessionId: undefined, now, annotationsOf, ...change },
    expected,
  };
}

const differencesOf = (one: Case) =>
  runCase(POLICY, one).differences.map(({ of, expected, got }) => `${of}: ${expected} → ${got}`);

describe('a case', () => {
  const NIGHT = { now: 0 };
  for (const [name, one, expected] of [
    ['holds', caseOf(READING, { verdict: 'allow', rule: 'role reader', quotas: ['calls'] }), []],
    ['has another verdict', caseOf(READING, { verdict: 'hide' }), ['verdict: hide → allow']],
    ['is decided by another rule', caseOf(READING, { verdict: 'allow', rule: 'x' }), ['rule: x → role reader']],
    [
      'is refused by a rule',
      caseOf({ tool: 'hub.push' }, { verdict: 'allow', rule: 'pushes' }, NIGHT),
      ['verdict: allow → refuse', 'rule: pushes → not at night'],
    ],
    [
      'comes at a virtual server that does not have it',
      { ...caseOf(READING, { verdict: 'allow', rule: 'virtual server support' }), virtual: 'support' },
      ['verdict: allow → hide'],
    ],
    [
      'comes at a virtual server that has it',
      { ...caseOf({ tool: 'hub.push' }, { verdict: 'allow', rule: 'pushes' }), virtual: 'support' },
      [],
    ],
    ['is decided by none', caseOf({ tool: 'hub.other' }, { verdict: 'hide', rule: 'none' }), []],
    [
      'in audit mode names what would refuse',
      caseOf({ tool: 'hub.get_secret' }, { verdict: 'allow', wouldBe: 'hide', rule: 'soon' }),
      [],
    ],
    [
      'without audit mode has no other verdict',
      caseOf(READING, { verdict: 'allow', wouldBe: 'hide' }),
      ['wouldBe: hide → none'],
    ],
    [
      'is counted by more',
      caseOf({ tool: 'hub.push' }, { verdict: 'allow', quotas: ['calls'] }),
      ['quotas: ["calls"] → ["calls","pushes"]'],
    ],
    ['names quotas in any order', caseOf({ tool: 'hub.push' }, { verdict: 'allow', quotas: ['pushes', 'calls'] }), []],
    ['is not counted when refused', caseOf({ tool: 'hub.push' }, { verdict: 'refuse', quotas: [] }, NIGHT), []],
    [
      'shows what the audit shows, in any order of keys',
      caseOf(READING, { verdict: 'allow', recorded: { a: 2, b: 1, token: '[redacted]' } }),
      [],
    ],
    [
      'shows what the audit hides',
      caseOf(READING, { verdict: 'allow', recorded: { a: 2, b: 1, token: 't' } }),
      ['recorded: {"a":2,"b":1,"token":"t"} → {"a":2,"b":1,"token":"[redacted]"}'],
    ],
  ] as const)
    it(name, () => assert.deepEqual(differencesOf(one), expected));
});

describe('what is asked', () => {
  for (const [name, request, server, method, params] of [
    ['a tool', { tool: 'hub.a.b' }, 'hub', 'tools/call', { name: 'a.b', arguments: {} }],
    ['a prompt', { prompt: 'hub.p', args: { x: '1' } }, 'hub', 'prompts/get', { name: 'p', arguments: { x: '1' } }],
    ['a resource', { resource: { server: 'hub', uri: 'a:b' } }, 'hub', 'resources/read', { uri: 'a:b' }],
    ['a method', { method: 'tools/list', server: 'hub' }, 'hub', 'tools/list', {}],
  ] as [string, Request, string, string, object][])
    it(name, () => assert.deepEqual(messageOf(request), { server, body: { jsonrpc: '2.0', id: 1, method, params } }));

  it('a whole message', () => {
    const body = { jsonrpc: '2.0', method: 'notifications/own' };
    assert.deepEqual(messageOf({ body, server: 'hub' }), { server: 'hub', body });
    assert.deepEqual(differencesOf(caseOf({ body, server: 'hub' }, { verdict: 'hide' })), []);
  });

  it('a malformed message is refused', () => {
    const malformed = runCase(POLICY, caseOf({ method: 'resources/read', server: 'hub' }, { verdict: 'refuse' }));
    assert.deepEqual(malformed.differences, []);
    const { decision } = malformed.explanation;
    assert.match(decision.effect === 'refuse' ? decision.reason : '', /^the message is malformed: .*params\.uri/);
  });
});

it('covers the rules, roles and quotas that decide something', () => {
  const run = (...requests: Request[]) =>
    coverageOf(
      POLICY,
      requests.map((request) => runCase(POLICY, caseOf(request, { verdict: 'allow' }))),
    )
      .filter(({ covered }) => covered)
      .map(({ kind, name }) => `${kind} ${name}`);
  assert.deepEqual(run(), []);
  assert.deepEqual(run(READING), ['role reader', 'quota calls']);
  assert.deepEqual(run({ tool: 'hub.push' }, { tool: 'hub.get_secret' }), [
    'role reader',
    'rule pushes',
    'rule soon',
    'quota calls',
    'quota pushes',
  ]);
  assert.equal(coverageOf(POLICY, []).length, 7);
});

describe('a case of arguments that policy changes', () => {
  const policy = policyOf({
    rules: [
      { name: 'ours', allow: [{ server: 'hub', tools: ['push'] }], when: 'args.owner == "acme" && !has(args.token)' },
    ],
    arguments: [
      { name: 'our owner', tools: ['*'], set: { '/owner': 'acme' }, remove: ['/token'] },
      { name: 'small pages', tools: ['*'], remove: ['/page/0'] },
    ],
  });
  // An element of a list is not removed.
  const pages = { page: ['size'] };
  const got = (args: Record<string, unknown>, expected: Expectation) =>
    runCase(policy, caseOf({ tool: 'hub.push', args }, expected)).differences;

  it('is judged and recorded as changed', () => {
    const recorded = { a: 1, owner: 'acme' };
    assert.deepEqual(got({ a: 1, owner: 'evil', token: 't' }, { verdict: 'allow', rule: 'ours', recorded }), []);
  });
  it('is refused by the entry where they cannot be changed', () => {
    assert.deepEqual(got(pages, { verdict: 'refuse', rule: 'small pages' }), []);
  });
  it('is hidden where it is, whatever its arguments are', () => {
    const other = caseOf({ tool: 'hub.other', args: pages }, { verdict: 'hide', rule: 'none' });
    assert.deepEqual(runCase(policy, other).differences, []);
  });
});
