import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Needs } from '../../policies/needs.ts';
import type { RecordedRequest } from '../../policies/recorded.ts';
import { documentOf, onOneLine, suggest } from '../../policies/suggest.ts';
import { casesFor } from '../../policies/suggest-cases.ts';
import { narrowingsOf, ratesOf, widen, wideningsOf } from '../../policies/suggest-hints.ts';
import { recorded } from '../support/recorded.ts';

type Call = Partial<RecordedRequest>;

function needsOf(calls: readonly Call[]): Needs {
  const needs = new Needs();
  for (const [index, call] of calls.entries()) needs.add(recorded({ sequence: index + 1, ...call }), 'audit.jsonl');
  return needs;
}

function suggested(...calls: Call[]) {
  return documentOf(suggest(needsOf(calls)));
}

const READ = (uri: string, change: Call = {}): Call => ({
  method: 'resources/read',
  tool: undefined,
  resources: [uri],
  ...change,
});
const REFUSED: Call = { wasLetThrough: false };
const LIST = { server: 'github', tools: ['list_issues'] };

describe('a suggested policy', () => {
  it('gives each agent what it asked for, by server and in order', () => {
    const document = suggested(
      { tool: 'push_files' },
      { tool: 'list_issues' },
      { server: 'crm', tool: 'find' },
      READ('file:///b'),
      READ('file:///a'),
      { method: 'prompts/get', tool: undefined, prompt: 'review' },
      { method: 'tasks/get', tool: undefined },
    );
    assert.deepEqual(document, {
      version: 1,
      default: 'deny',
      roles: {
        'needs of triage': {
          allow: [
            { server: 'crm', tools: ['find'] },
            { server: 'github', methods: ['tasks/get'] },
            { server: 'github', prompts: ['review'] },
            { server: 'github', resources: ['file:///a', 'file:///b'] },
            { server: 'github', tools: ['list_issues', 'push_files'] },
          ],
        },
      },
      agents: { triage: { roles: ['needs of triage'] } },
      rules: [],
    });
  });

  it('has one role for agents of equal needs', () => {
    const document = suggested(
      { agent: 'b' },
      { agent: 'a' },
      { agent: 'c' },
      { agent: 'd', tool: 'other' },
      { agent: 'd' },
    );
    assert.deepEqual(document.agents, {
      a: { roles: ['needs of a and 2 more'] },
      b: { roles: ['needs of a and 2 more'] },
      c: { roles: ['needs of a and 2 more'] },
      d: { roles: ['needs of d'] },
    });
    assert.deepEqual(suggested({ agent: 'b' }, { agent: 'a' }).agents, {
      a: { roles: ['needs of a and b'] },
      b: { roles: ['needs of a and b'] },
    });
  });

  it('needs nothing for the protocol’s own, and for what was refused', () => {
    const document = suggested({ method: 'tools/list', tool: undefined }, { tool: 'evil', ...REFUSED });
    assert.deepEqual([document.roles, document.agents, document.rules], [{}, {}, []]);
  });

  const inRules: [string, Call, string[], string][] = [
    ['a name with a wildcard', { tool: 'a*' }, ['a*'], 'agent.name == "triage" && tool.name == "a*"'],
    ['a question mark', { tool: 'a?' }, ['a?'], 'agent.name == "triage" && tool.name == "a?"'],
    ['a name of nothing', { tool: '' }, ['*'], 'agent.name == "triage" && tool.name == ""'],
    ['a line break', { tool: 'a\nb' }, ['a?b'], 'agent.name == "triage" && tool.name == "a\\nb"'],
    [
      'a long name',
      { tool: 'x'.repeat(257) },
      [`${'x'.repeat(255)}*`],
      `agent.name == "triage" && tool.name == "${'x'.repeat(257)}"`,
    ],
    [
      'an emoji at the end of what fits',
      { tool: `${'x'.repeat(254)}😀y` },
      [`${'x'.repeat(254)}*`],
      `agent.name == "triage" && tool.name == "${'x'.repeat(254)}😀y"`,
    ],
    ['everybody’s name', { agent: '*' }, ['list_issues'], 'agent.name == "*"'],
    ['a name that is no key', { agent: '__proto__' }, ['list_issues'], 'agent.name == "__proto__"'],
    ['a long agent', { agent: 'x'.repeat(101) }, ['list_issues'], `agent.name == "${'x'.repeat(101)}"`],
    ['no agent’s name', { agent: '' }, ['list_issues'], 'agent.name == ""'],
    [
      'a prompt',
      { method: 'prompts/get', tool: undefined, prompt: 'p*' },
      ['p*'],
      'agent.name == "triage" && (method == "prompts/get" && body.params.name == "p*")',
    ],
    [
      'a completion',
      { method: 'completion/complete', tool: undefined, prompt: 'p*' },
      ['p*'],
      'agent.name == "triage" && (method == "completion/complete" && body.params.ref.name == "p*")',
    ],
    [
      'a resource',
      READ('http://h/?q'),
      ['http://h/?q'],
      'agent.name == "triage" && (method == "resources/read" && body.params.uri == "http://h/?q")',
    ],
    [
      'both spellings of a resource',
      READ('HTTP://h/?q'),
      ['HTTP://h/?q', 'http://h/?q'],
      'agent.name == "triage" && (method == "resources/read" && body.params.uri == "HTTP://h/?q")',
    ],
    [
      'a subscription',
      { method: 'subscriptions/listen', tool: undefined, resources: ['mem:*'] },
      ['mem:*'],
      'agent.name == "triage" && (method == "subscriptions/listen" && "mem:*" in body.params.notifications.resourceSubscriptions)',
    ],
    ['a method', { method: 'v*', tool: undefined }, ['v*'], 'agent.name == "triage" && method == "v*"'],
  ];
  for (const [name, call, patterns, when] of inRules)
    it(`has a rule, with a condition, for ${name}`, () => {
      const { rules, roles } = suggest(needsOf([call]));
      assert.deepEqual(
        [rules.map((rule) => rule.patterns), rules.map((rule) => rule.when), roles],
        [[patterns], [when], []],
      );
    });

  const inRoles: [string, Call][] = [
    ['a name as long as a glob may be', { tool: 'x'.repeat(256) }],
    ['a name of YAML’s', { tool: 'a: b #' }],
    ['an agent as long as a name may be', { agent: 'x'.repeat(100) }],
    ['a resource in another spelling', READ('FILE:/a')],
  ];
  for (const [name, call] of inRoles)
    it(`has no need of a condition for ${name}`, () => {
      const { rules, roles } = suggest(needsOf([call]));
      assert.deepEqual([rules.length, roles.length], [0, 1]);
    });

  it('asks both methods by which one resource was asked for', () => {
    const [rule] = suggest(needsOf([READ('m:*'), { ...READ('m:*'), method: 'completion/complete' }])).rules;
    assert.equal(
      rule?.when,
      'agent.name == "triage" && (method == "completion/complete" && body.params.ref.uri == "m:*" || method == "resources/read" && body.params.uri == "m:*")',
    );
  });

  it('does not allow a resource by another spelling where its normal form was refused', () => {
    const { roles, rules } = suggested(READ('file:///%41'), READ('file:///A', REFUSED)) as {
      roles: object;
      rules: readonly { allow: readonly object[]; when: string }[];
    };
    assert.deepEqual(roles, {});
    assert.deepEqual(
      rules.map(({ allow, when }) => [allow, when]),
      [
        [
          [{ server: 'github', resources: ['file:///%41', 'file:///A'] }],
          'agent.name == "triage" && (method == "resources/read" && body.params.uri == "file:///%41")',
        ],
      ],
    );
  });

  it('puts what was let through for some calls and refused for others under a condition', () => {
    const { rules, roles, leftOut } = suggest(
      needsOf([{ args: { n: 1 } }, { args: { n: 2 }, ...REFUSED }, { tool: 'other' }]),
    );
    assert.deepEqual(
      rules.map(({ name, when }) => [name, when]),
      [['triage: github.list_issues', 'agent.name == "triage" && args["n"] in [1.0]']],
    );
    assert.deepEqual([roles.length, leftOut.length], [1, 0]);
  });

  it('leaves out what nothing tells apart, and what cannot be written, and says why', () => {
    const both = suggest(needsOf([{}, REFUSED]));
    assert.deepEqual([both.rules, both.roles], [[], []]);
    assert.match(both.leftOut[0]?.why ?? '', /nothing recorded tells them apart/);
    assert.match(suggest(needsOf([{ tool: '\ud800' }])).leftOut[0]?.why ?? '', /cannot be written/);
    assert.match(suggest(needsOf([{ server: '*' }])).leftOut[0]?.why ?? '', /no server/);
  });

  it('goes by the newest policy that judged the same thing', () => {
    const before = { policy: 'sha256:0' };
    const allowed = suggest(needsOf([{ ...before, ...REFUSED }, { ...before, ...REFUSED }, {}]));
    assert.deepEqual(
      allowed.roles.map(({ selectors }) => selectors[0]?.names[0]?.needs[0]?.earlier),
      [2],
    );
    const refused = suggest(needsOf([before, REFUSED]));
    assert.deepEqual([refused.roles, refused.rules, refused.leftOut], [[], [], []]);
  });

  it('declares the virtual servers that were used, with what was let through there', () => {
    const at = { virtual: 'support' };
    const document = suggested(
      at,
      { ...at, tool: 'x*', agent: 'writer' },
      { ...at, ...READ('file:///a') },
      { ...at, method: 'prompts/get', tool: undefined, prompt: 'p' },
      { ...at, tool: 'outside', ...REFUSED, rule: 'virtual server support' },
      { tool: 'outside' },
      { virtual: 'lists', method: 'tools/list', tool: undefined },
      { virtual: 'refused', ...REFUSED, tool: 'evil' },
      { virtual: 'Not a name' },
    );
    assert.deepEqual(document.virtualServers, {
      support: {
        tools: ['github.list_issues', 'github.x*'],
        prompts: ['github.p'],
        resources: [{ server: 'github', uris: ['file:///a'] }],
      },
      lists: { resources: [{ server: 'github', uris: ['nothing:'] }] },
    });
    assert.deepEqual((document.roles as Record<string, unknown>)['needs of triage'], {
      allow: [
        { server: 'github', prompts: ['p'] },
        { server: 'github', resources: ['file:///a'] },
        { server: 'github', tools: ['list_issues', 'outside'] },
      ],
    });
  });

  it('has names that differ and fit', () => {
    const long = 'n'.repeat(300);
    const { rules } = suggest(
      needsOf([{ tool: `${long}*a` }, { tool: `${long}*b` }, { tool: 'x*' }, { tool: 'x*', server: 'crm' }]),
    );
    const names = rules.map(({ name }) => name);
    assert.equal(new Set(names).size, 4);
    assert.ok(
      names.every((name) => name.length <= 100),
      names.join('\n'),
    );
    assert.match(names[1]!, / \(2\)$/);
    assert.equal(onOneLine('a\nb\u200bc', 100), 'a b\\u{200b}c');
  });

  it('more entries than a list may have are several lists', () => {
    const document = suggested(...Array.from({ length: 1001 }, (_, index) => ({ tool: `tool_${index}` })));
    const [role] = Object.values(document.roles as Record<string, { allow: { tools: string[] }[] }>);
    assert.deepEqual(
      role?.allow.map(({ tools }) => tools.length),
      [1000, 1],
    );
  });
});

describe('gathering', () => {
  it('passes over a request of which the record does not say everything', () => {
    const needs = needsOf([
      { cut: 'tool' },
      { roles: 'omitted' },
      { ...READ('file:///a'), resourcesOmitted: 1 },
      READ('a/../b'),
      {},
    ]);
    assert.deepEqual([needs.requests, needs.unknown, needs.all.length], [1, 4, 1]);
  });

  it('counts what arguments entries did, and takes no refusal of theirs for one of the agent', () => {
    const refused = { ...REFUSED, wasRefusedByArguments: true, rule: 'declared' };
    const needs = needsOf([
      {},
      { hasChangedArguments: true },
      { ...refused, args: { limit: 50 } },
      { ...refused, tool: 'push', hasChangedArguments: true },
    ]);
    assert.deepEqual(needs.touchedTools, [
      { server: 'github', tool: 'list_issues', changed: 1, refused: 1 },
      { server: 'github', tool: 'push', changed: 0, refused: 1 },
    ]);
    const { rules, roles } = documentOf(suggest(needs));
    assert.deepEqual([rules, roles], [[], { 'needs of triage': { allow: [LIST] } }]);
  });

  it('notices when there is more than it keeps', () => {
    const needs = new Needs();
    for (let index = 0; index < 50_000; index++) needs.add(recorded({ tool: `tool_${index}` }), 'a');
    assert.equal(needs.isOverfull, false);
    needs.add(recorded({ tool: 'tool_7' }), 'a');
    assert.equal(needs.isOverfull, false);
    needs.add(recorded({ tool: 'one more' }), 'a');
    assert.equal(needs.isOverfull, true);
  });

  it('each subscription is a need, once', () => {
    const needs = needsOf([
      { method: 'subscriptions/listen', tool: undefined, resources: ['file:///a', 'FILE:/a', 'file:///a'] },
    ]);
    assert.deepEqual(
      needs.all.map(({ matter }) => matter.name),
      ['file:///a', 'FILE:/a'],
    );
  });
});

describe('cases', () => {
  it('are what was let through, what was refused, and hold', () => {
    const needs = needsOf([
      {},
      { tool: 'push_files', args: { n: 1 }, user: 'kim' },
      { tool: 'push_files', args: { n: 1 }, ...REFUSED },
      { tool: 'evil', ...REFUSED },
      READ('file:///a'),
      { method: 'completion/complete', tool: undefined, prompt: 'p' },
      { tool: 'a\nb' },
      { tool: '\ud800', ...REFUSED },
    ]);
    assert.deepEqual(casesFor(suggest(needs), needs.all), [
      allowed('github.p', {
        server: 'github',
        body: {
          jsonrpc: '2.0',
          id: 1,
          method: 'completion/complete',
          params: { ref: { type: 'ref/prompt', name: 'p' } },
        },
      }),
      allowed('github.file:///a', { resource: { server: 'github', uri: 'file:///a' } }),
      allowed('github.list_issues', { tool: 'github.list_issues' }),
      { ...allowed('github.push_files', { tool: 'github.push_files' }), user: 'kim' },
      allowed('github.a b', {
        server: 'github',
        body: { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'a\nb', arguments: {} } },
      }),
      { name: 'triage may not ask for github.evil', agent: 'triage', request: { tool: 'github.evil' }, expect: 'hide' },
    ]);
  });

  it('bring what a condition looks at', () => {
    const needs = needsOf([
      { args: { n: 1 } },
      { args: { n: 2 }, ...REFUSED },
      { tool: 'a', roles: ['dba'] },
      { tool: 'a', ...REFUSED },
    ]);
    const cases = casesFor(suggest(needs), needs.all);
    assert.deepEqual(
      cases.map(({ agent, request }) => [agent, request]),
      [
        ['triage', { tool: 'github.list_issues', args: { n: 1 } }],
        [{ name: 'triage', roles: ['dba'] }, { tool: 'github.a' }],
      ],
    );
  });

  it('bring the time where that decides', () => {
    const needs = needsOf([{}, { time: Date.UTC(2026, 0, 7, 3), ...REFUSED }]);
    assert.deepEqual(
      casesFor(suggest(needs), needs.all).map(({ at, expect }) => [at, expect]),
      [['2026-01-07T12:00:00.000Z', 'allow']],
    );
  });

  function allowed(what: string, request: object) {
    return { name: `triage may ask for ${what}`, agent: 'triage', request, expect: 'allow' };
  }
});

describe('hints', () => {
  const often = (count: number, of: (index: number) => unknown, change: Call = {}) =>
    Array.from({ length: count }, (_, index) => ({ args: of(index), ...change }));

  it('an argument of few values can be narrowed to them', () => {
    const hints = (calls: Call[]) => narrowingsOf(suggest(needsOf(calls))).map(({ when }) => when);
    const few = (index: number) => ({ repository: `r${index % 3}`, n: index });
    assert.deepEqual(hints(often(20, few)), ['agent.name == "triage" && !(args["repository"] in ["r0", "r1", "r2"])']);
    assert.deepEqual(hints(often(19, few)), []);
    assert.deepEqual(hints(often(20, (index) => ({ repository: `r${index % 4}` }))), []);
    assert.deepEqual(hints([...often(20, few), { args: {} }]), []);
    assert.deepEqual(hints(often(20, () => ({ limit: 3 }))), []);
    assert.deepEqual(hints(often(20, () => ({ repository: '[redacted]' }))), []);
    assert.deepEqual(hints(often(20, few, { method: 'prompts/get', tool: undefined, prompt: 'p' })), []);
  });

  it('resources of one folder can be widened to it', () => {
    const wide = (uris: string[]) =>
      wideningsOf(uris.map((pattern) => ({ pattern, needs: [] }))).map(({ pattern }) => pattern);
    const inside = (folder: string, count = 5) => Array.from({ length: count }, (_, index) => `${folder}${index}`);
    assert.deepEqual(wide(inside('file:///docs/')), ['file:///docs/*']);
    assert.deepEqual(wide(inside('file:///docs/', 4)), []);
    assert.deepEqual(wide(inside('https://host/a/b/')), ['https://host/a/b/*']);
    for (const tooWide of ['file:///', 'https://host/', 'https://', '/', ''])
      assert.deepEqual(wide(inside(tooWide)), [], tooWide);
    assert.deepEqual(wide(inside(`file:///${'x'.repeat(200)}/`)), []);

    const suggestion = suggest(
      needsOf([...inside('file:///docs/').map((uri) => READ(uri)), READ('file:///other/a'), {}]),
    );
    const [resources, tools] = widen(suggestion).roles[0]!.selectors;
    assert.deepEqual(
      resources?.names.map(({ pattern, needs }) => [pattern, needs.length]),
      [
        ['file:///docs/*', 5],
        ['file:///other/a', 1],
      ],
    );
    assert.deepEqual(
      tools?.names.map(({ pattern }) => pattern),
      ['list_issues'],
    );
  });

  it('a quota is twice what the busiest minutes saw', () => {
    const at = (minute: number, second = 0): Call => ({ time: Date.UTC(2026, 0, 7, 12, minute, second) });
    const rates = (calls: Call[]) => {
      const needs = needsOf(calls);
      return ratesOf(suggest(needs), needs);
    };
    assert.deepEqual(rates([at(0)]), [{ agent: 'triage', callsPerMinute: 10 }]);
    const minute = (number: number, count: number) => Array.from({ length: count }, (_, index) => at(number, index));
    assert.deepEqual(rates([...minute(0, 8), ...minute(1, 3)]), [{ agent: 'triage', callsPerMinute: 16 }]);
    // One busy minute in two hundred is no habit.
    const quiet = Array.from({ length: 199 }, (_, index) => minute(index + 1, 6)).flat();
    assert.deepEqual(rates([...minute(0, 50), ...quiet]), [{ agent: 'triage', callsPerMinute: 12 }]);
    assert.deepEqual(rates([{ method: 'tools/list', tool: undefined }]), []);
  });
});
