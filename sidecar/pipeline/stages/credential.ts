/**
 * Stage 11. Builds the headers that go upstream: of the agent's own only those named here, so that no credential of
 * its own (Authorization, Cookie, API keys) can pass, and then the group's. After `route`, so that each try carries the
 * token of its moment.
 */
import type { IncomingHttpHeaders } from 'node:http';
import type { Credential } from '../../credentials/credential.ts';
import type { Era } from '../../protocol/message.ts';
import { PARAM_PREFIX } from '../../protocol/param-headers.ts';
import type { Outcome, Stage } from '../compose.ts';
import type { Attempted } from '../exchange.ts';

export function credential(credentials: ReadonlyMap<string, Credential>): Stage<Attempted, Attempted> {
  return async (exchange, next): Promise<Outcome> => {
    const { paramHeaders } = exchange;
    const headers = forwardable(exchange.request.headers, exchange.era, paramHeaders === undefined);
    // Not the agent's: a server that takes its word for another charset would read another message.
    if (exchange.permit.message !== undefined) headers['content-type'] = 'application/json';
    Object.assign(headers, paramHeaders);
    if (exchange.upstreamSessionId !== undefined) headers['mcp-session-id'] = exchange.upstreamSessionId;

    const held = credentials.get(exchange.route.server);
    if (held !== undefined) {
      const answer = held.headers();
      const had = answer instanceof Promise ? await answer : answer;
      if (!had.ok)
        return {
          kind: 'noCredential',
          detail: `${had.error.kind}: ${had.error.detail}`,
          retryAfterMs: had.error.retryAfterMs,
        };
      exchange.credentialHeaders = had.value;
      Object.assign(headers, had.value);
    }
    exchange.outgoingHeaders = headers;
    return next(exchange);
  };
}

const FORWARDED = new Set(['accept', 'accept-language', 'last-event-id', 'mcp-protocol-version', 'user-agent']);
/** Checked against the body. The 2025 eras have no such headers, so nobody has checked them there. */
const MODERN = new Set(['mcp-method', 'mcp-name']);

/** @param withParams The agent's `Mcp-Param-*` say what is sent. */
function forwardable(headers: IncomingHttpHeaders, era: Era, withParams: boolean): Record<string, string> {
  const kept: Record<string, string> = {};
  const isModern = era === 'modern';
  for (const name in headers) {
    // `Mcp-Param-*` that we do not know must be forwarded (2026-07-28, Streamable HTTP).
    const isParam = isModern && withParams && name.startsWith(PARAM_PREFIX);
    if (!FORWARDED.has(name) && !isParam && !(isModern && MODERN.has(name))) continue;
    const value = headers[name];
    if (value !== undefined) kept[name] = typeof value === 'string' ? value : value.join(', ');
  }
  return kept;
}
