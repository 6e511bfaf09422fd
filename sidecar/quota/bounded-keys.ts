/**
 * Keys of counters as every store keeps them, however long what an agent has named is: a tool of megabytes, the value of
 * an expression. Stores hold keys by the thousand, for as long as a window lasts; so a long one is kept as its digest.
 *
 * Guarantee: two keys stay two. No key of policies/charges.ts looks like a digest, since each begins with `[`.
 */
import { hash } from 'node:crypto';
import type { Charge } from '../../policies/charge.ts';

/** In UTF-16 code units. */
export const KEY_LENGTH_MAX = 256;

export function withBoundedKeys(charges: readonly Charge[]): readonly Charge[] {
  if (charges.every(({ key }) => key.length <= KEY_LENGTH_MAX)) return charges;
  return charges.map((charge) => ({ ...charge, key: boundedKey(charge.key) }));
}

/** The key, or the digest of a long one. */
export function boundedKey(key: string): string {
  return key.length <= KEY_LENGTH_MAX ? key : `sha256:${hash('sha256', key, 'base64url')}`;
}
