/**
 * Stage 8. Reserves what the call will cost before the server sees anything of it, and settles when the answer is
 * known. After `authorize`, so that a refused call costs nothing; before `cache`, since an answer from the cache fills
 * the model's context as well.
 */
import { amountOf, priceOf } from '../../../policies/budget.ts';
import type { Charge, Usage } from '../../../policies/charge.ts';
import { amountFor, chargesOf } from '../../../policies/charges.ts';
import type { CompiledPolicy, CompiledQuota } from '../../../policies/policy.ts';
import { withBoundedKeys } from '../../quota/bounded-keys.ts';
import type { Grant, QuotaStore } from '../../quota/store.ts';
import { estimateTokens, type TokenCounter } from '../../quota/tokens.ts';
import type { Outcome, Stage } from '../compose.ts';
import type { Permitted } from '../exchange.ts';
import type { LateAnswers } from '../late-answers.ts';
import { type Reason, spentMeanwhile, spentReason } from '../reason.ts';

export interface QuotaPorts {
  readonly store: QuotaStore;
  readonly tokens: TokenCounter;
  readonly late: LateAnswers;
  /** Wall clock, milliseconds since the epoch. */
  readonly now: () => number;
  /** A quota has reached its warning share. */
  readonly warn: (usage: Usage, exchange: Permitted) => void;
}

export function quota(ports: QuotaPorts): Stage<Permitted, Permitted> {
  return async (exchange, next): Promise<Outcome> => {
    const { message, policy, subject, call } = exchange;
    const target = exchange.targets[0];
    if (message === undefined || target === undefined || call === undefined) return next(exchange);

    estimateArguments(exchange);
    const charges = withBoundedKeys(chargesOf(policy, subject, target, call, exchange.tokensIn ?? 0));
    if (charges.length === 0) return policy.prices.length === 0 ? next(exchange) : priceAfter(exchange, ports, next);

    const crowded = ports.late.refusalOf(exchange);
    if (crowded !== undefined) return crowded;
    const reserving = ports.store.reserve(charges);
    const reserved = reserving instanceof Promise ? await reserving : reserving;
    if (!reserved.ok) {
      const { quota: name, retryAfterMs, store } = reserved.error;
      const spent = policy.quotas.find((one) => one.name === name)!;
      if (policy.audit) return next(noteSpent(exchange, spent));
      return { ...spentReason(spent, message.method, retryAfterMs), isStoreAway: store === 'away' };
    }
    return settleAfter(exchange, charges, reserved.value, ports, next);
  };
}

/** Audit mode lets through, and records what enforcing would have done: what rules refuse comes to no quota. */
function noteSpent(exchange: Permitted, { kind, name }: CompiledQuota): Permitted {
  if (exchange.decision?.effect === 'allow' && exchange.decision.wouldBe !== undefined) return exchange;
  const wouldBe = { effect: 'refuse', rule: name, reason: `the ${kind} ${name} is spent` } as const;
  return Object.assign(exchange, { decision: { effect: 'allow', rule: undefined, wouldBe } as const });
}

/** No quota is concerned, and the record still says what the call cost. */
async function priceAfter(
  exchange: Permitted,
  { tokens }: QuotaPorts,
  next: (exchange: Permitted) => Outcome | Promise<Outcome>,
): Promise<Outcome> {
  const outcome = await next(exchange);
  if (exchange.outgoing?.reached === true || exchange.cached) {
    countTokens(exchange, tokens);
    noteCost(exchange, exchange.policy);
  }
  return outcome;
}

async function settleAfter(
  exchange: Permitted,
  charges: readonly Charge[],
  grant: Grant,
  ports: QuotaPorts,
  next: (exchange: Permitted) => Outcome | Promise<Outcome>,
): Promise<Outcome> {
  const { store } = ports;
  tellWarnings(exchange, grant.usage, ports);
  const isByToken = charges.some(({ perToken }) => perToken > 0);
  exchange.quotaUsage = isByToken ? withPrice(grant.usage, charges) : grant.usage;
  const forget = isByToken ? ports.late.expect(exchange, charges) : undefined;
  if (isByToken) exchange.spend = spending(exchange, grant, ports);
  let isEnded = false;
  try {
    const outcome = await next(exchange);
    isEnded = true;
    return outcome;
  } finally {
    exchange.spend = undefined;
    if (exchange.answered || exchange.outgoing?.reached !== true) forget?.();
    // The server never saw it: the call did not happen. Once it may have, it did, whatever came back.
    if (isEnded && exchange.outgoing?.reached !== true && !exchange.cached) store.release(grant);
    else {
      countTokens(exchange, ports.tokens);
      tellWarnings(exchange, store.settle(grant, (exchange.tokensIn ?? 0) + (exchange.tokensOut ?? 0)), ports);
      noteCost(exchange, exchange.policy);
    }
  }
}

/**
 * A function of its own: what a closure takes from an async function outlives the call by several collections, which made
 * each of them five times as long.
 */
function spending(exchange: Permitted, grant: Grant, ports: QuotaPorts): (tokensOut: number) => Reason | undefined {
  return (tokensOut) => spend(exchange, grant, ports, tokensOut);
}

/** What each token of the answer will add. */
function withPrice(usage: readonly Usage[], charges: readonly Charge[]): Permitted['quotaUsage'] {
  return usage.map((one) => {
    const charge = charges.find(({ quota, dimension }) => quota === one.quota && dimension === one.dimension);
    return { ...one, perToken: charge?.perToken ?? 0 };
  });
}

/** So many tokens have come by now. Says why no more may pass. */
function spend(exchange: Permitted, grant: Grant, { store, now }: QuotaPorts, tokensOut: number): Reason | undefined {
  const { over } = store.progress(grant, (exchange.tokensIn ?? 0) + tokensOut);
  if (over.length === 0) return undefined;
  const quota = exchange.policy.quotas.find(({ name, hard }) => hard && over.includes(name));
  if (quota === undefined) return undefined;
  if (!exchange.policy.audit) return spentMeanwhile(quota, exchange.message!.method, now());
  noteSpent(exchange, quota);
  return undefined;
}

function tellWarnings(exchange: Permitted, usage: readonly Usage[], { warn }: QuotaPorts): void {
  for (const one of usage) if (one.warned) warn(one, exchange);
}

/** What is reserved is an estimate: counting would hold up the call. */
function estimateArguments(exchange: Permitted): void {
  exchange.tokensIn = estimateTokens(argumentsOf(exchange)?.length ?? 0);
}

function argumentsOf({ message }: Permitted): Buffer | undefined {
  const { layout, bytes } = message!;
  return layout.arguments && bytes.subarray(layout.arguments.start, layout.arguments.end);
}

/** By the server's own figures; else by the tokenizer, where the whole answer is at hand; else as `inspect` estimated. */
function countTokens(exchange: Permitted, tokens: TokenCounter): void {
  const { serverUsage, answerBytes, policy } = exchange;
  if (!policy.countsTokens) return;
  const given = argumentsOf(exchange);
  const into = given === undefined ? undefined : tokens.count(given);
  exchange.tokensIn = serverUsage?.input ?? into?.tokens ?? 0;
  if (serverUsage !== undefined) {
    exchange.tokensOut = serverUsage.output;
    exchange.tokensBy = 'server';
    return;
  }
  const out = answerBytes === undefined ? undefined : tokens.count(answerBytes);
  exchange.tokensOut = out?.tokens ?? exchange.tokensOut ?? 0;
  exchange.tokensBy = out?.by === 'tokenizer' && into?.by !== 'estimate' ? 'tokenizer' : 'estimate';
}

/** For the record: what the call cost by the policy's prices. */
function noteCost(exchange: Permitted, { prices }: CompiledPolicy): void {
  if (prices.length === 0) return;
  const { perCall, perToken } = priceOf(prices, exchange.targets[0]!);
  const tokens = (exchange.tokensIn ?? 0) + (exchange.tokensOut ?? 0);
  exchange.cost = amountOf(amountFor(perCall, perToken, tokens));
}
