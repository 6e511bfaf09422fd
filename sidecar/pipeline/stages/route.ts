/**
 * Stage 10. Chooses where the exchange goes, keeps the breaker, and is the only place that tries again: before any
 * byte of a reply, and never a `tools/call` whose tool is not annotated read-only or idempotent.
 */
import type { Credential } from '../../credentials/credential.ts';
import {
  type BreakerOptions,
  type BreakerState,
  initialBreaker,
  recordFailure,
  recordNothing,
  recordSuccess,
  tryPass,
} from '../../upstream/breaker.ts';
import type { Catalog } from '../../upstream/catalog.ts';
import type { UpstreamFailure } from '../../upstream/upstream.ts';
import type { Outcome, Stage } from '../compose.ts';
import type { Attempt, Attempted, Permitted } from '../exchange.ts';

export interface RoutePorts {
  readonly breaker: BreakerOptions;
  readonly breakers: Breakers;
  readonly credentials: ReadonlyMap<string, Credential>;
  readonly catalog: Catalog;
  /** Monotonic clock, milliseconds. */
  readonly now: () => number;
}

/** The breaker of each server, by name. */
export type Breakers = Map<string, BreakerState>;

export function route(ports: RoutePorts): Stage<Permitted, Attempted> {
  const { breakers, now } = ports;

  return async (exchange, next): Promise<Outcome> => {
    const { server } = exchange.route;
    let retriedFailure = false;
    let retriedCredential = false;
    for (;;) {
      const passing = tryPass(breakers.get(server) ?? initialBreaker, now());
      breakers.set(server, passing.state);
      if (!passing.pass)
        return {
          kind: 'unavailable',
          why: 'breaker',
          detail: `the breaker of ${server} is ${passing.state.kind}`,
          retryAfterMs: passing.retryAfterMs,
        };

      let failure: UpstreamFailure | undefined;
      let isTold = false;
      const tell = (record: (state: BreakerState) => BreakerState) => {
        if (isTold) return;
        isTold = true;
        breakers.set(server, record(breakers.get(server) ?? initialBreaker));
      };
      const attempt: Attempt = {
        succeeded: () => tell(recordSuccess),
        failed: (cause) => {
          failure = cause;
          tell((state) => recordFailure(state, now(), ports.breaker));
        },
      };
      exchange.attempt = attempt;
      const outcome = await next(exchange as Attempted);
      tell((state) => recordNothing(state, now()));
      if (outcome === undefined || exchange.reply.started || exchange.reply.gone) return outcome;

      if (outcome.kind === 'upstreamUnauthorized') {
        const credential = ports.credentials.get(server);
        if (!retriedCredential && credential?.rejected(exchange.credentialHeaders, outcome.challenge) === true) {
          retriedCredential = true;
          continue;
        }
        return { kind: 'noCredential', detail: outcome.detail, retryAfterMs: 0 };
      }
      if (
        !retriedFailure &&
        failure?.kind === 'unreachable' &&
        (!failure.sent || isSafeToRepeat(exchange, ports.catalog))
      ) {
        retriedFailure = true;
        continue;
      }
      return outcome;
    }
  };
}

/** RFC 9110 section 9.2.2 in MCP's words: nothing changes when the server gets it twice. */
function isSafeToRepeat({ message, route: { server }, permit }: Permitted, catalog: Catalog): boolean {
  if (message === undefined) return permit.method === 'GET';
  if (SAFE_METHODS.has(message.method)) return true;
  if (message.method !== 'tools/call') return false;
  const annotations = catalog.annotationsOf(server, String(message.params?.name));
  return annotations?.readOnlyHint === true || annotations?.idempotentHint === true;
}

const SAFE_METHODS = new Set([
  'ping',
  'server/discover',
  'tools/list',
  'prompts/list',
  'prompts/get',
  'resources/list',
  'resources/templates/list',
  'resources/read',
  'completion/complete',
]);
