import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Reason } from '../../sidecar/pipeline/reason.ts';
import type { FinishedExchange } from '../../sidecar/telemetry/finished.ts';
import { Metrics, observeSources } from '../../sidecar/telemetry/metrics.ts';
import { Registry } from '../../sidecar/telemetry/registry.ts';
import fc from '../support/fast-check.ts';
import { finishedExchange } from '../support/finished-exchange.ts';

/** One line of the text format 0.0.4. */
const LINE =
  /^(?:# HELP [a-z_0-9]+ [^\n]*|# TYPE [a-z_0-9]+ (?:counter|gauge|histogram)|[a-z_0-9]+(?:\{[a-z_0-9]+="(?:[^"\\\n]|\\[\\n"])*"(?:,[a-z_0-9]+="(?:[^"\\\n]|\\[\\n"])*")*\})? (?:[+-]?[0-9.e+-]+|NaN|[+-]Inf))$/;

function measured(...changes: Partial<FinishedExchange>[]): Metrics {
  const metrics = new Metrics('1.2.3');
  for (const change of changes) metrics.finished(finishedExchange(change));
  return metrics;
}

const linesOf = (text: string, start: string): string[] => text.split('\n').filter((line) => line.startsWith(start));
const seriesOf = (text: string): number =>
  text.split('\n').filter((line) => line !== '' && !line.startsWith('#')).length;

test('the text format: help, type, escapes, one line a sample', () => {
  const registry = new Registry();
  registry.counter('c_total', 'back\\slash and\nline', ['a', 'b'])('say "hi"\\\n', '').value += 2.5;
  registry.observed('gauge', 'g', 'none', [], () => Number.NaN);
  assert.equal(
    registry.text(),
    [
      '# HELP c_total back\\\\slash and\\nline',
      '# TYPE c_total counter',
      'c_total{a="say \\"hi\\"\\\\\\n"} 2.5',
      '# HELP g none',
      '# TYPE g gauge',
      'g NaN',
      '',
    ].join('\n'),
  );
});

test('a histogram is cumulative, and a value on a bound belongs to it', () => {
  const registry = new Registry();
  const histogram = registry.histogram('h_seconds', 'h', ['a'], [0.1, 1]);
  for (const value of [0.1, 0.2, 1, 5]) histogram.observe(histogram.of('x'), value);
  assert.deepEqual(linesOf(registry.text(), 'h_'), [
    'h_seconds_bucket{a="x",le="0.1"} 1',
    'h_seconds_bucket{a="x",le="1"} 3',
    'h_seconds_bucket{a="x",le="+Inf"} 4',
    'h_seconds_sum{a="x"} 6.3',
    'h_seconds_count{a="x"} 4',
  ]);
});

test('property: whatever is in a label, every line is well-formed', () => {
  const registry = new Registry();
  const family = registry.counter('c_total', 'c', ['a', 'b']);
  const unit = fc.oneof(fc.constantFrom('"', '\\', '\n', '\ud800', '}', ','), fc.string({ unit: 'binary' }));
  const hostile = fc.array(unit, { maxLength: 6 }).map((parts) => parts.join(''));
  fc.assert(
    fc.property(hostile, hostile, (a, b) => {
      family(a, b).value += 1;
      const text = registry.text();
      assert.ok(text.isWellFormed());
      for (const line of text.slice(0, -1).split('\n')) assert.match(line, LINE);
    }),
    { numRuns: 200 },
  );
});

test('a metric has at most 1000 series, and nothing is left uncounted', () => {
  const registry = new Registry();
  const family = registry.counter('c_total', 'c', ['a']);
  for (let index = 0; index < 5_000; index++) family(String(index)).value += 1;
  assert.equal(seriesOf(registry.text()), 1000);
  assert.deepEqual(linesOf(registry.text(), 'c_total{a="_other"'), ['c_total{a="_other"} 4001']);
});

test('a source that throws costs its own metric only', () => {
  const registry = new Registry();
  registry.observed('gauge', 'bad', 'bad', [], () => {
    throw new Error('no');
  });
  registry.observed('gauge', 'good', 'good', ['x'], () => [[['1'], 2]]);
  assert.deepEqual(linesOf(registry.text(), 'good'), ['good{x="1"} 2']);
  assert.doesNotMatch(registry.text(), /bad/);
});

test('an exchange is counted and timed on both sides', () => {
  const text = measured({}, {}, { durationMs: 700 }).text();
  for (const line of text.slice(0, -1).split('\n')) assert.match(line, LINE);
  const labels = 'mcp_method_name="tools/call",gen_ai_tool_name="list_issues",server="github",agent="triage"';
  for (const expected of [
    'mcp_sidecar_requests_total{server="github",method="tools/call",decision="allow",status="200"} 3',
    'mcp_sidecar_tokens_in_total{agent="triage",server="github"} 36',
    'mcp_sidecar_tokens_out_total{agent="triage",server="github"} 432',
    `mcp_server_operation_duration_seconds_bucket{${labels},le="0.01"} 0`,
    `mcp_server_operation_duration_seconds_bucket{${labels},le="0.02"} 2`,
    `mcp_server_operation_duration_seconds_bucket{${labels},le="1"} 3`,
    `mcp_server_operation_duration_seconds_count{${labels}} 3`,
    `mcp_client_operation_duration_seconds_bucket{${labels},le="0.02"} 3`,
    `mcp_sidecar_build_info{version="1.2.3",node="${process.versions.node}"} 1`,
  ]) {
    assert.ok(text.includes(`${expected}\n`), expected);
  }
  assert.ok(text.includes('# TYPE mcp_sidecar_build_info gauge\n'));
  assert.equal(linesOf(text, 'mcp_sidecar_refusals_total').length, 0);
});

/** Every kind of reason: a new one does not compile before it stands here. */
const KINDS: Record<Reason['kind'], true> = {
  hostNotAllowed: true,
  originNotAllowed: true,
  crossSite: true,
  pathUnknown: true,
  methodNotAllowed: true,
  badHeader: true,
  unsupportedMediaType: true,
  unidentified: true,
  malformed: true,
  sessionUnknown: true,
  hidden: true,
  forbidden: true,
  argumentsRefused: true,
  drifted: true,
  quota: true,
  noCredential: true,
  upstreamUnauthorized: true,
  unavailable: true,
  upstreamTimeout: true,
  upstreamGarbage: true,
  upstreamRefused: true,
  aborted: true,
  internal: true,
};

test('every kind of reason has a label of its own', () => {
  const kinds = Object.keys(KINDS);
  const text = measured(...kinds.map((reasonKind) => ({ reasonKind, errorId: 'e' }))).text();
  const labels = linesOf(text, 'mcp_sidecar_refusals_total').map((line) => /reason="(\w+)"/.exec(line)?.[1]);
  assert.deepEqual(labels, kinds);
});

test('refusals are counted by why', () => {
  const refused = { decision: 'deny', errorId: 'e', upstream: undefined } as const;
  const text = measured(
    { ...refused, reasonKind: 'hidden', rpcCode: -32602 },
    { ...refused, reasonKind: 'quota', rpcCode: -31429, httpStatus: 429, decision: 'limit' },
    // The same code and status, and not the same reason.
    { ...refused, reasonKind: 'forbidden', rpcCode: -31403, httpStatus: 403, server: undefined, agent: undefined },
    { ...refused, reasonKind: 'hostNotAllowed', rpcCode: -31403, httpStatus: 403, server: undefined, agent: undefined },
    { ...refused, reasonKind: 'no such kind', server: undefined, agent: undefined },
    { rpcCode: -32602, errorId: undefined },
  ).text();
  assert.deepEqual(linesOf(text, 'mcp_sidecar_refusals_total'), [
    'mcp_sidecar_refusals_total{reason="hidden",server="github",agent="triage"} 1',
    'mcp_sidecar_refusals_total{reason="quota",server="github",agent="triage"} 1',
    'mcp_sidecar_refusals_total{reason="forbidden"} 1',
    'mcp_sidecar_refusals_total{reason="hostNotAllowed"} 1',
    'mcp_sidecar_refusals_total{reason="_other"} 1',
  ]);
  assert.doesNotMatch(
    linesOf(text, 'mcp_client').join(),
    /error_type="-31429"/,
    'what did not go upstream is not timed there',
  );
});

test('an agent makes no series by inventing methods and names', () => {
  const metrics = measured({});
  const before = seriesOf(metrics.text());
  for (let index = 0; index < 10_000; index++) {
    const made = `made_up_${index}`;
    metrics.finished(finishedExchange({ method: made, tool: undefined, rpcCode: -32601 }));
    metrics.finished(
      finishedExchange({ tool: made, decision: 'deny', errorId: made, upstream: undefined, rpcCode: -32602 }),
    );
    // Allowed by a pattern, but unknown to the server.
    metrics.finished(finishedExchange({ tool: made, rpcCode: -32602 }));
    metrics.finished(finishedExchange({ method: 'prompts/get', tool: undefined, prompt: made, rpcCode: -32602 }));
    // Ids and times differ with every exchange, and are no labels.
    metrics.finished(
      finishedExchange({ requestId: made, sessionHash: made, traceId: made, user: made, durationMs: index }),
    );
    // A hostile server makes up codes.
    metrics.finished(finishedExchange({ rpcCode: index }));
  }
  const text = metrics.text();
  assert.doesNotMatch(text, /made_up/);
  assert.ok(seriesOf(text) - before < 5_000, String(seriesOf(text) - before));
  assert.match(text, /gen_ai_tool_name="_other"/);
  assert.match(text, /mcp_method_name="_other"/);
});

test('names that a server answers to become labels, but only so many', () => {
  const metrics = new Metrics('0');
  for (let index = 0; index < 2_000; index++) metrics.finished(finishedExchange({ tool: `tool_${index}` }));
  const text = metrics.text();
  assert.equal(linesOf(text, 'mcp_server_operation_duration_seconds_count').length, 501);
  assert.match(text, /duration_seconds_count\{mcp_method_name="tools\/call",gen_ai_tool_name="_other".* 1500\n/);
});

test('what other parts keep is asked at scrape time', () => {
  const { registry } = new Metrics('0');
  let inFlight = 1;
  observeSources(registry, {
    refusedConnections: () => [],
    inFlight: () => inFlight,
    streams: () => 2,
    breakers: () => [['github', 'tripped']],
    credentialRefreshes: () => [
      ['github', 'ok', 5],
      ['github', 'error', 1],
    ],
    drifts: () => [['github', 'changed', 4]],
    audit: () => ({ backlogBytes: 10, lostTotal: 3, failing: true }),
    policy: () => ({ loaded: 2, refused: 1, lastSuccessAt: 1_700_000_000_500 }),
    bundle: () => ({ version: 7, expiresAt: 1_500, answeredAt: undefined }),
    quotaStore: () => ({ isReady: true, lost: 6 }),
  });
  inFlight = 7;
  const text = registry.text();
  for (const expected of [
    'mcp_sidecar_requests_in_flight 7',
    'mcp_sidecar_streams_open 2',
    'mcp_sidecar_breaker_state{server="github",state="passing"} 0',
    'mcp_sidecar_breaker_state{server="github",state="tripped"} 1',
    'mcp_sidecar_credential_refreshes_total{server="github",outcome="error"} 1',
    'mcp_sidecar_tool_drifts_total{server="github",kind="changed"} 4',
    'mcp_sidecar_audit_backlog_bytes 10',
    'mcp_sidecar_audit_lost_total 3',
    'mcp_sidecar_audit_failing 1',
    'mcp_sidecar_policy_reloads_total{outcome="refused"} 1',
    'mcp_sidecar_policy_last_success_timestamp_seconds 1700000000.5',
    'mcp_sidecar_policy_bundle_version 7',
    'mcp_sidecar_policy_bundle_expiry_timestamp_seconds 1.5',
    'mcp_sidecar_quota_store_up 1',
    'mcp_sidecar_quota_store_lost_total 6',
  ]) {
    assert.ok(text.includes(`${expected}\n`), expected);
  }
  for (const name of [
    'process_resident_memory_bytes',
    'process_cpu_seconds_total',
    'mcp_sidecar_event_loop_delay_p99_seconds',
  ])
    assert.equal(linesOf(text, name).length, 1, name);
});
