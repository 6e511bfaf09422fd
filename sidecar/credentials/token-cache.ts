/**
 * Keeps one server's token: one request in flight however many callers, renewed ahead of its end, failures remembered.
 *
 * One cache belongs to one server and holds one grant (issuer, resource, scope, client) at a time, so a token cannot be
 * handed out for another one. Two servers never share a cache, also where their grants are the same: issuer, resource
 * and scope are known only after discovery, and a server's word must not lead to another server's token.
 * When a challenge changes the grant, {@link TokenCache.reject} starts over and what the old request brings later is
 * not kept.
 *
 * - Renewal is due at a random point of 70 to 85 % of the lifetime, so that many sidecars do not ask at once. The first
 *   caller behind it starts it in the background and takes the old token. There is no timer: an idle group asks nothing.
 * - A failing endpoint is asked again after 1 s, doubling to 30 s, with jitter, or when its Retry-After says; callers
 *   in between get the remembered failure at once. While the old token lasts, it is used.
 * - A rejected token is renewed at once, but one that follows close on the last forced renewal is kept: a server that
 *   rejects everything must not turn each call into a token request.
 *
 * Does no I/O of its own, knows nothing of OAuth, logs failures without secrets.
 */
import { err, ok, type Result } from '../../policies/result.ts';
import type { CredentialFailure, CredentialHeaders, CredentialPorts } from './credential.ts';

/** What one acquisition brought. */
export interface Lease {
  readonly headers: CredentialHeaders;
  /** Milliseconds from when it was asked for. */
  readonly lifetimeMs: number;
}

export interface TokenCache {
  /** At once when a fresh token is at hand or a failure is remembered. */
  headers(): Result<CredentialHeaders, CredentialFailure> | Promise<Result<CredentialHeaders, CredentialFailure>>;
  /** These headers were rejected. `changed`: the grant is another one now. True when another try makes sense. */
  reject(used: CredentialHeaders, changed: boolean): boolean;
  close(): void;
}

const BACKOFF_MS_FIRST = 1000;
const BACKOFF_MS_MAX = 30_000;
const RETRY_AFTER_MS_MAX = 300_000;
/** A token is not used up to its last moment: it must still hold when it arrives. At most a tenth of the lifetime. */
const MARGIN_MS_MAX = 10_000;

interface Held {
  /** Made once, so that the hot path allocates nothing. */
  readonly answer: { readonly ok: true; readonly value: CredentialHeaders };
  readonly renewAt: number;
  readonly endsAt: number;
}

interface Pause {
  readonly count: number;
  readonly until: number;
}

const NO_PAUSE: Pause = { count: 0, until: Number.NEGATIVE_INFINITY };

/** `acquire` never throws for an expected failure, and settles soon after its signal aborts. */
export function createTokenCache(
  acquire: (signal: AbortSignal) => Promise<Result<Lease, CredentialFailure>>,
  ports: CredentialPorts,
): TokenCache {
  const closed = new AbortController();
  let held: Held | undefined;
  let flight: Promise<Result<CredentialHeaders, CredentialFailure>> | undefined;
  let failure: CredentialFailure | undefined;
  let failurePause = NO_PAUSE;
  let forcedPause = NO_PAUSE;

  function start(): Promise<Result<CredentialHeaders, CredentialFailure>> {
    const askedAt = ports.now();
    const mine = attempt().then((result) => {
      // A grant that has changed meanwhile has its own request under way: this reply is for its own callers only.
      if (flight !== mine) return result.ok ? ok(result.value.headers) : result;
      flight = undefined;
      return result.ok ? keep(result.value, askedAt) : remember(result.error);
    });
    flight = mine;
    return mine;
  }

  /** A throw is a bug, but one that must neither wedge the cache nor, in the background, end the process. */
  async function attempt(): Promise<Result<Lease, CredentialFailure>> {
    try {
      return await acquire(closed.signal);
    } catch (error) {
      const name = error instanceof Error ? error.name : typeof error;
      return err({ kind: 'tokenEndpoint', detail: `getting a token failed unexpectedly (${name})`, retryAfterMs: 0 });
    }
  }

  function keep({ headers, lifetimeMs }: Lease, askedAt: number): Result<CredentialHeaders, never> {
    const answer = { ok: true, value: headers } as const;
    held = {
      answer,
      renewAt: askedAt + lifetimeMs * (0.7 + 0.15 * ports.random()),
      endsAt: askedAt + lifetimeMs - Math.min(MARGIN_MS_MAX, lifetimeMs / 10),
    };
    failure = undefined;
    failurePause = NO_PAUSE;
    ports.refreshed?.('ok');
    return answer;
  }

  function remember(error: CredentialFailure): Result<never, CredentialFailure> {
    failurePause = pause(failurePause.count + 1, error.retryAfterMs);
    ports.refreshed?.('error');
    failure = { ...error, retryAfterMs: Math.ceil(remaining(failurePause)) };
    if (!closed.signal.aborted) ports.log('warn', `no credential: ${failure.detail}`);
    return err(failure);
  }

  function pause(count: number, atLeastMs: number): Pause {
    const backoffMs = Math.min(BACKOFF_MS_FIRST * 2 ** Math.min(count - 1, 10), BACKOFF_MS_MAX);
    const waitMs = Math.max(backoffMs * (0.5 + 0.5 * ports.random()), Math.min(atLeastMs, RETRY_AFTER_MS_MAX));
    return { count, until: ports.now() + waitMs };
  }

  /** Milliseconds left, 0 when over. A wait longer than any we set means that the clock was put back: over, too. */
  function remaining({ until }: Pause): number {
    const ms = until - ports.now();
    return ms > RETRY_AFTER_MS_MAX ? 0 : Math.max(0, ms);
  }

  return {
    headers() {
      if (closed.signal.aborted) return err({ kind: 'refused', detail: 'the sidecar is closing', retryAfterMs: 1000 });
      const now = ports.now();
      if (held !== undefined && now < held.endsAt) {
        if (now >= held.renewAt && flight === undefined && remaining(failurePause) === 0) void start();
        return held.answer;
      }
      if (flight !== undefined) return flight;
      const retryAfterMs = Math.ceil(remaining(failurePause));
      if (failure !== undefined && retryAfterMs > 0) return err({ ...failure, retryAfterMs });
      return start();
    },

    reject(used, changed) {
      // Somebody's older token: whatever there is now is newer.
      const isCurrent = held !== undefined && held.answer.value.authorization === used.authorization;
      if (!isCurrent) return held !== undefined || flight !== undefined || remaining(failurePause) === 0;
      if (remaining(forcedPause) > 0) return false;
      const lastForcedLongAgo = ports.now() - forcedPause.until > BACKOFF_MS_MAX;
      forcedPause = pause(lastForcedLongAgo ? 1 : forcedPause.count + 1, 0);
      held = undefined;
      // A renewal that is under way asked for what was the grant until now.
      if (changed) flight = undefined;
      return flight !== undefined || remaining(failurePause) === 0;
    },

    close() {
      closed.abort();
      held = undefined;
    },
  };
}
