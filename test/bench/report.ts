/**
 * From measurements to the report. PURE: numbers in, one object out (text: table.ts).
 *
 * Targets are compared within a round, where they ran seconds apart on the same machine in the same mood; what is
 * reported is the median of those per-round ratios with the lowest and the highest, never a ratio of best runs.
 */
import type { Measured } from './load.ts';
import type { PolicyDecisions } from './policy-decisions.ts';

export const targetNames = ['direct', 'bare', 'sidecar', 'nginx'] as const;
export type TargetName = (typeof targetNames)[number];

/** What one target did in one round. */
export interface Run {
  readonly c1: Measured;
  readonly c16: Measured;
  /** Open loop, 1,000 requests a second. */
  readonly at1000: Measured;
  /** Processor time of the target's own process for a request at c=16, where the system tells. */
  readonly cpuMicros: number | undefined;
}

export type Round = Readonly<Partial<Record<TargetName, Run>>>;

export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** How many values this is of. */
  readonly of: number;
}

export type Goal = { readonly atMost: number } | { readonly atLeast: number };

/** One figure with what it should be. `value` is null when it could not be measured; then it is not met. */
export interface Figure {
  readonly value: number | null;
  readonly unit: string;
  readonly target: Goal;
  readonly met: boolean;
  readonly spread?: Spread;
  readonly note?: string;
}

/** Four significant digits: more would be noise. */
const rounded = (value: number): number => Number(value.toPrecision(4));

/** Median, lowest and highest; `undefined` of nothing. */
export function spreadOf(values: readonly number[]): Spread | undefined {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  if (sorted.length === 0) return undefined;
  const half = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
  return { median: rounded(median), min: rounded(sorted[0]!), max: rounded(sorted.at(-1)!), of: sorted.length };
}

/** Judges the median of `values`; of none, there is no figure and it is not met. */
export function figureOf(values: readonly number[], unit: string, target: Goal): Figure {
  const spread = spreadOf(values);
  if (spread === undefined) return { value: null, unit, target, met: false, note: 'could not be measured' };
  const value = spread.median;
  const met = 'atMost' in target ? value <= target.atMost : value >= target.atLeast;
  return { value, unit, target, met, ...(spread.of > 1 && { spread }) };
}

/** One value for every round in which all of `names` ran. */
function perRound<Name extends TargetName>(
  rounds: readonly Round[],
  names: readonly Name[],
  value: (runs: Readonly<Record<Name, Run>>) => number,
): number[] {
  return rounds
    .filter((round): round is Round & Record<Name, Run> => names.every((name) => round[name] !== undefined))
    .map(value);
}

export interface TargetReport {
  readonly requestsPerSecond: Readonly<Record<'c1' | 'c16', Spread | undefined>>;
  readonly p50Ms: Readonly<Record<'c1' | 'c16' | 'at1000', Spread | undefined>>;
  readonly p99Ms: Readonly<Record<'c1' | 'c16' | 'at1000', Spread | undefined>>;
  readonly cpuMicrosPerRequest: Spread | undefined;
  readonly requests: number;
  readonly errors: number;
  /** Due at 1,000 req/s, but too many were in flight: this target, or the machine, could not keep up. */
  readonly notSent: number;
  readonly firstError: string | undefined;
  readonly ratioToBare: {
    readonly requestsPerSecond: Readonly<Record<'c1' | 'c16', Spread | undefined>>;
    readonly p50: Readonly<Record<'c1' | 'c16' | 'at1000', Spread | undefined>>;
    readonly p99: Readonly<Record<'c1' | 'c16' | 'at1000', Spread | undefined>>;
    readonly cpu: Spread | undefined;
  };
}

/** Everything about one target; `undefined` when it never ran. */
export function reportTarget(rounds: readonly Round[], name: TargetName): TargetReport | undefined {
  const runs = rounds.flatMap((round) => round[name] ?? []);
  if (runs.length === 0) return undefined;
  const own = (value: (run: Run) => number | undefined) => spreadOf(runs.map((run) => value(run) ?? Number.NaN));
  const ratio = (value: (run: Run) => number | undefined) =>
    spreadOf(
      perRound(rounds, [name, 'bare'], (run) => (value(run[name]) ?? Number.NaN) / (value(run.bare) ?? Number.NaN)),
    );
  const loads = runs.flatMap((run) => [run.c1, run.c16, run.at1000]);
  return {
    requestsPerSecond: { c1: own((run) => run.c1.requestsPerSecond), c16: own((run) => run.c16.requestsPerSecond) },
    p50Ms: { c1: own((run) => run.c1.p50Ms), c16: own((run) => run.c16.p50Ms), at1000: own((run) => run.at1000.p50Ms) },
    p99Ms: { c1: own((run) => run.c1.p99Ms), c16: own((run) => run.c16.p99Ms), at1000: own((run) => run.at1000.p99Ms) },
    cpuMicrosPerRequest: own((run) => run.cpuMicros),
    requests: loads.reduce((sum, load) => sum + load.requests, 0),
    errors: loads.reduce((sum, load) => sum + load.errors, 0),
    notSent: loads.reduce((sum, load) => sum + load.notSent, 0),
    firstError: loads.find((load) => load.firstError !== undefined)?.firstError,
    ratioToBare: {
      requestsPerSecond: {
        c1: ratio((run) => run.c1.requestsPerSecond),
        c16: ratio((run) => run.c16.requestsPerSecond),
      },
      p50: {
        c1: ratio((run) => run.c1.p50Ms),
        c16: ratio((run) => run.c16.p50Ms),
        at1000: ratio((run) => run.at1000.p50Ms),
      },
      p99: {
        c1: ratio((run) => run.c1.p99Ms),
        c16: ratio((run) => run.c16.p99Ms),
        at1000: ratio((run) => run.at1000.p99Ms),
      },
      cpu: ratio((run) => run.cpuMicros),
    },
  };
}

/** Throughput of the sidecar at c=16 as a share of `bare`'s. */
export const throughputC16 = (rounds: readonly Round[]): Figure =>
  figureOf(
    perRound(rounds, ['bare', 'sidecar'], (run) => run.sidecar.c16.requestsPerSecond / run.bare.c16.requestsPerSecond),
    '× bare',
    { atLeast: 0.8 },
  );

/** How many times what `bare` adds to a direct call the sidecar adds. A round in which `bare` adds nothing tells nothing. */
function addedRatios(rounds: readonly Round[], value: (run: Run) => number): number[] {
  return perRound(rounds, ['direct', 'bare', 'sidecar'], (run) => {
    const bareAdds = value(run.bare) - value(run.direct);
    return bareAdds > 0 ? (value(run.sidecar) - value(run.direct)) / bareAdds : Number.NaN;
  });
}

export const addedP50C1 = (rounds: readonly Round[]): Figure =>
  figureOf(
    addedRatios(rounds, (run) => run.c1.p50Ms),
    '× what bare adds',
    { atMost: 1.3 },
  );

/**
 * p99 at 1,000 req/s: the milliseconds added to a direct call; on a machine that is not quiet, where the milliseconds
 * are the neighbours', the ratio to `bare`'s own p99 (what bare adds may be nothing there, and nothing divides badly).
 */
export function addedP99At1000(rounds: readonly Round[], quiet: boolean): Figure {
  const added = figureOf(
    perRound(rounds, ['direct', 'sidecar'], (run) => run.sidecar.at1000.p99Ms - run.direct.at1000.p99Ms),
    'ms',
    { atMost: 2 },
  );
  const ratio = figureOf(
    perRound(rounds, ['bare', 'sidecar'], (run) => run.sidecar.at1000.p99Ms / run.bare.at1000.p99Ms),
    '× bare',
    { atMost: 2 },
  );
  if (added.value === null || ratio.value === null) return added;
  if (quiet) return { ...added, note: `quiet machine; ${ratio.value} × bare` };
  return { ...ratio, note: `machine not quiet; ${added.value} ms added` };
}

function coldSession(pairs: readonly SessionPair[]): Figure {
  const ratios = pairs.map(({ directMs, sidecarMs }) => sidecarMs / directMs);
  const figure = figureOf(ratios, '× direct', { atMost: 0.7 });
  const [direct, sidecar] = [
    spreadOf(pairs.map((pair) => pair.directMs)),
    spreadOf(pairs.map((pair) => pair.sidecarMs)),
  ];
  return direct === undefined || sidecar === undefined
    ? figure
    : { ...figure, note: `${sidecar.median} ms instead of ${direct.median} ms` };
}

/**
 * Whether milliseconds of this run may be believed: others took at most a tenth of the processors between the
 * rounds, and the direct calls went about equally fast in all of them (a busy neighbour on the same host shows there
 * alone).
 */
export function isQuiet(rounds: readonly Round[], othersBusy: number): boolean {
  const direct = spreadOf(perRound(rounds, ['direct'], (run) => run.direct.c16.requestsPerSecond));
  if (direct === undefined) return false;
  return othersBusy <= 0.1 && (direct.max - direct.min) / direct.median <= 0.25;
}

export interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly memoryMiB: number;
  readonly system: string;
  readonly node: string;
  /** Share of the processors that others used while the benchmark paused, 0 to 1. */
  readonly othersBusy: number;
}

/** How one configuration of the sidecar started. */
export interface Startup {
  /** From just before the process is spawned to the first 200 on `/readyz`, each start. */
  readonly readyMs: readonly number[];
  /** Resident memory without a single request. */
  readonly idleMiB: number;
}

/** Two whole sessions of a cold agent, one right after the other. */
export interface SessionPair {
  readonly directMs: number;
  readonly sidecarMs: number;
}

/** All that was measured. A part that broke is `undefined` and has its sentence in `broken`. */
export interface Measurements {
  readonly at: string;
  readonly mode: 'full' | 'quick';
  readonly machine: Machine;
  readonly rounds: readonly Round[];
  /** Why a target without a run has none. */
  readonly skipped: Readonly<Partial<Record<TargetName, string>>>;
  readonly decisionMicros: readonly number[] | undefined;
  readonly policy: PolicyDecisions | undefined;
  readonly telemetryOff: Startup | undefined;
  readonly telemetryOn: Startup | undefined;
  readonly streamsMiB: number | undefined;
  readonly coldSessions: readonly SessionPair[] | undefined;
  readonly broken: readonly string[];
}

type Target = TargetReport | { readonly skipped: string };

/** What `--json` prints. */
export interface Report {
  readonly at: string;
  readonly mode: 'full' | 'quick';
  readonly machine: Machine & { readonly quiet: boolean };
  readonly rounds: number;
  readonly direct: Target;
  readonly bare: Target;
  readonly sidecar: Target;
  readonly nginx: Target;
  readonly throughputC16: Figure;
  readonly addedP50C1: Figure;
  readonly addedP99At1000: Figure;
  readonly decisionMicros: Figure;
  /** Of `decide()` alone, over a mix of requests. */
  readonly policy: {
    readonly rules20Micros: Figure;
    readonly rules10000Micros: Figure;
    /** Of an agent and a tool that were not asked about before. */
    readonly rules10000FirstMicros: Figure;
    /** For so long a reload holds the event loop. */
    readonly compile10000Ms: Figure;
  };
  readonly readyMs: { readonly telemetryOff: Figure; readonly telemetryOn: Figure };
  readonly rssIdleMiB: { readonly telemetryOff: Figure; readonly telemetryOn: Figure };
  readonly rss1000StreamsMiB: Figure;
  readonly coldSession: Figure;
  /** What went wrong. Not empty: exit code 1. */
  readonly broken: readonly string[];
}

/** Every figure with its target of the design, section 4. */
export function reportOf(measurements: Measurements): Report {
  const { at, mode, machine, rounds, skipped, policy, telemetryOff, telemetryOn, streamsMiB } = measurements;
  const quiet = isQuiet(rounds, machine.othersBusy);
  const target = (name: TargetName): Target =>
    reportTarget(rounds, name) ?? { skipped: skipped[name] ?? 'it did not start' };
  const failures = targetNames.flatMap((name) => {
    const report = reportTarget(rounds, name);
    if (report === undefined || report.errors === 0) return [];
    return [`${name}: ${report.errors} of ${report.requests + report.errors} calls failed: ${report.firstError}`];
  });
  return {
    at,
    mode,
    machine: { ...machine, quiet },
    rounds: rounds.length,
    direct: target('direct'),
    bare: target('bare'),
    sidecar: target('sidecar'),
    nginx: target('nginx'),
    throughputC16: throughputC16(rounds),
    addedP50C1: addedP50C1(rounds),
    addedP99At1000: addedP99At1000(rounds, quiet),
    decisionMicros: figureOf(measurements.decisionMicros ?? [], 'µs', { atMost: 11 }),
    policy: {
      rules20Micros: figureOf(policy?.rules20 ?? [], 'µs', { atMost: 3 }),
      rules10000Micros: figureOf(policy?.rules10000 ?? [], 'µs', { atMost: 20 }),
      rules10000FirstMicros: figureOf(policy?.rules10000First ?? [], 'µs', { atMost: 50 }),
      compile10000Ms: figureOf(policy?.compile10000Ms ?? [], 'ms', { atMost: 1000 }),
    },
    readyMs: {
      telemetryOff: figureOf(telemetryOff?.readyMs ?? [], 'ms', { atMost: 300 }),
      telemetryOn: figureOf(telemetryOn?.readyMs ?? [], 'ms', { atMost: 400 }),
    },
    rssIdleMiB: {
      telemetryOff: figureOf(telemetryOff ? [telemetryOff.idleMiB] : [], 'MiB', { atMost: 80 }),
      telemetryOn: figureOf(telemetryOn ? [telemetryOn.idleMiB] : [], 'MiB', { atMost: 110 }),
    },
    rss1000StreamsMiB: figureOf(streamsMiB === undefined ? [] : [streamsMiB], 'MiB', { atMost: 256 }),
    coldSession: coldSession(measurements.coldSessions ?? []),
    broken: [...measurements.broken, ...failures],
  };
}
