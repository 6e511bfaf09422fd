/**
 * From `quotaStore: { redis: … }` in the configuration to the store, with what the log says of it.
 */
import type { Environment } from '../config/policy-source.ts';
import type { Config } from '../config/schema.ts';
import { createSecret } from '../credentials/secret.ts';
import type { Log } from '../telemetry/log.ts';
import { RedisStore } from './redis.ts';
import { type Command, Connection, type RedisOptions } from './redis-connection.ts';
import { CHANGE, RESERVE } from './redis-script.ts';

export type RedisConfig = Exclude<Config['quotaStore'], 'memory'>;

export interface OpenRedisPorts {
  readonly group: string;
  readonly environment: Environment;
  /** Milliseconds since the epoch, by a clock that is not set while it runs. */
  readonly now: () => number;
  readonly random: () => number;
  readonly log: Pick<Log, 'info' | 'warn'>;
}

/** What becomes of calls while it is away. */
const MEANWHILE = {
  refuse: 'until it is back, calls under a quota are refused',
  local: 'until it is back, each sidecar counts by itself, so that together they may grant more',
};

/** Starts at once, and does not wait for the server. */
export function openRedisStore(
  config: RedisConfig,
  { group, environment, now, random, log }: OpenRedisPorts,
): RedisStore {
  const { redis: url, lease, onStoreFailure } = config;
  const prefix = prefixOf(config, group);
  const connection = new Connection(optionsOf(config, environment), {
    now,
    random,
    probes: probesOf(prefix),
    onChange: (trouble) => {
      if (trouble === undefined) log.info(`the quota store ${url} is there`, { changesLost: store.figures.lost });
      else log.warn(`the quota store ${url} is away (${trouble}): ${MEANWHILE[onStoreFailure]}`);
    },
  });
  const leaseShare = Number.parseInt(lease ?? '0', 10) / 100;
  const store = new RedisStore({ connection, prefix, leaseShare, onStoreFailure, now });
  return store;
}

/** Asks it once, as a sidecar does that starts. @returns why it is away; `undefined` when it is there. */
export async function findTrouble(
  config: RedisConfig,
  { group, environment, now, random }: Omit<OpenRedisPorts, 'log'>,
): Promise<string | undefined> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  const probes = probesOf(prefixOf(config, group));
  const connection = new Connection(optionsOf(config, environment), { now, random, probes, onChange: resolve });
  try {
    return await promise;
  } finally {
    connection.close();
  }
}

function prefixOf({ prefix }: RedisConfig, group: string): string {
  return `${prefix}{${group}}:`;
}

function optionsOf(
  { redis: url, username, password, timeout: timeoutMs }: RedisConfig,
  environment: Environment,
): RedisOptions {
  return { url, username, password: password && createSecret(password, environment), timeoutMs };
}

/** A reservation that nobody made: whoever may do that may do all that is needed. And both scripts are known from now on. */
function probesOf(prefix: string): Command[] {
  const keys = ['agent:probe', 'key:probe', 'key:probe-surplus'].map((name) => prefix + name);
  return [
    { script: RESERVE, keys, args: ['1000', '60000', '1000000000', '1', '1', '0'] },
    { script: CHANGE, keys: keys.slice(1, 2), args: ['60000', '0'] },
  ];
}
