/**
 * Traces of real calls through the sidecar, as a collector gets them over OTLP: who is whose parent, what the spans
 * say, and that nothing of it is loaded when it is off. (The spans by themselves: telemetry-tracing.test.ts.)
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { type OtlpReceiver, type ReceivedSpan, startOtlpReceiver } from '../support/otlp-receiver.ts';
import { ask, askLegacy, askModern, type RawAnswer, toolCall } from '../support/raw-http.ts';
import { type ScriptedUpstream, sendJson, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { ALLOW_ALL, startTestSidecar, type TestSidecar } from '../support/sidecar.ts';
import { startSidecar } from '../support/sidecar-process.ts';
import { until } from '../support/until.ts';

let upstream: ScriptedUpstream;
before(async () => {
  upstream = await startScriptedUpstream();
  upstream.answer = (seen, response) => {
    const { id, method, params } = seen.json;
    const headers = method === 'initialize' ? { 'mcp-session-id': 'inner' } : {};
    const error = params?.name === 'erring' ? { code: -32050, message: 'canary-message' } : undefined;
    const result = { content: [], ...(params?.name === 'failing' ? { isError: true } : undefined) };
    sendJson(response, { jsonrpc: '2.0', id, ...(error === undefined ? { result } : { error }) }, 200, headers);
  };
});
after(() => upstream.close());

const hex = (bytes: number) => randomBytes(bytes).toString('hex');

// Spans come in batches, one a second: each test looks for those of its own trace.
describe('with telemetry', { concurrency: true }, () => {
  let receiver: OtlpReceiver;
  let sidecar: TestSidecar;
  before(async () => {
    receiver = await startOtlpReceiver();
    const gone = await startScriptedUpstream();
    await gone.close();
    sidecar = await startTestSidecar(`
group: support
servers: { main: { url: "${upstream.url}" }, dead: { url: "${gone.url}" } }
telemetry: { otlp: "${receiver.url}" }
policy:
  version: 1
  default: allow
  rules:
    - { name: never, deny: [ { tools: [hidden] } ] }
    - { name: small only, deny: [ { tools: [query] } ], when: size(args.text) > 3 }
  quotas: [ { name: none, key: [agent], calls: 1/h, when: 'tool.name == "limited"' } ]
`);
  });
  after(async () => {
    await sidecar.close();
    await receiver.close();
  });
  const MAIN = '/servers/main/mcp';

  /** A trace of an agent's own. */
  function newTrace(flags = '01') {
    const [traceId, parentId] = [hex(16), hex(8)];
    return { traceId, parentId, traceparent: `00-${traceId}-${parentId}-${flags}` };
  }

  async function spansOf(traceId: string, count: number): Promise<readonly ReceivedSpan[]> {
    const found = () => receiver.spans.filter((span) => span.traceId === traceId);
    await until(() => found().length >= count, `${count} spans`);
    assert.equal(found().length, count);
    return found();
  }

  /** The spans of one exchange: with `count` 1 the server was not asked. */
  async function exchangeOf(traceId: string, count: 1 | 2) {
    const spans = await spansOf(traceId, count);
    const server = spans.find(({ kind }) => kind === 'SERVER')!;
    const client = spans.find(({ kind }) => kind === 'CLIENT');
    assert.equal(client === undefined, count === 1);
    return { server, client };
  }

  /** What the server got in `_meta` with the call of this tool. */
  const metaOf = (tool: string) => upstream.seen.find(({ json }) => json.params?.name === tool)!.json.params._meta;

  for (const era of ['legacy', 'modern'] as const) {
    test(`an agent’s trace goes on through both spans to the server (${era})`, async () => {
      const { traceId, parentId, traceparent } = newTrace();
      const ask = era === 'legacy' ? askLegacy : askModern;
      const { params, ...message } = toolCall(`continued-${era}`, { text: 'canary-argument' }, 'id-1');
      const _meta = { traceparent, tracestate: 'vendor=1', baggage: 'user=7' };
      await ask(sidecar.base, { ...message, params: { ...params, _meta } }, {}, MAIN);
      const { server, client } = await exchangeOf(traceId, 2);

      assert.deepEqual([server.parentSpanId, server.parentIsRemote], [parentId, true]);
      assert.deepEqual([client!.parentSpanId, client!.parentIsRemote], [server.spanId, false]);
      const injected = metaOf(`continued-${era}`);
      assert.equal(injected.traceparent, `00-${traceId}-${client!.spanId}-01`);
      assert.equal(injected.tracestate, 'vendor=1');
      assert.equal(injected.baggage, 'user=7');
      assert.equal(server.traceState, 'vendor=1');

      const protocol = era === 'legacy' ? '2025-11-25' : '2026-07-28';
      const common = {
        'mcp.method.name': 'tools/call',
        'gen_ai.tool.name': `continued-${era}`,
        'gen_ai.operation.name': 'execute_tool',
        'jsonrpc.request.id': 'id-1',
        'mcp.protocol.version': protocol,
      };
      assert.deepEqual([server.name, client!.name], [`tools/call continued-${era}`, `tools/call continued-${era}`]);
      assert.deepEqual(server.attributes, {
        ...common,
        'mcp_sidecar.decision': 'allow',
        'mcp_sidecar.group': 'support',
        'mcp_sidecar.agent': 'support',
        'mcp_sidecar.server': 'main',
      });
      assert.deepEqual(client!.attributes, {
        ...common,
        'network.transport': 'tcp',
        'network.protocol.name': 'http',
        'server.address': '127.0.0.1',
        'server.port': Number(new URL(upstream.url).port),
      });
      assert.deepEqual([server.status, client!.status], ['UNSET', 'UNSET']);
      assert.ok(client!.startNanos >= server.startNanos && client!.endNanos <= server.endNanos);
      assert.ok(server.endNanos - server.startNanos > 0n && server.endNanos - server.startNanos < 10_000_000_000n);
      assert.equal(server.resource['service.name'], 'mcp-sidecar');

      const line = (await sidecar.auditLines()).find((one) => one.tool === `continued-${era}`);
      assert.equal(line.traceId, traceId);
    });
  }

  test('a call without a trace begins one, whose ids are those that the server gets', async () => {
    await askLegacy(sidecar.base, toolCall('begun'), {}, MAIN);
    const [, traceId = '', clientId] = /^00-(.{32})-(.{16})-01$/.exec(metaOf('begun').traceparent) ?? [];
    const { server, client } = await exchangeOf(traceId, 2);
    assert.equal(server.parentSpanId, '');
    assert.equal(client!.spanId, clientId);
  });

  test('a trace that its agent does not record is not recorded here either', async () => {
    const [silent, loud] = [newTrace('00'), newTrace()];
    await askLegacy(sidecar.base, toolCall('silent'), { traceparent: silent.traceparent }, MAIN);
    assert.match(metaOf('silent').traceparent, new RegExp(`^00-${silent.traceId}-.{16}-00$`));
    await askLegacy(sidecar.base, toolCall('loud'), { traceparent: loud.traceparent }, MAIN);
    await spansOf(loud.traceId, 2);
    await spansOf(silent.traceId, 0);
  });

  test('a session is in the spans of the 2025 eras by its hash, and never in those of 2026-07-28', async () => {
    const [legacy, modern] = [newTrace(), newTrace()];
    const opened = await askLegacy(sidecar.base, { jsonrpc: '2.0', id: 1, method: 'initialize', params: {} }, {}, MAIN);
    const session = { 'mcp-session-id': String(opened.headers['mcp-session-id']) };
    await askLegacy(sidecar.base, toolCall('any'), { ...session, traceparent: legacy.traceparent }, MAIN);
    await askModern(sidecar.base, toolCall('any'), { ...session, traceparent: modern.traceparent }, MAIN);
    const { server } = await exchangeOf(legacy.traceId, 2);
    assert.match(String(server.attributes['mcp.session.id']), /^[0-9a-f]{16}$/);
    for (const { attributes } of await spansOf(modern.traceId, 2))
      assert.equal(attributes['mcp.session.id'], undefined);
    const everything = JSON.stringify(receiver.spans.map((span) => [span.attributes, span.name]));
    assert.ok(!everything.includes(session['mcp-session-id']));
  });

  interface Failure {
    readonly what: string;
    readonly send: (headers: { readonly traceparent: string }) => Promise<RawAnswer>;
    readonly server: Record<string, unknown>;
    /** `undefined`: the server was not asked. */
    readonly client: Record<string, unknown> | undefined;
  }
  const call =
    (name: string, server = MAIN, args = {}): Failure['send'] =>
    (headers) =>
      askLegacy(sidecar.base, toolCall(name, args), { ...headers }, server);
  const failures: readonly Failure[] = [
    {
      what: 'a tool that failed',
      send: call('failing'),
      server: { 'error.type': 'tool_error', 'mcp_sidecar.decision': 'allow' },
      client: { 'error.type': 'tool_error' },
    },
    {
      what: 'an error of the server',
      send: call('erring'),
      server: { 'error.type': '-32050', 'rpc.response.status_code': '-32050' },
      client: { 'error.type': '-32050', 'rpc.response.status_code': '-32050' },
    },
    {
      what: 'a hidden tool',
      send: call('hidden'),
      server: { 'error.type': '-32602', 'mcp_sidecar.decision': 'deny', 'mcp_sidecar.rule': 'never' },
      client: undefined,
    },
    {
      what: 'arguments that a rule refuses',
      send: call('query', MAIN, { text: 'canary-argument' }),
      server: { 'error.type': '-31403', 'mcp_sidecar.rule': 'small only' },
      client: undefined,
    },
    {
      what: 'a server that is dead',
      send: call('any', '/servers/dead/mcp'),
      server: { 'error.type': '-31503', 'mcp_sidecar.decision': 'error', 'mcp_sidecar.server': 'dead' },
      client: { 'error.type': '-31503', 'rpc.response.status_code': undefined },
    },
  ];
  for (const { what, send, server, client } of failures) {
    test(`${what} is an error, and the spans say which and no more`, async () => {
      const { traceId, traceparent } = newTrace();
      const reply = await send({ traceparent });
      const found = await exchangeOf(traceId, client === undefined ? 1 : 2);
      for (const [span, expected] of [
        [found.server, server],
        [found.client, client],
      ] as const) {
        if (span === undefined || expected === undefined) continue;
        assert.equal(span.status, 'ERROR');
        for (const [name, value] of Object.entries(expected)) assert.equal(span.attributes[name], value, name);
        assert.doesNotMatch(JSON.stringify(span.attributes), /canary/);
      }
      const errorId = reply.json?.error?.data?.errorId;
      if (errorId !== undefined) assert.equal(found.server.attributes['mcp_sidecar.error_id'], errorId);
    });
  }

  test('a body that cannot be read has a trace of its own, and a span that says so', async () => {
    await ask(sidecar.base, { path: MAIN, body: '{' });
    await until(() => receiver.spans.some(({ name }) => name === 'unparsed'), 'the span');
    const span = receiver.spans.find(({ name }) => name === 'unparsed')!;
    assert.deepEqual([span.kind, span.status, span.attributes['error.type']], ['SERVER', 'ERROR', '-32700']);
    assert.equal(span.attributes['mcp.method.name'], undefined);
  });

  test('a quota that is spent is an error of ours: one span', async () => {
    const [paid, spent] = [newTrace(), newTrace()];
    for (const { traceparent } of [paid, spent])
      await askLegacy(sidecar.base, toolCall('limited'), { traceparent }, MAIN);
    await exchangeOf(paid.traceId, 2);
    const { server } = await exchangeOf(spent.traceId, 1);
    assert.equal(server.attributes['error.type'], '-31429');
    assert.equal(server.attributes['mcp_sidecar.decision'], 'limit');
    assert.match(
      await metricsText(),
      /^mcp_sidecar_refusals_total\{reason="quota",server="main",agent="support"\} 1$/m,
    );
  });

  test('a batch is a pair of spans for each of its calls', async () => {
    const { traceId, traceparent } = newTrace();
    const batch = [toolCall('one', {}, 1), toolCall('two', {}, 2)];
    await askLegacy(sidecar.base, batch, { 'mcp-protocol-version': '2025-03-26', traceparent }, MAIN);
    const spans = await spansOf(traceId, 4);
    assert.deepEqual(spans.map(({ kind, name }) => `${kind} ${name}`).sort(), [
      'CLIENT tools/call one',
      'CLIENT tools/call two',
      'SERVER tools/call one',
      'SERVER tools/call two',
    ]);
    const serverOf = (name: string) => spans.find((span) => span.kind === 'SERVER' && span.name === name)!;
    for (const { kind, name, parentSpanId } of spans)
      if (kind === 'CLIENT') assert.equal(parentSpanId, serverOf(name).spanId);
  });

  test('the calls are in /metrics', async () => {
    await askLegacy(sidecar.base, toolCall('counted'), {}, MAIN);
    const text = await metricsText();
    const labels = 'mcp_method_name="tools/call",gen_ai_tool_name="counted",server="main",agent="support"';
    for (const name of ['mcp_server_operation_duration_seconds', 'mcp_client_operation_duration_seconds'])
      assert.ok(text.includes(`${name}_count{${labels}} 1`), name);
    const total = 'mcp_sidecar_requests_total{server="main",method="tools/call",decision="allow",status="200"}';
    assert.ok(text.includes(`\n${total} `));
  });

  async function metricsText(): Promise<string> {
    return (await fetch(`${sidecar.admin}/metrics`)).text();
  }
});

test('a collector that is not there holds nothing up', async (context) => {
  const sidecar = await startTestSidecar(
    `servers: { main: { url: "${upstream.url}" } }\ntelemetry: { otlp: "http://127.0.0.1:9" }\n${ALLOW_ALL}`,
  );
  context.after(() => sidecar.close());
  const started = performance.now();
  for (let index = 0; index < 20; index += 1)
    assert.equal((await askLegacy(sidecar.base, toolCall('any', {}, index))).status, 200);
  assert.ok(performance.now() - started < 5_000);
});

test('without telemetry nothing of OpenTelemetry is loaded, and an agent’s trace passes as it is', async (context) => {
  const noteLoads = `
    import { registerHooks } from 'node:module';
    const loaded = [];
    registerHooks({ load(url, context, next) { if (/opentelemetry|grpc/.test(url)) loaded.push(url); return next(url, context); } });
    process.on('exit', () => process.stderr.write('loaded ' + JSON.stringify(loaded.length) + '\\n'));`;
  const env = { NODE_OPTIONS: `--import data:text/javascript,${encodeURIComponent(noteLoads)}` };
  const loadsOf = async (telemetry: string) => {
    const sidecar = await startSidecar(
      `listen: { mcp: 127.0.0.1:0, admin: 127.0.0.1:0 }\nservers: { main: { url: "${upstream.url}" } }\n${telemetry}\n${ALLOW_ALL}`,
      { env },
    );
    context.after(() => sidecar.stop());
    const traceparent = `00-${hex(16)}-${hex(8)}-01`;
    await askLegacy(sidecar.mcp[0].replace(/\/mcp$/, ''), toolCall('any'), { traceparent });
    const sent = upstream.seen.at(-1)!.json.params._meta.traceparent;
    await fetch(`${sidecar.admin}/metrics`);
    assert.equal(await sidecar.stop(), 0);
    return { loads: Number(/^loaded (\d+)$/m.exec(sidecar.stderr())?.[1]), isUnchanged: sent === traceparent };
  };
  assert.deepEqual(await loadsOf(''), { loads: 0, isUnchanged: true });
  const on = await loadsOf('telemetry: { otlp: "http://127.0.0.1:9" }');
  assert.ok(on.loads > 10 && !on.isUnchanged, 'this test can fail');
});
