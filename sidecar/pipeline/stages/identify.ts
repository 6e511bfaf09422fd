/**
 * Stage 5. Finds out who is calling. Before the body is read, so that a stranger costs nothing but a head.
 */
import type { IncomingMessage } from 'node:http';
import type { Caller, Identification, IdentityMethod } from '../../identity/identify.ts';
import type { Outcome, Stage } from '../compose.ts';
import type { Identified, Routed } from '../exchange.ts';

export interface IdentifyPorts {
  /** In the order of the configuration; never empty. */
  readonly methods: readonly IdentityMethod[];
  /** The `WWW-Authenticate` value for a caller that could not be identified (RFC 6750, RFC 9728 section 5.1). */
  readonly challenge: (request: IncomingMessage) => string;
}

export function identify({ methods, challenge }: IdentifyPorts): Stage<Routed, Identified> {
  return async (exchange, next): Promise<Outcome> => {
    const { request } = exchange;
    for (const method of methods) {
      const answer = method.identify(request);
      const found: Identification = answer instanceof Promise ? await answer : answer;
      if (found.kind === 'known')
        return exchange.place?.enterAs(found.caller.agent) ?? next(withCaller(exchange, found.caller));
      if (found.kind === 'refused')
        return { kind: 'unidentified', challenge: challenge(request), detail: `${method.type}: ${found.detail}` };
    }
    return { kind: 'unidentified', challenge: challenge(request), detail: 'no configured method knows the caller' };
  };
}

function withCaller(exchange: Routed, caller: Caller): Identified {
  return Object.assign(exchange, { caller });
}
