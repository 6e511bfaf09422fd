/**
 * Values by glob, found without trying every glob: those without a wildcard by the text itself, the others by the longer
 * of the literal runs with which they begin and end.
 *
 * Guarantee: what is found is what trying each glob would find. The cost grows with the number of different lengths of
 * such runs (at most twice {@link GLOB_MAX}) and with the globs whose run fits, not with all of them; a glob that both
 * begins and ends with a wildcard fits every text.
 */
import { type Glob, globOf } from './glob.ts';

interface GlobEntry<T> {
  readonly matches: Glob;
  readonly value: T;
}

/** Globs that begin (or end) with a literal run of one length. */
interface Runs<T> {
  readonly length: number;
  readonly atEnd: boolean;
  readonly byRun: Map<string, GlobEntry<T>[]>;
}

export class PatternMap<T extends object> {
  readonly #literals = new Map<string, T>();
  readonly #globs = new Map<string, T>();
  readonly #runs: Runs<T>[] = [];

  /** The value of exactly this glob, made when there is none yet. */
  getOrMake(pattern: string, make: () => T): T {
    const first = pattern.search(/[*?]/);
    const kept = first === -1 ? this.#literals : this.#globs;
    const known = kept.get(pattern);
    if (known !== undefined) return known;
    const value = make();
    kept.set(pattern, value);
    if (first !== -1) this.#addGlob(pattern, first, value);
    return value;
  }

  /** The values of all globs that match. */
  find(text: string): T[] {
    const literal = this.#literals.get(text);
    const found = literal === undefined ? [] : [literal];
    for (const { length, atEnd, byRun } of this.#runs) {
      if (length > text.length) continue;
      const run = atEnd ? text.slice(text.length - length) : text.slice(0, length);
      for (const { matches, value } of byRun.get(run) ?? NONE) if (matches(text)) found.push(value as T);
    }
    return found;
  }

  #addGlob(pattern: string, first: number, value: T): void {
    const last = Math.max(pattern.lastIndexOf('*'), pattern.lastIndexOf('?'));
    const prefix = pattern.slice(0, first);
    const suffix = pattern.slice(last + 1);
    const atEnd = suffix.length > prefix.length;
    const run = atEnd ? suffix : prefix;
    let runs = this.#runs.find((one) => one.atEnd === atEnd && one.length === run.length);
    if (runs === undefined) {
      runs = { length: run.length, atEnd, byRun: new Map() };
      this.#runs.push(runs);
    }
    const entries = runs.byRun.get(run);
    const entry = { matches: globOf(pattern), value };
    if (entries === undefined) runs.byRun.set(run, [entry]);
    else entries.push(entry);
  }
}

const NONE: readonly GlobEntry<unknown>[] = [];
