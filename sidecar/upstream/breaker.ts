/**
 * A circuit breaker over consecutive failures, as a pure state machine: the state and the clock are passed in.
 *
 * `passing`: requests flow. `tripped`: none do, until a time that doubles with each failed probe. `probing`: one
 * request is let through, and what becomes of it decides.
 */

export interface BreakerOptions {
  /** Consecutive failures that trip it. */
  readonly failures: number;
  /** First pause, milliseconds; doubles with each failed probe up to `openMaxMs`. */
  readonly openMs: number;
  readonly openMaxMs: number;
}

export type BreakerState =
  | { readonly kind: 'passing'; readonly failures: number }
  | { readonly kind: 'tripped'; readonly until: number; readonly pauseMs: number }
  | { readonly kind: 'probing'; readonly pauseMs: number; readonly since: number };

/** A probe whose outcome was never told (it hangs, or was forgotten) makes room for another after this long. */
const PROBE_PATIENCE_MS = 30_000;

export const initialBreaker: BreakerState = { kind: 'passing', failures: 0 };

/** May a request pass now? The state to keep comes back with the answer. */
export function tryPass(
  state: BreakerState,
  now: number,
): { readonly state: BreakerState; readonly pass: boolean; readonly retryAfterMs: number } {
  switch (state.kind) {
    case 'passing':
      return { state, pass: true, retryAfterMs: 0 };
    case 'tripped':
      if (now < state.until) return { state, pass: false, retryAfterMs: state.until - now };
      return { state: { kind: 'probing', pauseMs: state.pauseMs, since: now }, pass: true, retryAfterMs: 0 };
    case 'probing':
      if (now - state.since < PROBE_PATIENCE_MS) return { state, pass: false, retryAfterMs: state.pauseMs };
      return { state: { ...state, since: now }, pass: true, retryAfterMs: 0 };
  }
}

export function recordSuccess(state: BreakerState): BreakerState {
  // A late success of an earlier request says nothing about now, while the breaker is tripped.
  return state.kind === 'tripped' || (state.kind === 'passing' && state.failures === 0) ? state : initialBreaker;
}

/** Nobody learned how the server is: a probe that said nothing makes room for the next at once. */
export function recordNothing(state: BreakerState, now: number): BreakerState {
  return state.kind === 'probing' ? { kind: 'tripped', until: now, pauseMs: state.pauseMs } : state;
}

export function recordFailure(state: BreakerState, now: number, options: BreakerOptions): BreakerState {
  switch (state.kind) {
    case 'passing': {
      const failures = state.failures + 1;
      if (failures < options.failures) return { kind: 'passing', failures };
      return { kind: 'tripped', until: now + options.openMs, pauseMs: options.openMs };
    }
    case 'tripped':
      return state;
    case 'probing': {
      const pauseMs = Math.min(state.pauseMs * 2, options.openMaxMs);
      return { kind: 'tripped', until: now + pauseMs, pauseMs };
    }
  }
}
