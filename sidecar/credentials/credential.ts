/**
 * What the `credential` stage attaches to an outgoing request, and how it is had.
 * One file a grant; each answers this interface.
 */
import type { Result } from '../../policies/result.ts';

/** Why no credential could be had. `detail` is for the audit and the log: it never holds a secret or a response body. */
export type CredentialFailure = {
  readonly kind: 'discovery' | 'tokenEndpoint' | 'refused' | 'secretMissing' | 'insufficientScope';
  readonly detail: string;
  /** How long until another try makes sense, in milliseconds. */
  readonly retryAfterMs: number;
};

/** Header names (lower-case) and values to set on the outgoing request. */
export type CredentialHeaders = Readonly<Record<string, string>>;

export interface Credential {
  /**
   * Answers at once (no promise) when a fresh token is at hand, so that the hot path awaits nothing.
   */
  headers(): Result<CredentialHeaders, CredentialFailure> | Promise<Result<CredentialHeaders, CredentialFailure>>;
  /**
   * The upstream answered 401 to the headers that `headers()` gave. `challenge` is its `WWW-Authenticate`.
   * Drops the token (unless a newer one is there already) and learns from the challenge (RFC 9728).
   * True when another try makes sense; false when nothing can change (static headers).
   */
  rejected(used: CredentialHeaders, challenge: string | undefined): boolean;
  close(): void;
}

/** What a credential needs of its surroundings. */
export interface CredentialPorts {
  /** Wall clock, milliseconds since the epoch: assertions carry its time. */
  readonly now: () => number;
  /** 0 ≤ x < 1, for jitter. */
  readonly random: () => number;
  /** Where `{ env: NAME }` is looked up. Default: the process's own variables. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** Told of each attempt to get a credential, for the metrics. */
  readonly refreshed?: (outcome: 'ok' | 'error') => void;
  /** Never gets a secret or a token. */
  readonly log: (level: 'info' | 'warn', message: string) => void;
}
