/**
 * Spans are made directly, without the SDK's tracer (sidecar/telemetry/spans.ts says why). Here the SDK makes the same
 * span, both are sent over OTLP, and a collector must not be able to tell which is which.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-grpc';
import { NodeSDK } from '@opentelemetry/sdk-node';
import { Tracing } from '../../sidecar/telemetry/tracing.ts';
import { finishedExchange } from '../support/finished-exchange.ts';
import { startOtlpReceiver } from '../support/otlp-receiver.ts';

test('what the sidecar sends is what the SDK would send', async () => {
  const receiver = await startOtlpReceiver();
  const exchange = finishedExchange({ upstream: undefined, toolError: true });
  const quiet = { error() {}, warn() {}, info() {}, debug() {} };
  const tracing = new Tracing({
    endpoint: receiver.url,
    group: exchange.group,
    version: '1.2.3',
    metrics: undefined,
    log: quiet,
    now: Date.now,
    environment: {},
  });
  const sdk = new NodeSDK({
    traceExporter: new OTLPTraceExporter({ url: receiver.url }),
    autoDetectResources: false,
    metricReaders: [],
    logRecordProcessors: [],
  });
  try {
    tracing.finished(exchange);
    await tracing.start();
    await tracing.shutdown(5_000);
    const [own] = await receiver.whenSpans(1);

    sdk.start();
    const span = trace.getTracer('mcp-sidecar', '1.2.3').startSpan(own!.name, {
      kind: SpanKind.SERVER,
      startTime: new Date(exchange.startedAt),
      attributes: own!.attributes,
      root: true,
    });
    span.setStatus({ code: SpanStatusCode.ERROR });
    span.end(new Date(exchange.startedAt + exchange.durationMs));
    await sdk.shutdown();
    const [, reference] = await receiver.whenSpans(2);

    const { traceId: _t, spanId: _s, resource: _r, endNanos: ownEnd, ...ownRest } = own!;
    const { traceId, spanId, resource: _q, endNanos: referenceEnd, ...referenceRest } = reference!;
    assert.deepEqual(ownRest, referenceRest);
    assert.equal(own!.traceId.length, traceId.length);
    assert.equal(own!.spanId.length, spanId.length);
    // A Date has no fraction of a millisecond.
    assert.equal(ownEnd / 1_000_000n, referenceEnd / 1_000_000n);
  } finally {
    await receiver.close();
  }
});
