/**
 * From `servers` in the configuration to upstreams and the credentials that go with them.
 */
import { readFile } from 'node:fs/promises';
import { err, ok, type Result } from '../../policies/result.ts';
import type { Environment } from '../config/policy-source.ts';
import type { Config, HttpServerConfig, StdioServerConfig } from '../config/schema.ts';
import { createCredential } from '../credentials/create.ts';
import type { Credential } from '../credentials/credential.ts';
import { createSecret } from '../credentials/secret.ts';
import type { Log } from '../telemetry/log.ts';
import { createHttpUpstream } from './http.ts';
import type { Upstream } from './upstream.ts';

export interface Upstreams {
  readonly byName: ReadonlyMap<string, Upstream>;
  /** Servers without an entry need none. */
  readonly credentials: ReadonlyMap<string, Credential>;
  /** Attempts to get a credential since the start, by server. */
  readonly refreshes: ReadonlyMap<string, { readonly ok: number; readonly error: number }>;
  close(graceMs: number): Promise<void>;
}

export interface UpstreamPorts {
  readonly log: Log;
  /** Monotonic clock, milliseconds. */
  readonly now: () => number;
}

/** Problems come back as a sentence that names the server. */
export async function createUpstreams(
  config: Config,
  environment: Environment,
  ports: UpstreamPorts,
): Promise<Result<Upstreams, string>> {
  const byName = new Map<string, Upstream>();
  const credentials = new Map<string, Credential>();
  const refreshes = new Map<string, { ok: number; error: number }>();
  for (const [name, server] of Object.entries(config.servers)) {
    if (server.kind === 'stdio') {
      byName.set(name, await createStdio(name, server, config, environment, ports));
      continue;
    }
    const tls = await readTls(name, server);
    if (!tls.ok) return tls;
    byName.set(
      name,
      createHttpUpstream({ name, url: new URL(server.url), tls: tls.value, timeouts: timeoutsOf(config) }),
    );
    if (server.auth.type === 'none') continue;
    const log = (level: 'info' | 'warn', message: string) => ports.log[level](message, { server: name });
    const counts = { ok: 0, error: 0 };
    refreshes.set(name, counts);
    const refreshed = (outcome: 'ok' | 'error') => {
      counts[outcome] += 1;
    };
    credentials.set(
      name,
      createCredential(
        server.auth,
        { name, url: server.url, tls: tls.value },
        { now: Date.now, random: Math.random, environment, refreshed, log },
      ),
    );
  }
  return ok({
    byName,
    credentials,
    refreshes,
    close: async (graceMs) => {
      for (const credential of credentials.values()) credential.close();
      await Promise.all([...byName.values()].map((upstream) => upstream.close(graceMs)));
    },
  });
}

/** Children are a matter of stdio servers alone: nothing of them is loaded without one. */
async function createStdio(
  name: string,
  server: StdioServerConfig,
  config: Config,
  environment: Environment,
  ports: UpstreamPorts,
): Promise<Upstream> {
  const { createStdioUpstream } = await import('./stdio-upstream.ts');
  const { limits, timeouts } = config;
  return createStdioUpstream({
    name,
    command: [...server.command],
    env: environmentOf(name, server, environment),
    cwd: server.cwd,
    limits: {
      childrenMax: limits.childrenPerServer,
      sessionIdleMs: limits.sessionIdle,
      messageBytesMax: limits.event,
      queueMax: limits.inFlight,
    },
    timeouts: { headersMs: timeouts.headers, idleMs: timeouts.idle, totalMs: timeouts.total },
    ports,
  });
}

/** What a child of this server gets, as it is at the moment of asking. */
export function environmentOf(
  name: string,
  { inheritEnv, env }: Pick<StdioServerConfig, 'inheritEnv' | 'env'>,
  environment: Environment,
): () => Result<Record<string, string>, string> {
  const own = Object.entries(env).map(([variable, value]) => ({
    variable,
    read: typeof value === 'string' ? () => ok(value) : createSecret(value, environment).read,
  }));
  return () => {
    const values: Record<string, string> = {};
    for (const variable of inheritEnv) {
      const value = environment[variable];
      if (value !== undefined) values[variable] = value;
    }
    for (const { variable, read } of own) {
      const value = read();
      if (!value.ok) return err(`servers.${name}.env.${variable}: ${value.error}`);
      values[variable] = value.value;
    }
    return ok(values);
  };
}

async function readTls(
  name: string,
  { tls }: HttpServerConfig,
): Promise<Result<{ ca?: string; cert?: string; key?: string } | undefined, string>> {
  if (tls === undefined) return ok(undefined);
  const texts: { ca?: string; cert?: string; key?: string } = {};
  for (const part of ['ca', 'cert', 'key'] as const) {
    const path = tls[part];
    if (path === undefined) continue;
    try {
      texts[part] = await readFile(path, 'utf8');
    } catch (error) {
      return err(`servers.${name}.tls.${part}: ${path} cannot be read (${(error as NodeJS.ErrnoException).code})`);
    }
  }
  return ok(texts);
}

function timeoutsOf({ timeouts }: Config) {
  return { connectMs: timeouts.connect, headersMs: timeouts.headers, idleMs: timeouts.idle, totalMs: timeouts.total };
}
