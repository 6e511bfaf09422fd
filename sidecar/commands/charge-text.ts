/** What a call is counted by, in the units in which a policy is written: as data, and as a line for people. */
import { amountOf } from '../../policies/budget.ts';
import type { Charge, Dimension } from '../../policies/charge.ts';

export interface ShownCharge {
  /** The quota's or the budget's name. */
  readonly quota: string;
  readonly dimension: Dimension;
  /** Of a cost: in the unit of the prices. */
  readonly limit: number;
  /** `60s`, `day`, `month`; absent where calls under way are counted. */
  readonly window: string | undefined;
}

export function showCharge({ quota, dimension, limit, windowMs, period }: Charge): ShownCharge {
  const window = dimension === 'concurrent' ? undefined : (period ?? `${windowMs / 1000}s`);
  return { quota, dimension, limit: dimension === 'cost' ? amountOf(limit) : limit, window };
}

export function describeCharge(charge: Charge): string {
  const { quota, dimension, limit, window } = showCharge(charge);
  const counted = {
    calls: `${limit} calls in ${charge.windowMs / 1000} s`,
    tokens: `${limit} tokens in ${charge.windowMs / 1000} s`,
    cost: `${limit}/${window}`,
    concurrent: `${limit} at a time`,
  };
  return `counted by ${quota}: ${counted[dimension]}`;
}
