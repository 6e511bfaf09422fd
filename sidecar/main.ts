#!/usr/bin/env node
/**
 * argv → command → exit code. The only place that ends the process.
 *
 * Static imports are Node's own and ./node-version.ts, so that an old Node can load this far: it then hands over to
 * the runtime that the package `node` brings, or says in one sentence what is missing.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import nodeModule from 'node:module';
import { constants } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isNodeSupported, NODE_VERSION_MIN } from './node-version.ts';

/** Set for the runtime that we hand over to: if that one is too old as well, there is no second try. */
const HANDED_OVER = 'MCP_SIDECAR_HANDED_OVER';

async function main(): Promise<number> {
  const handedOver = process.env[HANDED_OVER] !== undefined;
  delete process.env[HANDED_OVER];
  if (!isNodeSupported(process.versions.node)) {
    const runtime = handedOver ? undefined : findBundledRuntime();
    if (runtime !== undefined) return handOver(runtime);
    process.stderr.write(
      `sidecar: this is Node ${process.versions.node}, and at least ${NODE_VERSION_MIN} is needed: install a newer Node, or the npm package "node" beside this one.\n`,
    );
    return 2;
  }
  enableCompileCache();
  const { runProgram } = await import('./commands/program.ts');
  return runProgram(process.argv.slice(2));
}

/**
 * Keeps compiled code between starts. Not in Node's default place below the shared temporary folder, where another
 * user of the machine could have put something first: what lies there would run as us.
 */
function enableCompileCache(): void {
  const home = process.env.HOME ?? '';
  // Where there is no home, as in some containers, we go without.
  if (isAbsolute(home) && existsSync(home)) nodeModule.enableCompileCache(join(home, '.cache', 'mcp-sidecar'));
}

/** The binary of the npm package `node`, in the nearest node_modules upwards. */
function findBundledRuntime(): string | undefined {
  const name = process.platform === 'win32' ? 'node.exe' : 'node';
  let folder = dirname(fileURLToPath(import.meta.url));
  for (;;) {
    const candidate = join(folder, 'node_modules', 'node', 'bin', name);
    if (existsSync(candidate)) return candidate;
    const parent = dirname(folder);
    if (parent === folder) return undefined;
    folder = parent;
  }
}

/** Runs the same command on `runtime`, passes signals on, and resolves to its exit code. */
function handOver(runtime: string): Promise<number> {
  const child = spawn(runtime, [...process.execArgv, fileURLToPath(import.meta.url), ...process.argv.slice(2)], {
    stdio: 'inherit',
    env: { ...process.env, [HANDED_OVER]: '1' },
  });
  for (const signal of ['SIGTERM', 'SIGHUP', 'SIGINT'] as const) {
    process.on(signal, () => {
      // Ctrl-C on a terminal reaches the child by itself; a second one would mean "at once".
      if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal);
    });
  }
  return new Promise((resolve) => {
    child.on('error', (error) => {
      process.stderr.write(`sidecar: ${runtime} does not start: ${error.message}\n`);
      resolve(2);
    });
    child.on('exit', (code, signal) => resolve(code ?? 128 + constants.signals[signal!]));
  });
}

/**
 * What a pipe has not taken yet would be lost with the process, and half a manifest applied.
 *
 * @returns why it could not be written. A reader that is gone has had enough.
 */
function flushOutput(): Promise<string | undefined> {
  return new Promise((resolve) => {
    const finish = (error?: NodeJS.ErrnoException | null) =>
      resolve(error === undefined || error === null || error.code === 'EPIPE' ? undefined : (error.code ?? error.name));
    process.stdout.on('error', finish);
    process.stdout.write('', finish);
  });
}

const exitCode = await main();
const lost = await flushOutput();
if (lost !== undefined) process.stderr.write(`sidecar: the output cannot be written (${lost})\n`);
process.exit(lost === undefined ? exitCode : exitCode || 1);
