/**
 * Quotas and budgets over recorded requests. Pure: the same arithmetic as in the sidecar, at the recorded times and with
 * the recorded tokens.
 *
 * Not exact, and said to be so: what was spent before the first record is not known, a record is written when its call
 * ends, and agents would have gone on differently after a refusal. Calls under way at the same time are not counted.
 */
import { chargesOf } from './charges.ts';
import type { CompiledPolicy } from './policy.ts';
import { createQuotaState, release, reserve, settle } from './quota.ts';
import type { RecordedQuestion, RecordedRequest, Unknowns } from './recorded.ts';
import { policyAt } from './virtual.ts';

export interface QuotaOutcome {
  /** The quota or budget that would have stopped it. */
  readonly limitedBy: string | undefined;
  /** Which quotas count it, or under which key, hangs on what is not recorded. */
  readonly isUnsure: boolean;
}

const NOT_COUNTED: QuotaOutcome = { limitedBy: undefined, isUnsure: false };

/** Takes the requests that the policy lets through, in the order of the audit. */
export function countingBy(
  whole: CompiledPolicy,
  unknowns: Unknowns,
): (recorded: RecordedRequest, question: RecordedQuestion) => QuotaOutcome {
  const state = createQuotaState();
  return (recorded, { subject, virtual, targets, call }) => {
    const policy = policyAt(whole, virtual);
    const [target] = targets.ok ? targets.value : [];
    if (policy === undefined || policy.audit || target === undefined) return NOT_COUNTED;
    const looks = unknowns.looks;
    const charges = chargesOf(policy, subject, target, call, recorded.tokensIn).filter(
      ({ dimension }) => dimension !== 'concurrent',
    );
    const isUnsure = unknowns.looks !== looks;
    if (charges.length === 0) return { limitedBy: undefined, isUnsure };
    const reserved = reserve(state, charges, recorded.time);
    if (!reserved.ok) return { limitedBy: reserved.error.quota, isUnsure };
    const { time, hasReached, wasLimited, tokensIn, tokensOut } = recorded;
    // What the server never saw costs nothing. One that a quota stopped would have gone on.
    if (hasReached || wasLimited) settle(state, reserved.value, tokensIn + tokensOut, time);
    else release(state, reserved.value, time);
    return { limitedBy: undefined, isUnsure };
  };
}
