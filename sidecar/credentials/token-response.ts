/**
 * Judges what a token endpoint answered (RFC 6749, sections 5.1 and 5.2). Pure.
 *
 * Of an error only the code is taken, and only one of those that the RFCs define: a free text may hold what was sent.
 */
import { err, ok, type Result } from '../../policies/result.ts';
import type { CredentialFailure } from './credential.ts';
import type { Answer } from './egress.ts';

export interface Token {
  readonly accessToken: string;
  /** Milliseconds. */
  readonly lifetimeMs: number;
}

/** `expires_in` is only recommended. A minute costs one token request a minute and never trusts a token for long. */
const LIFETIME_MS_DEFAULT = 60_000;
const LIFETIME_MS_MAX = 24 * 3_600_000;
/** RFC 6750, section 2.1, as far as a header may carry it; nothing that could end the header. */
const ACCESS_TOKEN = /^[\x21-\x7e]{1,16384}$/;

const ERRORS: Readonly<Record<string, { readonly kind: CredentialFailure['kind']; readonly advice: string }>> = {
  invalid_request: { kind: 'refused', advice: 'check authMethod, scopes and resource' },
  invalid_client: { kind: 'refused', advice: 'check clientId, the secret or key, and authMethod' },
  invalid_grant: { kind: 'refused', advice: 'check the registration of the client' },
  unauthorized_client: { kind: 'refused', advice: 'allow the client_credentials grant for this client' },
  unsupported_grant_type: { kind: 'refused', advice: 'the authorization server has no client_credentials grant' },
  invalid_scope: { kind: 'insufficientScope', advice: 'allow the client these scopes, or configure others' },
  // RFC 8707, section 2.
  invalid_target: { kind: 'refused', advice: 'the authorization server does not know this resource; check resource' },
  server_error: { kind: 'tokenEndpoint', advice: 'it will be tried again' },
  temporarily_unavailable: { kind: 'tokenEndpoint', advice: 'it will be tried again' },
};

export function processTokenResponse(answer: Answer): Result<Token, CredentialFailure> {
  const body = parse(answer.body);
  if (answer.status !== 200) return err(failureOf(answer, body.error));
  const { access_token: accessToken, token_type: type, expires_in: expiresIn } = body;
  if (typeof accessToken !== 'string' || !ACCESS_TOKEN.test(accessToken)) return unusable('no usable access_token');
  if (typeof type !== 'string' || type.toLowerCase() !== 'bearer') return unusable('a token_type other than Bearer');
  if (expiresIn === undefined || expiresIn === null) return ok({ accessToken, lifetimeMs: LIFETIME_MS_DEFAULT });
  // Some servers write the number as text.
  const seconds = typeof expiresIn === 'string' && /^\d{1,10}$/.test(expiresIn) ? Number(expiresIn) : expiresIn;
  if (typeof seconds !== 'number' || !(seconds > 0)) return unusable('an expires_in that is not a positive number');
  return ok({ accessToken, lifetimeMs: Math.min(seconds * 1000, LIFETIME_MS_MAX) });
}

function failureOf(answer: Answer, code: unknown): CredentialFailure {
  const { status, retryAfterMs } = answer;
  const known = typeof code === 'string' && Object.hasOwn(ERRORS, code) ? ERRORS[code] : undefined;
  if (known !== undefined)
    return { kind: known.kind, detail: `answered ${status} ${code}: ${known.advice}`, retryAfterMs };
  const redirect = status >= 300 && status < 400 ? ', a redirect, which is not followed' : '';
  return { kind: 'tokenEndpoint', detail: `answered ${status}${redirect}`, retryAfterMs };
}

function unusable(what: string): Result<never, CredentialFailure> {
  return err({ kind: 'tokenEndpoint', detail: `answered 200 with ${what}`, retryAfterMs: 0 });
}

function parse(body: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(body);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
