import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { FinishedExchange } from '../../sidecar/telemetry/finished.ts';
import { createLogger } from '../../sidecar/telemetry/log.ts';
import { Metrics } from '../../sidecar/telemetry/metrics.ts';
import { Tracing, type TracingOptions } from '../../sidecar/telemetry/tracing.ts';
import { finishedExchange } from '../support/finished-exchange.ts';
import { type OtlpReceiver, startOtlpReceiver } from '../support/otlp-receiver.ts';

const UNAVAILABLE = 14;
const INVALID_ARGUMENT = 3;

async function receiving(context: TestContext): Promise<OtlpReceiver> {
  const receiver = await startOtlpReceiver();
  context.after(() => receiver.close());
  return receiver;
}

function exporting(context: TestContext, endpoint: string, changes: Partial<TracingOptions> = {}) {
  const logged: string[] = [];
  const tracing = new Tracing({
    endpoint,
    group: 'support-agents',
    version: '1.2.3',
    metrics: undefined,
    log: createLogger({ level: 'info', json: true, write: (line) => logged.push(line), now: Date.now }),
    now: Date.now,
    environment: {},
    ...changes,
  });
  context.after(() => tracing.shutdown(100));
  return { tracing, logged };
}

/** What the collector has of these exchanges. */
async function exported(context: TestContext, ...exchanges: FinishedExchange[]) {
  const receiver = await receiving(context);
  const { tracing } = exporting(context, receiver.url);
  for (const exchange of exchanges) tracing.finished(exchange);
  await tracing.start();
  await tracing.shutdown(5_000);
  return receiver.spans;
}

test('an exchange is a SERVER span with a CLIENT span below it, with the ids and times of the exchange', async (context) => {
  const exchange = finishedExchange({ parentSpanId: 'aaaaaaaaaaaaaaaa', traceState: 'vendor=1' });
  const [server, client, ...more] = await exported(context, exchange);
  assert.ok(server !== undefined && client !== undefined);
  assert.equal(more.length, 0);

  assert.equal(server.name, 'tools/call list_issues');
  assert.equal(server.kind, 'SERVER');
  assert.deepEqual([server.traceId, server.spanId], [exchange.traceId, exchange.serverSpanId]);
  assert.deepEqual([server.parentSpanId, server.parentIsRemote], ['aaaaaaaaaaaaaaaa', true]);
  assert.equal(server.traceState, 'vendor=1');
  assert.equal(server.startNanos, 1795176000250000000n);
  assert.equal(server.endNanos, 1795176000264500000n);
  assert.equal(server.status, 'UNSET');
  assert.deepEqual(server.attributes, {
    'mcp.method.name': 'tools/call',
    'gen_ai.tool.name': 'list_issues',
    'gen_ai.operation.name': 'execute_tool',
    'jsonrpc.request.id': '7',
    'mcp.protocol.version': '2025-11-25',
    'mcp.session.id': '0123456789abcdef',
    'mcp_sidecar.decision': 'allow',
    'mcp_sidecar.group': 'support-agents',
    'mcp_sidecar.rule': 'reader',
    'mcp_sidecar.agent': 'triage',
    'mcp_sidecar.server': 'github',
  });

  assert.equal(client.name, 'tools/call list_issues');
  assert.equal(client.kind, 'CLIENT');
  assert.deepEqual([client.traceId, client.spanId], [exchange.traceId, exchange.clientSpanId]);
  assert.deepEqual([client.parentSpanId, client.parentIsRemote], [exchange.serverSpanId, false]);
  assert.equal(client.traceState, 'vendor=1');
  assert.equal(client.endNanos - client.startNanos, 11250000n);
  assert.deepEqual(client.attributes, {
    'mcp.method.name': 'tools/call',
    'gen_ai.tool.name': 'list_issues',
    'gen_ai.operation.name': 'execute_tool',
    'jsonrpc.request.id': '7',
    'mcp.protocol.version': '2025-11-25',
    'network.transport': 'tcp',
    'network.protocol.name': 'http',
    'server.address': 'mcp.github.example',
    'server.port': 443,
  });
  assert.equal(server.scope, 'mcp-sidecar');
  assert.deepEqual(server.resource, {
    'service.name': 'mcp-sidecar',
    'service.version': '1.2.3',
    'mcp_sidecar.group': 'support-agents',
  });
});

const refused = { upstream: undefined, errorId: 'e1', decision: 'deny' } as const;
const upstream = finishedExchange().upstream!;

const CASES: {
  readonly what: string;
  readonly exchange: Partial<FinishedExchange>;
  readonly names: readonly string[];
  /** Attributes of the SERVER and of the CLIENT span; `undefined`: must be absent. */
  readonly server?: Record<string, unknown>;
  readonly client?: Record<string, unknown>;
  readonly statuses: readonly string[];
}[] = [
  {
    what: 'a hidden tool',
    exchange: { ...refused, rpcCode: -32602 },
    names: ['tools/call list_issues'],
    server: {
      'error.type': '-32602',
      'rpc.response.status_code': '-32602',
      'mcp_sidecar.decision': 'deny',
      'mcp_sidecar.error_id': 'e1',
    },
    statuses: ['ERROR'],
  },
  {
    what: 'a body that is no JSON',
    exchange: {
      ...refused,
      method: undefined,
      tool: undefined,
      era: undefined,
      requestId: undefined,
      httpStatus: 400,
      rpcCode: -32700,
    },
    names: ['unparsed'],
    server: {
      'mcp.method.name': undefined,
      'gen_ai.operation.name': undefined,
      'jsonrpc.request.id': undefined,
      'error.type': '-32700',
    },
    statuses: ['ERROR'],
  },
  {
    what: 'a Host that is not allowed',
    exchange: { ...refused, method: undefined, tool: undefined, httpStatus: 403 },
    names: ['unparsed'],
    server: { 'error.type': '403', 'rpc.response.status_code': undefined },
    statuses: ['ERROR'],
  },
  {
    what: 'a tool that failed by its own word',
    exchange: { toolError: true },
    names: ['tools/call list_issues', 'tools/call list_issues'],
    server: { 'error.type': 'tool_error', 'rpc.response.status_code': undefined },
    client: { 'error.type': 'tool_error' },
    statuses: ['ERROR', 'ERROR'],
  },
  {
    what: 'an error of the server',
    exchange: { rpcCode: -32000 },
    names: ['tools/call list_issues', 'tools/call list_issues'],
    server: { 'error.type': '-32000', 'rpc.response.status_code': '-32000' },
    client: { 'error.type': '-32000', 'rpc.response.status_code': '-32000' },
    statuses: ['ERROR', 'ERROR'],
  },
  {
    what: 'a refusal of ours after a good answer',
    exchange: { rpcCode: -31503, errorId: 'e2', decision: 'error', httpStatus: 503 },
    names: ['tools/call list_issues', 'tools/call list_issues'],
    server: { 'error.type': '-31503' },
    client: { 'error.type': undefined, 'rpc.response.status_code': undefined },
    statuses: ['ERROR', 'UNSET'],
  },
  {
    what: 'a server that did not answer in time',
    exchange: {
      rpcCode: -31504,
      errorId: 'e3',
      decision: 'error',
      httpStatus: 504,
      upstream: { ...upstream, status: undefined, attempts: 3 },
    },
    names: ['tools/call list_issues', 'tools/call list_issues'],
    client: { 'error.type': '-31504', 'rpc.response.status_code': undefined, 'http.request.resend_count': 2 },
    statuses: ['ERROR', 'ERROR'],
  },
  {
    what: 'a modern request: no session, whatever the exchange says',
    exchange: { era: 'modern', protocolVersion: '2026-07-28' },
    names: ['tools/call list_issues', 'tools/call list_issues'],
    server: { 'mcp.session.id': undefined, 'mcp.protocol.version': '2026-07-28' },
    client: { 'mcp.session.id': undefined },
    statuses: ['UNSET', 'UNSET'],
  },
  {
    what: 'a child process',
    exchange: { upstream: { ...upstream, transport: 'pipe', address: 'npx', port: undefined } },
    names: ['tools/call list_issues', 'tools/call list_issues'],
    client: {
      'network.transport': 'pipe',
      'network.protocol.name': undefined,
      'server.address': undefined,
      'server.port': undefined,
    },
    statuses: ['UNSET', 'UNSET'],
  },
  {
    what: 'a prompt',
    exchange: { method: 'prompts/get', tool: undefined, prompt: 'summary', cached: true, upstream: undefined },
    names: ['prompts/get summary'],
    server: { 'gen_ai.prompt.name': 'summary', 'gen_ai.operation.name': undefined, 'mcp_sidecar.cached': true },
    statuses: ['UNSET'],
  },
  {
    what: 'a resource: its URI is an attribute and not in the name',
    exchange: { method: 'resources/read', tool: undefined, resource: 'file:///etc/hosts', upstream: undefined },
    names: ['resources/read'],
    server: { 'mcp.resource.uri': 'file:///etc/hosts' },
    statuses: ['UNSET'],
  },
  {
    what: 'a method that an agent made up',
    exchange: {
      method: `x${'y'.repeat(5000)}`,
      tool: undefined,
      upstream: undefined,
      rpcCode: -32601,
      httpStatus: 404,
    },
    names: ['_other'],
    server: { 'mcp.method.name': `x${'y'.repeat(255)}` },
    statuses: ['ERROR'],
  },
];

test('attributes and status, case by case', async (context) => {
  // One trace each, to tell them apart.
  const traceIds = CASES.map((_, index) => String(index + 1).padStart(32, '0'));
  const spans = await exported(
    context,
    ...CASES.map(({ exchange }, index) => finishedExchange({ ...exchange, traceId: traceIds[index]! })),
  );
  for (const [index, { what, names, server, client, statuses }] of CASES.entries()) {
    await context.test(what, () => {
      const own = spans.filter(({ traceId }) => traceId === traceIds[index]);
      assert.deepEqual(
        own.map(({ name }) => name),
        names,
      );
      assert.deepEqual(
        own.map(({ status }) => status),
        statuses,
      );
      for (const [span, expected] of [
        [own[0], server],
        [own[1], client],
      ] as const) {
        for (const [key, value] of Object.entries(expected ?? {})) assert.equal(span?.attributes[key], value, key);
      }
    });
  }
});

test('only what is sampled is exported', async (context) => {
  const spans = await exported(
    context,
    finishedExchange({ sampled: false }),
    finishedExchange({ upstream: undefined }),
  );
  assert.equal(spans.length, 1);
});

test('many exchanges arrive without anybody asking', async (context) => {
  const receiver = await receiving(context);
  const { tracing } = exporting(context, receiver.url);
  await tracing.start();
  for (let id = 0; id < 1000; id++) tracing.finished(finishedExchange({ requestId: String(id) }));
  const spans = await receiver.whenSpans(2000);
  assert.equal(new Set(spans.map(({ attributes }) => attributes['jsonrpc.request.id'])).size, 1000);
  assert.ok(receiver.exports >= 1000 / 64, 'in batches that do not hold up the event loop');
});

test('the resource is what the environment says', async (context) => {
  const receiver = await receiving(context);
  const { tracing } = exporting(context, receiver.url, {
    environment: {
      OTEL_SERVICE_NAME: 'triage-sidecar',
      OTEL_RESOURCE_ATTRIBUTES: 'service.name=no,deployment.environment.name=test%20one, k8s.pod.name = p-1',
    },
  });
  tracing.finished(finishedExchange());
  await tracing.start();
  await tracing.shutdown(5_000);
  assert.deepEqual(receiver.spans[0]?.resource, {
    'service.name': 'triage-sidecar',
    'service.version': '1.2.3',
    'mcp_sidecar.group': 'support-agents',
    'deployment.environment.name': 'test one',
    'k8s.pod.name': 'p-1',
  });
});

test('what a collector refuses for now is sent again, and what it refuses for good is lost and counted', async (context) => {
  const receiver = await receiving(context);
  const { tracing, logged } = exporting(context, receiver.url);
  receiver.answer = UNAVAILABLE;
  tracing.finished(finishedExchange());
  await tracing.start();
  for (let turn = 0; receiver.exports === 0 && turn < 1_000; turn++) await delay(5);
  receiver.answer = 0;
  await receiver.whenSpans(2);
  receiver.answer = INVALID_ARGUMENT;
  tracing.finished(finishedExchange());
  await tracing.shutdown(5_000);
  assert.deepEqual(tracing.figures(), { exportedTotal: 1, lostTotal: 1, backlog: 0 });
  assert.equal(logged.length, 1, 'once a minute');
  assert.match(logged[0]!, /telemetry cannot be exported/);
});

test('a collector that is not there costs spans, and nothing else', async (context) => {
  const receiver = await startOtlpReceiver();
  await receiver.close();
  const { tracing, logged } = exporting(context, receiver.url);
  await tracing.start();
  for (let id = 0; id < 10_000; id++) tracing.finished(finishedExchange());
  assert.ok(tracing.figures().backlog <= 4096);
  const startedAt = performance.now();
  await tracing.shutdown(500);
  assert.ok(performance.now() - startedAt < 2_000);
  assert.deepEqual(tracing.figures(), { exportedTotal: 0, lostTotal: 10_000, backlog: 0 });
  assert.equal(logged.length, 1);
});

test('what a collector has not answered when the grace is over is lost, also when it answers later', async (context) => {
  // Takes connections and says nothing.
  const sockets: Socket[] = [];
  const silent = createServer((socket) => sockets.push(socket));
  context.after(() => {
    for (const socket of sockets) socket.destroy();
    silent.close();
  });
  silent.listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const { tracing } = exporting(context, `http://127.0.0.1:${(silent.address() as AddressInfo).port}`);
  for (let id = 0; id < 200; id++) tracing.finished(finishedExchange());
  await tracing.start();
  await tracing.shutdown(200);
  const lost = { exportedTotal: 0, lostTotal: 200, backlog: 0 };
  assert.deepEqual(tracing.figures(), lost);
  for (const socket of sockets) socket.destroy();
  await delay(50);
  assert.deepEqual(tracing.figures(), lost);
  await tracing.shutdown(0);
  assert.deepEqual(tracing.figures(), lost);
});

test('what waits is small, whatever the arguments and names were', (context) => {
  const { tracing } = exporting(context, 'http://127.0.0.1:1');
  setFlagsFromString('--expose-gc');
  const heapAfterCollection = () => {
    runInNewContext('gc')();
    return process.memoryUsage().heapUsed;
  };
  const before = heapAfterCollection();
  for (let id = 0; id < 20; id++) {
    const text = () => JSON.parse(`"${id}${'z'.repeat(1_000_000)}"`) as string;
    tracing.finished(finishedExchange({ argumentsJson: text(), tool: text() }));
  }
  const grown = heapAfterCollection() - before;
  assert.ok(grown < 2_000_000, `${grown} bytes`);
  assert.equal(tracing.figures().backlog, 20);
});

test('the histograms go out too, where that is wanted', async (context) => {
  const receiver = await receiving(context);
  const metrics = new Metrics('1.2.3');
  const { tracing } = exporting(context, receiver.url, { metrics });
  await tracing.start();
  metrics.finished(finishedExchange());
  metrics.finished(finishedExchange({ durationMs: 400_000 }));
  await tracing.shutdown(5_000);
  const durations = receiver.histograms.get('mcp.server.operation.duration');
  assert.ok(receiver.histograms.has('mcp.client.operation.duration'));
  assert.equal(durations?.unit, 's');
  assert.deepEqual(durations.bounds, [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300]);
  assert.deepEqual(durations.points, [
    {
      attributes: {
        'mcp.method.name': 'tools/call',
        'gen_ai.tool.name': 'list_issues',
        'mcp_sidecar.server': 'github',
        'mcp_sidecar.agent': 'triage',
      },
      count: 2,
      sum: 400.0145,
      counts: [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    },
  ]);
});

test('nothing of the SDK or the exporters is loaded before start', async () => {
  const program = `
    import { registerHooks } from 'node:module';
    const loaded = [];
    registerHooks({ load(url, context, next) { if (/opentelemetry|grpc/.test(url)) loaded.push(url); return next(url, context); } });
    const { Tracing } = await import('./sidecar/telemetry/tracing.ts');
    const { Metrics } = await import('./sidecar/telemetry/metrics.ts');
    const log = { error() {}, warn() {}, info() {}, debug() {} };
    const tracing = new Tracing({ endpoint: 'http://127.0.0.1:1', group: 'g', version: '0', metrics: new Metrics('0'), log, now: Date.now, environment: {} });
    const before = loaded.length;
    await tracing.start();
    console.log(JSON.stringify({ before, after: loaded.length, sdk: loaded.filter((url) => url.includes('sdk-node')).length }));
    process.exit();
  `;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', program], {
    cwd: new URL('../..', import.meta.url),
  });
  const { before, after } = JSON.parse(stdout);
  assert.equal(before, 0);
  assert.ok(after > 10, 'this test can fail');
});
