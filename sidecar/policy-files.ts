/**
 * A policy in files, as a feed: loaded again when the files, or those that they extend, have changed.
 *
 * Polled by `stat`, which follows every way in which files are replaced, the atomic swap of a mounted ConfigMap
 * included. Files that changed again while they were read are not taken as they were: half of the old and half of the
 * new is neither. The next look finds them at rest.
 */
import { type Environment, type LoadedPolicy, loadPolicy, type PolicySource } from './config/policy-source.ts';
import { formatProblems } from './config/problem.ts';
import { fingerprint } from './file-fingerprint.ts';
import type { Look, PolicyFeed } from './policy-reload.ts';

const POLL_MS = 1_000;

export class PolicyFiles implements PolicyFeed {
  readonly #source: PolicySource;
  readonly #environment: Environment;
  #watch: readonly string[];
  #seen: string;

  private constructor(
    watch: readonly string[],
    seen: string,
    { source, environment }: { readonly source: PolicySource; readonly environment: Environment },
  ) {
    this.#watch = watch;
    this.#seen = seen;
    this.#source = source;
    this.#environment = environment;
  }

  static async open(
    { watch }: Pick<LoadedPolicy, 'watch'>,
    source: PolicySource,
    environment: Environment,
  ): Promise<PolicyFiles> {
    return new PolicyFiles(watch, await fingerprint(watch), { source, environment });
  }

  pauseMs(): number | undefined {
    return this.#watch.length > 0 ? POLL_MS : undefined;
  }

  async look(): Promise<Look> {
    const seen = await fingerprint(this.#watch);
    if (seen === this.#seen) return { kind: 'nothingNew' };
    const tried = new Set<string>();
    const loaded = await loadPolicy(this.#source, this.#environment, tried);
    if (seen !== (await fingerprint(this.#watch))) return { kind: 'nothingNew' };
    this.#seen = seen;
    if (loaded.ok) {
      this.#watch = loaded.value.watch;
      return { kind: 'good', loaded: loaded.value };
    }
    // Also a file that is not there yet: it looks like a change the next time, which then finds the same.
    this.#watch = [...new Set([...this.#watch, ...tried])];
    return { kind: 'refused', problems: formatProblems(loaded.error) };
  }
}
