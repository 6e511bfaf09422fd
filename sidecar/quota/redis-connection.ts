/**
 * One connection to Redis or Valkey, over `@redis/client`, which is loaded here and nowhere else.
 *
 * Guarantees: a command never rejects, never waits in a queue for the server to come back, and ends within `timeoutMs`.
 * Whatever fails, be it that an answer is late or that the server says no, ends the connection, and another is tried after
 * a pause that doubles up to five seconds. It counts as there once probes have passed that write what the real commands
 * write. Nothing it says holds the password. Redirections of a cluster are not followed.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { err, ok, type Result } from '../../policies/result.ts';
import type { Secret } from '../credentials/secret.ts';
import type { Script } from './redis-script.ts';

export interface Command {
  readonly script: Script;
  readonly keys: readonly string[];
  readonly args: readonly string[];
}

export interface RedisConnection {
  /** Whether a command would be sent at once. */
  readonly isReady: boolean;
  /** Values of the script's answer, which is a list; or in words why there is none. */
  run(command: Command): Promise<Result<readonly unknown[], string>>;
  close(): void;
}

export interface RedisOptions {
  /** `redis://host:6379/0` or `rediss://…`, without credentials. */
  readonly url: string;
  readonly username: string | undefined;
  /** Read for each connection: a rotated one is used from the next on. */
  readonly password: Secret | undefined;
  readonly timeoutMs: number;
}

export interface RedisPorts {
  /** Milliseconds by a clock that is not set. */
  readonly now: () => number;
  /** 0 to 1: replicas do not come back all at once. */
  readonly random: () => number;
  /** What must pass before it counts as there. */
  readonly probes: readonly Command[];
  /** It is there; or it is not, and why. Once for each change. */
  readonly onChange: (trouble: string | undefined) => void;
}

const CONNECT_MIN_MS = 1_000;
const PAUSE_MIN_MS = 100;
const PAUSE_MAX_MS = 5_000;
/** A connection that lasted so long was a good one: the next is tried at once. */
const CALM_MS = 10_000;
/** Commands without an answer; more of them than that wait for nothing. */
const PENDING_MAX = 10_000;

type Client = Awaited<ReturnType<typeof createClientFor>>;

export class Connection implements RedisConnection {
  readonly #options: RedisOptions;
  readonly #ports: RedisPorts;
  /** Set while it is there. */
  #client: Client | undefined;
  #readyAt = 0;
  /** In a row. */
  #failures = 0;
  #isClosed = false;
  /** What was said last; `undefined`: that it is there. */
  #isTold: boolean | undefined;
  #pending = 0;
  #retry: NodeJS.Timeout | undefined;
  readonly #firstTry: Promise<unknown>;

  constructor(options: RedisOptions, ports: RedisPorts) {
    this.#options = options;
    this.#ports = ports;
    this.#firstTry = within(options.timeoutMs, this.#connect());
  }

  get isReady(): boolean {
    return this.#client !== undefined;
  }

  async run(command: Command): Promise<Result<readonly unknown[], string>> {
    if (this.#client === undefined) await this.#firstTry;
    const client = this.#client;
    if (client === undefined) return err('it is away');
    if (this.#pending >= PENDING_MAX) return err('too many commands wait for it');
    this.#pending += 1;
    const answer = await this.#ask(client, command);
    this.#pending -= 1;
    if (!answer.ok) this.#lost(client, answer.error);
    return answer;
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#retry);
    this.#client?.destroy();
    this.#client = undefined;
  }

  async #connect(): Promise<void> {
    const opened = await this.#open();
    if (this.#isClosed) {
      if (opened.ok) opened.value.destroy();
      return;
    }
    if (!opened.ok) return this.#away(opened.error);
    this.#client = opened.value;
    this.#readyAt = this.#ports.now();
    this.#tell(undefined);
  }

  async #open(): Promise<Result<Client, string>> {
    const password = this.#options.password?.read();
    if (password?.ok === false) return password;
    const client = await createClientFor(this.#options, password?.value);
    client.on('error', (error: Error) => this.#lost(client, this.#wordsOf(error)));
    const connecting = client.connect().then(
      () => this.#probe(client),
      (error: Error) => err(this.#wordsOf(error)),
    );
    const limitMs = Math.max(this.#options.timeoutMs, CONNECT_MIN_MS);
    const probed = (await within(limitMs, connecting)) ?? err(`no connection within ${limitMs} ms`);
    if (probed.ok) return ok(client);
    client.destroy();
    return probed;
  }

  async #probe(client: Client): Promise<Result<unknown, string>> {
    for (const command of this.#ports.probes) {
      const answer = await this.#ask(client, command);
      if (!answer.ok) return answer;
    }
    return ok(undefined);
  }

  /** By its digest; a server that does not know it gets the whole, in the same order. */
  async #ask(client: Client, { script, keys, args }: Command): Promise<Result<readonly unknown[], string>> {
    const rest = [String(keys.length), ...keys, ...args];
    const send = (name: string, which: string) => client.sendCommand<readonly unknown[]>([name, which, ...rest]);
    const answering = send('EVALSHA', script.sha1)
      .catch((error: Error) => {
        if (!error.message.startsWith('NOSCRIPT')) throw error;
        return send('EVAL', script.text);
      })
      .then(
        (values) => ok(values),
        (error: Error) => err(this.#wordsOf(error)),
      );
    const { timeoutMs } = this.#options;
    return (await within(timeoutMs, answering)) ?? err(`no answer within ${timeoutMs} ms`);
  }

  #lost(client: Client, why: string): void {
    if (client !== this.#client) return;
    this.#client = undefined;
    client.destroy();
    if (this.#ports.now() - this.#readyAt >= CALM_MS) this.#failures = 0;
    this.#away(why);
  }

  #away(why: string): void {
    this.#tell(why);
    const pauseMs = Math.min(PAUSE_MIN_MS * 2 ** this.#failures, PAUSE_MAX_MS);
    this.#failures = Math.min(this.#failures + 1, 10);
    this.#retry = setTimeout(() => void this.#connect(), pauseMs * (0.5 + this.#ports.random() / 2)).unref();
  }

  #tell(trouble: string | undefined): void {
    const isThere = trouble === undefined;
    if (this.#isTold === isThere) return;
    this.#isTold = isThere;
    this.#ports.onChange(trouble);
  }

  /** What the server says, on one line. It is not ours to know that it never repeats what it was told. */
  #wordsOf(error: Error): string {
    const { code } = error as NodeJS.ErrnoException;
    const text = error.message === '' && code !== undefined ? code : error.message;
    const password = this.#options.password?.read();
    const safe = password?.ok ? text.replaceAll(password.value, '…') : text;
    // Its way to say so to a command as long as ours.
    if (safe.startsWith('ERR Protocol error: unauthenticated')) return 'NOAUTH Authentication required.';
    return safe.replace(/\s+/g, ' ').slice(0, 200);
  }
}

async function createClientFor({ url, username, timeoutMs }: RedisOptions, password: string | undefined) {
  const { createClient } = await import('@redis/client');
  return createClient({
    url,
    // The oldest dialect: a plain AUTH, and no HELLO, which an old server would quote back with the password in it.
    RESP: 2,
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    disableOfflineQueue: true,
    disableClientInfo: true,
    maintNotifications: 'disabled',
    // Here, so that there is one place that knows whether it is there.
    socket: { reconnectStrategy: false, connectTimeout: Math.max(timeoutMs, CONNECT_MIN_MS) },
  });
}

/** `undefined` when it takes longer. What has come while this process was held up has come in time. */
async function within<T>(ms: number, promise: Promise<T>): Promise<T | undefined> {
  const { promise: late, resolve } = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => void nextTurn().then(() => resolve(undefined)), ms);
  const first = await Promise.race([promise, late]);
  clearTimeout(timer);
  return first;
}
