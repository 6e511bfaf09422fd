/**
 * Stage 3. Takes in what there is room for, and sheds the rest at once with `Retry-After`. Above everything that costs
 * anything, and inside `rescue`, so that a shed request is still answered and recorded.
 */
import type { Outcome, Stage } from '../compose.ts';
import type { Exchange } from '../exchange.ts';
import type { Reason } from '../reason.ts';

export interface AdmitLimits {
  /** Requests under way at once. */
  readonly inFlight: number;
  /** Open event streams that the server pushes (GET, `subscriptions/listen`). */
  readonly streams: number;
}

export interface AdmitPorts {
  readonly limits: AdmitLimits;
  /** Several agents share the places: then none of them gets more than half. */
  readonly isShared: boolean;
  /** A sentence while memory is short; `undefined` otherwise. */
  readonly memoryPressure: () => string | undefined;
  /** A sentence while the audit cannot be written and the configuration says to refuse then. */
  readonly auditFailing: () => string | undefined;
}

/** How many exchanges are inside, and whether more may come. One per sidecar. */
export class Admission {
  draining = false;
  inFlight = 0;
  streams = 0;
  /** How many of them each agent has, by place and name. */
  readonly byAgent = new Map<string, number>();
  readonly #idle: (() => void)[] = [];

  /** Resolves when the last exchange has left. */
  async whenIdle(): Promise<void> {
    if (this.inFlight + this.streams === 0) return;
    await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  left(): void {
    if (this.inFlight + this.streams > 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }
}

const SHED_RETRY_MS = 1_000;

export function admit(admission: Admission, ports: AdmitPorts): Stage<Exchange, Exchange> {
  const { limits } = ports;
  const shed = (why: Extract<Reason, { kind: 'unavailable' }>['why'], detail: string): Reason => ({
    kind: 'unavailable',
    why,
    detail,
    retryAfterMs: SHED_RETRY_MS,
  });

  return async (exchange, next): Promise<Outcome> => {
    if (admission.draining) return shed('draining', 'the sidecar is shutting down');
    const failing = ports.auditFailing();
    if (failing !== undefined) return shed('auditFailing', failing);
    const pressure = ports.memoryPressure();
    if (pressure !== undefined) return shed('shedding', pressure);

    const isStream = exchange.request.method === 'GET';
    if (!isStream && admission.inFlight >= limits.inFlight)
      return shed('shedding', `limits.inFlight: ${limits.inFlight} requests are under way`);
    if (isStream && admission.streams >= limits.streams)
      return shed('shedding', `limits.streams: ${limits.streams} streams are open`);

    let place: 'inFlight' | 'streams' = isStream ? 'streams' : 'inFlight';
    admission[place] += 1;
    // `subscriptions/listen` is a POST that turns out to be a stream once its body is read.
    exchange.becomeStream = () => {
      if (place === 'streams') return undefined;
      if (admission.streams >= limits.streams)
        return shed('shedding', `limits.streams: ${limits.streams} streams are open`);
      admission.inFlight -= 1;
      admission.streams += 1;
      place = 'streams';
      leave?.();
      return exchange.caller === undefined ? undefined : exchange.enterAs?.(exchange.caller.agent);
    };
    let leave: (() => void) | undefined;
    exchange.enterAs = (agent) => {
      if (!ports.isShared) return undefined;
      const key = `${place} ${agent}`;
      const held = admission.byAgent.get(key) ?? 0;
      if (held >= Math.ceil(limits[place] / 2))
        return shed('shedding', `agent ${agent} has half of limits.${place} (${limits[place]}) already`);
      admission.byAgent.set(key, held + 1);
      leave = () => {
        const left = admission.byAgent.get(key)! - 1;
        if (left === 0) admission.byAgent.delete(key);
        else admission.byAgent.set(key, left);
      };
      return undefined;
    };
    try {
      return await next(exchange);
    } finally {
      leave?.();
      admission[place] -= 1;
      admission.left();
    }
  };
}
