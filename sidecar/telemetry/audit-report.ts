/**
 * Sums over audit records: calls, refusals, errors, tokens, cost and latency by agent, server and tool. PURE.
 *
 * Bounded: names are chosen by agents, so that beyond {@link ROWS_MAX} rows the rest is summed up in one. Latencies are
 * kept in steps of 1 %, so that a percentile is exact to that.
 */
import type { AuditRecord } from './audit-record.ts';

export const DIMENSIONS = ['agent', 'server', 'tool'] as const;
export type Dimension = (typeof DIMENSIONS)[number];

export interface ReportRow {
  /** One for each dimension asked for; `undefined` where the record has none. */
  readonly names: Readonly<Partial<Record<Dimension, string | undefined>>>;
  /** All requests, whatever became of them. */
  readonly calls: number;
  /** By policy, identity or form. */
  readonly refused: number;
  /** By a quota. */
  readonly limited: number;
  /** Of the sidecar or the server, results with `isError` included. */
  readonly errors: number;
  readonly tokensIn: number;
  readonly tokensOut: number;
  /** `undefined` where no record has one. */
  readonly cost: number | undefined;
  /** Milliseconds, of what was let through; `undefined` where nothing was. */
  readonly p50Ms: number | undefined;
  readonly p99Ms: number | undefined;
}

export interface Report {
  /** Most calls first. */
  readonly rows: readonly ReportRow[];
  readonly total: ReportRow;
  /** Calls that have no row of their own, since there are too many rows. */
  readonly others: ReportRow | undefined;
}

const ROWS_MAX = 10_000;

export class AuditReport {
  readonly #dimensions: readonly Dimension[];
  readonly #rows = new Map<string, Sums>();
  readonly #costOf: (record: AuditRecord) => number | undefined;
  readonly #total = new Sums({});
  readonly #others = new Sums({});

  /** @param costOf What a call has cost, in the unit of the prices. Default: as it is recorded. */
  constructor(
    dimensions: readonly Dimension[],
    costOf: (record: AuditRecord) => number | undefined = ({ cost }) => cost ?? undefined,
  ) {
    this.#dimensions = dimensions;
    this.#costOf = costOf;
  }

  add(record: AuditRecord): void {
    const cost = this.#costOf(record);
    this.#total.add(record, cost);
    const names = this.#dimensions.map((dimension) => record[dimension]);
    const key = JSON.stringify(names.map((name) => name ?? null));
    let sums = this.#rows.get(key);
    if (sums === undefined && this.#rows.size < ROWS_MAX) {
      sums = new Sums(Object.fromEntries(this.#dimensions.map((dimension, index) => [dimension, names[index]])));
      this.#rows.set(key, sums);
    }
    (sums ?? this.#others).add(record, cost);
  }

  get result(): Report {
    const rows = [...this.#rows.values()].map((sums) => sums.row);
    rows.sort((one, other) => other.calls - one.calls);
    const others = this.#others.row;
    return { rows, total: this.#total.row, others: others.calls === 0 ? undefined : others };
  }
}

class Sums {
  readonly #names: ReportRow['names'];
  readonly #latencies = new Latencies();
  #calls = 0;
  #refused = 0;
  #limited = 0;
  #errors = 0;
  #tokensIn = 0;
  #tokensOut = 0;
  #cost: number | undefined;

  constructor(names: ReportRow['names']) {
    this.#names = names;
  }

  add(record: AuditRecord, cost: number | undefined): void {
    const { decision, latencyMs, tokensIn, tokensOut } = record;
    this.#calls += 1;
    if (decision === 'deny') this.#refused += 1;
    else if (decision === 'limit') this.#limited += 1;
    else if (decision === 'error' || record.rpcCode !== undefined || record.toolError === true) this.#errors += 1;
    this.#tokensIn += tokensIn ?? 0;
    this.#tokensOut += tokensOut ?? 0;
    if (cost !== undefined) this.#cost = (this.#cost ?? 0) + cost;
    if (decision !== 'deny' && decision !== 'limit' && typeof latencyMs === 'number') this.#latencies.add(latencyMs);
  }

  get row(): ReportRow {
    return {
      names: this.#names,
      calls: this.#calls,
      refused: this.#refused,
      limited: this.#limited,
      errors: this.#errors,
      tokensIn: this.#tokensIn,
      tokensOut: this.#tokensOut,
      cost: this.#cost === undefined ? undefined : roundMoney(this.#cost),
      p50Ms: this.#latencies.percentile(50),
      p99Ms: this.#latencies.percentile(99),
    };
  }
}

/** Millionths, so that sums of cents are cents. */
function roundMoney(amount: number): number {
  return Math.round(amount * 1e6) / 1e6;
}

const STEP = Math.log(1.01);
/** Milliseconds. What is shorter is as good as nothing. */
const SHORTEST = 0.001;

class Latencies {
  readonly #counts = new Map<number, number>();
  #total = 0;

  add(ms: number): void {
    const step = Math.ceil(Math.log(Math.max(ms, SHORTEST)) / STEP);
    this.#counts.set(step, (this.#counts.get(step) ?? 0) + 1);
    this.#total += 1;
  }

  /** The nearest rank. */
  percentile(percent: number): number | undefined {
    if (this.#total === 0) return undefined;
    let left = Math.ceil((this.#total * percent) / 100);
    for (const [step, count] of [...this.#counts].sort(([one], [other]) => one - other)) {
      left -= count;
      // The middle of the step.
      if (left <= 0) return Number(Math.exp((step - 0.5) * STEP).toPrecision(3));
    }
    return undefined;
  }
}
