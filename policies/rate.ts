/**
 * Rates of the policy language: so many in a window of time.
 */
import type { Rate } from './policy.ts';
import { err, ok, type Result } from './result.ts';

export const RATE = /^(\d{1,9})\/(?:(\d{1,5})(s|m|h)|(s|sec|min|h|hour|day))$/;
/** What a rate has to be. */
export const RATE_FORM =
  'must be <count>/<window>, for example 60/min or 25/10s; windows are s, sec, min, h, hour and day, or so many: 10s, 5m, 2h';
const UNIT_MS = { s: 1000, sec: 1000, m: 60_000, min: 60_000, h: 3_600_000, hour: 3_600_000, day: 86_400_000 };
export const WINDOW_MAX_MS = 31 * UNIT_MS.day;

/** `60/min`, `25/10s`, `1000/day`. */
export function parseRate(text: string): Result<Rate, string> {
  const [, limit, count, unit, whole] = RATE.exec(text) ?? [];
  if (limit === undefined) return err(RATE_FORM);
  const windowMs = Number(count ?? 1) * UNIT_MS[(unit ?? whole) as keyof typeof UNIT_MS];
  if (Number(limit) === 0) return err('must let at least 1 through: use a deny rule to let nothing through');
  if (windowMs === 0 || windowMs > WINDOW_MAX_MS) return err('the window must be from 1s to 31 days (744h)');
  return ok({ limit: Number(limit), windowMs });
}
