/**
 * A real redis-server (or valkey-server) on a port of its own, which keeps nothing on disk and ends with the test.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { createClient } from '@redis/client';
import { freePort } from './free-port.ts';

const PROGRAM = ['redis-server', 'valkey-server'].find((name) => spawnSync(name, ['--version']).status === 0);

/** For `skip`. */
export const whyNoRedis: string | false =
  PROGRAM === undefined && 'neither redis-server nor valkey-server is installed';

export interface RedisServer {
  readonly url: string;
  start(): Promise<void>;
  kill(): Promise<void>;
  /** SIGSTOP: connections stand, and nobody answers. */
  freeze(): void;
  thaw(): void;
  command(...words: string[]): Promise<unknown>;
}

const START_ATTEMPTS = 5;

/** @param options `cluster`: a cluster of one. `args`: beside those that keep it off the disk. */
export async function startRedis(
  context: Pick<TestContext, 'after'>,
  { cluster = false, args = [] }: { readonly cluster?: boolean; readonly args?: readonly string[] } = {},
): Promise<RedisServer> {
  const port = await freePort(2);
  const folder = await mkdtemp(join(tmpdir(), 'redis-'));
  const own = ['--dir', folder, ...args];
  if (cluster) own.push('--cluster-enabled', 'yes', '--cluster-port', String(port + 1));
  let child: ChildProcess | undefined;
  const kill = async () => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  };
  context.after(async () => {
    await kill();
    await rm(folder, { recursive: true, force: true });
  });
  const server: RedisServer = {
    url: `redis://127.0.0.1:${port}`,
    async start() {
      for (let attempt = 1; ; attempt++) {
        const said = await startOn(port, own, (started) => {
          child = started;
        });
        if (said === undefined) return;
        if (attempt === START_ATTEMPTS) throw new Error(`redis-server ended: ${said}`);
      }
    },
    kill,
    freeze: () => void child!.kill('SIGSTOP'),
    thaw: () => void child!.kill('SIGCONT'),
    async command(...words) {
      const client = createClient({
        url: server.url,
        RESP: 2,
        disableClientInfo: true,
        socket: { reconnectStrategy: false },
      });
      client.on('error', () => {});
      await client.connect();
      try {
        return await client.sendCommand(words);
      } finally {
        client.destroy();
      }
    },
  };
  await server.start();
  return server;
}

/** @returns what it said when it ended before it was ready. */
async function startOn(port: number, args: readonly string[], onStarted: (child: ChildProcess) => void) {
  const off = ['--save', '', '--appendonly', 'no', '--daemonize', 'no'];
  const child = spawn(PROGRAM!, ['--port', String(port), '--bind', '127.0.0.1', ...off, ...args], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  onStarted(child);
  let said = '';
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  child.once('exit', () => resolve(said));
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-4096);
    if (said.includes('eady to accept connections')) resolve(undefined);
  });
  return promise;
}
