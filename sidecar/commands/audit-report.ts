/**
 * `sidecar audit report`: who called what how often, what it cost and how long it took, from audit files. Starts nothing
 * and connects to nothing.
 */
import { amountOf, priceOf } from '../../policies/budget.ts';
import { amountFor } from '../../policies/charges.ts';
import type { CompiledPolicy } from '../../policies/policy.ts';
import { loadPolicy, policyPath } from '../config/policy-source.ts';
import { parseDuration } from '../config/quantity.ts';
import type { AuditRecord } from '../telemetry/audit-record.ts';
import { AuditReport, DIMENSIONS, type Dimension, type Report, type ReportRow } from '../telemetry/audit-report.ts';
import { describeReading, readAuditFiles } from './audit-files.ts';
import { tellLines, tellProblems, tellSentence, writeJson } from './output.ts';
import { type Cell, csvText, tableText } from './rows-text.ts';

export interface AuditReportOptions {
  readonly audit: readonly string[];
  /** `agent,server,tool`, or some of them. */
  readonly by: string;
  /** A time, or how long ago. */
  readonly since?: string;
  readonly until?: string;
  /** Its prices are for records that have no cost. */
  readonly policy?: string;
  readonly format: 'table' | 'csv' | 'json';
  /** The same as the format json. */
  readonly json?: boolean;
}

export async function auditReport(options: AuditReportOptions): Promise<number> {
  const { audit, by, since, until, policy, format, json } = options;
  const asJson = format === 'json';
  if (json && !asJson) return tellSentence(`--json and --format ${format} ask for two formats: take one`, false);
  const dimensions = by
    .split(',')
    .filter((name): name is Dimension => (DIMENSIONS as readonly string[]).includes(name));
  if (dimensions.length !== by.split(',').length || new Set(dimensions).size !== dimensions.length)
    return tellSentence(`--by takes each of ${DIMENSIONS.join(', ')} once, with commas between`, asJson);
  const now = Date.now();
  const from = since === undefined ? Number.NEGATIVE_INFINITY : momentOf(since, now);
  const to = until === undefined ? Number.POSITIVE_INFINITY : momentOf(until, now);
  if (from === undefined || to === undefined)
    return tellSentence(
      '--since and --until take a time such as 2026-03-01T12:00:00Z, or how long ago, such as 24h',
      asJson,
    );

  const loaded =
    policy === undefined ? undefined : await loadPolicy({ kind: 'path', path: policyPath(policy, process.cwd()) });
  if (loaded?.ok === false) return tellProblems(loaded.error, asJson);
  const report = new AuditReport(dimensions, loaded && costBy(loaded.value.policy.prices));
  const read = await readAuditFiles(audit, (record) => {
    if (record.time >= from && record.time < to) report.add(record);
  });
  if (!read.ok) return tellSentence(read.error, asJson);
  const { result } = report;
  if (asJson) writeJson({ ok: true, ...result, read: read.value });
  else if (format === 'csv') process.stdout.write(csvText(headerOf(dimensions), rowsOf(result, dimensions)));
  else {
    const rows = [...rowsOf(result, dimensions), labelled('(total)', result.total, dimensions)];
    const hasToolless = dimensions.includes('tool') && result.rows.some(({ names }) => names.tool === undefined);
    process.stdout.write(tableText(headerOf(dimensions), rows) + (hasToolless ? TOOLLESS : ''));
  }
  if (!asJson) tellLines([describeReading(read.value)]);
  return 0;
}

/** As the sidecar does it: what no server has seen costs nothing. */
function costBy(prices: CompiledPolicy['prices']): (record: AuditRecord) => number | undefined {
  return ({ cost, server, tool, upstreamMs, cached, tokensIn, tokensOut }) => {
    if (typeof cost === 'number') return cost;
    if (server === undefined || tool === undefined || (typeof upstreamMs !== 'number' && cached !== true))
      return undefined;
    const { perCall, perToken } = priceOf(prices, { kind: 'tool', server, name: tool, annotations: undefined });
    return amountOf(amountFor(perCall, perToken, (tokensIn ?? 0) + (tokensOut ?? 0)));
  };
}

function momentOf(text: string, now: number): number | undefined {
  const ago = parseDuration(text);
  if (ago !== undefined) return now - ago;
  const time = /^\d{4}-\d{2}-\d{2}/.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(time) ? undefined : time;
}

/** They are calls too, of the sidecar. */
const TOOLLESS = 'tool -: lists, initialize, prompts, resources, streams and the like\n';

const FIGURES = ['calls', 'refused', 'limited', 'errors', 'tokensIn', 'tokensOut', 'cost', 'p50Ms', 'p99Ms'] as const;

function headerOf(dimensions: readonly Dimension[]): string[] {
  return [...dimensions, ...FIGURES];
}

function cellsBy(dimensions: readonly Dimension[]): (row: ReportRow) => Cell[] {
  return (row) => [...dimensions.map((dimension) => row.names[dimension]), ...FIGURES.map((figure) => row[figure])];
}

/** What has no row of its own is a row too: nothing is missing from the sums. */
function rowsOf({ rows, others }: Report, dimensions: readonly Dimension[]): Cell[][] {
  return [
    ...rows.map(cellsBy(dimensions)),
    ...(others === undefined ? [] : [labelled('(others)', others, dimensions)]),
  ];
}

function labelled(label: string, row: ReportRow, dimensions: readonly Dimension[]): Cell[] {
  return [
    ...dimensions.map((_dimension, index) => (index === 0 ? label : '')),
    ...FIGURES.map((figure) => row[figure]),
  ];
}
