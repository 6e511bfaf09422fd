/** The histograms of metrics.ts in the form that the OTLP exporter takes. PURE; imports types only. */
import type { ValueType } from '@opentelemetry/api';
import type { OTLPMetricExporter } from '@opentelemetry/exporter-metrics-otlp-grpc';
import { DURATION_ATTRIBUTES, type Metrics } from './metrics.ts';
import type { Histogram } from './registry.ts';
import { type SpanOrigin, toHrTime } from './spans.ts';

export type ResourceMetrics = Parameters<OTLPMetricExporter['export']>[0];
type Metric = ResourceMetrics['scopeMetrics'][number]['metrics'][number];

// The values of the SDK's enumerations, which are not loaded here.
const DOUBLE: ValueType.DOUBLE = 1;
const CUMULATIVE = 1;
const HISTOGRAM = 0;

/** `since`, `now`: milliseconds since the epoch. */
export function resourceMetricsOf(metrics: Metrics, origin: SpanOrigin, since: number, now: number): ResourceMetrics {
  const made = [
    metricOf('mcp.server.operation.duration', 'Requests of agents.', metrics.serverDurations, since, now),
    metricOf('mcp.client.operation.duration', 'Requests to servers.', metrics.clientDurations, since, now),
  ];
  return { resource: origin.resource, scopeMetrics: [{ scope: origin.scope, metrics: made }] };
}

function metricOf(name: string, description: string, histogram: Histogram, since: number, now: number): Metric {
  return {
    descriptor: { name, description, unit: 's', valueType: DOUBLE },
    aggregationTemporality: CUMULATIVE,
    dataPointType: HISTOGRAM,
    dataPoints: Array.from(histogram.series.values(), ({ labels, counts, sum }) => ({
      startTime: toHrTime(since),
      endTime: toHrTime(now),
      attributes: Object.fromEntries(
        labels.flatMap((label, index) => (label === '' ? [] : [[DURATION_ATTRIBUTES[index]!, label]])),
      ),
      value: {
        buckets: { boundaries: [...histogram.bounds], counts: [...counts] },
        count: counts.reduce((total, one) => total + one, 0),
        sum,
      },
    })),
  };
}
