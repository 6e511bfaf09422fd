/**
 * The sidecar's own look at a server's tools, of either era: all pages, with the credential that agents' calls get.
 *
 * Bounded in pages, tools, bytes and time; never throws, and no sentence of it holds anything that the server wrote.
 * A session that it opens it ends again. Does not use the breaker, and remembers nothing.
 */
import { err, ok, type Result } from '../../policies/result.ts';
import { packageVersion } from '../config/package-folder.ts';
import type { Credential } from '../credentials/credential.ts';
import { CAPABILITIES_KEY, LEGACY_VERSIONS, VERSION_KEY } from '../protocol/eras.ts';
import type { Era, JsonObject, Message } from '../protocol/message.ts';
import { parseBody } from '../protocol/parse.ts';
import { createFrameSplitter } from '../protocol/sse.ts';
import { type Upstream, UpstreamBroken, type UpstreamFailure, type UpstreamResponse } from './upstream.ts';

export interface ToolList {
  readonly era: Era;
  readonly protocolVersion: string;
  /** As the server wrote it: name and version by convention. */
  readonly serverInfo: JsonObject | undefined;
  /** As the server wrote them, in its order. */
  readonly tools: readonly unknown[];
}

const PAGES_MAX = 100;
const TOOLS_MAX = 10_000;
const BYTES_MAX = 16 * 1024 * 1024;
const TIME_MS = 10_000;
const END_SESSION_MS = 1_000;

const MODERN_VERSION = '2026-07-28';
const NEWEST_LEGACY_VERSION = '2025-11-25';
const CLIENT_INFO_KEY = 'io.modelcontextprotocol/clientInfo';
const SERVER_INFO_KEY = 'io.modelcontextprotocol/serverInfo';
/** Not the name of any agent: a stdio server keeps what is asked here apart from what agents ask. */
const PRINCIPAL = '(mcp-sidecar)';

/**
 * @param signal Ends the look. Default: after 10 seconds.
 * @returns an error that is a sentence about the server, without its name: `cannot be reached (ECONNREFUSED)`.
 */
export async function listTools(
  upstream: Upstream,
  credential: Credential | undefined,
  signal: AbortSignal = AbortSignal.timeout(TIME_MS),
): Promise<Result<ToolList, string>> {
  return new Look(upstream, credential, signal).asModern();
}

type Answer =
  | { readonly kind: 'result'; readonly result: JsonObject; readonly sessionId: string | undefined }
  | Refusal;

interface Refusal {
  readonly kind: 'refusal';
  readonly status: number;
  /** Of the JSON-RPC error, when there was one. */
  readonly code: number | undefined;
  /** `error.data.supported` (-32022). */
  readonly supported: readonly unknown[];
}

const METHOD_NOT_FOUND = -32601;
/** These three only a server of 2026-07-28 uses. */
const HEADER_MISMATCH = -32020;
const MISSING_CAPABILITY = -32021;
const UNSUPPORTED_VERSION = -32022;

class Look {
  readonly #upstream: Upstream;
  readonly #credential: Credential | undefined;
  readonly #signal: AbortSignal;
  readonly #clientInfo = { name: 'mcp-sidecar', version: packageVersion() };
  #era: Era = 'modern';
  /** Of the 2025 eras: what was agreed on. */
  #protocolVersion: string | undefined;
  #sessionId: string | undefined;
  #lastId = 0;
  #bytes = 0;
  #credentialRetried = false;

  constructor(upstream: Upstream, credential: Credential | undefined, signal: AbortSignal) {
    this.#upstream = upstream;
    this.#credential = credential;
    this.#signal = signal;
  }

  async asModern(): Promise<Result<ToolList, string>> {
    // Over stdio only the probe is safe: an older server may end at any other request before `initialize`.
    if (this.#upstream.target.transport === 'pipe') {
      const probe = await this.#ask('server/discover');
      if (!probe.ok) return probe;
      if (probe.value.kind === 'refusal') return this.#afterRefusal(probe.value);
    }
    const first = await this.#ask('tools/list');
    if (!first.ok) return first;
    if (first.value.kind === 'refusal') {
      if (first.value.code !== METHOD_NOT_FOUND) return this.#afterRefusal(first.value);
      // Said by an older server, and by one that has no tools: the probe tells them apart.
      const probe = await this.#ask('server/discover');
      if (!probe.ok) return probe;
      if (probe.value.kind === 'refusal') return this.#afterRefusal(probe.value);
      return ok(this.#modernList(probe.value.result, []));
    }
    const { result } = first.value;
    // Required of this revision's lists (2026-07-28, caching). Some older servers answer without `initialize`.
    if (result.resultType === undefined && result.ttlMs === undefined) return this.#asLegacy();
    const tools = await this.#allPages(result);
    return tools.ok ? ok(this.#modernList(result, tools.value)) : tools;
  }

  /** Asks as an older server wants it, unless the refusal is one that only a newer server gives. */
  async #afterRefusal(refusal: Refusal): Promise<Result<ToolList, string>> {
    const { code, supported } = refusal;
    if (code === UNSUPPORTED_VERSION && !supported.some((version) => LEGACY_VERSIONS.includes(version as string)))
      return err('speaks no revision that the sidecar knows');
    if (code === HEADER_MISMATCH || code === MISSING_CAPABILITY)
      return err(`refuses tools/list ${showRefusal(refusal)}`);
    return this.#asLegacy();
  }

  async #asLegacy(): Promise<Result<ToolList, string>> {
    this.#era = 'legacy';
    const hello = await this.#ask('initialize', {
      protocolVersion: NEWEST_LEGACY_VERSION,
      capabilities: {},
      clientInfo: this.#clientInfo,
    });
    if (!hello.ok) return hello;
    if (hello.value.kind === 'refusal') return err(`refuses initialize ${showRefusal(hello.value)}`);
    const { result, sessionId } = hello.value;
    this.#sessionId = sessionId;
    try {
      return await this.#listInSession(result);
    } finally {
      await this.#endSession();
    }
  }

  async #listInSession({ protocolVersion, capabilities, serverInfo }: JsonObject): Promise<Result<ToolList, string>> {
    if (typeof protocolVersion !== 'string' || !LEGACY_VERSIONS.includes(protocolVersion))
      return err('answers initialize with a revision that the sidecar does not know');
    this.#protocolVersion = protocolVersion;
    const list = (tools: readonly unknown[]): Result<ToolList, string> =>
      ok({ era: 'legacy', protocolVersion, serverInfo: objectOf(serverInfo), tools });

    const told = await this.#send('POST', { jsonrpc: '2.0', method: 'notifications/initialized' }, this.#signal);
    if (!told.ok) return told;
    told.value.cancel();
    if (told.value.status >= 300) return err(`refuses notifications/initialized (HTTP status ${told.value.status})`);
    if (objectOf(capabilities)?.tools === undefined) return list([]);

    const first = await this.#ask('tools/list');
    if (!first.ok) return first;
    if (first.value.kind === 'refusal') return err(`refuses tools/list ${showRefusal(first.value)}`);
    const tools = await this.#allPages(first.value.result);
    return tools.ok ? list(tools.value) : tools;
  }

  #modernList(result: JsonObject, tools: readonly unknown[]): ToolList {
    const serverInfo = objectOf(objectOf(result._meta)?.[SERVER_INFO_KEY]);
    return { era: 'modern', protocolVersion: MODERN_VERSION, serverInfo, tools };
  }

  async #allPages(first: JsonObject): Promise<Result<unknown[], string>> {
    const tools: unknown[] = [];
    let result = first;
    for (let page = 1; ; page++) {
      if (!Array.isArray(result.tools)) return err('answers tools/list with something that is no list of tools');
      for (const tool of result.tools) tools.push(tool);
      if (tools.length > TOOLS_MAX) return err(`lists more than ${TOOLS_MAX} tools`);
      if (typeof result.nextCursor !== 'string') return ok(tools);
      if (page === PAGES_MAX) return err(`lists its tools on more than ${PAGES_MAX} pages`);
      const next = await this.#ask('tools/list', { cursor: result.nextCursor });
      if (!next.ok) return next;
      if (next.value.kind === 'refusal') return err(`refuses a page of tools/list ${showRefusal(next.value)}`);
      result = next.value.result;
    }
  }

  /** One request and its answer. An HTTP answer that means neither a result nor a refusal is an error. */
  async #ask(method: string, params: JsonObject = {}): Promise<Result<Answer, string>> {
    this.#lastId += 1;
    const id = this.#lastId;
    const envelope = {
      _meta: { [VERSION_KEY]: MODERN_VERSION, [CAPABILITIES_KEY]: {}, [CLIENT_INFO_KEY]: this.#clientInfo },
    };
    const sent = await this.#send(
      'POST',
      { jsonrpc: '2.0', id, method, params: this.#era === 'modern' ? { ...params, ...envelope } : params },
      this.#signal,
    );
    if (!sent.ok) return sent;
    try {
      return await this.#read(sent.value, id);
    } catch (error) {
      if (!(error instanceof UpstreamBroken)) throw error;
      return err(showFailure(error.failure));
    } finally {
      sent.value.cancel();
    }
  }

  /** Attaches the credential; after a 401 tries once more with a new one, once in the whole look. */
  async #send(
    method: 'POST' | 'DELETE',
    content: JsonObject | undefined,
    signal: AbortSignal,
  ): Promise<Result<UpstreamResponse, string>> {
    const message = content === undefined ? undefined : messageOf(content);
    if (message === null) return err('gives a cursor that cannot be sent back to it');
    for (;;) {
      const had = await Promise.race([this.#credential?.headers() ?? ok({}), whenAborted(signal)]);
      if (had === undefined) return err(NOT_IN_TIME);
      if (!had.ok) return err(`needs a credential that could not be had (${had.error.kind}: ${had.error.detail})`);
      const sent = await this.#upstream.send({
        method,
        headers: { ...this.#headers(message), ...had.value },
        body: message?.bytes,
        message,
        era: this.#era,
        principal: PRINCIPAL,
        sessionId: this.#sessionId,
        signal,
      });
      if (!sent.ok) return err(showFailure(sent.error));
      const { status, headers } = sent.value;
      if (status !== 401 && status !== 403) return sent;
      sent.value.cancel();
      if (this.#credential === undefined)
        return err(`wants a credential (HTTP status ${status}), and none is configured`);
      const canRetry = status === 401 && !this.#credentialRetried;
      if (!canRetry || !this.#credential.rejected(had.value, headers['www-authenticate']))
        return err(`refuses the credential (HTTP status ${status})`);
      this.#credentialRetried = true;
    }
  }

  #headers(message: Message | undefined): Record<string, string> {
    const version = this.#era === 'modern' ? MODERN_VERSION : this.#protocolVersion;
    return {
      accept: 'application/json, text/event-stream',
      'user-agent': `mcp-sidecar/${this.#clientInfo.version}`,
      ...(message === undefined ? undefined : { 'content-type': 'application/json' }),
      ...(version === undefined ? undefined : { 'mcp-protocol-version': version }),
      ...(this.#era === 'modern' && message !== undefined ? { 'mcp-method': message.method } : undefined),
      ...(this.#sessionId === undefined ? undefined : { 'mcp-session-id': this.#sessionId }),
    };
  }

  async #read(response: UpstreamResponse, id: number): Promise<Result<Answer, string>> {
    const { status, headers } = response;
    const encoding = headers['content-encoding'];
    if (encoding !== undefined && encoding !== 'identity') return err('answers compressed, which was not asked for');
    const isStream = status === 200 && headers['content-type']?.startsWith('text/event-stream') === true;
    const read = isStream ? await this.#readStream(response, id) : await this.#readWhole(response, id);
    if (!read.ok) return read;

    const error = objectOf(read.value?.error);
    const code = typeof error?.code === 'number' ? error.code : undefined;
    const result = objectOf(read.value?.result);
    if (status < 300 && result !== undefined)
      return ok({ kind: 'result', result, sessionId: headers['mcp-session-id'] });
    if (code === undefined && (status < 400 || status >= 500))
      return err(`answers with something that is not MCP (HTTP status ${status})`);
    const supported = objectOf(error?.data)?.supported;
    return ok({ kind: 'refusal', status, code, supported: Array.isArray(supported) ? supported : [] });
  }

  async #readWhole(response: UpstreamResponse, id: number): Promise<Result<JsonObject | undefined, string>> {
    const chunks: Buffer[] = [];
    for await (const chunk of response.body) {
      if (!this.#hasRoomFor(chunk)) return err(TOO_LARGE);
      chunks.push(chunk);
    }
    return ok(answerIn(Buffer.concat(chunks).toString(), id));
  }

  /** Progress, log messages and the server's own requests may come before the answer: none of them is ours to serve. */
  async #readStream(response: UpstreamResponse, id: number): Promise<Result<JsonObject | undefined, string>> {
    const splitter = createFrameSplitter(BYTES_MAX);
    for await (const chunk of response.body) {
      if (!this.#hasRoomFor(chunk)) return err(TOO_LARGE);
      const frames = splitter.push(chunk);
      if (!frames.ok) return err(TOO_LARGE);
      for (const { data } of frames.value) {
        const answer = data === undefined ? undefined : answerIn(data, id);
        if (answer !== undefined) return ok(answer);
      }
    }
    return ok(undefined);
  }

  #hasRoomFor(chunk: Buffer): boolean {
    this.#bytes += chunk.length;
    return this.#bytes <= BYTES_MAX;
  }

  /** Also when the time is up: a child process may hang on the session. Whatever the server says to it is all right. */
  async #endSession(): Promise<void> {
    if (this.#sessionId === undefined) return;
    const ended = await this.#send('DELETE', undefined, AbortSignal.timeout(END_SESSION_MS));
    if (ended.ok) ended.value.cancel();
  }
}

const TOO_LARGE = `answers with more than ${BYTES_MAX} bytes`;
const NOT_IN_TIME = 'does not answer in time';

/** The response to `id` in a JSON text. An error may lack the id, where the server could not read it. */
function answerIn(text: string, id: number): JsonObject | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const message = objectOf(value);
  if (message?.jsonrpc !== '2.0' || message.method !== undefined) return undefined;
  return message.id === id || (message.error !== undefined && (message.id ?? null) === null) ? message : undefined;
}

/** `null` for what the sidecar itself would refuse. */
function messageOf(content: JsonObject): Message | null {
  const parsed = parseBody(Buffer.from(JSON.stringify(content)), { depthMax: 64, batchMax: 1 });
  return parsed.ok && parsed.value.kind === 'single' ? parsed.value.message : null;
}

function objectOf(value: unknown): JsonObject | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : undefined;
}

function whenAborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(undefined);
    else signal.addEventListener('abort', () => resolve(undefined), { once: true });
  });
}

function showRefusal({ status, code }: Refusal): string {
  return code === undefined ? `(HTTP status ${status})` : `(HTTP status ${status}, error ${code})`;
}

function showFailure(failure: UpstreamFailure): string {
  switch (failure.kind) {
    case 'unreachable':
      return `cannot be reached (${failure.detail})`;
    case 'timeout':
      return `${NOT_IN_TIME} (timeouts.${failure.phase}: ${failure.afterMs} ms)`;
    case 'aborted':
      return NOT_IN_TIME;
    case 'garbage':
      return `answers with something that is not MCP (${failure.detail})`;
    case 'busy':
      return `has no room (${failure.detail})`;
  }
}
