/**
 * A unix socket for each agent: the listener that took the connection names the agent, and the file's permissions say
 * who may be that agent.
 *
 * Holds no listener itself. Whoever listens asks {@link SocketIdentity.listeners} where, and tells each accepted
 * connection to {@link SocketIdentity.onConnection}.
 */
import type { Socket } from 'node:net';
import { err, ok, type Result } from '../../policies/result.ts';
import type { Caller, IdentityMethod } from './identify.ts';

export interface SocketIdentity {
  readonly method: IdentityMethod;
  /** What to listen on. Call `removeStaleSocket` (socket-file.ts) on each path before. */
  listeners(): readonly { readonly path: string; readonly agent: string }[];
  /** To be called for every connection that the listener of `agent` accepts, before its first request. */
  onConnection(agent: string, socket: Socket): void;
}

/** @param agents Agent name → path. An error, as a sentence, when two agents share a path. */
export function createSocketIdentity(agents: Readonly<Record<string, string>>): Result<SocketIdentity, string> {
  const agentOfPath = new Map<string, string>();
  for (const [agent, path] of Object.entries(agents)) {
    const other = agentOfPath.get(path);
    if (other !== undefined) return err(`agents ${other} and ${agent} share the socket ${path}: give each its own`);
    agentOfPath.set(path, agent);
  }
  const agentOfSocket = new WeakMap<Socket, string>();

  return ok({
    method: {
      type: 'socket',
      identify({ socket }) {
        const agent = agentOfSocket.get(socket);
        if (agent === undefined) return { kind: 'absent' };
        const caller: Caller = { agent, method: 'socket', roles: [], claims: {}, user: undefined };
        return { kind: 'known', caller };
      },
    },
    listeners: () => [...agentOfPath].map(([path, agent]) => ({ path, agent })),
    onConnection(agent, socket) {
      agentOfSocket.set(socket, agent);
    },
  });
}
