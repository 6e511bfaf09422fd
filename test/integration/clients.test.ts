/**
 * The official client, in each of its modes, does everything that MCP has through the sidecar, and sees the same as
 * without it: server-everything over stdio, and a server of both eras over HTTP.
 */
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Client, type ClientOptions, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { type ConformanceServer, startConformanceServer } from '../conformance/server.ts';
import { ALLOW_ALL, startTestSidecar, type TestSidecar } from '../support/sidecar.ts';
import { until } from '../support/until.ts';

const require = createRequire(import.meta.url);
const EVERYTHING = [
  process.execPath,
  join(dirname(require.resolve('@modelcontextprotocol/server-everything/package.json')), 'dist', 'index.js'),
  'stdio',
] as const;

type Mode = NonNullable<NonNullable<ClientOptions['versionNegotiation']>['mode']>;

let fixture: ConformanceServer;
let sidecar: TestSidecar;
before(async () => {
  fixture = await startConformanceServer();
  sidecar = await startTestSidecar(`
servers:
  everything: { command: ${JSON.stringify(EVERYTHING)} }
  fixture: { url: "${fixture.url}" }
${ALLOW_ALL}`);
});
after(async () => {
  await sidecar.close();
  await fixture.close();
});

/** What a client was told without having asked, and how it answers when it is asked. */
function createClient(mode: Mode) {
  const told: { readonly method: string; readonly params: unknown }[] = [];
  const client = new Client(
    { name: 'test', version: '1.0.0' },
    {
      versionNegotiation: { mode },
      capabilities: { sampling: {}, elicitation: { form: {} }, roots: { listChanged: true } },
    },
  );
  client.setRequestHandler('sampling/createMessage', ({ params }) => ({
    role: 'assistant',
    model: 'test-model',
    content: { type: 'text', text: `asked with ${params.messages.length} messages` },
  }));
  client.setRequestHandler('elicitation/create', () => ({
    action: 'accept',
    content: { name: 'Ada', username: 'ada', email: 'ada@example.com' },
  }));
  client.setRequestHandler('roots/list', () => ({ roots: [{ uri: 'file:///work', name: 'work' }] }));
  for (const method of [
    'notifications/message',
    'notifications/resources/updated',
    'notifications/tools/list_changed',
  ] as const) {
    client.setNotificationHandler(method, ({ params }) => void told.push({ method, params }));
  }
  return { client, told };
}

type Driven = ReturnType<typeof createClient>;

async function overHttp(mode: Mode, url: string): Promise<Driven> {
  const driven = createClient(mode);
  await driven.client.connect(new StreamableHTTPClientTransport(new URL(url)));
  return driven;
}

const through = (server: string) => `${sidecar.base}/servers/${server}/mcp`;

async function outcomeOf(asked: Promise<unknown>): Promise<unknown> {
  try {
    return withoutMeta(await asked);
  } catch (error) {
    const { code, message } = error as { code?: unknown; message: string };
    return { code, message };
  }
}

/** Without what differs between any two runs. */
function withoutMeta(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value, (key, inner) => (key === '_meta' ? undefined : inner)));
}

/** Calls a tool, and what progress it told of but for the last step: where that comes together with the answer, the client drops it. */
async function withProgress(client: Client, name: string, args: Record<string, unknown>): Promise<unknown> {
  const progress: unknown[] = [];
  const result = await outcomeOf(
    client.callTool(
      { name, arguments: args },
      { onprogress: ({ progress: step, total }) => progress.push([step, total]) },
    ),
  );
  return { result, progress: progress.slice(0, 2) };
}

/** Aborts a call as soon as it has told of progress, and says how that ended. */
async function cancelled(client: Client, name: string, args: Record<string, unknown>): Promise<string> {
  const abort = new AbortController();
  const asked = client.callTool(
    { name, arguments: args },
    { signal: abort.signal, onprogress: () => abort.abort(new Error('no longer needed')) },
  );
  return asked.then(
    () => 'answered',
    () => 'cancelled',
  );
}

describe('server-everything over stdio', () => {
  /** Everything that a session of the 2025 eras can do, as a list of what came of it. */
  async function drive({ client, told }: Driven): Promise<Record<string, unknown>> {
    const call = (name: string, args: Record<string, unknown> = {}) =>
      outcomeOf(client.callTool({ name, arguments: args }));
    // The server adds tools when it has heard what the client can do.
    await until(
      async () => (await client.listTools()).tools.some(({ name }) => name === 'trigger-elicitation-request'),
      'all tools',
    );
    const uri = 'demo://resource/dynamic/text/1';
    const report: Record<string, unknown> = {
      server: client.getServerVersion(),
      capabilities: client.getServerCapabilities(),
      instructions: client.getInstructions()?.length,
      tools: await outcomeOf(client.listTools()),
      prompts: await outcomeOf(client.listPrompts()),
      resources: await outcomeOf(client.listResources()),
      templates: await outcomeOf(client.listResourceTemplates()),
      echo: await call('echo', { message: 'żółć 🦊' }),
      sum: await call('get-sum', { a: 2, b: 40 }),
      structured: await call('get-structured-content', { location: 'Chicago' }),
      image: await call('get-tiny-image'),
      wrongArguments: await call('get-sum', { a: 'two' }),
      unknownTool: await call('no-such-tool'),
      unknownPrompt: await outcomeOf(client.getPrompt({ name: 'no-such-prompt' })),
      prompt: await outcomeOf(client.getPrompt({ name: 'args-prompt', arguments: { city: 'Paris', state: 'Texas' } })),
      completion: await outcomeOf(
        client.complete({
          ref: { type: 'ref/prompt', name: 'completable-prompt' },
          argument: { name: 'department', value: 'S' },
        }),
      ),
      sampling: await call('trigger-sampling-request', { prompt: 'hello' }),
      elicitation: await call('trigger-elicitation-request'),
      roots: await call('get-roots-list'),
      progress: await withProgress(client, 'trigger-long-running-operation', { duration: 0.3, steps: 3 }),
      ping: await outcomeOf(client.ping()),
      level: await outcomeOf(client.setLoggingLevel('debug')),
    };
    told.length = 0;
    report.subscribed = await outcomeOf(client.subscribeResource({ uri }));
    await call('toggle-subscriber-updates');
    await until(() => told.some(({ method }) => method === 'notifications/resources/updated'), 'an update');
    await call('toggle-subscriber-updates');
    await until(() => told.some(({ method }) => method === 'notifications/message'), 'a log message');
    report.updated = told.find(({ method }) => method === 'notifications/resources/updated');
    report.logged = told.some(({ params }) => JSON.stringify(params).includes(`for URI: ${uri}`));
    report.unsubscribed = await outcomeOf(client.unsubscribeResource({ uri }));
    report.cancelled = await cancelled(client, 'trigger-long-running-operation', { duration: 20, steps: 200 });
    report.afterwards = await call('echo', { message: 'still here' });
    return report;
  }

  let direct: Record<string, unknown>;
  before(async () => {
    const driven = createClient('legacy');
    const [command, ...args] = EVERYTHING;
    await driven.client.connect(new StdioClientTransport({ command, args, stderr: 'ignore' }));
    direct = await drive(driven);
    await driven.client.close();
  });

  test('direct, everything was done', () => {
    assert.match(JSON.stringify(direct.sampling), /asked with 1 messages/);
    assert.match(JSON.stringify(direct.elicitation), /Ada/);
    assert.match(JSON.stringify(direct.roots), /file:\/\/\/work/);
    assert.deepEqual((direct.progress as { progress: unknown }).progress, [
      [1, 3],
      [2, 3],
    ]);
    assert.equal(direct.logged, true);
    assert.equal(direct.cancelled, 'cancelled');
  });

  for (const mode of ['legacy', 'auto'] as const) {
    test(`through the sidecar in mode ${mode}, everything is the same`, async () => {
      const driven = await overHttp(mode, through('everything'));
      assert.equal(driven.client.getNegotiatedProtocolVersion(), '2025-11-25');
      assert.deepEqual(await drive(driven), direct);
      await driven.client.close();
    });
  }

  test('two clients at a time do not hear of each other', async () => {
    const [one, two] = await Promise.all([
      overHttp('legacy', through('everything')),
      overHttp('legacy', through('everything')),
    ]);
    const [first, second] = await Promise.all(
      [one, two].map(({ client }, index) =>
        withProgress(client, 'trigger-long-running-operation', { duration: 0.2, steps: 3 + index }),
      ),
    );
    for (const [report, total] of [
      [first, 3],
      [second, 4],
    ])
      assert.deepEqual((report as { progress: unknown }).progress, [
        [1, total],
        [2, total],
      ]);
    await Promise.all([one.client.close(), two.client.close()]);
  });

  test('pinned to 2026-07-28, which that server does not know, it is told so', async () => {
    await assert.rejects(overHttp({ pin: '2026-07-28' }, through('everything')), (error: Error) => {
      assert.doesNotMatch(error.message, /50[0-9]|timed out/i);
      return true;
    });
  });
});

describe('a server of both eras over HTTP', () => {
  async function drive({ client, told }: Driven, isModern: boolean): Promise<Record<string, unknown>> {
    const call = (name: string, args: Record<string, unknown> = {}) =>
      outcomeOf(client.callTool({ name, arguments: args }));
    const report: Record<string, unknown> = {
      version: client.getNegotiatedProtocolVersion(),
      server: client.getServerVersion(),
      capabilities: client.getServerCapabilities(),
      tools: await outcomeOf(client.listTools()),
      prompts: await outcomeOf(client.listPrompts()),
      resources: await outcomeOf(client.listResources()),
      templates: await outcomeOf(client.listResourceTemplates()),
      text: await call('test_simple_text'),
      mixed: await call('test_multiple_content_types'),
      failing: await call('test_error_handling'),
      unknown: await call('no-such-tool'),
      header: await call('test_x_mcp_header', { region: 'żółć', level: 3 }),
      resource: await outcomeOf(client.readResource({ uri: 'test://static-text' })),
      noResource: await outcomeOf(client.readResource({ uri: 'test://no-such-resource' })),
      prompt: await outcomeOf(
        client.getPrompt({ name: 'test_prompt_with_arguments', arguments: { arg1: 'a', arg2: 'b' } }),
      ),
      progress: await withProgress(client, 'test_tool_with_progress', {}),
      logging: await call('test_tool_with_logging'),
      cancelled: await cancelled(client, 'test_tool_with_progress', {}),
      afterwards: await call('test_simple_text'),
    };
    if (isModern) {
      report.elicited = await call('test_input_required_result_elicitation');
      report.sampled = await call('test_input_required_result_sampling');
      const subscription = await client.listen({ toolsListChanged: true });
      report.honored = subscription.honoredFilter;
      told.length = 0;
      await call('test_trigger_tool_change');
      await until(() => told.some(({ method }) => method === 'notifications/tools/list_changed'), 'the change');
      await subscription.close();
      report.subscription = await subscription.closed;
    } else {
      report.sampled = await call('test_sampling', { prompt: 'hello' });
      report.elicited = await call('test_elicitation', { message: 'who?' });
      report.ping = await outcomeOf(client.ping());
    }
    return report;
  }

  for (const [name, mode, version] of [
    ['legacy', 'legacy', '2025-11-25'],
    ['auto', 'auto', '2026-07-28'],
    ['pinned', { pin: '2026-07-28' }, '2026-07-28'],
  ] as const) {
    test(`in mode ${name}, everything is the same direct and through the sidecar`, async () => {
      const isModern = version === '2026-07-28';
      const [direct, driven] = await Promise.all([overHttp(mode, fixture.url), overHttp(mode, through('fixture'))]);
      const [expected, found] = await Promise.all([drive(direct, isModern), drive(driven, isModern)]);
      assert.equal(expected.version, version);
      assert.match(JSON.stringify(expected.elicited), /ada/i);
      assert.match(JSON.stringify(expected.sampled), /asked with/);
      assert.equal((expected.progress as { progress: unknown[] }).progress.length, 2);
      assert.deepEqual(found, expected);
      await Promise.all([direct.client.close(), driven.client.close()]);
    });
  }

  test('the sidecar has seen all of it, and in both eras', async () => {
    const lines = (await sidecar.auditLines()).filter((line) => line.server === 'fixture');
    assert.deepEqual([...new Set(lines.map((line) => line.era))].sort(), ['legacy', 'modern']);
    for (const method of ['initialize', 'server/discover', 'subscriptions/listen', 'resources/read', 'response'])
      assert.ok(
        lines.some((line) => line.method === method),
        method,
      );
  });
});
