/**
 * Recorded requests judged again by another policy. Pure: reading the audit is the caller's.
 *
 * A request is either let through or not, then as now; whether a refusal hides its target is no difference here. Where
 * a condition looks at what the record does not hold, the request is judged twice, once with every such condition in
 * its favour and once against it. The decision is monotone in its conditions, so that two equal verdicts are the
 * verdict; else it is unsure, and said to be.
 */
import { argumentRulesFor } from './arguments.ts';
import type { Condition, Predicate } from './cel.ts';
import type { Decision } from './decision.ts';
import { decideAll, malformed } from './judge.ts';
import type { CompiledPolicy, Grant } from './policy.ts';
import { questionOf, type RecordedQuestion, type RecordedRequest, Unknowns } from './recorded.ts';
import { countingBy, type QuotaOutcome } from './replay-quota.ts';
import { ok } from './result.ts';
import { policyAt } from './virtual.ts';

export type Rejudgement =
  | {
      readonly kind: 'sure';
      readonly isLetThrough: boolean;
      readonly decision: Decision;
      /** Where it is let through. */
      readonly quota: QuotaOutcome | undefined;
    }
  | { readonly kind: 'unsure'; readonly why: readonly string[] };

export type Rejudge = (recorded: RecordedRequest) => Rejudgement;

/**
 * Quotas are counted from one request to the next, so they have to come in the order of the audit. Of the environment
 * only what is set where the replay runs is known: the sidecar may have had other variables.
 */
export function rejudgeBy(policy: CompiledPolicy): Rejudge {
  const unknowns = new Unknowns();
  const here = { ...policy, env: knownEnvironment(policy.env, unknowns) };
  const favourable = guessing(here, true, unknowns);
  const unfavourable = guessing(here, false, unknowns);
  const count = policy.quotas.length === 0 ? undefined : countingBy(here, unknowns);
  return (recorded) => {
    const unjudged = whyUnjudged(recorded);
    if (unjudged !== undefined) return { kind: 'unsure', why: [unjudged] };
    const question = questionOf(recorded, unknowns);
    unknowns.takeReasons();
    const looks = unknowns.looks;
    const best = decisionOf(favourable, question);
    // Without the URIs that are not recorded: they could only make it worse.
    const isWhole = recorded.resourcesOmitted === 0 || best.effect !== 'allow';
    const worst = unknowns.looks === looks ? best : decisionOf(unfavourable, question);
    const isSure = isWhole && (worst.effect === 'allow') === (best.effect === 'allow');
    const stopped = best.effect === 'allow' ? stoppedByArguments(policy, recorded) : undefined;
    if (stopped !== undefined) return stopped;
    if (!isSure) return { kind: 'unsure', why: [...unknowns.takeReasons(), ...(isWhole ? [] : [RESOURCES_OMITTED])] };
    const isLetThrough = worst.effect === 'allow';
    const quota = isLetThrough ? count?.(recorded, question) : undefined;
    return { kind: 'sure', isLetThrough, decision: worst, quota };
  };
}

const RESOURCES_OMITTED = 'not all of its resources are recorded';

function whyUnjudged({ cut, roles }: RecordedRequest): string | undefined {
  if (cut !== undefined) return `its ${cut} was too long to be recorded whole`;
  return roles === 'omitted' ? 'the roles of the agent were too long to be recorded' : undefined;
}

/**
 * What rules allow, and an entry of `arguments` has refused. What that hung on is not recorded, such as the tool's schema,
 * so that an entry is taken to refuse again what one of its name has refused.
 */
function stoppedByArguments(policy: CompiledPolicy, recorded: RecordedRequest): Rejudgement | undefined {
  const { wasLetThrough, wasRefusedByArguments, server, tool, rule } = recorded;
  if (wasLetThrough || tool === undefined || policy.audit) return undefined;
  const hasEntry = argumentRulesFor(policy, server, tool).some(({ name }) => name === rule);
  if (!hasEntry) return wasRefusedByArguments ? { kind: 'unsure', why: [ARGUMENTS_REFUSED] } : undefined;
  const decision: Decision = { effect: 'refuse', rule, reason: `${rule} has refused its arguments` };
  return { kind: 'sure', isLetThrough: false, decision, quota: undefined };
}

const ARGUMENTS_REFUSED = "an entry of the policy's arguments refused it, which is not judged again";

function decisionOf(whole: CompiledPolicy, { subject, virtual, targets, call }: RecordedQuestion): Decision {
  const policy = policyAt(whole, virtual);
  if (policy === undefined) return { effect: 'hide', rule: undefined, reason: `there is no virtual server ${virtual}` };
  if (targets.ok) return decideAll(policy, subject, targets.value, call).decision;
  return malformed(targets.error);
}

/** The policy, its conditions taken for what favours the request (or does not) where they look at what is not known. */
function guessing(policy: CompiledPolicy, inFavour: boolean, unknowns: Unknowns): CompiledPolicy {
  const grantOf = (grant: Grant): Grant => {
    const { condition, effect } = grant;
    if (condition === undefined) return grant;
    const guess = ok(inFavour === (effect === 'allow'));
    const guessed = (predicate: Predicate | undefined): Predicate | undefined =>
      predicate &&
      ((variables) => {
        const looks = unknowns.looks;
        const asked = predicate(variables);
        return asked.ok || unknowns.looks === looks ? asked : guess;
      });
    const both: Condition = { ...condition, stable: guessed(condition.stable), perCall: guessed(condition.perCall) };
    return { ...grant, condition: both };
  };
  return { ...policy, grants: policy.grants.map(grantOf), memo: new Map(), hiding: new Map() };
}

function knownEnvironment(env: CompiledPolicy['env'], unknowns: Unknowns): CompiledPolicy['env'] {
  return new Proxy(env, {
    getOwnPropertyDescriptor: (known, name) =>
      typeof name === 'symbol' || Object.hasOwn(known, name)
        ? Reflect.getOwnPropertyDescriptor(known, name)
        : unknowns.look(`env.${name} is not set here`),
  });
}
