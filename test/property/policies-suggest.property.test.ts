/**
 * Random traffic before a random policy, recorded, and a policy suggested from the record: judging the record by it
 * changes nothing but what the suggestion itself says that it has left out.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Comparing } from '../../policies/comparison.ts';
import { compilePolicy } from '../../policies/compile.ts';
import { decideAll } from '../../policies/judge.ts';
import { Needs } from '../../policies/needs.ts';
import type { CompiledPolicy } from '../../policies/policy.ts';
import { matterOf, questionOf, type RecordedRequest, Unknowns } from '../../policies/recorded.ts';
import { rejudgeBy } from '../../policies/replay.ts';
import { documentOf, suggest } from '../../policies/suggest.ts';
import { casesFor } from '../../policies/suggest-cases.ts';
import { policyAt } from '../../policies/virtual.ts';
import fc from '../support/fast-check.ts';
import { policyOf } from '../support/policies.ts';
import { recorded } from '../support/recorded.ts';

const NAMES = [
  'x',
  'xy',
  'x*',
  'x?',
  '*',
  '',
  'a: b',
  'line\nbreak',
  '\ud800',
  '__proto__',
  'y'.repeat(300),
  "'",
  '#x',
  'null',
];
const URIS = [
  'file:///a',
  'FILE:/a',
  'file:///a?b',
  'file:///ab',
  'http://h/x?y=1',
  `file:///${'z'.repeat(300)}`,
  'mem:*',
  'file:///%41',
  'file:///A',
];
const AGENTS = ['a', 'b', '*', '__proto__', 'c: d', 'role', '\ud800', 'e'.repeat(120)];
const METHODS = ['vendor/thing', 'tasks/get', 'v*'];

const STABLE = ['agent.name == "a"', '"r1" in agent.roles', 'user.sub == "kim"', 'tool.name == "x"'];
const PER_CALL = [
  'args.n < 3.0',
  'has(args.n)',
  'args.s == "p"',
  'size(args.s) < 3',
  'now.getHours() < 6',
  'session.id == "s"',
  'method == "completion/complete"',
];

const name = fc.constantFrom(...NAMES);
const uri = fc.constantFrom(...URIS);
const glob = fc.constantFrom('*', 'x', 'x*', '?', 'a*', 'file:*', '*a', 'http*', 'y*', 'v*', 'tasks/*');
const selector = fc.record({
  server: fc.constantFrom('*', 's1', 's2'),
  tools: globs(),
  prompts: globs(),
  resources: globs(),
  methods: globs(),
});

function globs() {
  return fc.array(glob, { minLength: 1, maxLength: 2 });
}

function policies(conditions: readonly string[]) {
  const when = fc.option(fc.uniqueArray(fc.constantFrom(...conditions), { minLength: 1, maxLength: 2 }), {
    nil: undefined,
  });
  const rule = fc.record({
    effect: fc.constantFrom('allow', 'allow', 'deny'),
    selectors: fc.array(selector, { minLength: 1, maxLength: 2 }),
    when,
  });
  return fc
    .record({
      mode: fc.constantFrom('enforce', 'enforce', 'enforce', 'audit'),
      rules: fc.array(rule, { minLength: 1, maxLength: 4 }),
      agents: fc.boolean(),
    })
    .map(({ mode, rules, agents }) => ({
      mode,
      roles: { r1: { allow: [{ tools: ['x*'] }] } },
      virtualServers: { v1: { tools: ['s1.x*'], resources: [{ server: 's1', uris: ['file:*'] }] } },
      agents: agents ? { a: { roles: ['r1'] } } : {},
      rules: rules.map(({ effect, selectors, when: parts }, index) => ({
        name: `rule ${index}`,
        [effect]: selectors,
        ...(parts === undefined ? undefined : { when: parts.join(' && ') }),
      })),
    }));
}

const args = fc.option(
  fc.record({ n: fc.constantFrom(1, 2, 3, 4.5), s: fc.constantFrom('p', 'q', 'longer', '') }, { requiredKeys: [] }),
  { nil: undefined },
);
const asked: fc.Arbitrary<Partial<RecordedRequest>> = fc.oneof(
  fc.record({ method: fc.constant('tools/call'), tool: name, args }),
  fc.record({ method: fc.constantFrom('prompts/get', 'completion/complete'), prompt: name, args }),
  fc.record({
    method: fc.constantFrom('resources/read', 'completion/complete', 'resources/subscribe'),
    resources: uri.map((one) => [one]),
  }),
  fc.record({ method: fc.constant('subscriptions/listen'), resources: uri.map((one) => [one]) }),
  fc.record({ method: fc.constantFrom(...METHODS) }),
  fc.record({ method: fc.constantFrom('tools/list', 'ping') }),
);
const who = fc.record({
  server: fc.constantFrom('s1', 's2'),
  roles: fc.constantFrom(undefined, ['r1'], ['r2']),
  user: fc.constantFrom(undefined, 'kim', 'lee'),
  time: fc.constantFrom(Date.UTC(2026, 0, 7, 3), Date.UTC(2026, 0, 8, 12)),
  sessionId: fc.constantFrom(undefined, 's', 't'),
  virtual: fc.constantFrom(undefined, undefined, 'v1'),
});
function trafficOf(requests: typeof asked, by: fc.Arbitrary<string>) {
  return fc
    .array(fc.tuple(who, requests, by), { minLength: 1, maxLength: 40 })
    .map((all) =>
      all.map(([person, request, agent], index) =>
        recorded({ tool: undefined, args: undefined, ...person, ...request, agent, sequence: index + 1 }),
      ),
    );
}
const traffic = trafficOf(asked, fc.constantFrom(...AGENTS));
/** The same few things again and again, so that they come out in both ways. */
const repeated = trafficOf(
  fc.record({ method: fc.constant('tools/call'), tool: fc.constantFrom('x', 'x*'), args }),
  fc.constantFrom('a', 'b'),
);

/** As the sidecar would have recorded it. */
function judgedBy(policy: CompiledPolicy, requests: readonly RecordedRequest[]): RecordedRequest[] {
  return requests.map((request) => {
    const { subject, targets, call } = questionOf(request, new Unknowns());
    assert.ok(targets.ok);
    const { decision } = decideAll(policyAt(policy, request.virtual)!, subject, targets.value, call);
    return { ...request, wasLetThrough: decision.effect === 'allow', rule: decision.rule };
  });
}

function suggestedFor(requests: readonly RecordedRequest[]) {
  const needs = new Needs();
  for (const request of requests) needs.add(request, 'audit.jsonl');
  const suggestion = suggest(needs);
  const compiled = compilePolicy(documentOf(suggestion), { env: {} });
  assert.ok(compiled.ok, JSON.stringify(compiled.ok ? '' : compiled.error));
  const comparing = new Comparing(rejudgeBy(compiled.value));
  for (const request of requests) comparing.add(request, 'audit.jsonl');
  return { needs, suggestion, policy: compiled.value, comparison: comparing.result };
}

describe('a suggested policy', () => {
  it('changes nothing, where the calls of one thing by one agent came out alike', () => {
    const property = fc.property(policies(['agent.name == "a"', 'tool.name == "x"']), traffic, (document, requests) => {
      const { suggestion, comparison } = suggestedFor(judgedBy(policyOf(document), requests));
      assert.deepEqual(
        [suggestion.leftOut.filter(({ need }) => isWritable(need.agent, need.matter.name)), comparison.unsure],
        [[], 0],
      );
      const left = new Set(suggestion.leftOut.map(({ need }) => keyOf(need)));
      assert.deepEqual(
        comparison.changes.filter((change) => !left.has(keyOf(change))),
        [],
      );
    });
    fc.assert(property, { numRuns: 300 });
  });

  it('changes nothing but what it says that it leaves out, whatever decided', () => {
    let separated = 0;
    const property = fc.property(
      policies([...STABLE, ...PER_CALL]),
      fc.oneof(traffic, repeated),
      (document, requests) => {
        const { suggestion, comparison } = suggestedFor(judgedBy(policyOf(document), requests));
        separated += suggestion.rules.filter(({ need }) => need.refused.count > 0).length;
        const left = new Set(suggestion.leftOut.map(({ need }) => keyOf(need)));
        assert.equal(comparison.unsure, 0);
        assert.deepEqual(
          comparison.changes.filter((change) => !left.has(keyOf(change))),
          [],
        );
        for (const { wasLetThrough } of comparison.changes) assert.ok(wasLetThrough, 'what was refused is let through');
      },
    );
    fc.assert(property, { numRuns: 500 });
    assert.ok(separated > 0, 'no condition was ever found');
  });

  it('allows nothing to an agent, and of a server, that were not in the traffic', () => {
    const property = fc.property(policies(STABLE), traffic, (document, requests) => {
      const { policy } = suggestedFor(judgedBy(policyOf(document), requests));
      const rejudge = rejudgeBy(policy);
      for (const request of requests) {
        if (questionOf(request, new Unknowns()).targets.ok === false || matterOf(request).kind === 'method') continue;
        for (const change of [{ agent: 'nobody' }, { server: 's3' }]) {
          const again = rejudge({ ...request, ...change });
          assert.equal(again.kind === 'sure' && again.isLetThrough, false);
        }
      }
    });
    fc.assert(property, { numRuns: 100 });
  });

  it('has cases that hold', () => {
    const property = fc.property(
      policies([...STABLE, ...PER_CALL]),
      fc.oneof(traffic, repeated),
      (document, requests) => {
        const { needs, suggestion } = suggestedFor(judgedBy(policyOf(document), requests));
        for (const { name: text, expect } of casesFor(suggestion, needs.all)) {
          assert.ok(text.length > 0 && text.length <= 200 && !text.includes('\n'));
          assert.equal(expect === 'allow', text.includes(' may ask for '));
        }
      },
    );
    fc.assert(property, { numRuns: 200 });
  });
});

/** Half a character can be written in no condition. */
function isWritable(...texts: readonly string[]): boolean {
  return texts.every((text) => text.isWellFormed());
}

function keyOf({ agent, server, matter }: { agent: string; server: string; matter: object }): string {
  return JSON.stringify([agent, server, matter]);
}
