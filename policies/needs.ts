/**
 * What each agent needed, according to recorded requests: gathered one by one, in bounded memory. Pure.
 *
 * Where a changed policy judged the same thing of the same agent anew, its newest verdicts count, and the earlier ones
 * are only counted. So requests have to come in the order of time.
 */
import { type Matter, matterOf, questionOf, type RecordedRequest, Unknowns } from './recorded.ts';
import { Seen } from './seen.ts';
import { labelOfVirtual } from './virtual.ts';

/** One thing that one agent asked for. */
export interface Need {
  readonly agent: string;
  readonly server: string;
  readonly matter: Matter;
  /** By the newest policy that judged it. */
  readonly through: Seen;
  readonly refused: Seen;
  /** Judged by policies before that one. */
  readonly earlier: number;
  /** The virtual servers at which it was let through. */
  readonly virtuals: ReadonlySet<string>;
}

/** A tool whose calls an entry of the policy's `arguments` has changed or refused. */
export interface TouchedTool {
  readonly server: string;
  readonly tool: string;
  changed: number;
  refused: number;
}

interface OpenNeed {
  readonly agent: string;
  readonly server: string;
  readonly matter: Matter;
  policy: string;
  through: Seen;
  refused: Seen;
  earlier: number;
  readonly virtuals: Set<string>;
}

/** Different things that are remembered. Beyond, nothing sound can be suggested. */
const NEEDS_MAX = 50_000;

export class Needs {
  readonly #unknowns = new Unknowns();
  readonly #byKey = new Map<string, OpenNeed>();
  readonly #rates = new Map<string, MinuteRates>();
  readonly #serverOfVirtual = new Map<string, string>();
  readonly #touched = new Map<string, TouchedTool>();
  #requests = 0;
  #unknown = 0;
  #dropped = 0;

  add(recorded: RecordedRequest, file: string): void {
    const matters = this.#mattersOf(recorded);
    if (matters === undefined) {
      this.#unknown += 1;
      return;
    }
    this.#requests += 1;
    const { virtual, server } = recorded;
    if (virtual !== undefined && recorded.wasLetThrough && this.#serverOfVirtual.size < NEEDS_MAX)
      this.#serverOfVirtual.set(virtual, server);
    if (matters.length > 0) this.#rateOf(recorded.agent)?.add(recorded.time);
    this.#touch(recorded);
    // The tool may be called, with other arguments: that is no refusal to tell apart by a condition.
    if (recorded.wasRefusedByArguments) return;
    for (const matter of matters) this.#see(recorded, matter, file);
  }

  /** Requests that were looked at. */
  get requests(): number {
    return this.#requests;
  }

  /** Requests whose record does not say what was asked, since a name was too long for it. */
  get unknown(): number {
    return this.#unknown;
  }

  /** There were more things than are remembered. */
  get isOverfull(): boolean {
    return this.#dropped > 0;
  }

  get all(): readonly Need[] {
    return [...this.#byKey.values()];
  }

  /** Virtual servers at which something was let through, lists and the like included, and the server behind each. */
  get serverOfVirtual(): ReadonlyMap<string, string> {
    return this.#serverOfVirtual;
  }

  /** Whatever policy did that. By server and tool. */
  get touchedTools(): readonly TouchedTool[] {
    return [...this.#touched].sort(([one], [other]) => (one < other ? -1 : 1)).map(([, touched]) => touched);
  }

  /** Calls a minute of an agent, in the busiest of a hundred minutes in which it called. */
  busiestMinuteOf(agent: string): number {
    return this.#rates.get(agent)?.percentile99() ?? 0;
  }

  /** Nothing for the protocol's own; `undefined` when the record does not tell. */
  #mattersOf(recorded: RecordedRequest): readonly Matter[] | undefined {
    if (recorded.cut !== undefined || recorded.roles === 'omitted' || recorded.resourcesOmitted > 0) return undefined;
    const { targets } = questionOf(recorded, this.#unknowns);
    if (!targets.ok) return undefined;
    const [first] = targets.value;
    if (first === undefined) return [];
    if (first.kind !== 'resource') return [matterOf(recorded)];
    return [...new Set(recorded.resources)].map((name) => ({ kind: 'resource', name }));
  }

  #see(recorded: RecordedRequest, matter: Matter, file: string): void {
    const { agent, server, policy, virtual, wasLetThrough } = recorded;
    // Not a refusal of the agent: nobody finds it there.
    if (!wasLetThrough && virtual !== undefined && recorded.rule === labelOfVirtual(virtual)) return;
    const key = JSON.stringify([agent, server, matter.kind, matter.name]);
    let need = this.#byKey.get(key);
    if (need === undefined) {
      if (this.#byKey.size === NEEDS_MAX) {
        this.#dropped += 1;
        return;
      }
      need = {
        agent,
        server,
        matter,
        policy,
        through: new Seen(),
        refused: new Seen(),
        earlier: 0,
        virtuals: new Set(),
      };
      this.#byKey.set(key, need);
    }
    if (need.policy !== policy) {
      need.earlier += need.through.count + need.refused.count;
      Object.assign(need, { policy, through: new Seen(), refused: new Seen() });
    }
    (wasLetThrough ? need.through : need.refused).add(recorded, file);
    if (wasLetThrough && virtual !== undefined) need.virtuals.add(virtual);
  }

  #touch({ server, tool, hasChangedArguments, wasRefusedByArguments }: RecordedRequest): void {
    if (tool === undefined || !(hasChangedArguments || wasRefusedByArguments)) return;
    const key = JSON.stringify([server, tool]);
    const touched = this.#touched.get(key) ?? { server, tool, changed: 0, refused: 0 };
    if (this.#touched.size === NEEDS_MAX && !this.#touched.has(key)) {
      this.#dropped += 1;
      return;
    }
    this.#touched.set(key, touched);
    if (wasRefusedByArguments) touched.refused += 1;
    else touched.changed += 1;
  }

  #rateOf(agent: string): MinuteRates | undefined {
    const known = this.#rates.get(agent);
    if (known !== undefined || this.#rates.size === NEEDS_MAX) return known;
    const rates = new MinuteRates();
    this.#rates.set(agent, rates);
    return rates;
  }
}

/** How many minutes had how many calls. Minutes without any do not count. */
class MinuteRates {
  readonly #minutes = new Map<number, number>();
  #minute = Number.NaN;
  #calls = 0;

  add(time: number): void {
    const minute = Math.floor(time / 60_000);
    if (minute !== this.#minute) this.#end();
    this.#minute = minute;
    this.#calls += 1;
  }

  percentile99(): number {
    this.#end();
    let left = [...this.#minutes.values()].reduce((sum, minutes) => sum + minutes, 0) / 100;
    for (const [calls, minutes] of [...this.#minutes].sort(([one], [other]) => other - one)) {
      left -= minutes;
      if (left <= 0) return calls;
    }
    return 0;
  }

  #end(): void {
    if (this.#calls > 0) this.#minutes.set(this.#calls, (this.#minutes.get(this.#calls) ?? 0) + 1);
    this.#calls = 0;
  }
}
