/**
 * The sidecar as a child process, started the way a user starts it: from a sidecar.yaml, over the command line.
 *
 * Guarantees: waits for the `listening` line for a bounded time; a sidecar that ends before it is an error that holds
 * what it said; `stop` leaves no process and no temporary folder behind.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../../sidecar/main.ts', import.meta.url));
const START_MS = 20_000;
const STOP_MS = 10_000;
const STDERR_CHARACTERS_MAX = 64 * 1024;

export interface SidecarProcess {
  readonly pid: number;
  /** The addresses for agents, as printed: `http://127.0.0.1:PORT/mcp` for each TCP listener. Never empty. */
  readonly mcp: readonly [string, ...string[]];
  /** The address of probes and metrics: `http://127.0.0.1:PORT`. */
  readonly admin: string;
  /** The last of what the sidecar wrote to stderr. */
  stderr(): string;
  /** The exit code; `null` when a signal ended it. */
  readonly exited: Promise<number | null>;
  /** SIGTERM, and SIGKILL after ten seconds. Resolves with the exit code, `null` after a kill. */
  stop(): Promise<number | null>;
}

export interface SidecarProcessOptions {
  /** Variables beside those of this process: the secrets that the configuration names. */
  readonly env?: Readonly<Record<string, string>>;
  /** The folder that sidecar.yaml is written into and the sidecar runs in; the caller's to remove. Default: a temporary one. */
  readonly cwd?: string;
}

/** Writes `configText` to a sidecar.yaml, starts the sidecar with it and waits until it listens. */
export async function startSidecar(configText: string, options: SidecarProcessOptions = {}): Promise<SidecarProcess> {
  const folder = options.cwd ?? (await mkdtemp(join(tmpdir(), 'sidecar-test-')));
  const configPath = join(folder, 'sidecar.yaml');
  await writeFile(configPath, configText);

  const child = spawn(process.execPath, [MAIN, 'run', '-c', configPath, '--json'], {
    cwd: folder,
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    said = (said + chunk).slice(-STDERR_CHARACTERS_MAX);
  });
  const exited = new Promise<number | null>((resolve, reject) => child.once('close', resolve).once('error', reject));

  async function stop(): Promise<number | null> {
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
    child.kill('SIGTERM');
    const code = await exited;
    clearTimeout(timer);
    if (options.cwd === undefined) await rm(folder, { recursive: true, force: true });
    return code;
  }

  const listening = new Promise<Pick<SidecarProcess, 'mcp' | 'admin'>>((resolve) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (line.startsWith('{"event":"listening"')) resolve(JSON.parse(line));
    });
  });
  const { promise: late, resolve: giveUp } = Promise.withResolvers<string>();
  const timer = setTimeout(giveUp, START_MS, `did not listen within ${START_MS} ms`);
  const outcome = await Promise.race([listening, late, exited.then((code) => `ended with exit code ${code}`)]);
  clearTimeout(timer);
  if (typeof outcome === 'string') {
    await stop();
    throw new Error(`The sidecar ${outcome}. It said: ${said.trim() || '(nothing)'}`);
  }
  return { pid: child.pid!, mcp: outcome.mcp, admin: outcome.admin, stderr: () => said, exited, stop };
}
