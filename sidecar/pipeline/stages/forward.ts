/**
 * Stage 12. Sends what the permit holds, with the trace context spliced in, and takes the head of the answer. Takes a
 * `Permit`, which only `authorize` issues.
 */
import { spliceTrace } from '../../protocol/splice.ts';
import type { UpstreamFailure, UpstreamResponse } from '../../upstream/upstream.ts';
import type { Next, Outcome, Stage } from '../compose.ts';
import type { Answered, Attempted, Outgoing } from '../exchange.ts';
import type { Reason } from '../reason.ts';
import { RunningRequests } from '../running-requests.ts';

export interface ForwardPorts {
  /** Monotonic clock, milliseconds. */
  readonly now: () => number;
  /** How long a request of the 2025 eras may run on when its agent has gone. */
  readonly leftBehindMs: number;
}

export function forward({ now, leftBehindMs }: ForwardPorts): Stage<Attempted, Answered> {
  const running = new RunningRequests();
  const sendWhile = async (exchange: Attempted, signal: AbortSignal, next: Next<Answered>): Promise<Outcome> => {
    const { permit, route, era, trace } = exchange;
    const { message } = permit;

    const outgoing: Outgoing = {
      startedAt: now(),
      endedAt: 0,
      status: undefined,
      attempts: (exchange.outgoing?.attempts ?? 0) + 1,
      reached: exchange.outgoing?.reached ?? false,
    };
    exchange.outgoing = outgoing;
    const sent = await route.upstream.send({
      method: permit.method,
      headers: exchange.outgoingHeaders,
      body: message === undefined ? undefined : bodyOf(message, trace),
      message,
      era,
      principal: exchange.caller.agent,
      sessionId: exchange.upstreamSessionId,
      signal,
    });
    outgoing.reached ||= sent.ok || sent.error.sent;
    if (!sent.ok) {
      outgoing.endedAt = now();
      // An agent that leaves, and a server that is full, say nothing about the server's health.
      if (sent.error.kind !== 'aborted' && sent.error.kind !== 'busy') exchange.attempt.failed(sent.error);
      return reasonOf(sent.error);
    }

    const answer = sent.value;
    outgoing.status = answer.status;
    exchange.answer = answer;
    running.passed(exchange, message);
    const leave = running.enter(exchange as Answered);
    try {
      const outcome = refusalOf(answer) ?? (await next(exchange as Answered));
      tellBreaker(exchange, answer.status, outcome);
      return outcome;
    } finally {
      leave?.();
      outgoing.endedAt = now();
      answer.cancel();
    }
  };

  return async (exchange, next): Promise<Outcome> => {
    if (isVoid(exchange)) {
      exchange.reply.head(202, {});
      exchange.reply.end();
      return undefined;
    }
    const { signal, forget } = watchAgent(exchange, leftBehindMs);
    if (signal.aborted) return { kind: 'aborted', detail: 'the agent has gone before anything was sent' };
    try {
      return await sendWhile(exchange, signal, next);
    } finally {
      forget();
    }
  };
}

/**
 * 2026-07-28 cancels by closing the stream. All agents come with one credential and without sessions, so that a server
 * which listens to this could end the request of another, of the same id.
 */
function isVoid({ era, permit }: Attempted): boolean {
  return era === 'modern' && permit.message?.method === 'notifications/cancelled';
}

/**
 * The signal ends the exchange when nobody waits for it any more. 2026-07-28: closing the response stream cancels the
 * request. The 2025 eras say that it does not, so there a request runs on, where it takes no place of those who are here
 * and not for ever; a stream that carries nothing but the server's own messages ends with its reader.
 */
function watchAgent({ era, permit, reply, place }: Attempted, leftBehindMs: number) {
  const abort = new AbortController();
  const mayRunOn = era === 'legacy' && permit.message !== undefined;
  let isOver = false;
  let timer: NodeJS.Timeout | undefined;
  reply.onGone(() => {
    if (isOver) return;
    if (mayRunOn && place?.move('leftBehind') === undefined) timer = setTimeout(() => abort.abort(), leftBehindMs);
    else abort.abort();
  });
  const forget = () => {
    isOver = true;
    clearTimeout(timer);
  };
  return { signal: abort.signal, forget };
}

/** An answer says that the server is well unless it is none, breaks off, or says itself that the server is not. */
function tellBreaker({ attempt, reply }: Attempted, status: number, outcome: Outcome): void {
  const isUnwell = status >= 502 && status <= 504;
  if (isUnwell || (outcome !== undefined && UNWELL.has(outcome.kind))) attempt.failed(undefined);
  // An agent that left half-way says nothing about the server.
  else if (!reply.gone) attempt.succeeded();
}

const UNWELL: ReadonlySet<Reason['kind']> = new Set(['upstreamGarbage', 'upstreamTimeout', 'unavailable']);

/** Responses of the agent (to sampling, elicitation, roots) carry no `params`, so no trace context either. */
function bodyOf(message: NonNullable<Attempted['message']>, trace: Attempted['trace']): Buffer {
  if (message.kind === 'response') return message.bytes;
  return spliceTrace(message, { traceparent: trace.inject, tracestate: trace.traceState, baggage: trace.baggage });
}

/** Answers that must not reach the agent whatever their body says. */
function refusalOf({ status, headers }: UpstreamResponse): Reason | undefined {
  const challenge = headers['www-authenticate'];
  // Relayed, a 401 makes the agent's client start an OAuth flow that it cannot finish.
  if (status === 401)
    return { kind: 'upstreamUnauthorized', challenge, detail: 'the server refused the credential (401)' };
  if (status === 403 && challenge !== undefined)
    return {
      kind: 'noCredential',
      detail: 'the server wants more scope than the credential has (403)',
      retryAfterMs: 0,
    };
  if (status >= 300 && status < 400)
    return { kind: 'upstreamGarbage', detail: `a redirect (${status}), which is never followed` };
  const encoding = headers['content-encoding'];
  if (encoding !== undefined && encoding !== 'identity')
    return { kind: 'upstreamGarbage', detail: 'a Content-Encoding, which was not asked for' };
  return undefined;
}

export function reasonOf(failure: UpstreamFailure): Reason {
  switch (failure.kind) {
    case 'unreachable':
      return { kind: 'unavailable', why: 'unreachable', detail: failure.detail, retryAfterMs: 1_000 };
    case 'busy':
      return { kind: 'unavailable', why: 'busy', detail: failure.detail, retryAfterMs: failure.retryAfterMs };
    case 'timeout':
      return { kind: 'upstreamTimeout', phase: failure.phase, afterMs: failure.afterMs };
    case 'garbage':
      return { kind: 'upstreamGarbage', detail: failure.detail };
    case 'aborted':
      return { kind: 'aborted', detail: 'the agent has gone' };
  }
}
