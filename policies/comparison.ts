/**
 * What another policy would change about recorded requests, summed up by agent and by what was asked for. Pure.
 *
 * Bounded: agents choose names, so that beyond {@link GROUPS_MAX} different lines the rest is only counted.
 */
import type { Decision } from './decision.ts';
import { type Matter, matterOf, type RecordedRequest } from './recorded.ts';
import type { Rejudge } from './replay.ts';
import type { QuotaOutcome } from './replay-quota.ts';
import type { Sample } from './seen.ts';

/** Of changes, and of what is unsure. */
const GROUPS_MAX = 10_000;

interface Group {
  readonly agent: string;
  readonly server: string;
  readonly matter: Matter;
  count: number;
  /** The earliest in the order of the audit. */
  readonly first: Sample;
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

/** Calls of one agent that a quota would stop, and none has stopped. */
export interface Limited {
  readonly agent: string;
  readonly quota: string;
  count: number;
  readonly first: Sample;
}

export interface Comparison {
  readonly judged: number;
  /** Those that a quota would stop included. */
  readonly changed: number;
  readonly unsure: number;
  /** Those that are let through by one policy and refused by the other, most frequent first. */
  readonly changes: readonly Change[];
  readonly unsureGroups: readonly UnsureGroup[];
  readonly limited: readonly Limited[];
  /** A quota has stopped them, and none would. That is no change: the agents would have gone on otherwise. */
  readonly freed: number;
  /** How they are counted hangs on what is not recorded. */
  readonly countedUnsurely: number;
  /** Changed or unsure, and beyond what is listed. */
  readonly unlisted: number;
}

export class Comparing {
  readonly #rejudge: Rejudge;
  readonly #agents: ReadonlySet<string> | undefined;
  readonly #changes = new Map<string, Change>();
  readonly #unsure = new Map<string, UnsureGroup>();
  readonly #limited = new Map<string, Limited>();
  #judged = 0;
  #changed = 0;
  #unsureCount = 0;
  #freed = 0;
  #countedUnsurely = 0;
  #unlisted = 0;

  /** @param agents Only their requests are compared; those of others still spend quotas. Default: all. */
  constructor(rejudge: Rejudge, agents?: ReadonlySet<string>) {
    this.#rejudge = rejudge;
    this.#agents = agents;
  }

  add(recorded: RecordedRequest, file: string): void {
    const again = this.#rejudge(recorded);
    if (this.#agents?.has(recorded.agent) === false) return;
    this.#judged += 1;
    if (again.kind === 'unsure') {
      this.#unsureCount += 1;
      this.#count(this.#unsure, recorded, file, again.why, { why: again.why });
    } else if (again.isLetThrough !== recorded.wasLetThrough) {
      this.#changed += 1;
      const { wasLetThrough, rule: ruleBefore } = recorded;
      const { decision } = again;
      this.#count(this.#changes, recorded, file, [ruleBefore, decision.rule], { wasLetThrough, ruleBefore, decision });
    } else if (again.isLetThrough) this.#compareQuota(recorded, file, again.quota);
  }

  #compareQuota(recorded: RecordedRequest, file: string, quota: QuotaOutcome | undefined): void {
    if (quota?.isUnsure) this.#countedUnsurely += 1;
    const limitedBy = quota?.limitedBy;
    if (recorded.wasLimited && limitedBy === undefined) this.#freed += 1;
    if (recorded.wasLimited || limitedBy === undefined) return;
    this.#changed += 1;
    const { agent, time, sequence } = recorded;
    const key = JSON.stringify([agent, limitedBy]);
    const known = this.#limited.get(key);
    if (known !== undefined) known.count += 1;
    else if (this.#limited.size >= GROUPS_MAX) this.#unlisted += 1;
    else this.#limited.set(key, { agent, quota: limitedBy, count: 1, first: { time, sequence, file } });
  }

  get result(): Comparison {
    return {
      judged: this.#judged,
      changed: this.#changed,
      unsure: this.#unsureCount,
      changes: byCount(this.#changes),
      unsureGroups: byCount(this.#unsure),
      limited: byCount(this.#limited),
      freed: this.#freed,
      countedUnsurely: this.#countedUnsurely,
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

function byCount<G extends { readonly count: number }>(groups: ReadonlyMap<string, G>): G[] {
  return [...groups.values()].sort((one, other) => other.count - one.count);
}
