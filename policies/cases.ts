/**
 * Cases of a policy: a request each, and what is expected of it. Pure: reading them is the loader's.
 *
 * What they cover: a rule or a role when it decided some case (in audit mode: would have), a quota or budget when a
 * case that is let through is counted by it. That is a measure of what nobody has tried, not of what is right: a rule
 * with a condition wants a case on either side.
 */
import type { Decision, Refused } from './decision.ts';
import { type Explanation, explain } from './explain.ts';
import { changedBody, type Question } from './judge.ts';
import type { CompiledPolicy, CompiledQuota } from './policy.ts';
import { redactArguments } from './redact.ts';
import { canonicalJson } from './tool-definition.ts';
import { policyAt } from './virtual.ts';

export type Verdict = Decision['effect'];

/** What is left out is not looked at. */
export interface Expectation {
  readonly verdict: Verdict;
  /** Which rule or `role <name>` decides; in audit mode, the one that would have refused. */
  readonly rule?: string | undefined;
  /** What enforcing would do instead. */
  readonly wouldBe?: 'hide' | 'refuse' | undefined;
  /** All the quotas and budgets by which it is counted. */
  readonly quotas?: readonly string[] | undefined;
  /** The arguments as the audit shows them. */
  readonly recorded?: unknown;
}

export interface Case {
  readonly name: string;
  /** The virtual server at whose endpoint it comes; the policy has it. */
  readonly virtual?: string | undefined;
  readonly question: Question;
  readonly expected: Expectation;
}

/** One thing that is not as expected, both sides as text. */
export interface Difference {
  readonly of: keyof Expectation;
  readonly expected: string;
  readonly got: string;
}

export interface CaseResult {
  readonly name: string;
  /** None: the case holds. */
  readonly differences: readonly Difference[];
  readonly explanation: Explanation;
}

export function runCase(whole: CompiledPolicy, { name, virtual, question, expected }: Case): CaseResult {
  const policy = policyAt(whole, virtual);
  if (policy === undefined) throw new Error(`the case ${name} is of virtual server ${virtual}, which does not exist`);
  const explanation = explain(policy, question);
  const { decision, charges } = explanation;
  const wouldBe = wouldBeOf(decision);
  const changed = changedBody(policy, question);
  const { params: judged } = changed.ok ? changed.value : question.body;
  const params = judged as { readonly name?: unknown; readonly arguments?: unknown } | undefined;
  const got: Readonly<Record<keyof Expectation, () => unknown>> = {
    verdict: () => decision.effect,
    rule: () => (wouldBe ?? decision).rule ?? 'none',
    wouldBe: () => wouldBe?.effect ?? 'none',
    quotas: () => [...new Set(charges.map(({ quota }) => quota))].sort(),
    recorded: () => redactArguments(policy, question.server, String(params?.name ?? ''), params?.arguments).value,
  };
  const differences: Difference[] = [];
  for (const [of, wanted] of Object.entries(expected) as [keyof Expectation, unknown][]) {
    if (wanted === undefined) continue;
    const expectedText = show(of === 'quotas' ? [...(wanted as string[])].sort() : wanted);
    const gotText = show(got[of]());
    if (expectedText !== gotText) differences.push({ of, expected: expectedText, got: gotText });
  }
  return { name, differences, explanation };
}

function wouldBeOf(decision: Decision): Refused | undefined {
  return decision.effect === 'allow' ? decision.wouldBe : undefined;
}

/** Text is shown as it is, all else as JSON with its keys in order. */
function show(value: unknown): string {
  if (typeof value === 'string') return value;
  return value === undefined ? 'nothing' : canonicalJson(value);
}

/** A rule, role, quota or budget, and whether some case covers it. */
export interface Coverable {
  readonly kind: 'role' | 'rule' | CompiledQuota['kind'];
  readonly name: string;
  readonly covered: boolean;
}

export function coverageOf(policy: CompiledPolicy, results: readonly CaseResult[]): Coverable[] {
  const deciding = new Set<string | undefined>();
  const charging = new Set<string>();
  for (const { explanation } of results) {
    const { decision, charges } = explanation;
    deciding.add(decision.rule).add(wouldBeOf(decision)?.rule);
    for (const { quota } of charges) charging.add(quota);
  }
  const grants = new Map(policy.grants.map(({ label, role }) => [label, role]));
  return [
    ...[...grants].map(([label, role]): Coverable => {
      const covered = deciding.has(label);
      return role === undefined ? { kind: 'rule', name: label, covered } : { kind: 'role', name: role, covered };
    }),
    ...policy.quotas.map(({ name, kind }): Coverable => ({ kind, name, covered: charging.has(name) })),
  ];
}
