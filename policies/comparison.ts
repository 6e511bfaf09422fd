/**
 * What another policy would change about recorded requests, summed up by agent and by what was asked for. Pure.
 *
 * Bounded: agents choose names, so that beyond {@link GROUPS_MAX} different lines the rest is only counted.
 */
import type { Decision } from './decision.ts';
import { type Matter, matterOf, type RecordedRequest } from './recorded.ts';
import type { Rejudge } from './replay.ts';

/** Of changes, and of what is unsure. */
const GROUPS_MAX = 10_000;

interface Group {
  readonly agent: string;
  readonly server: string;
  readonly matter: Matter;
  count: number;
  /** The earliest in the order of the audit. */
  readonly first: { readonly time: number; readonly sequence: number; readonly file: string };
}

export interface Change extends Group {
  readonly wasLetThrough: boolean;
  /** The rule, role or quota in the record. */
  readonly ruleBefore: string | undefined;
  /** Of the first one. */
  readonly decision: Decision;
}

export interface UnsureGroup extends Group {
  readonly why: readonly string[];
}

export interface Comparison {
  readonly judged: number;
  readonly changed: number;
  readonly unsure: number;
  /** Those that are let through by one policy and refused by the other, most frequent first. */
  readonly changes: readonly Change[];
  readonly unsureGroups: readonly UnsureGroup[];
  /** Changed or unsure, and beyond what is listed. */
  readonly unlisted: number;
}

export class Comparing {
  readonly #rejudge: Rejudge;
  readonly #changes = new Map<string, Change>();
  readonly #unsure = new Map<string, UnsureGroup>();
  #judged = 0;
  #changed = 0;
  #unsureCount = 0;
  #unlisted = 0;

  constructor(rejudge: Rejudge) {
    this.#rejudge = rejudge;
  }

  add(recorded: RecordedRequest, file: string): void {
    this.#judged += 1;
    const again = this.#rejudge(recorded);
    if (again.kind === 'unsure') {
      this.#unsureCount += 1;
      this.#count(this.#unsure, recorded, file, again.why, { why: again.why });
    } else if (again.isLetThrough !== recorded.wasLetThrough) {
      this.#changed += 1;
      const { wasLetThrough, rule: ruleBefore } = recorded;
      const { decision } = again;
      this.#count(this.#changes, recorded, file, [ruleBefore, decision.rule], { wasLetThrough, ruleBefore, decision });
    }
  }

  get result(): Comparison {
    return {
      judged: this.#judged,
      changed: this.#changed,
      unsure: this.#unsureCount,
      changes: byCount(this.#changes),
      unsureGroups: byCount(this.#unsure),
      unlisted: this.#unlisted,
    };
  }

  #count<G extends Group>(
    groups: Map<string, G>,
    recorded: RecordedRequest,
    file: string,
    apart: readonly (string | undefined)[],
    rest: Omit<G, keyof Group>,
  ): void {
    const { agent, server, time, sequence, wasLetThrough } = recorded;
    const matter = matterOf(recorded);
    const key = JSON.stringify([agent, server, matter.kind, matter.name, wasLetThrough, apart]);
    const known = groups.get(key);
    if (known !== undefined) known.count += 1;
    else if (groups.size >= GROUPS_MAX) this.#unlisted += 1;
    else groups.set(key, { agent, server, matter, count: 1, first: { time, sequence, file }, ...rest } as G);
  }
}

function byCount<G extends Group>(groups: ReadonlyMap<string, G>): G[] {
  return [...groups.values()].sort((one, other) => other.count - one.count);
}
