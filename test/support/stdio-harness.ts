/** A stdio upstream on the scripted server, and short words to talk to it. */
import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ok, type Result } from '../../policies/result.ts';
import type { Log } from '../../sidecar/telemetry/log.ts';
import { createStdioUpstream, type StdioUpstreamOptions } from '../../sidecar/upstream/stdio-upstream.ts';
import type { Upstream, UpstreamFailure, UpstreamResponse } from '../../sidecar/upstream/upstream.ts';
import { ManualTimers } from './manual-timers.ts';
import { bodyless, post, type RequestOptions } from './mcp-message.ts';

const SERVER = fileURLToPath(new URL('./stdio-server.ts', import.meta.url));

export const SECOND = 1000;
export const DEFAULTS = {
  limits: { childrenMax: 8, sessionIdleMs: 600 * SECOND, messageBytesMax: 1024 * 1024, queueMax: 100 },
  timeouts: { headersMs: 120 * SECOND, idleMs: 300 * SECOND, totalMs: 900 * SECOND },
};

type Overrides = Partial<Omit<StdioUpstreamOptions, 'limits' | 'timeouts' | 'ports'>> & {
  readonly flags?: readonly string[];
  readonly limits?: Partial<StdioUpstreamOptions['limits']>;
  readonly timeouts?: Partial<StdioUpstreamOptions['timeouts']>;
};

export interface Harness {
  readonly upstream: Upstream;
  readonly timers: ManualTimers;
  readonly logged: string[];
}

export function startUpstream(context: TestContext, { flags = [], ...overrides }: Overrides = {}): Harness {
  const timers = new ManualTimers();
  const logged: string[] = [];
  const at =
    (level: string) =>
    (message: string, fields: object = {}) => {
      logged.push(`${level} ${message} ${JSON.stringify(fields)}`);
    };
  const log: Log = { error: at('error'), warn: at('warn'), info: at('info'), debug: at('debug') };
  const upstream = createStdioUpstream({
    name: 'scripted',
    command: [process.execPath, SERVER, ...flags],
    env: () => ok({}),
    cwd: tmpdir(),
    ...overrides,
    limits: { ...DEFAULTS.limits, ...overrides.limits },
    timeouts: { ...DEFAULTS.timeouts, ...overrides.timeouts },
    ports: { now: timers.now, setTimer: timers.setTimer, log },
  });
  context.after(() => upstream.close(0));
  return { upstream, timers, logged };
}

export function expectResponse(result: Result<UpstreamResponse, UpstreamFailure>): UpstreamResponse {
  assert.ok(result.ok, JSON.stringify(result));
  return result.value;
}

export function expectFailure(result: Result<UpstreamResponse, UpstreamFailure>): UpstreamFailure {
  assert.ok(!result.ok, JSON.stringify(result));
  return result.error;
}

export async function bodyOf(response: UpstreamResponse): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response.body) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

// biome-ignore lint/suspicious/noExplicitAny: a test reads messages by field
export type Body = any;

export async function jsonOf(response: UpstreamResponse): Promise<Body> {
  assert.equal(response.headers['content-type'], 'application/json');
  return JSON.parse(await bodyOf(response));
}

/** The messages of an event stream, one at a time. */
export async function* eventsOf(response: UpstreamResponse): AsyncGenerator<Body, void> {
  assert.equal(response.headers['content-type'], 'text/event-stream');
  for await (const chunk of response.body) {
    const data = /^event: message\ndata: ([^\r\n]*)\n\n$/.exec(chunk.toString())?.[1];
    assert.ok(data !== undefined, `one event a chunk: ${chunk}`);
    yield JSON.parse(data);
  }
}

export const initialize = (id: number | string = 0): object => ({
  jsonrpc: '2.0',
  id,
  method: 'initialize',
  params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'test', version: '1' } },
});

export function call(id: number | string, name: string, args: object = {}, meta: object = {}): object {
  return { jsonrpc: '2.0', id, method: 'tools/call', params: { name, arguments: args, _meta: meta } };
}

const ENVELOPE = {
  'io.modelcontextprotocol/protocolVersion': '2026-07-28',
  'io.modelcontextprotocol/clientCapabilities': {},
};

/** The same as 2026-07-28 wants it. */
export function modernCall(id: number | string, name: string, args: object = {}, meta: object = {}): object {
  return call(id, name, args, { ...ENVELOPE, ...meta });
}

export function modern(id: number | string, method: string): object {
  return { jsonrpc: '2.0', id, method, params: { _meta: ENVELOPE } };
}

export const textOf = (body: Body): string => body.result.content[0].text;

/** One agent's session of the 2025 eras. */
export class TestSession {
  readonly #upstream: Upstream;
  readonly #options: RequestOptions;

  constructor(upstream: Upstream, options: RequestOptions) {
    this.#upstream = upstream;
    this.#options = options;
  }

  static async open(upstream: Upstream, options: RequestOptions = {}): Promise<TestSession> {
    const response = expectResponse(await upstream.send(post(initialize(), options)));
    assert.equal((await jsonOf(response)).result.serverInfo.name, 'scripted');
    return new TestSession(upstream, { ...options, sessionId: response.headers['mcp-session-id'] });
  }

  get id(): string {
    return this.#options.sessionId ?? '';
  }

  send(content: object | string, options: RequestOptions = {}) {
    return this.#upstream.send(post(content, { ...this.#options, ...options }));
  }

  get(options: RequestOptions = {}) {
    return this.#upstream.send(bodyless('GET', { ...this.#options, ...options }));
  }

  delete() {
    return this.#upstream.send(bodyless('DELETE', this.#options));
  }

  /** Calls a tool that answers at once, and gives its text. */
  async text(id: number | string, name: string, args: object = {}): Promise<string> {
    return textOf(await jsonOf(expectResponse(await this.send(call(id, name, args)))));
  }
}

export function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}
