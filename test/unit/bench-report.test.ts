/** The benchmark's statistics: medians of per-round ratios, figures that judge themselves, and the table. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Measured } from '../bench/load.ts';
import {
  addedP50C1,
  addedP99At1000,
  figureOf,
  isQuiet,
  type Measurements,
  type Round,
  type Run,
  reportOf,
  reportTarget,
  spreadOf,
  throughputC16,
} from '../bench/report.ts';
import { tableOf } from '../bench/table.ts';

const measured = (changes: Partial<Measured> = {}): Measured => ({
  requests: 100,
  errors: 0,
  notSent: 0,
  firstError: undefined,
  requestsPerSecond: 1000,
  p50Ms: 1,
  p99Ms: 2,
  maxMs: 3,
  lateP99Ms: undefined,
  ...changes,
});
const run = (c16: number, p50: number, p99 = 2, cpuMicros: number | undefined = 100): Run => ({
  c1: measured({ p50Ms: p50 }),
  c16: measured({ requestsPerSecond: c16 }),
  at1000: measured({ p99Ms: p99 }),
  cpuMicros,
});
const rounds: Round[] = [
  { direct: run(9000, 0.1, 1), bare: run(5000, 0.2, 1.5), sidecar: run(4000, 0.22, 2) },
  { direct: run(9100, 0.1, 1), bare: run(2500, 0.4, 2), sidecar: run(2250, 0.43, 4.5) },
  { direct: run(9050, 0.1, 1), bare: run(5000, 0.3, 3), sidecar: run(3500, 0.5, 3) },
];

test('the median of an even and of an odd number of values, and of none', () => {
  assert.deepEqual(spreadOf([3, 1, 2]), { median: 2, min: 1, max: 3, of: 3 });
  assert.deepEqual(spreadOf([4, 1, 2, 3]), { median: 2.5, min: 1, max: 4, of: 4 });
  assert.equal(spreadOf([]), undefined);
  assert.equal(spreadOf([Number.NaN, Number.POSITIVE_INFINITY]), undefined);
});

test('values keep four significant digits', () => {
  assert.deepEqual(spreadOf([0.123456, 0.123456]), { median: 0.1235, min: 0.1235, max: 0.1235, of: 2 });
});

test('a figure is met on its limit and not beyond, upwards and downwards', () => {
  assert.equal(figureOf([11], 'µs', { atMost: 11 }).met, true);
  assert.equal(figureOf([11.1], 'µs', { atMost: 11 }).met, false);
  assert.equal(figureOf([0.8], '×', { atLeast: 0.8 }).met, true);
  assert.equal(figureOf([0.79], '×', { atLeast: 0.8 }).met, false);
});

test('a figure that could not be measured is not met', () => {
  const figure = figureOf([], 'MiB', { atMost: 80 });
  assert.deepEqual([figure.value, figure.met, figure.note], [null, false, 'could not be measured']);
});

test('throughput is the median of the ratios of each round, not the ratio of medians', () => {
  const figure = throughputC16(rounds);
  assert.deepEqual(figure.spread, { median: 0.8, min: 0.7, max: 0.9, of: 3 });
  assert.equal(figure.met, true);
});

test('a round in which one of the two did not run counts for neither', () => {
  assert.equal(throughputC16([...rounds, { bare: run(1, 1) }]).spread?.of, 3);
});

test('p50 added is compared with what bare adds in the same round', () => {
  const figure = addedP50C1(rounds);
  assert.deepEqual(figure.spread, { median: 1.2, min: 1.1, max: 2, of: 3 });
});

test('a round in which bare adds nothing tells nothing about the ratio', () => {
  const still = { direct: run(9000, 0.2), bare: run(5000, 0.2), sidecar: run(4000, 0.22) };
  assert.equal(addedP50C1([still]).value, null);
  assert.equal(addedP50C1([...rounds, still]).spread?.of, 3);
});

test('p99 is judged in milliseconds on a quiet machine and as a ratio otherwise', () => {
  const quiet = addedP99At1000(rounds, true);
  assert.deepEqual([quiet.unit, quiet.value, quiet.met], ['ms', 2, true]);
  const busy = addedP99At1000(rounds, false);
  assert.deepEqual([busy.unit, busy.value, busy.met], ['× bare', 1.333, true]);
  assert.match(busy.note ?? '', /2 ms added/);
});

test('a machine is quiet when neither its own counters nor the direct calls tell of others', () => {
  assert.equal(isQuiet(rounds, 0.02), true);
  assert.equal(isQuiet(rounds, 0.2), false);
  assert.equal(isQuiet([...rounds, { direct: run(3000, 0.1) }], 0.02), false);
  assert.equal(isQuiet([], 0), false);
});

test('a target reports its own medians, its errors and its ratios to bare', () => {
  const failing: Run = { ...run(4000, 0.2), c1: measured({ errors: 2, firstError: 'HTTP 500' }) };
  const report = reportTarget([...rounds, { bare: run(5000, 0.2), sidecar: failing }], 'sidecar');
  assert.equal(report?.errors, 2);
  assert.equal(report?.firstError, 'HTTP 500');
  assert.equal(report?.requests, 4 * 300);
  assert.deepEqual(report?.ratioToBare.requestsPerSecond.c16, { median: 0.8, min: 0.7, max: 0.9, of: 4 });
  assert.deepEqual(report?.ratioToBare.cpu, { median: 1, min: 1, max: 1, of: 4 });
});

test('a target without processor time still reports the rest', () => {
  const report = reportTarget([{ bare: { ...run(1000, 1), cpuMicros: undefined } }], 'bare');
  assert.equal(report?.cpuMicrosPerRequest, undefined);
  assert.equal(report?.requestsPerSecond.c16?.median, 1000);
});

test('a target that never ran has no report', () => {
  assert.equal(reportTarget(rounds, 'nginx'), undefined);
});

const measurements: Measurements = {
  at: '2026-01-01T00:00:00.000Z',
  mode: 'quick',
  machine: { processor: 'x', cores: 2, memoryMiB: 1, system: 'linux', node: 'v26', othersBusy: 0.5 },
  rounds,
  skipped: { nginx: 'nginx not installed' },
  decisionMicros: [9, 10, 12],
  policy: { rules20: [1, 3, 4], rules10000: [20], rules10000First: [8, 9], compile10000Ms: [250] },
  telemetryOff: { readyMs: [250, 310, 260], idleMiB: 70 },
  telemetryOn: { readyMs: [410], idleMiB: 120 },
  streamsMiB: 200,
  coldSessions: [
    { directMs: 40, sidecarMs: 20 },
    { directMs: 20, sidecarMs: 12 },
    { directMs: 10, sidecarMs: 9 },
  ],
  broken: [],
};

test('the report judges every figure by the design', () => {
  const report = reportOf(measurements);
  assert.deepEqual(
    [
      report.throughputC16,
      report.addedP50C1,
      report.addedP99At1000,
      report.decisionMicros,
      report.policy.rules20Micros,
      report.policy.rules10000Micros,
      report.policy.rules10000FirstMicros,
      report.policy.compile10000Ms,
      report.readyMs.telemetryOff,
      report.readyMs.telemetryOn,
      report.rssIdleMiB.telemetryOff,
      report.rssIdleMiB.telemetryOn,
      report.rss1000StreamsMiB,
      report.coldSession,
    ].map(({ value, met }) => [value, met]),
    [
      [0.8, true],
      [1.2, true],
      [1.333, true],
      [10, true],
      [3, true],
      [20, true],
      [8.5, true],
      [250, true],
      [260, true],
      [410, false],
      [70, true],
      [120, false],
      [200, true],
      [0.6, true],
    ],
  );
  assert.equal(report.coldSession.note, '12 ms instead of 20 ms');
  assert.deepEqual(report.nginx, { skipped: 'nginx not installed' });
  assert.equal(report.machine.quiet, false);
});

test('calls that failed make a run that broke', () => {
  const failing: Run = { ...run(4000, 0.2), at1000: measured({ errors: 2, firstError: 'HTTP 500' }) };
  const { broken } = reportOf({ ...measurements, rounds: [{ sidecar: failing }], broken: ['something else'] });
  assert.deepEqual(broken, ['something else', 'sidecar: 2 of 302 calls failed: HTTP 500']);
});

test('calls that could not be sent at the fixed rate are told, and break nothing', () => {
  const overloaded: Run = { ...run(4000, 0.2), at1000: measured({ notSent: 7 }) };
  const report = reportOf({ ...measurements, rounds: [{ sidecar: overloaded }] });
  assert.equal('notSent' in report.sidecar && report.sidecar.notSent, 7);
  assert.deepEqual(report.broken, []);
  assert.match(tableOf(report), /sidecar: 7 calls were due at 1,000 req\/s and could not be sent/);
});

test('the table names every target, every figure, what was skipped and what broke', () => {
  const table = tableOf(reportOf({ ...measurements, decisionMicros: undefined, broken: ['something'] }));
  assert.match(table, /not quiet/);
  assert.match(table, /^sidecar +1000 /m);
  assert.match(table, /nginx: skipped: nginx not installed/);
  assert.match(table, /^✓ throughput at c=16 +0\.8 +≥ 0\.8 /m);
  assert.match(table, /^✗ decision +– +≤ 11 .*could not be measured/m);
  assert.match(table, /^✓ policy, 10,000 rules, first +8\.5 +≤ 50 /m);
  assert.match(table, /^✗ ready, telemetry on +410 +≤ 400 /m);
  assert.match(table, /^broken: something$/m);
});
