/**
 * What to do with the injector's own authority. PURE.
 *
 * One authority is shared by all replicas through a Secret; each makes its own leaves from it. A new authority stands
 * beside the old one (`next`) until every API server has had time to trust it, and the old one stays trusted until it
 * ends: at no moment does a replica show a certificate that the webhook configuration does not know.
 */
import type { KeyPair } from './certificate.ts';

export interface Authority extends KeyPair {
  readonly from: number;
  readonly until: number;
}

/** What the Secret holds. */
export interface Authorities {
  /** Signs leaves. */
  readonly current: Authority;
  /** Trusted already, and soon to sign. */
  readonly next: Authority | undefined;
  /** When `next` was made, in milliseconds since the epoch. */
  readonly nextSince: number | undefined;
  /** Certificates of earlier ones that have not ended. */
  readonly earlier: readonly { readonly certificate: string; readonly until: number }[];
}

export const AUTHORITY_MS = 365 * 86_400_000;
export const LEAF_MS = 86_400_000;
/** From the making of an authority until it signs: every replica polls the Secret and every API server its configuration well within this. */
const PROPAGATION_MS = 10 * 60_000;
/** Of its life, after which a certificate is replaced. */
const RENEW_AT = 2 / 3;

export type AuthorityStep =
  | { readonly kind: 'keep' }
  /** Make an authority and put it beside the current one; or in its place, where that has ended. */
  | { readonly kind: 'make' }
  /** `next` becomes current. */
  | { readonly kind: 'promote'; readonly authorities: Authorities };

export function nextStep(authorities: Authorities | undefined, now: number): AuthorityStep {
  if (authorities === undefined) return { kind: 'make' };
  const { current, next, nextSince, earlier } = authorities;
  if (next !== undefined && (now >= (nextSince ?? 0) + PROPAGATION_MS || now >= current.until)) {
    const alive = [{ certificate: current.certificate, until: current.until }, ...earlier].filter(
      ({ until }) => until > now,
    );
    return { kind: 'promote', authorities: { current: next, next: undefined, nextSince: undefined, earlier: alive } };
  }
  return next === undefined && isDue(current, now) ? { kind: 'make' } : { kind: 'keep' };
}

/** With a new authority: alone where there is no current one any more. */
export function withNew(authorities: Authorities | undefined, made: Authority, now: number): Authorities {
  if (authorities === undefined || authorities.current.until <= now)
    return { current: made, next: undefined, nextSince: undefined, earlier: [] };
  return { ...authorities, next: made, nextSince: now };
}

/** For the webhook configuration's `caBundle`: PEM of everything that is to be trusted. */
export function bundleOf({ current, next, earlier }: Authorities): string {
  const all = [current, ...(next === undefined ? [] : [next]), ...earlier];
  return all.map(({ certificate }) => `${certificate.trim()}\n`).join('');
}

export function isDue({ from, until }: { readonly from: number; readonly until: number }, now: number): boolean {
  return now >= from + (until - from) * RENEW_AT;
}
