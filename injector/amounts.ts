/**
 * What cpu and memory a sidecar may be given. PURE. An annotation and injector.yaml are judged alike: `10m` of memory is
 * a hundredth of a byte, and is what somebody wrote who meant something else.
 */
import { parseQuantity } from './quantity.ts';

export const RESOURCES = ['cpu', 'memory'] as const;
export type Resource = (typeof RESOURCES)[number];
export type Side = 'request' | 'limit';
export type Amounts = Readonly<Record<Resource, string>>;

/** Below these no sidecar starts. Little cpu may be requested. */
const LEAST: Readonly<Record<Side, Readonly<Partial<Amounts>>>> = {
  request: { memory: '16Mi' },
  limit: { cpu: '1m', memory: '16Mi' },
};

/** What the amount must be, where it is not that. */
export function wantedInstead(resource: Resource, side: Side, text: string): string | undefined {
  const amount = parseQuantity(text) ?? 0n;
  if (amount === 0n) return 'a quantity such as 250m or 64Mi';
  const least = LEAST[side][resource];
  return least !== undefined && amount < parseQuantity(least)! ? `at least ${least}` : undefined;
}

/** Of which more is requested than allowed. */
export function overLimit(requests: Amounts, limits: Amounts): readonly Resource[] {
  return RESOURCES.filter(
    (resource) => (parseQuantity(requests[resource]) ?? 0n) > (parseQuantity(limits[resource]) ?? 0n),
  );
}
