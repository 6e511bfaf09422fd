/**
 * Starts the compiled sidecar as users get it, and writes the configurations that the benchmark runs it with.
 * Every start has a folder of its own inside the benchmark's temporary folder.
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { policy } from './policy.ts';

export const projectFolder = join(import.meta.dirname, '..', '..');
const entry = join(projectFolder, 'dist', 'sidecar', 'main.js');

const agentKey = randomBytes(24).toString('base64url');

export interface Sidecar {
  readonly pid: number;
  readonly mcp: URL;
  readonly admin: string;
  /** What an agent sends to be known as `bench`. */
  readonly headers: Readonly<Record<string, string>>;
  /** SIGTERM, and SIGKILL after ten seconds. */
  stop(): Promise<void>;
}

export interface SidecarSettings {
  readonly server: Readonly<Record<string, unknown>>;
  /** OTLP gRPC address; `undefined` turns telemetry off. */
  readonly otlp: string | undefined;
  readonly environment?: Readonly<Record<string, string>>;
}

/** Writes a configuration with everything on (telemetry as told) and answers its path. JSON is YAML. */
function writeConfiguration(temporary: string, settings: SidecarSettings): string {
  const folder = mkdtempSync(join(temporary, 'sidecar-'));
  writeFileSync(join(folder, 'policy.yaml'), JSON.stringify(policy(), undefined, 2));
  const configuration = {
    group: 'bench',
    listen: { mcp: '127.0.0.1:0', admin: '127.0.0.1:0' },
    identify: [{ type: 'apiKey', agents: { bench: { env: 'BENCH_KEY' } } }],
    servers: { bench: settings.server },
    policy: './policy.yaml',
    ...(settings.otlp === undefined ? {} : { telemetry: { otlp: settings.otlp } }),
    audit: { path: join(folder, 'audit.jsonl') },
  };
  const path = join(folder, 'sidecar.yaml');
  writeFileSync(path, JSON.stringify(configuration, undefined, 2));
  return path;
}

/** Compiles the sidecar; what the compiler says goes to stderr. */
export async function buildSidecar(): Promise<true> {
  const build = spawn(process.execPath, ['--run', 'build'], { cwd: projectFolder, stdio: ['ignore', 2, 2] });
  const code = await new Promise<number | null>((resolve) => build.once('close', resolve));
  if (code !== 0 || !existsSync(entry)) throw new Error('the sidecar does not compile: see `npm run build`');
  return true;
}

/** Starts the sidecar and waits for its `listening` line; throws the last of its stderr when there is none in time. */
export async function startSidecar(temporary: string, settings: SidecarSettings): Promise<Sidecar> {
  const child = spawn(process.execPath, [entry, 'run', '-c', writeConfiguration(temporary, settings), '--json'], {
    cwd: projectFolder,
    env: { ...process.env, ...settings.environment, BENCH_KEY: agentKey },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString('utf8')).slice(-2000);
  });
  const exited = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', () => resolve());
  });
  const stop = async () => {
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
    await exited;
    clearTimeout(timer);
  };
  const listening = Promise.withResolvers<{ mcp: string[]; admin: string } | undefined>();
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (line.includes('"listening"')) listening.resolve(JSON.parse(line));
  });
  exited.then(() => listening.resolve(undefined));
  const timer = setTimeout(() => listening.resolve(undefined), 15_000);
  const addresses = await listening.promise;
  clearTimeout(timer);
  if (addresses === undefined) {
    await stop();
    throw new Error(`the sidecar did not start: ${said.trim().slice(-500) || 'it said nothing'}`);
  }
  return {
    pid: child.pid!,
    mcp: new URL(addresses.mcp[0]!),
    admin: addresses.admin,
    headers: { authorization: `Bearer ${agentKey}` },
    stop,
  };
}

/** Resident memory of a process in MiB, from the kernel (Linux only: throws elsewhere). */
export function residentMiB(pid: number): number {
  const kibibytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  if (kibibytes === undefined) throw new Error(`process ${pid} has gone`);
  return Number(kibibytes) / 1024;
}

/** Processor time that a process has used so far, in microseconds (ticks of 10 ms), or `undefined` where /proc is not. */
export function processorMicros(pid: number): number | undefined {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)!.split(' ');
    return (Number(fields[11]) + Number(fields[12])) * 10_000;
  } catch {
    return undefined;
  }
}
