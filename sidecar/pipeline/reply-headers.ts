/** What of the server's head goes to the agent. */
import type { Answered } from './exchange.ts';
import type { Sessions } from './sessions.ts';

/** What of the server's head the agent gets: no cookie, no challenge, nothing that tells of what stands behind. */
export function replyHeaders(
  { answer, request, route, caller, upstreamSessionId }: Answered,
  sessions: Sessions,
): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const name of RETURNED) {
    const value = answer.headers[name];
    if (value !== undefined) headers[name] = value;
  }
  const sessionId = answer.headers['mcp-session-id'];
  if (sessionId !== undefined) {
    const own = request.headers['mcp-session-id'];
    headers['mcp-session-id'] =
      sessionId === upstreamSessionId && typeof own === 'string'
        ? own
        : sessions.seal({
            server: route.server,
            agent: caller.agent,
            upstreamSessionId: sessionId,
            protocolVersion: undefined,
            virtual: route.virtual,
          });
  }
  return headers;
}

const RETURNED = ['content-type', 'cache-control', 'x-accel-buffering', 'retry-after', 'allow'] as const;
