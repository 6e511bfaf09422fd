/**
 * Which server stands behind the endpoint of a virtual server, or why there is none.
 *
 * A policy may name members of several servers; an endpoint leads to one. That a policy has more is told at each start
 * and by `sidecar check`, and the endpoint answers 404 with the same sentence.
 */
import type { CompiledPolicy, VirtualServer } from '../../policies/policy.ts';
import { err, ok, type Result } from '../../policies/result.ts';

/** @param isConfigured Whether sidecar.yaml has a server of that name. The error is a sentence. */
export function serverBehind(
  name: string,
  { servers }: VirtualServer,
  isConfigured: (server: string) => boolean,
): Result<string, string> {
  const [server = '', ...others] = servers;
  if (others.length > 0)
    return err(
      `virtual server ${name} spans the servers ${[server, ...others].join(', ')}, and serving several under one endpoint comes later: until then write one virtual server for each`,
    );
  return isConfigured(server)
    ? ok(server)
    : err(`virtual server ${name} is of server ${server}, which is not configured`);
}

/** A sentence for each virtual server that has no endpoint. */
export function withoutEndpoint(
  { virtualServers }: CompiledPolicy,
  isConfigured: (server: string) => boolean,
): readonly string[] {
  return [...virtualServers].flatMap(([name, virtual]) => {
    const server = serverBehind(name, virtual, isConfigured);
    return server.ok ? [] : [server.error];
  });
}
