/**
 * All that agents can reach the sidecar by: the addresses and sockets of `listen.mcp`, and the sockets of agents that are
 * known by theirs. All of them open, or none does.
 */
import { readFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { err, ok, type Result } from '../policies/result.ts';
import type { Config, McpListener } from './config/schema.ts';
import type { Identities } from './identity/create.ts';
import { removeStaleSocket } from './identity/socket-file.ts';
import { type Listener, type ListenTls, openListener } from './listener.ts';
import type { Log } from './telemetry/log.ts';
import type { RefusedConnections } from './telemetry/refused-connections.ts';

type OnRequest = (request: IncomingMessage, response: ServerResponse) => void;

export async function openListeners(
  config: Config,
  { sockets }: Identities,
  onRequest: OnRequest,
  refused: RefusedConnections,
  log: Log,
): Promise<Result<readonly Listener[], string>> {
  const { limits, listen } = config;
  const open: Listener[] = [];
  const handlers = {
    onRequest,
    onError: (message: string) => log.error(message),
    onRefused: (kind: string) => refused.refused(kind),
  };
  const fail = (message: string): Result<never, string> => {
    for (const listener of open) listener.destroy();
    return err(message);
  };
  for (const target of listen.mcp) {
    if (target.kind === 'unix') {
      const room = await removeStaleSocket(target.path);
      if (!room.ok) return fail(room.error);
    }
    const tls = target.kind === 'tcp' && target.tls !== undefined ? await readListenTls(target.tls) : ok(undefined);
    if (!tls.ok) return fail(tls.error);
    const listener = await openListener(
      // Whoever may open the socket is the group: nobody else on the machine is.
      target.kind === 'tcp' ? { ...target, tls: tls.value } : { ...target, mode: 0o600 },
      limits,
      handlers,
    );
    if (listener.ok) open.push(listener.value);
    // The default names both loopbacks, and some containers have no IPv6.
    else if (target.kind === 'tcp' && target.host === '::1' && open.length > 0) log.warn(listener.error);
    else return fail(listener.error);
  }
  for (const { path, mode, onConnection } of sockets) {
    const room = await removeStaleSocket(path);
    if (!room.ok) return fail(room.error);
    const listener = await openListener({ kind: 'unix', path, mode }, limits, { ...handlers, onConnection });
    if (!listener.ok) return fail(listener.error);
    open.push(listener.value);
  }
  return ok(open);
}

async function readListenTls(
  tls: NonNullable<Extract<McpListener, { kind: 'tcp' }>['tls']>,
): Promise<Result<ListenTls, string>> {
  try {
    const [cert, key, clientCa] = await Promise.all([
      readFile(tls.cert, 'utf8'),
      readFile(tls.key, 'utf8'),
      tls.clientCa === undefined ? undefined : readFile(tls.clientCa, 'utf8'),
    ]);
    return ok({ cert, key, clientCa });
  } catch (error) {
    const { path, code } = error as NodeJS.ErrnoException;
    return err(`listen.mcp: ${path} cannot be read (${code})`);
  }
}
