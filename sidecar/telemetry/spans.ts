/**
 * The two spans of an exchange: SERVER for what the agent asked of us, CLIENT for what we asked of the server. Names,
 * attributes and status by OpenTelemetry's conventions for MCP; what those have no word for is under `mcp_sidecar.`.
 * PURE; imports types only.
 *
 * Made directly rather than by a tracer, by measurement (Node 26): 0.5 µs for both, against 17–20 µs by NodeSDK's
 * tracer, for the same bytes on the wire. Ids and times are those of the exchange, which is over by then.
 *
 * Arguments, results and full reasons are not in spans: they are in the audit log, under the same trace id.
 */
import type { Attributes, SpanKind, SpanStatusCode, TraceFlags, TraceState } from '@opentelemetry/api';
import type { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-grpc';
import { clientErrorType, knownMethod, serverErrorType } from './conventions.ts';
import type { FinishedExchange } from './finished.ts';

export type Span = Parameters<OTLPTraceExporter['export']>[0][number];
type SpanContext = ReturnType<Span['spanContext']>;

/** What all spans of a process share. */
export interface SpanOrigin {
  readonly resource: Span['resource'];
  readonly scope: Span['instrumentationScope'];
}

// The values of the API's enumerations, which are not loaded here.
const SERVER: SpanKind.SERVER = 1;
const CLIENT: SpanKind.CLIENT = 2;
const UNSET: SpanStatusCode.UNSET = 0;
const ERROR: SpanStatusCode.ERROR = 2;
const SAMPLED: TraceFlags.SAMPLED = 1;

const TEXT_LENGTH_MAX = 256;

export function spansOf(exchange: FinishedExchange, origin: SpanOrigin): Span[] {
  const { traceId, serverSpanId, parentSpanId, upstream } = exchange;
  const name = nameOf(exchange);
  const context = contextOf(exchange, serverSpanId);
  const parent =
    parentSpanId === undefined ? undefined : { traceId, spanId: parentSpanId, traceFlags: SAMPLED, isRemote: true };
  const error = serverErrorType(exchange);
  const server = makeSpan(origin, name, SERVER, context, parent, exchange, error, serverAttributes(exchange, error));
  if (upstream === undefined) return [server];

  const clientError = clientErrorType(exchange);
  const attributes = clientAttributes(exchange, upstream, clientError);
  const own = contextOf(exchange, exchange.clientSpanId);
  return [server, makeSpan(origin, name, CLIENT, own, context, upstream, clientError, attributes)];
}

/** `{method} {tool or prompt}`; agents may send any text as a method, and names are to be few. */
function nameOf({ method, tool, prompt }: FinishedExchange): string {
  if (method === undefined) return 'unparsed';
  const subject = tool ?? prompt;
  const known = knownMethod(method) ?? '_other';
  return subject === undefined ? known : `${known} ${cut(subject)}`;
}

/** What the conventions ask of both spans. */
function commonAttributes(exchange: FinishedExchange, error: string | undefined): Attributes {
  const attributes: Attributes = {};
  if (exchange.method !== undefined) attributes['mcp.method.name'] = cut(exchange.method);
  if (exchange.tool !== undefined) attributes['gen_ai.tool.name'] = cut(exchange.tool);
  if (exchange.prompt !== undefined) attributes['gen_ai.prompt.name'] = cut(exchange.prompt);
  if (exchange.method === 'tools/call') attributes['gen_ai.operation.name'] = 'execute_tool';
  if (exchange.resource !== undefined) attributes['mcp.resource.uri'] = cut(exchange.resource);
  if (exchange.requestId !== undefined) attributes['jsonrpc.request.id'] = cut(exchange.requestId);
  if (exchange.protocolVersion !== undefined) attributes['mcp.protocol.version'] = cut(exchange.protocolVersion);
  if (error !== undefined) attributes['error.type'] = error;
  return attributes;
}

function serverAttributes(exchange: FinishedExchange, error: string | undefined): Attributes {
  const attributes = commonAttributes(exchange, error);
  if (exchange.rpcCode !== undefined) attributes['rpc.response.status_code'] = String(exchange.rpcCode);
  // The hash: the id itself opens the session. 2026-07-28 has none, and forbids the attribute.
  if (exchange.sessionHash !== undefined && exchange.era === 'legacy')
    attributes['mcp.session.id'] = exchange.sessionHash;
  attributes['mcp_sidecar.decision'] = exchange.decision;
  attributes['mcp_sidecar.group'] = exchange.group;
  if (exchange.rule !== undefined) attributes['mcp_sidecar.rule'] = cut(exchange.rule);
  if (exchange.agent !== undefined) attributes['mcp_sidecar.agent'] = cut(exchange.agent);
  if (exchange.server !== undefined) attributes['mcp_sidecar.server'] = exchange.server;
  if (exchange.errorId !== undefined) attributes['mcp_sidecar.error_id'] = exchange.errorId;
  if (exchange.cached) attributes['mcp_sidecar.cached'] = true;
  if (exchange.aborted) attributes['mcp_sidecar.aborted'] = true;
  return attributes;
}

function clientAttributes(
  exchange: FinishedExchange,
  upstream: NonNullable<FinishedExchange['upstream']>,
  error: string | undefined,
): Attributes {
  const attributes = commonAttributes(exchange, error);
  // An error of ours is no answer of the server.
  if (exchange.rpcCode !== undefined && exchange.errorId === undefined)
    attributes['rpc.response.status_code'] = String(exchange.rpcCode);
  attributes['network.transport'] = upstream.transport;
  if (upstream.transport === 'tcp') {
    attributes['network.protocol.name'] = 'http';
    attributes['server.address'] = upstream.address;
  }
  if (upstream.port !== undefined) attributes['server.port'] = upstream.port;
  if (upstream.attempts > 1) attributes['http.request.resend_count'] = upstream.attempts - 1;
  return attributes;
}

function contextOf({ traceId, traceState }: FinishedExchange, spanId: string): SpanContext {
  const context: SpanContext = { traceId, spanId, traceFlags: SAMPLED };
  // The exporter asks for the text and for nothing else.
  if (traceState !== undefined) context.traceState = { serialize: () => traceState } as TraceState;
  return context;
}

function makeSpan(
  { resource, scope }: SpanOrigin,
  name: string,
  kind: SpanKind,
  context: SpanContext,
  parent: SpanContext | undefined,
  { startedAt, durationMs }: { readonly startedAt: number; readonly durationMs: number },
  error: string | undefined,
  attributes: Attributes,
): Span {
  return {
    name,
    kind,
    spanContext: () => context,
    ...(parent === undefined ? undefined : { parentSpanContext: parent }),
    startTime: toHrTime(startedAt),
    endTime: toHrTime(startedAt + durationMs),
    duration: toHrTime(durationMs),
    ended: true,
    status: { code: error === undefined ? UNSET : ERROR },
    attributes,
    links: [],
    events: [],
    resource,
    instrumentationScope: scope,
    droppedAttributesCount: 0,
    droppedEventsCount: 0,
    droppedLinksCount: 0,
  };
}

/** Milliseconds as seconds and nanoseconds. */
export function toHrTime(milliseconds: number): [seconds: number, nanoseconds: number] {
  const seconds = Math.floor(milliseconds / 1000);
  return [seconds, Math.floor((milliseconds - seconds * 1000) * 1e6)];
}

function cut(text: string): string {
  return text.length <= TEXT_LENGTH_MAX ? text : text.slice(0, TEXT_LENGTH_MAX);
}
