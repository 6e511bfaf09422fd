/**
 * Stage 1. Tells the observers (audit, metrics, spans, live page) what became of every exchange, refused, aborted and
 * shed ones included. Outermost, so that nothing can happen that is not recorded.
 */
import type { ExchangeObserver, FinishedExchange } from '../../telemetry/finished.ts';
import type { Outcome, Stage } from '../compose.ts';
import type { Exchange, Trace } from '../exchange.ts';

export interface ObservePorts {
  readonly group: string;
  readonly observers: readonly ExchangeObserver[];
  /** Monotonic clock, milliseconds. */
  readonly now: () => number;
  /** Ids for an exchange that was refused before its trace context was read. */
  readonly newTrace: () => Trace;
  /** The arguments as JSON text with the policy's redactions applied; `undefined` when there are none. */
  readonly argumentsJson: (exchange: Exchange) => string | undefined;
}

export function observe(ports: ObservePorts): Stage<Exchange, Exchange> {
  return async (exchange, next): Promise<Outcome> => {
    try {
      return await next(exchange);
    } finally {
      if (!exchange.isBatch || exchange.reason !== undefined) {
        const finished = summarize(exchange, ports);
        for (const observer of ports.observers) observer.finished(finished);
      }
    }
  };
}

function summarize(exchange: Exchange, ports: ObservePorts): FinishedExchange {
  const { message, route, caller, outgoing, decision, reason } = exchange;
  const trace = exchange.trace ?? ports.newTrace();
  const target = exchange.targets[0];
  const subscriptions = subscriptionsOf(exchange);
  return {
    startedAt: exchange.startedAt,
    durationMs: ports.now() - exchange.started,
    upstream:
      outgoing === undefined || route === undefined
        ? undefined
        : {
            startedAt: exchange.startedAt + (outgoing.startedAt - exchange.started),
            durationMs: (outgoing.endedAt || ports.now()) - outgoing.startedAt,
            transport: route.upstream.target.transport,
            address: route.upstream.target.address,
            port: route.upstream.target.port,
            status: outgoing.status,
            attempts: outgoing.attempts,
          },
    group: ports.group,
    agent: caller?.agent,
    identifiedBy: caller?.method,
    roles: caller?.roles ?? [],
    user: caller?.user?.sub,
    server: route?.server,
    virtual: route?.virtual,
    method:
      message === undefined
        ? exchange.request.method === 'POST'
          ? undefined
          : exchange.request.method
        : message.method || 'response',
    tool: target?.kind === 'tool' ? target.name : undefined,
    prompt: target?.kind === 'prompt' ? target.name : undefined,
    resource: target?.kind === 'resource' ? target.uri : undefined,
    resources: subscriptions?.kept,
    resourcesOmitted: subscriptions?.omitted || undefined,
    annotations: target?.kind === 'tool' ? target.annotations : undefined,
    argumentsJson: ports.argumentsJson(exchange),
    decision: verdictOf(exchange),
    rule: reason?.rule ?? (decision?.effect === 'allow' ? (decision.wouldBe?.rule ?? decision.rule) : decision?.rule),
    reasonKind: reason?.kind,
    reason: reason?.text ?? (decision?.effect === 'allow' ? decision.wouldBe?.reason : undefined),
    httpStatus: exchange.reply.gone && !exchange.reply.started ? 499 : exchange.reply.status,
    rpcCode: exchange.rpcCode,
    toolError: exchange.toolError,
    errorId: reason?.errorId,
    tokensIn: exchange.tokensIn,
    tokensOut: exchange.tokensOut,
    tokensBy: exchange.tokensBy,
    cost: exchange.cost,
    argumentsChanged: exchange.argumentsChanged,
    bytesIn: exchange.bytesIn,
    bytesOut: exchange.reply.bytesOut,
    aborted: exchange.reply.gone,
    cached: exchange.cached,
    era: exchange.era,
    protocolVersion: exchange.protocolVersion,
    requestId: message?.id === undefined ? undefined : String(message.id),
    sessionHash: exchange.sessionHash,
    traceId: trace.traceId,
    serverSpanId: trace.serverSpanId,
    clientSpanId: trace.clientSpanId,
    parentSpanId: trace.parentSpanId,
    traceState: trace.traceState,
    sampled: trace.sampled,
    policyVersion: exchange.policyVersion,
  };
}

/** UTF-16 code units: agents choose how many they name, and how long. */
const RESOURCES_LENGTH_MAX = 1500;

/** The URIs of a subscriptions/listen that names several, as many as are kept, and how many are not. */
function subscriptionsOf({
  message,
  targets,
}: Exchange): { readonly kept: string[]; readonly omitted: number } | undefined {
  if (message?.method !== 'subscriptions/listen' || targets.length === 0) return undefined;
  // It has targets, so that it was found to be a list of URIs.
  const { resourceSubscriptions: uris } = message.params!.notifications as { resourceSubscriptions: string[] };
  if (uris.length === 1) return undefined;
  let length = 0;
  const end = uris.findIndex((uri) => {
    length += uri.length;
    return length > RESOURCES_LENGTH_MAX;
  });
  const kept = end === -1 ? uris : uris.slice(0, end);
  return { kept, omitted: uris.length - kept.length };
}

function verdictOf({ reason, decision }: Exchange): FinishedExchange['decision'] {
  switch (reason?.kind) {
    case undefined:
      // Served without a verdict: what is open to everyone, such as the metadata of the resource.
      return decision?.effect === 'allow' && decision.wouldBe !== undefined ? 'audit' : 'allow';
    case 'hidden':
    case 'forbidden':
    case 'argumentsRefused':
    case 'drifted':
    case 'unidentified':
    case 'hostNotAllowed':
    case 'originNotAllowed':
    case 'crossSite':
    case 'malformed':
    case 'badHeader':
      return 'deny';
    case 'quota':
      return 'limit';
    default:
      return 'error';
  }
}
