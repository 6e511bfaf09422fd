/** The report as text for people. PURE. */
import { type Figure, type Report, type Spread, type TargetName, type TargetReport, targetNames } from './report.ts';

function align(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
      .join('  '),
  );
}

const digits = (spread: Spread | undefined, places: number) => spread?.median.toFixed(places) ?? '–';

function targetRow(name: TargetName, report: TargetReport): string[] {
  const { requestsPerSecond, p50Ms, p99Ms, ratioToBare } = report;
  return [
    name,
    digits(requestsPerSecond.c1, 0),
    digits(p50Ms.c1, 2),
    digits(p99Ms.c1, 2),
    digits(requestsPerSecond.c16, 0),
    digits(p50Ms.c16, 2),
    digits(p99Ms.c16, 2),
    digits(p50Ms.at1000, 2),
    digits(p99Ms.at1000, 2),
    digits(report.cpuMicrosPerRequest, 0),
    digits(ratioToBare.requestsPerSecond.c16, 2),
  ];
}

function figureRow(name: string, figure: Figure): string[] {
  const { value, unit, target, met, spread, note } = figure;
  const goal = 'atMost' in target ? `≤ ${target.atMost}` : `≥ ${target.atLeast}`;
  const range = spread === undefined ? '' : `${spread.min} … ${spread.max}`;
  return [`${met ? '✓' : '✗'} ${name}`, `${value ?? '–'}`, goal, range, unit, note ?? ''];
}

/** The report for people. */
export function tableOf(report: Report): string {
  const targets = targetNames.flatMap((name) => {
    const target = report[name];
    return 'skipped' in target ? [] : [targetRow(name, target)];
  });
  const skipped = targetNames.flatMap((name) => {
    const target = report[name];
    return 'skipped' in target ? [`${name}: skipped: ${target.skipped}`] : [];
  });
  const overloaded = targetNames.flatMap((name) => {
    const target = report[name];
    if ('skipped' in target || target.notSent === 0) return [];
    return [`${name}: ${target.notSent} calls were due at 1,000 req/s and could not be sent (they count as 10 s)`];
  });
  const { machine } = report;
  return [
    `${machine.processor}, ${machine.cores} cores, Node ${machine.node}; others took ${Math.round(machine.othersBusy * 100)} % of it${machine.quiet ? '' : ' (not quiet: believe the ratios only)'}`,
    '',
    ...align([
      [
        '',
        'c=1 req/s',
        'p50 ms',
        'p99 ms',
        'c=16 req/s',
        'p50 ms',
        'p99 ms',
        '@1000/s p50',
        'p99 ms',
        'µs CPU',
        '× bare',
      ],
      ...targets,
    ]),
    ...skipped,
    ...overloaded,
    '',
    ...align([
      ['', 'median', 'target', 'range', 'unit', ''],
      figureRow('throughput at c=16', report.throughputC16),
      figureRow('p50 added at c=1', report.addedP50C1),
      figureRow('p99 added at 1,000 req/s', report.addedP99At1000),
      figureRow('decision', report.decisionMicros),
      figureRow('policy, 20 rules', report.policy.rules20Micros),
      figureRow('policy, 10,000 rules', report.policy.rules10000Micros),
      figureRow('policy, 10,000 rules, first', report.policy.rules10000FirstMicros),
      figureRow('compiling 10,000 rules', report.policy.compile10000Ms),
      figureRow('ready, telemetry off', report.readyMs.telemetryOff),
      figureRow('ready, telemetry on', report.readyMs.telemetryOn),
      figureRow('idle memory, telemetry off', report.rssIdleMiB.telemetryOff),
      figureRow('idle memory, telemetry on', report.rssIdleMiB.telemetryOn),
      figureRow('memory with 1,000 streams', report.rss1000StreamsMiB),
      figureRow('cold session ÷ direct', report.coldSession),
    ]),
    ...report.broken.map((what) => `broken: ${what}`),
    '',
  ].join('\n');
}
