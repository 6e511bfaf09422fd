/**
 * Which quotas and budgets apply to a call, and what it costs under each. Pure.
 */
import { periodAt, periodStart, priceOf } from './budget.ts';
import type { Predicate } from './cel.ts';
import { type Variables, variablesOf } from './cel-variables.ts';
import type { Charge } from './charge.ts';
import { rolesOf } from './decide.ts';
import type { Call, Subject, Target } from './decision.ts';
import type { CompiledPolicy, CompiledQuota, KeyPart } from './policy.ts';

/** A count beyond this is cut: sums stay exact integers. */
const AMOUNT_MAX = 1e12;
const COUNTED = new Set(['tools/call', 'prompts/get', 'resources/read']);

/**
 * What a call costs, by every quota and budget that applies. Empty for every method but tools/call, prompts/get and
 * resources/read. One whose `when` cannot be judged applies.
 *
 * @param tokens The estimate to reserve; the difference is settled.
 */
export function chargesOf(
  policy: CompiledPolicy,
  subject: Subject,
  target: Target,
  call: Call,
  tokens: number,
): Charge[] {
  if (policy.quotas.length === 0 || !COUNTED.has(call.method)) return [];
  const variables = policy.quotas.some(needsVariables)
    ? variablesOf(subject, rolesOf(policy, subject.agent), target, policy.env, call)
    : undefined;
  const price = priceOf(policy.prices, target);
  const surplus = JSON.stringify({ agent: subject.agent.name });
  const charges: Charge[] = [];
  for (const { name, condition, key, isKeyChosen, warnAt, bounds } of policy.quotas) {
    if (isExcluded(condition?.stable, variables) || isExcluded(condition?.perCall, variables)) continue;
    const values = JSON.stringify(key.map((part) => keyValue(part, subject, target, call, variables)));
    for (const { dimension, limit, windowMs, period, keyPrefix } of bounds) {
      const base = dimension === 'cost' ? price.perCall : dimension === 'tokens' ? 0 : 1;
      const perToken = dimension === 'cost' ? price.perToken : dimension === 'tokens' ? 1 : 0;
      charges.push({
        quota: name,
        dimension,
        key: keyPrefix + values,
        surplusKey: isKeyChosen ? keyPrefix + surplus : undefined,
        agent: subject.agent.name,
        limit,
        windowMs,
        period,
        base,
        perToken,
        cost: amountFor(base, perToken, tokens),
        warnAt,
      });
    }
  }
  return charges;
}

/** What a call of so many tokens costs. */
export function amountFor(base: number, perToken: number, tokens: number): number {
  const amount = base + (tokens > 0 ? perToken * tokens : 0);
  // Prices a token are fractions of a millionth; what is left of one by their sum is none.
  return amount > 0 ? Math.min(Math.ceil(Number(amount.toFixed(6))), AMOUNT_MAX) : 0;
}

function needsVariables({ condition, key }: CompiledQuota): boolean {
  return condition !== undefined || key.some((part) => typeof part !== 'string');
}

function isExcluded(predicate: Predicate | undefined, variables: Variables | undefined): boolean {
  const verdict = predicate?.(variables!);
  return verdict?.ok === true && !verdict.value;
}

/** What no value can be: calls whose key cannot be told share one counter, rather than have none. */
const UNKNOWN = { unknown: true };

/**
 * No user or session is a value of its own. What is not a tool shares one key: else each URI would have its own quota.
 * Whatever it is, its text never is that of another value.
 */
function keyValue(
  part: KeyPart,
  subject: Subject,
  target: Target,
  call: Call,
  variables: Variables | undefined,
): unknown {
  switch (part) {
    case 'agent':
      return subject.agent.name;
    case 'group':
      return subject.agent.group;
    case 'user':
      return subject.user?.sub ?? null;
    case 'session':
      return call.sessionId ?? null;
    case 'server':
      return target.server;
    case 'tool':
      return target.kind === 'tool' ? target.name : null;
    default: {
      const value = part.of(variables!);
      return value.ok ? value.value : UNKNOWN;
    }
  }
}

/** Milliseconds after which nothing that is spent of it now counts any more, at the latest. */
export function longestWaitOf({ bounds }: CompiledQuota, now: number): number {
  return Math.max(
    ...bounds.map(({ windowMs, period }) =>
      period === undefined ? windowMs : periodStart(periodAt(now, period) + 1, period) - now,
    ),
  );
}
