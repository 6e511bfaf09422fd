/**
 * Fixed headers for servers with API keys: each value is a secret by reference.
 *
 * Answers at once, always. Files are looked at once a second at most, and whenever the server rejects the headers.
 */
import { err, ok, type Result } from '../../policies/result.ts';
import type { Credential, CredentialFailure, CredentialHeaders } from './credential.ts';
import type { Secret } from './secret.ts';

export interface StaticHeader {
  readonly name: string;
  /** Put before the secret: `Bearer ` with its space, or nothing. */
  readonly prefix: string;
  readonly secret: Secret;
}

const RECHECK_MS = 1000;
/** RFC 9110, section 5.5, without `obs-text`: what cannot break out of a header. */
const HEADER_VALUE = /^[\t\x20-\x7e]+$/;

/** `now` is in milliseconds. */
export function createStaticHeaders(headers: readonly StaticHeader[], now: () => number): Credential {
  let loaded = load(headers);
  let loadedAt = now();

  const reload = (): Result<CredentialHeaders, CredentialFailure> => {
    loaded = load(headers);
    loadedAt = now();
    return loaded;
  };

  return {
    headers: () => (Math.abs(now() - loadedAt) < RECHECK_MS ? loaded : reload()),
    rejected(used) {
      const fresh = reload();
      return fresh.ok && Object.entries(fresh.value).some(([name, value]) => used[name] !== value);
    },
    close() {},
  };
}

function load(headers: readonly StaticHeader[]): Result<CredentialHeaders, CredentialFailure> {
  const values: Record<string, string> = {};
  for (const { name, prefix, secret } of headers) {
    const value = secret.read();
    if (!value.ok) return missing(name, value.error);
    if (!HEADER_VALUE.test(value.value)) return missing(name, 'its secret holds characters that no header may carry');
    values[name.toLowerCase()] = prefix + value.value;
  }
  return ok(values);
}

function missing(name: string, why: string): Result<never, CredentialFailure> {
  return err({ kind: 'secretMissing', detail: `header ${name}: ${why}`, retryAfterMs: RECHECK_MS });
}
