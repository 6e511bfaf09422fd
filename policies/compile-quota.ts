/**
 * Quotas, budgets and prices as written → as they are counted. Pure. The schema has checked each part alone.
 */
import { millionthsOf, parseCost } from './budget.ts';
import { compileCondition, compileValue } from './cel.ts';
import type { Dimension } from './charge.ts';
import { compileGlob } from './glob.ts';
import type { Bound, CompiledPrice, CompiledQuota, KeyPart } from './policy.ts';
import { parseRate } from './rate.ts';
import type { Result } from './result.ts';
import type { PolicyDocument } from './schema.ts';

type Quota = PolicyDocument['quotas'][number];
type Budget = PolicyDocument['budgets'][number];

export function compileQuota({ name, when, key, calls, tokens, burst, concurrent, ...rest }: Quota): CompiledQuota {
  const bound = (rate: string | undefined, dimension: Dimension, what: string): Bound[] => {
    if (rate === undefined) return [];
    const { limit, windowMs } = compiled(parseRate(rate));
    return [{ limit, windowMs, period: undefined, dimension, keyPrefix: JSON.stringify([name, what, windowMs]) }];
  };
  return {
    ...common({ name, when, key, ...rest }),
    kind: 'quota',
    bounds: [
      ...bound(calls, 'calls', 'calls'),
      ...bound(tokens, 'tokens', 'tokens'),
      ...bound(burst, calls === undefined ? 'tokens' : 'calls', 'burst'),
      ...(concurrent === undefined
        ? []
        : [
            {
              limit: concurrent,
              windowMs: 0,
              period: undefined,
              dimension: 'concurrent' as const,
              keyPrefix: JSON.stringify([name, 'concurrent']),
            },
          ]),
    ],
  };
}

export function compileBudget({ cost, ...rest }: Budget): CompiledQuota {
  const { limit, period } = compiled(parseCost(cost));
  const keyPrefix = JSON.stringify([rest.name, 'cost', period]);
  return { ...common(rest), kind: 'budget', bounds: [{ limit, windowMs: 0, period, dimension: 'cost', keyPrefix }] };
}

export function compilePrice({
  server,
  tools,
  perCall,
  perThousandTokens,
}: PolicyDocument['prices'][number]): CompiledPrice {
  return {
    server: compiled(compileGlob(server)),
    tools: tools.map((glob) => compiled(compileGlob(glob))),
    perCall: millionthsOf(perCall),
    perToken: millionthsOf(perThousandTokens) / 1000,
  };
}

/**
 * The agent's to choose, as expressions are. Servers, agents and groups are those of the configuration, and users those
 * that an identity method vouches for.
 */
const CHOSEN: ReadonlySet<KeyPart> = new Set(['session', 'tool'] as const);

function common({ name, when, key, onLimit, hard, warnAt }: Omit<Budget, 'cost'>) {
  return {
    name,
    condition: when === undefined ? undefined : compiled(compileCondition(when)),
    isKeyChosen: key.some((part) => typeof part !== 'string' || CHOSEN.has(part)),
    key: key.map((part): KeyPart => (typeof part === 'string' ? part : { of: compiled(compileValue(part.cel)) })),
    onLimit,
    hard,
    warnAt: Number.parseInt(warnAt, 10) / 100,
  };
}

/** The schema has compiled every part once, to report it at its path; here it cannot fail. */
export function compiled<T>(result: Result<T, string>): T {
  if (!result.ok) throw new Error(`the policy's schema let through what does not compile: ${result.error}`);
  return result.value;
}
