/**
 * Stage 3. Takes in what there is room for, and sheds the rest at once with `Retry-After`. Above everything that costs
 * anything, and inside `rescue`, so that a shed request is still answered and recorded.
 */
import type { Admission } from '../admission.ts';
import type { Outcome, Stage } from '../compose.ts';
import type { Exchange } from '../exchange.ts';
import type { Reason } from '../reason.ts';

export interface AdmitPorts {
  /** A sentence while memory is short; `undefined` otherwise. */
  readonly memoryPressure: () => string | undefined;
  /** A sentence while the audit cannot be written and the configuration says to refuse then. */
  readonly auditFailing: () => string | undefined;
}

const SHED_RETRY_MS = 1_000;

export function admit(admission: Admission, ports: AdmitPorts): Stage<Exchange, Exchange> {
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

    const entered = admission.enter(exchange.request.method === 'GET' ? 'streams' : 'inFlight');
    if (!entered.ok) return entered.error;
    exchange.place = entered.value;
    try {
      return await next(exchange);
    } finally {
      entered.value.leave();
    }
  };
}
