/**
 * The names that OpenTelemetry's conventions for MCP give to what both spans and metrics say
 * (open-telemetry/semantic-conventions-genai, docs/gen-ai/mcp.md). PURE.
 */
import type { FinishedExchange } from './finished.ts';

/** Bounds of the histograms of operation durations, seconds. */
export const DURATION_BOUNDS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300];

const METHODS: ReadonlySet<string> = new Set([
  'initialize',
  'server/discover',
  'ping',
  'tools/list',
  'tools/call',
  'prompts/list',
  'prompts/get',
  'resources/list',
  'resources/templates/list',
  'resources/read',
  'resources/subscribe',
  'resources/unsubscribe',
  'subscriptions/listen',
  'completion/complete',
  'logging/setLevel',
  'tasks/list',
  'tasks/get',
  'tasks/update',
  'tasks/cancel',
  'tasks/result',
  'notifications/initialized',
  'notifications/cancelled',
  'notifications/progress',
  'notifications/roots/list_changed',
  // Ours: the stream, the end of a session, and the answer to a request of the server.
  'GET',
  'DELETE',
  'response',
]);

/** The method, where it is one that MCP has: agents may send any text. */
export function knownMethod(method: string | undefined): string | undefined {
  return method !== undefined && METHODS.has(method) ? method : undefined;
}

/** `error.type` of the whole exchange: the JSON-RPC code, `tool_error`, or the HTTP status; `undefined` for success. */
export function serverErrorType(exchange: FinishedExchange): string | undefined {
  if (exchange.rpcCode !== undefined) return String(exchange.rpcCode);
  if (exchange.toolError) return 'tool_error';
  return exchange.httpStatus >= 400 ? String(exchange.httpStatus) : undefined;
}

/** `error.type` of the exchange with the server behind us: a refusal of ours after a good answer is none of it. */
export function clientErrorType(exchange: FinishedExchange): string | undefined {
  const status = exchange.upstream?.status;
  if (exchange.errorId === undefined) return serverErrorType(exchange);
  if (status === undefined) return String(exchange.rpcCode ?? exchange.httpStatus);
  return status >= 400 ? String(status) : undefined;
}
