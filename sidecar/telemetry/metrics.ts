/**
 * What the sidecar counts and measures, for `/metrics` and, where it is configured, for OTLP.
 *
 * Guarantees: bounded cardinality. Methods are those of MCP; the name of a tool or prompt becomes a label only when a
 * call of it was let through and the server did not answer that it knows no such thing; everything else is `_other`, so
 * an agent cannot make series by inventing names. Ids of requests, sessions and clients are never labels.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { clientErrorType, DURATION_BOUNDS, knownMethod, serverErrorType } from './conventions.ts';
import type { ExchangeObserver, FinishedExchange } from './finished.ts';
import { type Counter, type Histogram, type HistogramSeries, OTHER, Registry, type Sample } from './registry.ts';

/** What other parts keep, asked at scrape time. */
export interface MetricSources {
  readonly inFlight: () => number;
  readonly streams: () => number;
  /** State of the breaker of each server. */
  readonly breakers: () => Iterable<readonly [server: string, state: 'passing' | 'tripped' | 'probing']>;
  /** What was refused before it was a request, by kind. */
  readonly refusedConnections: () => Iterable<readonly [kind: string, total: number]>;
  /** Tokens fetched (`ok`) and failures to, for each server, since the start. */
  readonly credentialRefreshes: () => Iterable<readonly [server: string, outcome: 'ok' | 'error', total: number]>;
  /** Tools that were found not to be as they were pinned, by server and kind of finding. */
  readonly drifts: () => Iterable<readonly [server: string, kind: string, total: number]>;
  readonly audit: () => { readonly backlogBytes: number; readonly lostTotal: number; readonly failing: boolean };
  /** `lastSuccessAt`: milliseconds since the epoch. */
  readonly policy: () => { readonly loaded: number; readonly refused: number; readonly lastSuccessAt: number };
  /** Only of a policy by URL. Times in milliseconds since the epoch. */
  readonly bundle:
    | (() => {
        readonly version: number;
        readonly expiresAt: number | undefined;
        readonly answeredAt: number | undefined;
      })
    | undefined;
  /** Only of a store elsewhere. `lost`: changes of counters that it never heard of. */
  readonly quotaStore: (() => { readonly isReady: boolean; readonly lost: number }) | undefined;
}

/** The series that one kind of exchange feeds, found together once. */
interface Feed {
  readonly requests: Counter;
  readonly refusals: Counter | undefined;
  readonly tokensIn: Counter;
  readonly tokensOut: Counter;
  readonly server: HistogramSeries;
  readonly client: HistogramSeries | undefined;
}

const DURATION_LABELS = ['mcp_method_name', 'gen_ai_tool_name', 'gen_ai_prompt_name', 'error_type', 'server', 'agent'];
/** The same, by their names in OTLP. */
export const DURATION_ATTRIBUTES = [
  'mcp.method.name',
  'gen_ai.tool.name',
  'gen_ai.prompt.name',
  'error.type',
  'mcp_sidecar.server',
  'mcp_sidecar.agent',
];

const NAMES_MAX = 500;
/** A longer name is no label. */
const NAME_LENGTH_MAX = 128;
const ERROR_TYPES_MAX = 64;
const FEEDS_MAX = 4096;
const LOOP_RESOLUTION_MS = 20;

/** Codes with which a server says that it has no such method, tool, prompt or resource. */
const UNKNOWN_NAME: ReadonlySet<number | undefined> = new Set([-32601, -32602, -32002]);

/** Why an exchange was not served: what `reason` may say. */
const REASON_KINDS: ReadonlySet<string> = new Set([
  'hostNotAllowed',
  'originNotAllowed',
  'crossSite',
  'pathUnknown',
  'methodNotAllowed',
  'badHeader',
  'unsupportedMediaType',
  'unidentified',
  'malformed',
  'sessionUnknown',
  'hidden',
  'forbidden',
  'argumentsRefused',
  'drifted',
  'quota',
  'noCredential',
  'upstreamUnauthorized',
  'unavailable',
  'upstreamTimeout',
  'upstreamGarbage',
  'upstreamRefused',
  'aborted',
  'internal',
]);

export class Metrics implements ExchangeObserver {
  readonly registry = new Registry();
  readonly serverDurations: Histogram;
  readonly clientDurations: Histogram;
  readonly #requests;
  readonly #refusals;
  readonly #tokensIn;
  readonly #tokensOut;
  readonly #names = new Set<string>();
  readonly #errorTypes = new Set<string>();
  readonly #feeds = new Map<string, Feed>();

  /** `version`: of the sidecar. */
  constructor(version: string) {
    const { registry } = this;
    registry.observed(
      'gauge',
      'mcp_sidecar_build_info',
      'Version of the sidecar and of Node; always 1.',
      ['version', 'node'],
      () => [[[version, process.versions.node], 1]],
    );
    this.#requests = registry.counter('mcp_sidecar_requests_total', 'Exchanges with agents, whatever became of them.', [
      'server',
      'method',
      'decision',
      'status',
    ]);
    this.#refusals = registry.counter('mcp_sidecar_refusals_total', 'Exchanges that were refused or failed, by why.', [
      'reason',
      'server',
      'agent',
    ]);
    this.#tokensIn = registry.counter('mcp_sidecar_tokens_in_total', 'Tokens in arguments.', ['agent', 'server']);
    this.#tokensOut = registry.counter('mcp_sidecar_tokens_out_total', 'Tokens in results.', ['agent', 'server']);
    this.serverDurations = registry.histogram(
      'mcp_server_operation_duration_seconds',
      'Requests of agents, from the first byte to the last.',
      DURATION_LABELS,
      DURATION_BOUNDS,
    );
    this.clientDurations = registry.histogram(
      'mcp_client_operation_duration_seconds',
      'Requests to servers, from the first byte to the last.',
      DURATION_LABELS,
      DURATION_BOUNDS,
    );
    observeProcess(registry);
  }

  finished(exchange: FinishedExchange): void {
    const { agent = '', server = '', decision, upstream } = exchange;
    const method = exchange.method === undefined ? '' : (knownMethod(exchange.method) ?? OTHER);
    const known =
      (decision === 'allow' || decision === 'audit') &&
      exchange.errorId === undefined &&
      !UNKNOWN_NAME.has(exchange.rpcCode);
    const tool = bound(exchange.tool, this.#names, known ? NAMES_MAX : 0);
    const prompt = bound(exchange.prompt, this.#names, known ? NAMES_MAX : 0);
    const error = bound(serverErrorType(exchange), this.#errorTypes, ERROR_TYPES_MAX);
    const refusal =
      exchange.reasonKind === undefined || REASON_KINDS.has(exchange.reasonKind) ? exchange.reasonKind : OTHER;
    const key = `${method}\n${tool}\n${prompt}\n${error}\n${server}\n${agent}\n${decision}\n${exchange.httpStatus}\n${refusal}\n${upstream !== undefined}\n${upstream?.status}`;
    let feed = this.#feeds.get(key);
    if (feed === undefined) {
      if (this.#feeds.size >= FEEDS_MAX) this.#feeds.clear();
      const clientError = bound(clientErrorType(exchange), this.#errorTypes, ERROR_TYPES_MAX);
      feed = {
        requests: this.#requests(server, method, decision, String(exchange.httpStatus)),
        refusals: refusal === undefined ? undefined : this.#refusals(refusal, server, agent),
        tokensIn: this.#tokensIn(agent, server),
        tokensOut: this.#tokensOut(agent, server),
        server: this.serverDurations.of(method, tool, prompt, error, server, agent),
        client: upstream && this.clientDurations.of(method, tool, prompt, clientError, server, agent),
      };
      this.#feeds.set(key, feed);
    }
    feed.requests.value += 1;
    if (feed.refusals !== undefined) feed.refusals.value += 1;
    feed.tokensIn.value += exchange.tokensIn ?? 0;
    feed.tokensOut.value += exchange.tokensOut ?? 0;
    this.serverDurations.observe(feed.server, exchange.durationMs / 1000);
    if (upstream !== undefined && feed.client !== undefined)
      this.clientDurations.observe(feed.client, upstream.durationMs / 1000);
  }

  /** Prometheus text format 0.0.4. */
  text(): string {
    return this.registry.text();
  }
}

/** The value if it is known, or may become so; otherwise `_other`. */
function bound(value: string | undefined, known: Set<string>, max: number): string {
  if (value === undefined) return '';
  if (value.length > NAME_LENGTH_MAX) return OTHER;
  if (known.has(value)) return value;
  if (known.size >= max) return OTHER;
  known.add(value);
  return value;
}

/** Registers what other parts keep. */
export function observeSources(registry: Registry, sources: MetricSources): void {
  const { audit, policy } = sources;
  registry.observed(
    'counter',
    'mcp_sidecar_http_refused_total',
    'Connections refused before there was a request.',
    ['kind'],
    function* () {
      for (const [kind, total] of sources.refusedConnections()) yield [[kind], total];
    },
  );
  registry.observed('gauge', 'mcp_sidecar_requests_in_flight', 'Requests under way.', [], sources.inFlight);
  registry.observed('gauge', 'mcp_sidecar_streams_open', 'Open event streams.', [], sources.streams);
  registry.observed(
    'gauge',
    'mcp_sidecar_breaker_state',
    'State of the breaker of a server: 1 for the state that it is in.',
    ['server', 'state'],
    function* () {
      for (const [server, current] of sources.breakers()) {
        for (const state of ['passing', 'tripped', 'probing']) yield [[server, state], Number(state === current)];
      }
    },
  );
  registry.observed(
    'counter',
    'mcp_sidecar_credential_refreshes_total',
    'Attempts to get a credential for a server.',
    ['server', 'outcome'],
    function* () {
      for (const [server, outcome, total] of sources.credentialRefreshes()) yield [[server, outcome], total];
    },
  );
  registry.observed(
    'counter',
    'mcp_sidecar_tool_drifts_total',
    'Tools that are not as they were pinned, each change once.',
    ['server', 'kind'],
    function* () {
      for (const [server, kind, total] of sources.drifts()) yield [[server, kind], total];
    },
  );
  registry.observed(
    'gauge',
    'mcp_sidecar_audit_backlog_bytes',
    'Audit records that are not written yet.',
    [],
    () => audit().backlogBytes,
  );
  registry.observed(
    'counter',
    'mcp_sidecar_audit_lost_total',
    'Audit records that were lost.',
    [],
    () => audit().lostTotal,
  );
  registry.observed('gauge', 'mcp_sidecar_audit_failing', '1 while the audit log cannot be written.', [], () =>
    Number(audit().failing),
  );
  registry.observed('counter', 'mcp_sidecar_policy_reloads_total', 'Policies taken or refused.', ['outcome'], () => [
    [['loaded'], policy().loaded],
    [['refused'], policy().refused],
  ]);
  registry.observed(
    'gauge',
    'mcp_sidecar_policy_last_success_timestamp_seconds',
    'When the policy in force was taken.',
    [],
    () => policy().lastSuccessAt / 1000,
  );
  if (sources.bundle !== undefined) observeBundle(registry, sources.bundle);
  if (sources.quotaStore !== undefined) observeQuotaStore(registry, sources.quotaStore);
}

function observeQuotaStore(registry: Registry, store: NonNullable<MetricSources['quotaStore']>): void {
  registry.observed('gauge', 'mcp_sidecar_quota_store_up', '1 while the quota store answers.', [], () =>
    Number(store().isReady),
  );
  registry.observed(
    'counter',
    'mcp_sidecar_quota_store_lost_total',
    'Changes of shared counters that the quota store never heard of.',
    [],
    () => store().lost,
  );
}

function observeBundle(registry: Registry, bundle: NonNullable<MetricSources['bundle']>): void {
  const seconds = (ms: number | undefined): Sample[] => (ms === undefined ? [] : [[[], ms / 1000]]);
  registry.observed('gauge', 'mcp_sidecar_policy_bundle_version', 'Version of the policy bundle in force.', [], () => {
    return bundle().version;
  });
  registry.observed(
    'gauge',
    'mcp_sidecar_policy_bundle_expiry_timestamp_seconds',
    'When the policy bundle in force expires, or has expired. Absent: never.',
    [],
    () => seconds(bundle().expiresAt),
  );
  registry.observed(
    'gauge',
    'mcp_sidecar_policy_bundle_answered_timestamp_seconds',
    'When the URL last answered with a bundle, or that there is no newer one. Absent: not since the start.',
    [],
    () => seconds(bundle().answeredAt),
  );
}

function observeProcess(registry: Registry): void {
  const delay = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS });
  delay.enable();
  registry.observed('gauge', 'process_resident_memory_bytes', 'Resident memory.', [], () => process.memoryUsage.rss());
  registry.observed('counter', 'process_cpu_seconds_total', 'CPU time, user and system.', [], () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  });
  registry.observed('gauge', 'process_start_time_seconds', 'Start of the process.', [], () =>
    Math.round(Date.now() / 1000 - process.uptime()),
  );
  registry.observed(
    'gauge',
    'mcp_sidecar_event_loop_delay_p99_seconds',
    'How late timers were, 99th percentile since the last scrape.',
    [],
    () => {
      const late = Math.max(0, delay.percentile(99) / 1e9 - LOOP_RESOLUTION_MS / 1000);
      delay.reset();
      return late;
    },
  );
}
