import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';

const MAIN = join(import.meta.dirname, '../../sidecar/main.ts');

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'commands-policy-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

function write(name: string, text: string): void {
  writeFileSync(join(folder, name), text);
}

function sidecar(...args: string[]) {
  return spawnSync(process.execPath, [MAIN, 'policy', ...args], { cwd: folder, encoding: 'utf8', timeout: 60_000 });
}

/** A secret that is not there: neither command needs it. */
const CONFIG = `group: support
servers: { hub: { url: "https://hub.example/mcp", auth: { type: bearer, token: { env: NOT_SET } } } }
policy: ./policy.yaml
`;
const POLICY = `version: 1
extends: library/per-agent-quotas
roles:
  reader: { allow: [ { server: hub, tools: [get_*] } ] }
agents: { triage: { roles: [reader] } }
rules:
  - name: pushes
    allow: [ { server: hub, tools: [push] } ]
    when: agent.name == "triage" && args.n < 5
  - name: no nights
    deny: [ { server: hub, tools: [push] } ]
    when: now.getHours() < 6
`;
const HOLDING = `cases:
  - name: triage reads
    agent: triage
    request: { tool: hub.get_issue }
    expect: allow
  - { name: pushes, agent: triage, request: { tool: hub.push, args: { n: 1 } }, expect: { verdict: allow, rule: pushes } }
`;
const FAILING = `  - name: also at night
    agent: triage
    at: 2026-01-07T05:00:00Z
    request: { tool: hub.push, args: { n: 7 } }
    expect: { verdict: allow, rule: pushes }
`;

function writeAll(cases: string): void {
  write('sidecar.yaml', CONFIG);
  write('policy.yaml', POLICY);
  write('policy.cases.yaml', cases);
}

describe('policy test', () => {
  it('runs the cases beside the policy of sidecar.yaml, and says what they do not cover of it', () => {
    writeAll(HOLDING);
    const { status, stdout, stderr } = sidecar('test');
    assert.deepEqual([status, stderr], [0, '']);
    assert.deepEqual(stdout.split('\n'), [
      'tests policy.yaml by policy.cases.yaml',
      '',
      '2 passed, 0 failed',
      'coverage 66 %; no case covers',
      '  rule no nights (policy.yaml:10)',
      '',
    ]);
  });

  it('says when the policy that the configuration names has no cases', () => {
    writeAll(HOLDING);
    write('sidecar.yaml', CONFIG.replace('policy.yaml', 'other.yaml'));
    write('other.yaml', POLICY);
    const told = 'other.yaml, which the configuration names, has no cases';
    for (const args of [[], ['.']]) {
      const { status, stdout } = sidecar('test', ...args);
      assert.equal(status, 0);
      assert.deepEqual(stdout.split('\n').slice(0, 3), ['tests policy.yaml by policy.cases.yaml', told, '']);
    }
    assert.equal(JSON.parse(sidecar('test', '--json').stdout).withoutCases, 'other.yaml');
    assert.ok(!sidecar('test', 'policy.yaml').stdout.includes(told));
  });

  it('a case that does not hold: both sides, each rule’s part, and exit code 1', () => {
    writeAll(HOLDING + FAILING);
    const { status, stdout } = sidecar('test', 'policy.yaml');
    assert.equal(status, 1);
    assert.deepEqual(stdout.split('\n'), [
      'tests policy.yaml by policy.cases.yaml',
      '',
      'FAIL policy.cases.yaml:7  also at night',
      '  - verdict allow',
      '  + verdict refuse',
      '  - rule pushes',
      '  + rule no nights',
      '  refuse by no nights: no nights denies this call',
      '    no nights (policy.yaml:10) denies this call',
      '      deny hub: tools push',
      '      when now.getHours() < 6: true by the call',
      '    pushes (policy.yaml:7) lets it be seen, but does not allow this call',
      '      allow hub: tools push',
      '      when agent.name == "triage" && args.n < 5: true by what is known without a call, false by the call',
      '',
      '2 passed, 1 failed',
      'coverage 100 %',
      '',
    ]);
  });

  it('--coverage asks for a least share, and --json prints data', () => {
    writeAll(HOLDING);
    assert.equal(sidecar('test', '--coverage', '66').status, 0);
    const { status, stdout } = sidecar('test', '--coverage', '100', '--json');
    assert.equal(status, 1);
    assert.deepEqual(JSON.parse(stdout), {
      ok: false,
      files: [{ cases: 'policy.cases.yaml', policy: 'policy.yaml' }],
      passed: 2,
      failed: 0,
      failures: [],
      coverage: { percent: 66, missing: [{ kind: 'rule', name: 'no nights', place: 'policy.yaml:10' }] },
    });
    for (const wrong of ['101', '-1', 'all', '']) assert.equal(sidecar('test', '--coverage', wrong).status, 2, wrong);
  });

  for (const [name, quotas, places] of [
    ['alone', '', ['  budget purse (policy.yaml:3)']],
    [
      'beside a quota',
      'quotas: [ { name: calls, key: [agent], calls: 60/min, when: "false" } ]\n',
      ['  quota calls (policy.yaml:5)', '  budget purse (policy.yaml:3)'],
    ],
  ] as [string, string, string[]][])
    it(`a budget that no case is counted by, ${name}`, () => {
      const budget =
        'budgets: [ { name: purse, key: [agent], cost: 5/day, when: "false" } ]\nprices: [ { tools: ["*"], perCall: 1 } ]\n';
      write('policy.yaml', `version: 1\nroles: { reader: { allow: [ { tools: [get_x] } ] } }\n${budget}${quotas}`);
      write(
        'policy.cases.yaml',
        'cases: [ { name: x, agent: { name: a, roles: [reader] }, request: { tool: hub.get_x }, expect: allow } ]\n',
      );
      const { status, stdout, stderr } = sidecar('test', 'policy.yaml');
      assert.deepEqual([status, stderr], [0, '']);
      assert.deepEqual(stdout.split('\n').slice(4, -1), places);
    });

  it('cases of folders, of a policy in several files, of the library, and with the policy in them', () => {
    mkdirSync(join(folder, 'policies'));
    write('policies/a.yaml', 'version: 1\nroles: { reader: { allow: [ { tools: [get_*] } ] } }\n');
    write('policies/b.yaml', 'version: 1\nagents: { triage: { roles: [reader] } }\n');
    const one =
      '{ name: x, agent: triage, request: { tool: hub.get_x }, expect: { verdict: allow, rule: role reader } }';
    write('policies/all.cases.yaml', `policy: .\ncases: [ ${one} ]\n`);
    const ran = (tested: string) => `tests ${tested}\n\n1 passed, 0 failed\ncoverage 100 %\n`;
    const ofFolder = ran('policies by policies/all.cases.yaml');
    assert.equal(sidecar('test', 'policies').stdout, ofFolder);
    assert.equal(sidecar('test', 'policies', 'policies/all.cases.yaml').stdout, ofFolder);
    write('inline.cases.yaml', `policy: { version: 1, extends: policies }\ncases: [ ${one} ]\n`);
    assert.equal(sidecar('test', 'inline.cases.yaml').stdout, ran('inline.cases.yaml'));
    assert.equal(sidecar('test', 'library/observe').stdout, ran('library/observe by library/observe.cases'));
  });

  for (const [name, cases, problem] of [
    [
      'an unknown key',
      'cases: [ { nam: x, agent: a, request: { tool: a.b }, expect: allow } ]',
      /:1:12 {2}cases\[0\]\.nam: is not a known key; did you mean name\?/,
    ],
    [
      'another verdict',
      'cases: [ { name: x, agent: a, request: { tool: a.b }, expect: deny } ]',
      /cases\[0\]\.expect: must be one of allow, refuse, hide/,
    ],
    [
      'a tool without a server',
      'cases: [ { name: x, agent: a, request: { tool: b }, expect: allow } ]',
      /cases\[0\]\.request\.tool: must be <server>\.<name>/,
    ],
    [
      'a time that is none',
      'cases: [ { name: x, agent: a, at: noon, request: { tool: a.b }, expect: allow } ]',
      /cases\[0\]\.at: must be a time/,
    ],
    [
      'a virtual server that the policy has not',
      'cases: [ { name: x, agent: a, virtual: nope, request: { tool: a.b }, expect: allow } ]',
      /cases\[0\]\.virtual: the policy has no virtual server of this name/,
    ],
    ['no cases', 'cases: []', /cases: must have at least 1 entries/],
    [
      'a policy that is not there',
      'policy: nope.yaml\ncases: [ { name: x, agent: a, request: { tool: a.b }, expect: allow } ]',
      /:1:9 {2}policy: does not exist/,
    ],
    [
      'a policy that is none',
      'policy: { version: 1, rulez: [] }\ncases: [ { name: x, agent: a, request: { tool: a.b }, expect: allow } ]',
      /:1:\d+ {2}policy\.rulez: is not a known key/,
    ],
  ] as [string, string, RegExp][])
    it(`wrong: ${name}`, () => {
      write('policy.yaml', POLICY);
      write('policy.cases.yaml', `${cases}\n`);
      const { status, stdout, stderr } = sidecar('test', 'policy.cases.yaml');
      assert.deepEqual([status, stdout], [2, '']);
      assert.match(stderr, problem);
      assert.equal(JSON.parse(sidecar('test', 'policy.cases.yaml', '--json').stdout).ok, false);
    });

  it('cases say in which session they come', () => {
    const rule = '{ name: one, allow: [ { tools: ["*"] } ], when: session.id == "s1" }';
    const call = 'agent: a, request: { tool: hub.x }';
    write(
      'policy.cases.yaml',
      `policy: { version: 1, rules: [ ${rule} ] }
cases:
  - { name: this, ${call}, session: s1, expect: allow }
  - { name: another, ${call}, session: s2, expect: refuse }
  - { name: none, ${call}, expect: refuse }
`,
    );
    const { status, stdout } = sidecar('test', 'policy.cases.yaml');
    assert.equal(status, 0);
    assert.match(stdout, /^3 passed, 0 failed$/m);
  });

  it('wrong use: nothing to run', () => {
    assert.match(sidecar('test').stderr, /sidecar\.yaml {2}does not exist: name the policy itself/);
    write('policy.yaml', POLICY);
    const { status, stderr } = sidecar('test', 'policy.yaml', '.');
    assert.equal(status, 2);
    assert.deepEqual(stderr.split('\n'), [
      'policy.yaml has no cases: write them to policy.cases.yaml',
      `${folder} holds no *.cases.yaml`,
      '',
    ]);
    assert.match(
      sidecar('test', 'library/nope').stderr,
      /library\/nope\.yaml is not in the library of this package: library\/business-hours, .*library\/slack\n$/,
    );
    write('sidecar.yaml', CONFIG.replace('./policy.yaml', '{ version: 1 }'));
    assert.match(sidecar('test').stderr, /only a policy in a file or folder has cases beside it/);
  });
});

describe('policy explain', () => {
  it('minds names that are nowhere, and asks for arguments', () => {
    writeAll(HOLDING);
    write('sidecar.yaml', `${CONFIG}identify: [ { type: uid, agents: { 10001: other } } ]\n`);
    const explain = (...args: string[]) => sidecar('explain', ...args);
    const odd = explain('--tool', 'hbu.push', '--agent', 'zz');
    assert.deepEqual(odd.stderr.split('\n'), [
      'mind: server hbu is not configured; there are: hub',
      'mind: agent zz is known neither to identify nor to the policy; there are: other, triage',
      '',
    ]);
    for (const agent of ['triage', 'other']) assert.equal(explain('--tool', 'hub.push', '--agent', agent).stderr, '');
    assert.equal(explain('--policy', 'policy.yaml', '--tool', 'hbu.push', '--agent', 'zz').stderr, '');
    write('sidecar.yaml', CONFIG);
    assert.equal(explain('--tool', 'hub.push', '--agent', 'zz').stderr, '');
    const asked = ['--tool', 'hub.push', '--agent', 'triage', '--at', '2026-01-07T12:00:00Z'];
    assert.match(explain(...asked).stdout, /error: no such key at args\.n \(name them by --args\)/);
    assert.doesNotMatch(explain(...asked, '--args', '{}').stdout, /name them by/);
  });

  it('says what, why, and what it is counted by', () => {
    writeAll(HOLDING);
    const at = ['--at', '2026-01-07T12:00:00Z'];
    const { status, stdout, stderr } = sidecar(
      'explain',
      '--agent',
      'triage',
      '--tool',
      'hub.push',
      '--args',
      '{"n":1}',
      ...at,
    );
    assert.deepEqual([status, stderr], [0, '']);
    assert.deepEqual(stdout.split('\n'), [
      'allow by pushes',
      '',
      'asked    tool hub.push, at 2026-01-07T12:00:00.000Z',
      'by       triage (group support; roles reader)',
      '',
      'pushes (policy.yaml:7) allows this call',
      '  allow hub: tools push',
      '  when agent.name == "triage" && args.n < 5: true by what is known without a call, true by the call',
      'no nights (policy.yaml:10) does not apply',
      '  deny hub: tools push',
      '  when now.getHours() < 6: false by the call',
      '',
      'role reader (policy.yaml:4) has no part: no selector matches',
      '',
      'counted by per-agent-quotas: calls: 120 calls in 60 s',
      'counted by per-agent-quotas: calls: 20 calls in 5 s',
      'counted by per-agent-quotas: tokens: 500000 tokens in 3600 s',
      'counted by per-agent-quotas: one tool: 60 calls in 60 s',
      'counted by per-agent-quotas: one server: 1200 calls in 60 s',
      '',
    ]);
  });

  it('prompts, resources and methods; who asks by roles, claims and user', () => {
    write(
      'p.yaml',
      `version: 1
roles: { admin: { allow: [ { prompts: ["*"] } ] } }
rules:
  - { name: docs, allow: [ { server: hub, resources: ["file:///docs/*"] } ], when: agent.claims.team == "a" }
  - { name: own, allow: [ { methods: [vendor/x] } ], when: user.sub == "ada" && body.params.n == 1 }
`,
    );
    const verdictOf = (...args: string[]) => sidecar('explain', '--policy', 'p.yaml', ...args).stdout.split('\n', 1)[0];
    assert.equal(verdictOf('--prompt', 'hub.p', '--role', 'x', '--role', 'admin'), 'allow by role admin');
    assert.equal(verdictOf('--prompt', 'hub.p'), 'hide: nothing allows it');
    const docs = ['--resource', 'file:///docs/a', '--server', 'hub'];
    assert.equal(verdictOf(...docs, '--claims', '{"team":"a"}'), 'allow by docs');
    assert.match(verdictOf(...docs) ?? '', /^hide by docs: docs could not be judged: /);
    const own = ['--method', 'vendor/x', '--server', 'hub', '--args', '{"n":1}'];
    assert.equal(verdictOf(...own, '--user', 'ada'), 'allow by own');
  });

  it('who asks by group and claims of the user, and in which session', () => {
    write(
      'p.yaml',
      `version: 1
rules:
  - { name: grouped, allow: [ { tools: [a] } ], when: agent.group == "support" }
  - { name: level, allow: [ { tools: [b] } ], when: user.sub == "ada" && user.claims.level == 2.0 }
  - { name: one session, allow: [ { tools: [c] } ], when: session.id == "s1" }
`,
    );
    const verdictOf = (...args: string[]) => sidecar('explain', '--policy', 'p.yaml', ...args).stdout.split('\n', 1)[0];
    assert.equal(verdictOf('--tool', 'hub.a', '--group', 'support'), 'allow by grouped');
    assert.match(verdictOf('--tool', 'hub.a') ?? '', /^hide/);
    const level = ['--tool', 'hub.b', '--user', 'ada', '--user-claims'];
    assert.equal(verdictOf(...level, '{"level":2}'), 'allow by level');
    assert.match(verdictOf(...level, '{"level":1}') ?? '', /^hide/);
    assert.equal(verdictOf('--tool', 'hub.c', '--session', 's1'), 'allow by one session');
    assert.match(verdictOf('--tool', 'hub.c', '--session', 's2') ?? '', /^refuse by one session/);
    const { stdout } = sidecar('explain', '--policy', 'p.yaml', '--tool', 'hub.c', '--session', 's1');
    assert.match(stdout, /asked {4}tool hub\.c in session s1, at /);
    assert.equal(
      JSON.parse(sidecar('explain', '--policy', 'p.yaml', '--tool', 'hub.c', '--session', 's1', '--json').stdout)
        .session,
      's1',
    );
  });

  it('the group over that of the configuration', () => {
    writeAll(HOLDING);
    const groupOf = (...args: string[]) =>
      JSON.parse(sidecar('explain', '--tool', 'hub.a', '--json', ...args).stdout).subject.agent;
    assert.equal(groupOf().group, 'support');
    assert.deepEqual([groupOf('--group', 'x').group, groupOf('--group', 'x').name], ['x', 'x']);
  });

  it('--json: the verdict, the parts with their places, the charges', () => {
    writeAll(HOLDING);
    const { stdout } = sidecar(
      'explain',
      '--json',
      '--tool',
      'push',
      '--server',
      'hub',
      '--at',
      '2026-01-07T03:00:00Z',
    );
    const { ok, subject, decision, targets, charges } = JSON.parse(stdout);
    assert.deepEqual([ok, subject.agent.name, decision.effect, decision.rule], [true, 'support', 'hide', undefined]);
    const part = targets[0].parts.find(({ label }: { label: string }) => label === 'no nights');
    assert.deepEqual([part.effect, part.perCall, part.place], ['refuses', 'true', 'policy.yaml:10']);
    assert.deepEqual(charges, []);
  });

  it('counts in the units in which the policy is written', () => {
    write(
      'p.yaml',
      `version: 1
rules: [ { name: all, allow: [ { tools: ["*"] } ] } ]
quotas: [ { name: few, key: [agent], calls: 60/min, tokens: 2000/hour, burst: 5/10s, concurrent: 4 } ]
budgets: [ { name: daily, key: [agent], cost: 5/day }, { name: monthly, key: [agent], cost: 100.50/month } ]
prices: [ { perCall: 0.01 } ]
`,
    );
    const explain = (...args: string[]) => sidecar('explain', '--policy', 'p.yaml', '--tool', 'hub.x', ...args).stdout;
    assert.deepEqual(
      explain()
        .split('\n')
        .filter((line) => line.startsWith('counted by')),
      [
        'counted by few: 60 calls in 60 s',
        'counted by few: 2000 tokens in 3600 s',
        'counted by few: 5 calls in 10 s',
        'counted by few: 4 at a time',
        'counted by daily: 5/day',
        'counted by monthly: 100.5/month',
      ],
    );
    assert.deepEqual(JSON.parse(explain('--json')).charges, [
      { quota: 'few', dimension: 'calls', limit: 60, window: '60s' },
      { quota: 'few', dimension: 'tokens', limit: 2000, window: '3600s' },
      { quota: 'few', dimension: 'calls', limit: 5, window: '10s' },
      { quota: 'few', dimension: 'concurrent', limit: 4 },
      { quota: 'daily', dimension: 'cost', limit: 5, window: 'day' },
      { quota: 'monthly', dimension: 'cost', limit: 100.5, window: 'month' },
    ]);
  });

  it('takes the hints of a tool as given', () => {
    const explain = (...args: string[]) =>
      sidecar('explain', '--policy', 'library/read-only', '--tool', 'hub.x', ...args).stdout.split('\n', 1)[0];
    assert.match(explain('--annotations', '{"readOnlyHint":true}') ?? '', /^allow by read-only/);
    assert.match(explain() ?? '', /^hide by read-only/);
  });

  it('shows the arguments as the policy makes them, and judges those', () => {
    write(
      'p.yaml',
      `version: 1
rules: [ { name: ours, allow: [ { server: hub, tools: ["*"] } ], when: args.owner == "acme" } ]
arguments: [ { name: set, server: hub, tools: [push], set: { /owner: acme }, remove: [/token] } ]
`,
    );
    const explain = (...args: string[]) => sidecar('explain', '--policy', 'p.yaml', ...args).stdout;
    const changed = explain('--tool', 'hub.push', '--args', '{"owner":"x","token":"t","q":1}');
    assert.match(changed, /^allow by ours/);
    assert.ok(changed.includes('judged   with the arguments that the policy makes of them: {"q":1,"owner":"acme"}\n'));
    assert.deepEqual(JSON.parse(explain('--json', '--tool', 'hub.push')).args, { owner: 'acme' });
    assert.doesNotMatch(explain('--tool', 'hub.push', '--args', '{"owner":"acme"}'), /judged {3}with/);
    assert.doesNotMatch(explain('--tool', 'hub.pull'), /judged {3}with/);
  });

  it('at a virtual server nothing is there but what it names', () => {
    write(
      'p.yaml',
      `version: 1
virtualServers: { few: { tools: [hub.get_*] } }
rules: [ { name: all, allow: [ { server: hub, tools: ["*"] } ] } ]
`,
    );
    const explain = (tool: string) =>
      sidecar('explain', '--policy', 'p.yaml', '--virtual', 'few', '--tool', tool).stdout.split('\n');
    assert.match(explain('hub.get_x')[0]!, /^allow by all/);
    assert.match(explain('hub.push')[0]!, /^hide by virtual server few/);
    assert.match(explain('hub.push')[2]!, /^asked {4}tool hub\.push at virtual server few, at /);
  });

  for (const [args, problem] of [
    [['--tool', 'a.b', '--virtual', 'few'], /the policy has no virtual server few/],
    [[], /name one of --tool, --prompt, --resource and --method/],
    [['--tool', 'a.b', '--prompt', 'a.b'], /name one of/],
    [['--tool', 'b'], /write the server in front \(github\.b\), or name it by --server/],
    [['--resource', 'a:b'], /--server is missing/],
    [['--tool', 'a.b', '--args', '[1]'], /--args must be a JSON object/],
    [['--tool', 'a.b', '--args', '{"token": hush}'], /--args must be a JSON object/],
    [['--tool', 'a.b', '--user', 'u', '--user-claims', 'hush'], /--user-claims must be a JSON object/],
    [['--tool', 'a.b', '--user-claims', '{}'], /--user-claims wants --user/],
    [['--tool', 'a.b', '--at', 'noon'], /--at must be a time/],
    [['--tool', 'a.b', '--policy', 'nope.yaml'], /nope\.yaml {2}does not exist/],
  ] as [string[], RegExp][])
    it(`wrong use is 2: ${args.join(' ')}`, () => {
      write('policy.yaml', POLICY);
      const { status, stdout, stderr } = sidecar('explain', '--policy', 'policy.yaml', ...args);
      assert.deepEqual([status, stdout], [2, '']);
      assert.match(stderr, problem);
      assert.doesNotMatch(stderr, /hush| {4}at /);
    });
});
