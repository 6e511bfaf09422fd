/**
 * Stage 8. Reserves what the call will cost before the server sees anything of it, and settles when the answer is
 * known. After `authorize`, so that a refused call costs nothing; before `cache`, since an answer from the cache fills
 * the model's context as well.
 */
import type { Charge, Reservation } from '../../../policies/quota.ts';
import { chargesOf } from '../../../policies/quota.ts';
import type { Outcome, Stage } from '../compose.ts';
import type { Permitted } from '../exchange.ts';
import type { QuotaStore } from '../quota-store.ts';

export function quota(store: QuotaStore): Stage<Permitted, Permitted> {
  return async (exchange, next): Promise<Outcome> => {
    const { message, policy, subject, call } = exchange;
    const target = exchange.targets[0];
    if (message === undefined || target === undefined || call === undefined) return next(exchange);

    const tokensIn = estimateTokens(
      message.layout.arguments === undefined ? 0 : message.layout.arguments.end - message.layout.arguments.start,
    );
    exchange.tokensIn = tokensIn;
    const charges: readonly Charge[] = chargesOf(policy, subject, target, call, tokensIn);
    if (charges.length === 0) return next(exchange);

    const reserving = store.reserve(charges);
    const reserved = reserving instanceof Promise ? await reserving : reserving;
    if (!reserved.ok) {
      const { quota: name, retryAfterMs } = reserved.error;
      if (policy.audit) return next(noteSpent(exchange, name));
      const asToolError =
        message.method === 'tools/call' && policy.quotas.find((one) => one.name === name)?.onLimit === 'toolError';
      return { kind: 'quota', quota: name, retryAfterMs: Math.ceil(retryAfterMs), asToolError };
    }
    return settleAfter(exchange, reserved.value, tokensIn, store, next);
  };
}

/** Audit mode lets through, and records what enforcing would have done. */
function noteSpent(exchange: Permitted, name: string): Permitted {
  const wouldBe = { effect: 'refuse', rule: name, reason: `the quota ${name} is spent` } as const;
  return Object.assign(exchange, { decision: { effect: 'allow', rule: undefined, wouldBe } as const });
}

async function settleAfter(
  exchange: Permitted,
  reservation: Reservation,
  tokensIn: number,
  store: QuotaStore,
  next: (exchange: Permitted) => Outcome | Promise<Outcome>,
): Promise<Outcome> {
  const outcome = await next(exchange);
  // The server never saw it: the call did not happen. Once it may have, it did, whatever came back.
  if (exchange.outgoing?.reached !== true && !exchange.cached) store.release(reservation);
  else store.settle(reservation, tokensIn + (exchange.tokensOut ?? 0));
  return outcome;
}

/** Four bytes of JSON a token: OpenAI's rule of thumb for English text, close enough to reserve by. */
export function estimateTokens(bytes: number): number {
  return Math.ceil(bytes / 4);
}
