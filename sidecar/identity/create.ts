/**
 * From `identify` in the configuration to the methods that the stage asks, in their order, and the sockets that some
 * of them need.
 */
import type { Socket } from 'node:net';
import { err, ok, type Result } from '../../policies/result.ts';
import type { Environment } from '../config/policy-source.ts';
import type { IdentifyConfig } from '../config/schema.ts';
import { createSecret } from '../credentials/secret.ts';
import { createApiKeyIdentity } from './api-key.ts';
import { createGroupIdentity } from './group.ts';
import type { IdentityMethod } from './identify.ts';
import { createSocketIdentity } from './socket.ts';
import { createUidIdentity } from './uid.ts';

export interface AgentSocket {
  readonly path: string;
  /** Permissions to give the file; `undefined`: as the process's umask leaves it. */
  readonly mode: number | undefined;
  readonly onConnection: (socket: Socket) => void;
}

export interface Identities {
  readonly methods: readonly IdentityMethod[];
  /** One unix socket for each agent of `type: socket`. */
  readonly sockets: readonly AgentSocket[];
}

/** @param group The name by which everyone is known when nothing is configured. */
export function createIdentities(
  configs: readonly IdentifyConfig[],
  group: string,
  environment: Environment,
): Result<Identities, string> {
  if (configs.length === 0) return ok({ methods: [createGroupIdentity(group)], sockets: [] });
  const methods: IdentityMethod[] = [];
  const sockets: AgentSocket[] = [];
  for (const config of configs) {
    const method = createMethod(config, sockets, environment);
    if (!method.ok) return err(`identify: ${method.error}`);
    methods.push(method.value);
  }
  return ok({ methods, sockets });
}

function createMethod(
  config: IdentifyConfig,
  sockets: AgentSocket[],
  environment: Environment,
): Result<IdentityMethod, string> {
  switch (config.type) {
    case 'uid':
      return createUidIdentity({ agents: config.agents });
    case 'apiKey':
      return createApiKeyIdentity(
        Object.fromEntries(
          Object.entries(config.agents).map(([agent, reference]) => [agent, createSecret(reference, environment).read]),
        ),
      );
    case 'socket': {
      const paths = Object.entries(config.agents).map(([agent, { path }]) => [agent, path]);
      const identity = createSocketIdentity(Object.fromEntries(paths));
      if (!identity.ok) return identity;
      for (const { path, agent } of identity.value.listeners()) {
        const { mode } = config.agents[agent]!;
        sockets.push({ path, mode, onConnection: (socket) => identity.value.onConnection(agent, socket) });
      }
      return ok(identity.value.method);
    }
  }
}
