/**
 * Sends the spans of finished exchanges, and the histograms where that is wanted, to an OTLP collector over gRPC.
 *
 * Guarantees: nothing of OpenTelemetry's SDK or exporters is loaded before `start`, which is called once the sidecar is
 * ready; until then exchanges wait. A collector that is slow, gone or refuses costs spans, never requests: the queue is
 * bounded, what does not fit is counted, and the log says so once a minute. What fails for now is tried again.
 *
 * Spans go straight to the exporter in small batches: making the bytes takes most of the time (14–17 µs an exchange), all
 * of it on the thread that serves agents, so a batch is kept to about a millisecond. The processors of the SDK take 512
 * spans at a time.
 */
import type { OTLPMetricExporter } from '@opentelemetry/exporter-metrics-otlp-grpc';
import type { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-grpc';
import { cutTexts } from './cut-texts.ts';
import type { ExchangeObserver, FinishedExchange } from './finished.ts';
import type { Log } from './log.ts';
import type { Metrics } from './metrics.ts';
import { resourceMetricsOf } from './otlp-metrics.ts';
import { type Span, type SpanOrigin, spansOf } from './spans.ts';

export interface TracingOptions {
  /** OTLP over gRPC, such as `http://127.0.0.1:4317`. */
  readonly endpoint: string;
  readonly group: string;
  /** Of the sidecar. */
  readonly version: string;
  /** Whose histograms are sent too; `undefined`: none. */
  readonly metrics: Metrics | undefined;
  readonly log: Log;
  /** Wall clock, milliseconds since the epoch. */
  readonly now: () => number;
  /** Read: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES. The exporter itself reads OTEL_EXPORTER_OTLP_* of the process. */
  readonly environment: NodeJS.ProcessEnv;
}

export interface TracingFigures {
  readonly exportedTotal: number;
  readonly lostTotal: number;
  readonly backlog: number;
}

/** Exchanges that wait. */
const QUEUE_MAX = 4096;
/** Exchanges in one export. */
const BATCH = 64;
const UNDER_WAY_MAX = 8;
const FLUSH_MS = 1_000;
const METRICS_MS = 60_000;
const RETRY_MIN_MS = 1_000;
const RETRY_MAX_MS = 30_000;
const LOG_MS = 60_000;

/** gRPC codes that mean "later" (OTLP specification, Failures): CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS. */
const RETRYABLE: ReadonlySet<unknown> = new Set([1, 4, 8, 10, 11, 14, 15]);

export class Tracing implements ExchangeObserver {
  readonly #options: TracingOptions;
  readonly #origin: SpanOrigin;
  readonly #since: number;
  #traces: OTLPTraceExporter | undefined;
  #metrics: OTLPMetricExporter | undefined;
  #metricsTimer: NodeJS.Timeout | undefined;

  #loading: Promise<void> | undefined;

  #queue: FinishedExchange[] = [];
  #timer: NodeJS.Timeout | undefined;
  #underWay = 0;
  /** Of the batches under way. */
  #exchangesUnderWay = 0;
  /** The grace is over: what has not been answered is lost, whatever comes later. */
  #ended = false;
  #retryMs = 0;
  #stopping = false;
  #settled: () => void = () => {};

  #exported = 0;
  #lost = 0;
  #loggedAt = Number.NEGATIVE_INFINITY;

  constructor(options: TracingOptions) {
    this.#options = options;
    this.#since = options.now();
    this.#origin = {
      resource: { attributes: resourceAttributes(options) } as unknown as Span['resource'],
      scope: { name: 'mcp-sidecar', version: options.version },
    };
  }

  finished(exchange: FinishedExchange): void {
    if (!exchange.sampled) return;
    if (this.#queue.length >= QUEUE_MAX || this.#stopping) {
      this.#lost += 1;
      return;
    }
    // Spans have no arguments; kept, they could be gigabytes.
    this.#queue.push({ ...cutTexts(exchange), argumentsJson: undefined });
    if (this.#traces === undefined || this.#retryMs > 0) return;
    if (this.#queue.length === BATCH) this.#schedule(0);
    else if (this.#timer === undefined) this.#schedule(FLUSH_MS);
  }

  figures(): TracingFigures {
    return { exportedTotal: this.#exported, lostTotal: this.#lost, backlog: this.#queue.length };
  }

  /** Loads the exporters and begins to send. Never rejects: without them the sidecar works on. */
  start(): Promise<void> {
    this.#loading = this.#load();
    return this.#loading;
  }

  async #load(): Promise<void> {
    const { endpoint: url, metrics, log } = this.#options;
    try {
      const { OTLPTraceExporter } = await import('@opentelemetry/exporter-trace-otlp-grpc');
      this.#traces = new OTLPTraceExporter({ url });
      this.#schedule(0);
      if (metrics === undefined) return;
      const { OTLPMetricExporter } = await import('@opentelemetry/exporter-metrics-otlp-grpc');
      this.#metrics = new OTLPMetricExporter({ url });
      this.#metricsTimer = setInterval(() => void this.#sendMetrics(), METRICS_MS).unref();
    } catch (error) {
      log.error('telemetry.otlp: the exporter cannot be loaded; nothing is exported', { error });
    }
  }

  /** Sends what waits, for at most `graceMs`, and closes the connection. What comes later is lost. */
  async shutdown(graceMs: number): Promise<void> {
    this.#stopping = true;
    clearInterval(this.#metricsTimer);
    // A sidecar that ends before its exporters were loaded still owes what it has queued.
    if (this.#loading === undefined && this.#queue.length > 0) void this.start();
    let timer: NodeJS.Timeout | undefined;
    const expired = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, graceMs);
    });
    await Promise.race([this.#drain().then(() => this.#sendMetrics()), expired]);
    await Promise.race([Promise.all([this.#traces?.shutdown(), this.#metrics?.shutdown()]).catch(() => {}), expired]);
    clearTimeout(timer);
    clearTimeout(this.#timer);
    if (this.#ended) return;
    this.#ended = true;
    this.#lost += this.#queue.length + this.#exchangesUnderWay;
    this.#queue = [];
  }

  #schedule(delayMs: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#send(), delayMs).unref();
  }

  /** One batch a turn of the event loop. */
  #send(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#traces === undefined || this.#queue.length === 0 || this.#underWay >= UNDER_WAY_MAX) return;
    const batch = this.#queue.splice(0, BATCH);
    this.#underWay += 1;
    this.#exchangesUnderWay += batch.length;
    const settle = (error: unknown) => {
      if (this.#ended) return;
      this.#underWay -= 1;
      this.#exchangesUnderWay -= batch.length;
      if (error === undefined) {
        this.#exported += batch.length;
        this.#retryMs = 0;
      } else this.#retryOrLose(batch, error);
      if (this.#queue.length > 0 && this.#timer === undefined)
        this.#schedule(this.#retryMs || (this.#queue.length >= BATCH ? 0 : FLUSH_MS));
      this.#settled();
    };
    try {
      const spans = batch.flatMap((exchange) => spansOf(exchange, this.#origin));
      this.#traces.export(spans, ({ code, error }) => settle(code === 0 ? undefined : (error ?? 'unknown')));
    } catch (error) {
      settle(error);
    }
    if (this.#queue.length >= BATCH && this.#retryMs === 0) this.#schedule(0);
  }

  #retryOrLose(batch: FinishedExchange[], error: unknown): void {
    this.#retryMs = Math.min(Math.max(this.#retryMs * 2, RETRY_MIN_MS), RETRY_MAX_MS);
    const retry = !this.#stopping && RETRYABLE.has((error as { code?: unknown }).code);
    const kept = retry ? batch.slice(0, QUEUE_MAX - this.#queue.length) : [];
    this.#queue = [...kept, ...this.#queue];
    this.#lost += batch.length - kept.length;
    this.#complain(error);
  }

  #complain(error: unknown): void {
    const now = this.#options.now();
    if (now - this.#loggedAt < LOG_MS) return;
    this.#loggedAt = now;
    this.#options.log.warn('telemetry cannot be exported', {
      endpoint: this.#options.endpoint,
      error,
      lostExchanges: this.#lost,
    });
  }

  async #drain(): Promise<void> {
    await this.#loading;
    while (this.#traces !== undefined && (this.#queue.length > 0 || this.#underWay > 0)) {
      const settled = new Promise<void>((resolve) => {
        this.#settled = resolve;
      });
      this.#send();
      await settled;
    }
  }

  #sendMetrics(): Promise<void> {
    const { metrics, now } = this.#options;
    return new Promise((resolve) => {
      if (metrics === undefined || this.#metrics === undefined) return resolve();
      const made = resourceMetricsOf(metrics, this.#origin, this.#since, now());
      this.#metrics.export(made, ({ code, error }) => {
        if (code !== 0) this.#complain(error);
        resolve();
      });
    });
  }
}

/** OTEL_SERVICE_NAME beats OTEL_RESOURCE_ATTRIBUTES beats our own (OpenTelemetry specification, Resource SDK). */
function resourceAttributes({ group, version, environment }: TracingOptions): Record<string, string> {
  const attributes: Record<string, string> = {
    'service.name': 'mcp-sidecar',
    'service.version': version,
    'mcp_sidecar.group': group,
    ...parseResourceAttributes(environment.OTEL_RESOURCE_ATTRIBUTES ?? ''),
  };
  const name = environment.OTEL_SERVICE_NAME;
  if (name !== undefined && name !== '') attributes['service.name'] = name;
  return attributes;
}

/** `key=value,key=value`, percent-encoded. One broken pair makes the whole text ignored, as the specification asks. */
function parseResourceAttributes(text: string): Record<string, string> {
  try {
    const pairs = text.split(',').filter((pair) => pair.trim() !== '');
    return Object.fromEntries(
      pairs.map((pair) => {
        const [key, value, ...rest] = pair.split('=');
        if (value === undefined || rest.length > 0) throw new URIError(pair);
        return [decodeURIComponent(key!.trim()), decodeURIComponent(value.trim())];
      }),
    );
  } catch {
    return {};
  }
}
