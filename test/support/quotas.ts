/** Spent quota as a file holds it. */
import type { QuotaState } from '../../policies/quota.ts';
import { snapshot } from '../../policies/quota-snapshot.ts';

export function savedOf(state: QuotaState) {
  const { counters, ...head } = snapshot(state);
  return JSON.parse(JSON.stringify({ ...head, counters: [...counters] }));
}
