import assert from 'node:assert/strict';
import { it } from 'node:test';
import { formatExchange } from '../../sidecar/telemetry/audit-line.ts';
import { readAuditLine } from '../../sidecar/telemetry/audit-record.ts';
import { AuditReport, type Dimension } from '../../sidecar/telemetry/audit-report.ts';
import type { FinishedExchange } from '../../sidecar/telemetry/finished.ts';
import { finishedExchange } from '../support/finished-exchange.ts';

function reportOn(by: readonly Dimension[], ...changes: (Partial<FinishedExchange> & { cost?: number })[]) {
  const report = new AuditReport(by);
  for (const { cost, ...change } of changes) {
    const entry = readAuditLine(formatExchange(finishedExchange(change), 1));
    assert.ok(entry.ok && entry.value.kind === 'record');
    report.add({ ...entry.value.record, cost });
  }
  return report.result;
}

it('sums up by agent, server and tool, the most frequent first', () => {
  const { rows, total, others } = reportOn(
    ['agent', 'server', 'tool'],
    { agent: 'writer' },
    { tokensIn: 1, tokensOut: 2 },
    { tokensIn: 10, tokensOut: undefined },
    { tool: undefined },
  );
  assert.deepEqual(
    rows.map(({ names, calls, tokensIn, tokensOut }) => [names.agent, names.tool, calls, tokensIn, tokensOut]),
    [
      ['triage', 'list_issues', 2, 11, 2],
      ['writer', 'list_issues', 1, 12, 144],
      ['triage', undefined, 1, 12, 144],
    ],
  );
  assert.deepEqual([total.calls, total.tokensIn, others], [4, 35, undefined]);
});

it('tells what became of the calls', () => {
  const { total } = reportOn(
    [],
    {},
    { decision: 'audit' },
    { decision: 'deny' },
    { decision: 'deny' },
    { decision: 'limit' },
    { decision: 'error' },
    { toolError: true },
    { rpcCode: -32602 },
    { decision: 'deny', rpcCode: -31403 },
  );
  const { calls, refused, limited, errors } = total;
  assert.deepEqual({ calls, refused, limited, errors }, { calls: 9, refused: 3, limited: 1, errors: 3 });
});

it('adds up what calls cost, where that was recorded', () => {
  const { rows } = reportOn(['agent'], { cost: 0.1 }, { cost: 0.2 }, {}, { agent: 'writer' });
  assert.deepEqual(
    rows.map(({ cost }) => cost),
    [0.3, undefined],
  );
});

it('percentiles are exact to one in a hundred, and of what was let through', () => {
  const calls = Array.from({ length: 100 }, (_, index) => ({ durationMs: index + 1 }));
  const { total } = reportOn(
    [],
    ...calls,
    { durationMs: 100_000, decision: 'deny' },
    { durationMs: 100_000, decision: 'limit' },
  );
  assert.ok(Math.abs(total.p50Ms! - 50) <= 0.5, `${total.p50Ms}`);
  assert.ok(Math.abs(total.p99Ms! - 99) <= 1, `${total.p99Ms}`);
  const none = reportOn([], { decision: 'deny' }).total;
  assert.deepEqual([none.p50Ms, none.p99Ms], [undefined, undefined]);
  assert.ok(reportOn([], { durationMs: 0 }).total.p50Ms! < 0.002);
});

it('names that an agent invents make only so many rows, and nothing is missing from the sums', () => {
  const report = new AuditReport(['tool']);
  for (let number = 0; number < 10_003; number++) {
    const entry = readAuditLine(formatExchange(finishedExchange({ tool: `tool_${number}` }), 1));
    assert.ok(entry.ok && entry.value.kind === 'record');
    report.add(entry.value.record);
  }
  const { rows, others, total } = report.result;
  assert.deepEqual([rows.length, others?.calls, total.calls], [10_000, 3, 10_003]);
});
