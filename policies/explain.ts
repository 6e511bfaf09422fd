/**
 * Why a decision came out as it did: the part that each role and rule of a policy has in it. Pure.
 *
 * Guarantee: the verdict is `decide`'s own, and the parts are found with the selectors and conditions that it uses. Where
 * `decide` stops at the first rule that settles the matter, all of them are asked here: an explanation is for people,
 * and may take its time.
 */
import type { Predicate } from './cel.ts';
import { type Variables, variablesOf } from './cel-variables.ts';
import type { Charge } from './charge.ts';
import { chargesOf } from './charges.ts';
import { rolesOf } from './decide.ts';
import type { Call, Decision, Subject, Target } from './decision.ts';
import { matchGlob } from './glob.ts';
import { judge, type Question } from './judge.ts';
import { idOf } from './methods.ts';
import type { CompiledPolicy, CompiledSelector, Grant } from './policy.ts';

/** How a half of a condition came out; `undefined` when there is no such half. */
export type Truth = 'true' | 'false' | 'error' | undefined;

/** Why a rule has no part in a decision: it is a role that the agent does not have, or none of its selectors matches. */
export type Apart = 'roleNotHeld' | 'notSelected';

/**
 * What a rule does about a target. `hides`: denies it whatever the call is like. `refuses`: denies this call. `allows`:
 * this call. `shows`: lets the target be seen, but does not allow this call. `nothing`: its condition does not hold.
 */
export type Effect = 'hides' | 'refuses' | 'allows' | 'shows' | 'nothing';

export interface Part {
  /** The rule's name, or `role <name>`. */
  readonly label: string;
  readonly role: string | undefined;
  readonly side: 'allow' | 'deny';
  /** Recorded only: without effect on the verdict. */
  readonly audit: boolean;
  readonly apart: Apart | undefined;
  /** Which of its selectors match, counted from 0. */
  readonly selectors: readonly number[];
  /** The operands of `when` that do not depend on the call, and those that do. Only asked of what has a part. */
  readonly stable: Truth;
  readonly perCall: Truth;
  /** What could not be judged, and where. */
  readonly error: string | undefined;
  readonly effect: Effect;
}

export interface TargetExplanation {
  readonly target: Target;
  /** In the order of the policy: roles, then rules. */
  readonly parts: readonly Part[];
}

export interface Explanation {
  readonly decision: Decision;
  /** All that the agent has: its identity's, and those that the policy gives it. */
  readonly roles: readonly string[];
  readonly targets: readonly TargetExplanation[];
  /** The arguments as they are judged and sent: with what the policy sets and removes. */
  readonly args: Call['args'];
  /** What would be counted if the call is let through; the tokens of its text are not, since nobody knows them yet. */
  readonly charges: readonly Charge[];
}

export function explain(policy: CompiledPolicy, question: Question): Explanation {
  const { subject } = question;
  const { decision, call, targets } = judge(policy, question);
  const roles = rolesOf(policy, subject.agent);
  const [first] = targets;
  return {
    decision,
    roles,
    args: call.args,
    targets: targets.map((target) => ({ target, parts: partsIn(policy, subject, roles, target, call) })),
    charges: decision.effect === 'allow' && first !== undefined ? chargesOf(policy, subject, first, call, 0) : [],
  };
}

function partsIn(
  policy: CompiledPolicy,
  subject: Subject,
  roles: readonly string[],
  target: Target,
  call: Call,
): readonly Part[] {
  const variables = variablesOf(subject, roles, target, policy.env, call);
  return policy.grants.map((grant) => partOf(grant, roles, target, variables));
}

function partOf(grant: Grant, roles: readonly string[], target: Target, variables: Variables): Part {
  const { label, role, effect: side, audit, condition } = grant;
  const selectors = grant.selectors.flatMap((selector, index) => (selects(selector, target) ? [index] : []));
  const isHeld = role === undefined || roles.includes(role);
  const apart: Apart | undefined = !isHeld ? 'roleNotHeld' : selectors.length === 0 ? 'notSelected' : undefined;
  const known = { label, role, side, audit, apart, selectors };
  if (apart !== undefined)
    return { ...known, stable: undefined, perCall: undefined, error: undefined, effect: 'nothing' };
  const stable = ask(condition?.stable, variables);
  const perCall = ask(condition?.perCall, variables);
  const effect =
    side === 'deny' ? effectOfDeny(stable.truth, perCall.truth) : effectOfAllow(stable.truth, perCall.truth);
  return { ...known, stable: stable.truth, perCall: perCall.truth, error: stable.error ?? perCall.error, effect };
}

/** Asked of each selector, where `decide` finds its own in the index. */
function selects(selector: CompiledSelector, target: Target): boolean {
  const id = idOf(target);
  return matchGlob(selector.server, target.server) && selector[target.kind].some((glob) => matchGlob(glob, id));
}

/** An error denies. */
function effectOfDeny(stable: Truth, perCall: Truth): Effect {
  if (stable === 'error') return 'hides';
  if (stable === 'false' || perCall === 'false') return 'nothing';
  return perCall === undefined ? 'hides' : 'refuses';
}

/** An error does not allow. */
function effectOfAllow(stable: Truth, perCall: Truth): Effect {
  if (stable === 'false' || stable === 'error') return 'nothing';
  return perCall === undefined || perCall === 'true' ? 'allows' : 'shows';
}

function ask(
  predicate: Predicate | undefined,
  variables: Variables,
): { readonly truth: Truth; readonly error: string | undefined } {
  if (predicate === undefined) return { truth: undefined, error: undefined };
  const asked = predicate(variables);
  return asked.ok
    ? { truth: asked.value ? 'true' : 'false', error: undefined }
    : { truth: 'error', error: asked.error };
}
