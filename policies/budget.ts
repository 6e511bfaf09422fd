/**
 * Money: amounts, prices, and the calendar in which budgets are counted. Pure.
 *
 * Amounts are whole millionths of the unit that prices are written in, whatever that is: sums of them are exact.
 * Calendar windows are those of UTC.
 */

import type { Target } from './decision.ts';
import type { CompiledPrice } from './policy.ts';
import { err, ok, type Result } from './result.ts';

export type Period = 'day' | 'month';

const UNIT = 1_000_000;
const DAY_MS = 86_400_000;
export const COST = /^(\d{1,9}(?:\.\d{1,6})?)\/(day|month)$/;

/** `5/day`, `100.50/month`. */
export function parseCost(text: string): Result<{ readonly limit: number; readonly period: Period }, string> {
  const [, amount, period] = COST.exec(text) ?? [];
  if (amount === undefined) return err('must be <amount>/day or <amount>/month, for example 5/day or 2.50/day');
  const limit = millionthsOf(Number(amount));
  if (limit === 0) return err('must let something through: use a deny rule to let nothing through');
  return ok({ limit, period: period as Period });
}

export function millionthsOf(amount: number): number {
  return Math.round(amount * UNIT);
}

export function amountOf(millionths: number): number {
  return millionths / UNIT;
}

/** Millionths: what a call of the target costs by itself, and what each of its tokens costs. Prices that match add up. */
export function priceOf(
  prices: readonly CompiledPrice[],
  target: Target,
): { readonly perCall: number; readonly perToken: number } {
  let perCall = 0;
  let perToken = 0;
  if (target.kind === 'tool')
    for (const price of prices)
      if (price.server(target.server) && price.tools.some((matches) => matches(target.name))) {
        perCall += price.perCall;
        perToken += price.perToken;
      }
  return { perCall, perToken };
}

/** The number of the day or month, counted from the epoch's. */
export function periodAt(time: number, period: Period): number {
  if (period === 'day') return Math.floor(time / DAY_MS);
  const date = new Date(time);
  return (date.getUTCFullYear() - 1970) * 12 + date.getUTCMonth();
}

/** When that day or month begins, in milliseconds since the epoch. */
export function periodStart(number: number, period: Period): number {
  return period === 'day' ? number * DAY_MS : Date.UTC(1970 + Math.floor(number / 12), number % 12, 1);
}
