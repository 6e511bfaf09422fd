/**
 * The decision: who may see and call what.
 *
 * Deny beats allow, order never matters, what nothing allows is refused (unless `default: allow`). A target is visible
 * when no deny holds on what is known without a call (agent, user, server, tool, env) and some allow does; so what is
 * listed is exactly what a call does not get `hide` for. An error in a deny refuses, an error in an allow does not
 * allow.
 */
import type { Predicate } from './cel.ts';
import { type Variables, variablesOf } from './cel-variables.ts';
import type { Call, Decision, Refused, Subject, Target } from './decision.ts';
import { idOf } from './methods.ts';
import type { Candidates, CompiledPolicy, Grant } from './policy.ts';
import { ok, type Result } from './result.ts';
import { placesOf } from './selector-index.ts';
import { hasMember } from './virtual.ts';

export function decide(policy: CompiledPolicy, subject: Subject, target: Target, call: Call): Decision {
  const outside = outsideOf(policy, target);
  if (outside !== undefined) return outside;
  const candidates = candidatesFor(policy, subject, target);
  const variables = candidates.conditional
    ? variablesOf(subject, candidates.roles, target, policy.env, call)
    : undefined;
  const enforced = judge(policy, candidates, variables, true);
  if (enforced.effect !== 'allow')
    return policy.audit ? { effect: 'allow', rule: undefined, wouldBe: enforced } : enforced;
  if (candidates.withAudit === undefined) return enforced;
  const audited = judge(policy, candidates.withAudit, variables, true);
  return audited.effect === 'allow' ? enforced : { ...enforced, wouldBe: audited };
}

/** Whether the target is shown in a list. In audit mode everything is that the virtual server has. */
export function isVisible(policy: CompiledPolicy, subject: Subject, target: Target): boolean {
  if (outsideOf(policy, target) !== undefined) return false;
  if (policy.audit) return true;
  const candidates = candidatesFor(policy, subject, target);
  const variables = candidates.conditional
    ? variablesOf(subject, candidates.roles, target, policy.env, undefined)
    : undefined;
  return judge(policy, candidates, variables, false).effect !== 'hide';
}

/** What denies the target by what is known without a call, whether or not something allows it. Nothing in audit mode. */
export function denialOf(policy: CompiledPolicy, subject: Subject, target: Target): Refused | undefined {
  if (policy.audit) return undefined;
  const candidates = candidatesFor(policy, subject, target);
  const variables = candidates.conditional
    ? variablesOf(subject, candidates.roles, target, policy.env, undefined)
    : undefined;
  const decision = judge({ allowByDefault: true }, candidates, variables, false);
  return decision.effect === 'allow' ? undefined : decision;
}

function outsideOf({ within }: CompiledPolicy, target: Target): Refused | undefined {
  if (within === undefined || hasMember(within, target)) return undefined;
  return hide(within.label, `${within.label} does not have it`);
}

/** @param perCall `false`: only visibility is asked, and the answer is `allow` or `hide`. */
function judge(
  policy: Pick<CompiledPolicy, 'allowByDefault'>,
  { denies, allows }: Pick<Candidates, 'denies' | 'allows'>,
  variables: Variables | undefined,
  perCall: boolean,
): Decision {
  let refused: Refused | undefined;
  for (const { label, condition } of denies) {
    const stable = holds(condition?.stable, variables);
    if (!stable.ok) return hide(label, `${label} could not be judged: ${stable.error}`);
    if (!stable.value) continue;
    if (condition?.perCall === undefined) return hide(label, `${label} denies it`);
    if (!perCall || refused !== undefined) continue;
    const now = holds(condition.perCall, variables);
    if (!now.ok) refused = refuse(label, `${label} could not be judged: ${now.error}`);
    else if (now.value) refused = refuse(label, `${label} denies this call`);
  }

  let visible = policy.allowByDefault;
  let failed: { readonly label: string; readonly error: string } | undefined;
  let unmet: string | undefined;
  for (const { label, condition } of allows) {
    const stable = holds(condition?.stable, variables);
    if (!stable.ok) failed ??= { label, error: stable.error };
    if (!stable.ok || !stable.value) continue;
    visible = true;
    if (!perCall || refused !== undefined) break;
    const now = holds(condition?.perCall, variables);
    if (!now.ok) failed ??= { label, error: now.error };
    else if (now.value) return { effect: 'allow', rule: label, wouldBe: undefined };
    else unmet ??= label;
  }

  if (visible && refused !== undefined) return refused;
  if (policy.allowByDefault || (visible && !perCall)) return { effect: 'allow', rule: undefined, wouldBe: undefined };
  const effect = visible ? 'refuse' : 'hide';
  if (failed !== undefined)
    return { effect, rule: failed.label, reason: `${failed.label} could not be judged: ${failed.error}` };
  if (unmet !== undefined) return { effect, rule: unmet, reason: `${unmet} does not allow this call` };
  return { effect, rule: undefined, reason: 'nothing allows it' };
}

const HOLDS = ok(true);

function holds(predicate: Predicate | undefined, variables: Variables | undefined): Result<boolean, string> {
  return predicate === undefined ? HOLDS : predicate(variables!);
}

function hide(rule: string, reason: string): Refused {
  return { effect: 'hide', rule, reason };
}

function refuse(rule: string, reason: string): Refused {
  return { effect: 'refuse', rule, reason };
}

/** The identity's roles, those that the policy gives the agent by name, and those that it gives to every agent. */
export function rolesOf(policy: CompiledPolicy, agent: Subject['agent']): readonly string[] {
  const named = policy.agentRoles.get(agent.name) ?? [];
  const all = policy.agentRoles.get('*') ?? [];
  return [...new Set([...agent.roles, ...named, ...all])];
}

/** Most entries kept, and longest key: names and URIs are the agent's to choose, and must not fill the memory. */
const MEMO_MAX = 10_000;
const MEMO_KEY_MAX = 1024;

function candidatesFor(policy: CompiledPolicy, subject: Subject, target: Target): Candidates {
  const key = memoKey(subject.agent, target);
  const known = policy.memo.get(key);
  if (known !== undefined) return known;
  const found = findCandidates(policy, subject, target);
  if (policy.memo.size >= MEMO_MAX) policy.memo.clear();
  if (key.length <= MEMO_KEY_MAX) policy.memo.set(key, found);
  return found;
}

/** Every part but the last has its length in front: two different questions never share a key. */
function memoKey({ name, roles }: Subject['agent'], target: Target): string {
  let key = `${name.length}:${name}${roles.length}`;
  for (const role of roles) key += `:${role.length}:${role}`;
  return `${key} ${target.kind}${target.server.length}:${target.server}${idOf(target)}`;
}

function findCandidates(policy: CompiledPolicy, { agent }: Subject, target: Target): Candidates {
  const roles = rolesOf(policy, agent);
  const concerned = placesOf(policy.index, roles, target).map((place) => policy.grants[place]!);
  // Those without a condition first: they decide without evaluating anything.
  concerned.sort((one, other) => Number(one.condition !== undefined) - Number(other.condition !== undefined));
  const sides = (grants: readonly Grant[]) => ({
    denies: grants.filter(({ effect }) => effect === 'deny'),
    allows: grants.filter(({ effect }) => effect === 'allow'),
  });
  const enforced = concerned.filter(({ audit }) => !audit);
  return {
    roles,
    ...sides(enforced),
    withAudit: enforced.length === concerned.length ? undefined : sides(concerned),
    conditional: concerned.some(({ condition }) => condition !== undefined),
  };
}
