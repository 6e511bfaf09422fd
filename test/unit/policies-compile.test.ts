import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { parse } from 'yaml';
import * as z from 'zod';
import { compilePolicy } from '../../policies/compile.ts';
import { decide, isVisible } from '../../policies/decide.ts';
import { policySchema } from '../../policies/schema.ts';
import { agent, callOf, policyOf, tool } from '../support/policies.ts';

/** The example of the language's contract. */
const VALID = {
  version: 1,
  default: 'deny',
  roles: { reader: { allow: [{ server: 'github', tools: ['list_*', 'get_*'] }] } },
  agents: { triage: { roles: ['reader'] } },
  rules: [
    { name: 'no pushes at night', deny: [{ server: 'github', tools: ['push_*'] }], when: 'now.getHours() < 6' },
    {
      name: 'small queries only',
      allow: [{ server: 'db', tools: ['run_sql_query'] }],
      when: 'size(args.query) < 4000',
    },
  ],
  quotas: [
    { name: 'calls', key: ['agent'], calls: '60/min', burst: '25/10s' },
    { name: 'tokens', key: ['agent'], tokens: '20000/min' },
  ],
  redact: [{ server: 'crm', arguments: ['/customer/email'] }],
};

function problemsOf(document: unknown): string[] {
  const compiled = compilePolicy(document, { env: {} });
  return compiled.ok ? [] : compiled.error.map(({ path, message }) => `${path.join('.')}: ${message}`);
}

describe('a policy', () => {
  it('compiles', () => assert.deepEqual(problemsOf(VALID), []));
  it('is a refusal of everything when it says nothing', () => {
    const policy = policyOf({});
    assert.equal(isVisible(policy, agent('a'), tool('t')), false);
  });
  it('compiles again from what the schema made of it', () =>
    assert.deepEqual(problemsOf(policySchema.parse(VALID)), []));

  const rule = VALID.rules[0]!;
  const quota = VALID.quotas[0]!;
  const BROKEN: [what: string, document: unknown, problem: RegExp][] = [
    ['no mapping', 'allow all', /^: /],
    ['nothing', undefined, /^: /],
    ['no version', { ...VALID, version: undefined }, /^version: /],
    ['a later version', { ...VALID, version: 2 }, /^version: /],
    ['an unknown key', { ...VALID, rulez: [] }, /^rulez: is not a known key/],
    ['an unknown key of a rule', { ...VALID, rules: [{ ...rule, wen: 'true' }] }, /^rules\.0\.wen: is not a known key/],
    ['an unknown default', { ...VALID, default: 'maybe' }, /^default: /],
    ['an unknown mode', { ...VALID, mode: 'off' }, /^mode: /],
    ['a rule without effect', { ...VALID, rules: [{ name: 'x' }] }, /^rules\.0: needs exactly one of allow and deny/],
    ['a rule with both effects', { ...VALID, rules: [{ ...rule, allow: rule.deny }] }, /^rules\.0: needs exactly one/],
    ['a rule that selects nothing', { ...VALID, rules: [{ ...rule, deny: [] }] }, /^rules\.0\.deny: /],
    [
      'a selector of nothing',
      { ...VALID, rules: [{ ...rule, deny: [{ server: 'a' }] }] },
      /^rules\.0\.deny\.0: needs at least one of/,
    ],
    [
      'an empty list of globs',
      { ...VALID, rules: [{ ...rule, deny: [{ tools: [] }] }] },
      /^rules\.0\.deny\.0\.tools: /,
    ],
    [
      'an empty glob',
      { ...VALID, rules: [{ ...rule, deny: [{ tools: ['a', ''] }] }] },
      /^rules\.0\.deny\.0\.tools\.1: /,
    ],
    [
      'a glob with a control character',
      { ...VALID, rules: [{ ...rule, deny: [{ tools: ['\u0007'] }] }] },
      /tools\.0: .*control/,
    ],
    ['a condition that does not parse', { ...VALID, rules: [{ ...rule, when: 'now.' }] }, /^rules\.0\.when: /],
    [
      'a condition of the wrong type',
      { ...VALID, rules: [{ ...rule, when: 'agent.name' }] },
      /^rules\.0\.when: must be true or false/,
    ],
    ['two rules of one name', { ...VALID, rules: [rule, rule] }, /^rules\.1\.name: another entry is named no pushes/],
    ['two quotas of one name', { ...VALID, quotas: [quota, quota] }, /^quotas\.1\.name: another entry/],
    [
      'a role that is not there',
      { ...VALID, agents: { triage: { roles: ['writer'] } } },
      /^agents\.triage\.roles\.0: no role is named writer/,
    ],
    [
      'a quota of nothing',
      { ...VALID, quotas: [{ name: 'x', key: ['agent'] }] },
      /^quotas\.0: needs calls, tokens or concurrent/,
    ],
    ['a quota without a key', { ...VALID, quotas: [{ ...quota, key: [] }] }, /^quotas\.0\.key: /],
    [
      'a key that is not there',
      { ...VALID, quotas: [{ ...quota, key: ['agents'] }] },
      /^quotas\.0\.key\.0: must be one of agent, user, group, session, server, tool, or \{ cel: <expression> \}$/,
    ],
    [
      'a key by an expression that does not parse',
      { ...VALID, quotas: [{ ...quota, key: [{ cel: 'args.' }] }] },
      /^quotas\.0\.key\.0\.cel: /,
    ],
    ...['60', '60/', '60/m', '60/10x', '-1/min', '1.5/min', '60/0s', '0/min', '1/99999h', '60/min ', 60].map(
      (calls): [string, unknown, RegExp] => [
        `the rate ${calls}`,
        { ...VALID, quotas: [{ ...quota, calls }] },
        /^quotas\.0\.calls: /,
      ],
    ),
    [
      'a pointer without a slash',
      { ...VALID, redact: [{ server: 'a', arguments: ['email'] }] },
      /^redact\.0\.arguments\.0: .*starts with \//,
    ],
    [
      'a pointer with a bad escape',
      { ...VALID, redact: [{ server: 'a', arguments: ['/a~2'] }] },
      /^redact\.0\.arguments\.0: .*~0/,
    ],
  ];
  const inRule = (deny: unknown) => ({ ...VALID, rules: [{ ...rule, deny }] });
  const TOLD: [what: string, document: unknown, at: 'key' | 'value', problem: string][] = [
    ['a slip in a key', { ...VALID, defualt: 'deny' }, 'key', 'defualt: is not a known key; did you mean default?'],
    ['a slip in extends', { ...VALID, extend: 'x' }, 'key', 'extend: is not a known key; did you mean extends?'],
    [
      'a slip far inside',
      inRule([{ servr: 'a', tools: ['x'] }]),
      'key',
      'rules.0.deny.0.servr: is not a known key; did you mean server?',
    ],
    [
      'a key like no other',
      { ...VALID, agents: { a: { xyz: 1, roles: [] } } },
      'key',
      'agents.a.xyz: is not a known key; known here: roles',
    ],
    ['an empty name', { ...VALID, roles: { ...VALID.roles, '': {} } }, 'key', 'roles.: must not be empty'],
    [
      'a glob in place of a list',
      inRule([{ tools: 'x' }]),
      'value',
      'rules.0.deny.0.tools: must be a list, such as [list_*]',
    ],
    [
      'a selector in place of a list',
      inRule({ tools: ['x'] }),
      'value',
      'rules.0.deny: must be a list, such as [{ tools: [list_*] }]',
    ],
    [
      'a key in place of a list',
      { ...VALID, quotas: [{ ...quota, key: 'agent' }] },
      'value',
      'quotas.0.key: must be a list, such as [agent]',
    ],
    ['no key', { ...VALID, quotas: [{ name: 'a', calls: '1/min' }] }, 'value', 'quotas.0.key: is missing'],
    ['a mapping in place of rules', { ...VALID, rules: {} }, 'value', 'rules: must be a list'],
    ['an unknown word', { ...VALID, default: 'maybe' }, 'value', 'default: must be one of deny, allow'],
    [
      'a slip in a role',
      { ...VALID, agents: { a: { roles: ['raeder'] } } },
      'value',
      'agents.a.roles.0: no role is named raeder; did you mean reader?',
    ],
    [
      'a role like no other',
      { ...VALID, agents: { a: { roles: ['x'] } } },
      'value',
      'agents.a.roles.0: no role is named x; there are: reader',
    ],
    [
      'a window like no other',
      { ...VALID, quotas: [{ ...quota, calls: '6/minute' }] },
      'value',
      'quotas.0.calls: must be <count>/<window>, for example 60/min or 25/10s; windows are s, sec, min, h, hour and day, or so many: 10s, 5m, 2h',
    ],
    [
      'a price beyond measure',
      { ...VALID, prices: [{ perCall: 1e9 }] },
      'value',
      'prices.0.perCall: must be at most 1000000',
    ],
  ];
  for (const [what, document, at, problem] of TOLD)
    it(`is told ${what}, in words`, () => {
      const compiled = compilePolicy(document, { env: {} });
      assert.ok(!compiled.ok);
      const told = compiled.error.map((one) => [one.at, `${one.path.join('.')}: ${one.message}`]);
      assert.deepEqual(told, [[at, problem]]);
    });

  for (const [what, document, problem] of BROKEN)
    it(`with ${what} does not compile`, () => {
      const problems = problemsOf(document);
      assert.ok(
        problems.some((text) => problem.test(text)),
        `${problem} not in ${JSON.stringify(problems)}`,
      );
    });

  it('tells all of its problems at once', () => {
    const problems = problemsOf({
      ...VALID,
      extra: 1,
      agents: { a: { roles: ['nobody'] } },
      rules: [
        { ...rule, when: '1 +' },
        { ...rule, deny: [{ tools: [''] }] },
      ],
      quotas: [{ ...quota, calls: '0/min' }],
      redact: [{ server: 'a', arguments: ['x'] }],
    });
    for (const path of [
      'extra',
      'agents.a.roles.0',
      'rules.0.when',
      'rules.1.name',
      'rules.1.deny.0.tools.0',
      'quotas.0.calls',
      'redact.0.arguments.0',
    ])
      assert.ok(
        problems.some((text) => text.startsWith(`${path}: `)),
        `${path} not in ${JSON.stringify(problems)}`,
      );
  });

  it('says what has to be known for it', () => {
    assert.equal(policyOf(VALID).usesAnnotations, false);
    const hints = { rules: [{ ...rule, when: 'tool.annotations.destructiveHint' }] };
    assert.equal(policyOf(hints).usesAnnotations, true);
    const inQuota = { quotas: [{ ...quota, when: 'tool.annotations.destructiveHint' }] };
    assert.equal(policyOf(inQuota).usesAnnotations, true);
  });

  it('has a JSON Schema that editors can use', () => {
    const schema = z.toJSONSchema(policySchema, { io: 'input' });
    assert.deepEqual(schema.required, ['version']);
    assert.equal(schema.additionalProperties, false);
  });
});

describe('library/observe', () => {
  it('lets everything through and says what enforcing would do', async () => {
    const policy = policyOf(
      parse(await readFile(new URL('../../policies/library/observe.yaml', import.meta.url), 'utf8')),
    );
    assert.equal(isVisible(policy, agent('a'), tool('drop_all')), true);
    const decision = decide(policy, agent('a'), tool('drop_all'), callOf('drop_all'));
    assert.equal(decision.effect === 'allow' && decision.wouldBe?.effect, 'hide');
  });
});
