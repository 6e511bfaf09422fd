/**
 * How long to wait before a crashed child process is started again, as a pure state machine: the clock is passed in.
 */

export interface Backoff {
  /** The pause that the last crash brought, milliseconds; 0: none yet. */
  readonly pauseMs: number;
  /** No child is to be started before this time. */
  readonly until: number;
}

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;
/** A child that lived this long had a good start, and so had the server when nothing crashed for this long. */
const CALM_MS = 60_000;

export const noBackoff: Backoff = { pauseMs: 0, until: 0 };

/** A child has crashed that lived for `livedMs`. The pause starts at half a second and doubles up to half a minute. */
export function afterCrash(backoff: Backoff, livedMs: number, now: number): Backoff {
  // Many children that die of one cause at one time are one crash.
  if (now < backoff.until) return backoff;
  const calm = backoff.pauseMs === 0 || livedMs >= CALM_MS || now - backoff.until >= CALM_MS;
  const pauseMs = calm ? FIRST_PAUSE_MS : Math.min(backoff.pauseMs * 2, LONGEST_PAUSE_MS);
  return { pauseMs, until: now + pauseMs };
}

/** Milliseconds until a child may be started; 0: now. */
export function waitMs(backoff: Backoff, now: number): number {
  return Math.max(0, backoff.until - now);
}
