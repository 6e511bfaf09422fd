/**
 * One connection to Redis or Valkey, over `@redis/client`, which is loaded here and nowhere else.
 *
 * It connects by itself, again and again, and never queues: a command while it is away fails at once. What it has to say
 * of its troubles is told once each time, without address or secret.
 */
import { createHash } from 'node:crypto';
import type { Secret } from '../credentials/secret.ts';
import type { RedisConnection } from './redis.ts';

export interface RedisOptions {
  /** `redis://host:6379/0` or `rediss://…`, without credentials. */
  readonly url: string;
  readonly username: string | undefined;
  /** Read for each connection: a rotated one is used from the next on. */
  readonly password: Secret | undefined;
  readonly timeoutMs: number;
}

const RECONNECT_MAX_MS = 5_000;

/** @param scripts Known to Redis before the first of them is run, so that commands keep their order. */
export async function connectRedis(
  options: RedisOptions,
  scripts: readonly string[],
  warn: (message: string) => void,
): Promise<RedisConnection> {
  const { createClient } = await import('@redis/client');
  let isTold = false;
  const client = createClient({
    url: options.url,
    disableOfflineQueue: true,
    socket: {
      connectTimeout: Math.max(options.timeoutMs, 1_000),
      reconnectStrategy: (retries) => Math.min(100 * 2 ** Math.min(retries, 10), RECONNECT_MAX_MS),
    },
    ...(options.password === undefined
      ? {}
      : {
          credentialsProvider: { type: 'async-credentials-provider', credentials: async () => credentialsOf(options) },
        }),
  });
  client.on('error', (error: Error) => {
    if (isTold) return;
    isTold = true;
    warn(`quotaStore.redis: ${wordsOf(error)}; tried again and again`);
  });
  client.on('ready', () => {
    isTold = false;
    for (const script of scripts) client.scriptLoad(script).catch(() => {});
  });
  // Goes on trying; what becomes of calls meanwhile is the store's matter.
  client.connect().catch(() => {});
  const digests = new Map<string, string>();
  const digestOf = (script: string): string => {
    const known = digests.get(script) ?? createHash('sha1').update(script).digest('hex');
    digests.set(script, known);
    return known;
  };
  return {
    get isReady() {
      return client.isReady;
    },
    async run(script, keys, argument) {
      const options = { keys: [...keys], arguments: [argument] };
      try {
        return await client.evalSha(digestOf(script), options);
      } catch (error) {
        if (!(error instanceof Error && error.message.startsWith('NOSCRIPT'))) throw error;
        return client.eval(script, options);
      }
    },
    async close() {
      client.destroy();
    },
  };
}

function credentialsOf({ username, password }: RedisOptions) {
  const read = password!.read();
  if (!read.ok) throw new Error(read.error);
  return { password: read.value, ...(username === undefined ? {} : { username }) };
}

/** A code, or the first word of what Redis says (`WRONGPASS`, `NOAUTH`): the rest may name who and where. */
function wordsOf(error: Error): string {
  const { code } = error as NodeJS.ErrnoException;
  if (typeof code === 'string') return code;
  const [word] = /^[A-Z]{4,20}\b/.exec(error.message) ?? [];
  if (word === 'WRONGPASS') return 'the user name or password is wrong (WRONGPASS)';
  if (word === 'NOAUTH') return 'it wants a password (NOAUTH)';
  return word ?? 'it cannot be reached';
}
