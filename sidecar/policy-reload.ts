/**
 * Keeps the policy in force up to date with its files. A new policy that does not compile is refused with file and
 * line, and the last good one stays.
 */
import { createHash } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { err, type Result } from '../policies/result.ts';
import { type Environment, type LoadedPolicy, loadPolicy, type PolicySource } from './config/policy-source.ts';
import { formatProblems, type Problem } from './config/problem.ts';
import type { ActivePolicy } from './pipeline/stages/authorize.ts';

/** Polling follows every way in which files are replaced, the atomic swap of a mounted ConfigMap included. */
const POLL_MS = 1_000;

export interface PolicyReloadPorts {
  readonly onReloaded: (active: ActivePolicy) => void;
  /** Every problem with its place, one a line. */
  readonly onRefused: (problems: string) => void;
}

type FirstPolicy = Omit<LoadedPolicy, 'locate'>;

export class PolicyReload {
  active: ActivePolicy;
  /** For the metrics: how often a policy came into force, was refused, and when the last one came (ms since the epoch). */
  readonly figures = { loaded: 1, refused: 0, lastSuccessAt: Date.now() };
  readonly #source: PolicySource;
  readonly #environment: Environment;
  readonly #ports: PolicyReloadPorts;
  #watch: readonly string[];
  #seen: string;
  /** What was wrong when it was last looked at, so as to say it once. */
  #refusedFor: string | undefined;
  #timer: NodeJS.Timeout | undefined;

  private constructor(
    first: FirstPolicy,
    source: PolicySource,
    environment: Environment,
    seen: string,
    ports: PolicyReloadPorts,
  ) {
    this.active = activate(first);
    this.#watch = first.watch;
    this.#source = source;
    this.#environment = environment;
    this.#seen = seen;
    this.#ports = ports;
  }

  static async start(
    first: FirstPolicy,
    source: PolicySource,
    environment: Environment,
    ports: PolicyReloadPorts,
  ): Promise<PolicyReload> {
    const reload = new PolicyReload(first, source, environment, await fingerprint(first.watch), ports);
    if (first.watch.length > 0) reload.#schedule();
    return reload;
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #schedule(): void {
    this.#timer = setTimeout(async () => {
      await this.check();
      if (this.#timer !== undefined) this.#schedule();
    }, POLL_MS);
    this.#timer.unref();
  }

  /** Looks once, and loads again when something changed. */
  async check(): Promise<void> {
    const seen = await fingerprint(this.#watch);
    if (seen === this.#seen) return;
    this.#seen = seen;
    const tried = new Set<string>();
    const loaded = await this.#load(tried);
    if (!loaded.ok) {
      // Also a file that is not there yet: it looks like a change the next time, which then finds the same.
      this.#watch = [...new Set([...this.#watch, ...tried])];
      const problems = formatProblems(loaded.error);
      if (problems === this.#refusedFor) return;
      this.#refusedFor = problems;
      this.figures.refused += 1;
      this.#ports.onRefused(problems);
      return;
    }
    this.#refusedFor = undefined;
    const next = activate(loaded.value);
    this.#watch = loaded.value.watch;
    if (next.version === this.active.version) return;
    this.active = next;
    this.figures.loaded += 1;
    this.figures.lastSuccessAt = Date.now();
    this.#ports.onReloaded(next);
  }

  /** A throw is a bug, but one that must not end a process whose last good policy still holds. */
  async #load(tried: Set<string>): Promise<Result<LoadedPolicy, Problem[]>> {
    try {
      return await loadPolicy(this.#source, this.#environment, tried);
    } catch (error) {
      const name = error instanceof Error ? error.name : typeof error;
      const message = `loading the policy failed unexpectedly (${name})`;
      return err([{ file: undefined, line: undefined, column: undefined, path: '', message }]);
    }
  }
}

function activate({ policy, document }: FirstPolicy): ActivePolicy {
  return { policy, version: createHash('sha256').update(JSON.stringify(document)).digest('hex').slice(0, 12) };
}

/** What stat says of each path, and of each file in a folder. A path that is not there counts as such. */
export async function fingerprint(paths: readonly string[]): Promise<string> {
  const marks = await Promise.all(
    paths.map(async (path) => {
      try {
        const found = await stat(path);
        if (!found.isDirectory()) return `${path} ${found.ino} ${found.size} ${found.mtimeMs}`;
        const names = (await readdir(path)).sort();
        const inside = await Promise.all(names.map((name) => stat(join(path, name))));
        return inside.map(({ ino, size, mtimeMs }, index) => `${names[index]} ${ino} ${size} ${mtimeMs}`).join('\n');
      } catch (error) {
        return `${path} ${(error as NodeJS.ErrnoException).code}`;
      }
    }),
  );
  return marks.join('\n');
}
