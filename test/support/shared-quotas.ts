/** Stores that share a Redis, and charges for them. */
import { createHash } from 'node:crypto';
import type { TestContext } from 'node:test';
import type { Charge } from '../../policies/charge.ts';
import { anchoredClock } from '../../sidecar/quota/memory.ts';
import { openRedisStore, type RedisConfig } from '../../sidecar/quota/open-redis.ts';
import type { Script } from '../../sidecar/quota/redis-script.ts';
import type { RedisServer } from './redis-server.ts';

export const now = anchoredClock(Date.now, () => performance.now());

export const CALL: Charge = {
  quota: 'calls',
  dimension: 'calls',
  key: 'calls',
  surplusKey: 'surplus',
  agent: 'triage',
  limit: 100,
  windowMs: 3_600_000,
  period: undefined,
  base: 1,
  perToken: 0,
  cost: 1,
  warnAt: 0.8,
};

/** Patient: the machine may be busy. */
export const CONFIG: RedisConfig = {
  redis: 'redis://127.0.0.1:6379',
  prefix: 'test:',
  onStoreFailure: 'refuse',
  timeout: 5_000,
  dangerouslyAllowPlaintext: false,
};

export function openStore(context: TestContext, { url }: Pick<RedisServer, 'url'>, change: Partial<RedisConfig> = {}) {
  const said: string[] = [];
  const tell = (message: string) => void said.push(message);
  const store = openRedisStore(
    { ...CONFIG, redis: url, ...change },
    { group: 'support', environment: process.env, now, random: Math.random, log: { info: tell, warn: tell } },
  );
  context.after(() => store.close());
  return { store, said };
}

/** Of a test's own. */
export function scriptOf(text: string): Script {
  return { text, sha1: createHash('sha1').update(text).digest('hex') };
}
