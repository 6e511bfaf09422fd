/**
 * An upstream that is a child process speaking MCP over stdio, made to look like a Streamable HTTP server.
 *
 * 2025 eras: one child for each session, bound to the principal that opened it. 2026-07-28: stateless requests of one
 * principal share a child; a request whose id is in use there gets another child, so that no id is ever rewritten and
 * nothing crosses. Children are bounded in number, end when unused, and start again with a growing pause when they
 * crash.
 */
import { randomUUID } from 'node:crypto';
import { err, ok, type Result } from '../../policies/result.ts';
import type { Message } from '../protocol/message.ts';
import type { Log } from '../telemetry/log.ts';
import { createChildLog, createLineBudget } from './child-log.ts';
import { afterCrash, noBackoff, waitMs } from './restart-backoff.ts';
import { immediateResponse, type SetTimer } from './stdio-answer.ts';
import { type StdioChild, spawnChild } from './stdio-child.ts';
import { idText, StdioConversation } from './stdio-conversation.ts';
import type { Upstream, UpstreamFailure, UpstreamRequest, UpstreamResponse } from './upstream.ts';

export interface StdioUpstreamOptions {
  readonly name: string;
  /** Program and arguments; no shell is involved. */
  readonly command: readonly string[];
  /**
   * The child's whole environment, read anew for each child so that a rotated secret reaches the next one; or a
   * sentence on what is missing. Its values are kept out of the log.
   */
  readonly env: () => Result<Readonly<Record<string, string>>, string>;
  readonly cwd: string;
  readonly limits: {
    /** Child processes at a time, ending ones included. */
    readonly childrenMax: number;
    /** After this long without a request or an open stream a session ends, with its child. Milliseconds. */
    readonly sessionIdleMs: number;
    /** One message of the child; also what may wait in either direction beside it. */
    readonly messageBytesMax: number;
    /** Requests under way on one child; also events waiting for one reader. */
    readonly queueMax: number;
  };
  /** Milliseconds. `headers`: until the first message of an answer. `idle`: between messages. `total`: answers that are not streams. */
  readonly timeouts: { readonly headersMs: number; readonly idleMs: number; readonly totalMs: number };
  readonly ports: { readonly now: () => number; readonly log: Log; readonly setTimer?: SetTimer };
}

interface Session {
  readonly id: string;
  readonly principal: string;
  readonly conversation: StdioConversation;
}

type Answer = Result<UpstreamResponse, UpstreamFailure>;

/** A shared child that nobody has used for this long ends. */
const SHARED_IDLE_MS = 60_000;
/** A server that knows 2026-07-28 answers its probe; one that says nothing for so long is taken for an older one. */
const PROBE_SILENCE_MS = 2000;
const NO_ROOM_RETRY_MS = 1000;
const SHUTTING_DOWN = { kind: 'unreachable', detail: 'the sidecar is shutting down', sent: false } as const;

export function createStdioUpstream(options: StdioUpstreamOptions): Upstream {
  return new StdioUpstream(options);
}

class StdioUpstream implements Upstream {
  readonly name: string;
  readonly target: Upstream['target'];
  readonly #options: StdioUpstreamOptions;
  readonly #setTimer: SetTimer;
  readonly #lineBudget: ReturnType<typeof createLineBudget>;
  readonly #children = new Set<StdioChild>();
  readonly #sessions = new Map<string, Session>();
  /** By principal. */
  readonly #shared = new Map<string, Set<StdioConversation>>();
  #backoff = noBackoff;
  /** Whether the server knows 2026-07-28, as its answer to a probe has shown. A server that does not is not asked again. */
  #modern: 'unknown' | 'yes' | 'no' = 'unknown';
  #closed = false;

  constructor(options: StdioUpstreamOptions) {
    this.#options = options;
    this.name = options.name;
    this.target = { transport: 'pipe', address: options.command[0] ?? '', port: undefined };
    this.#setTimer = options.ports.setTimer ?? setUnreferencedTimer;
    this.#lineBudget = createLineBudget(options.ports.now);
  }

  async send(request: UpstreamRequest): Promise<Answer> {
    if (request.signal?.aborted) return err({ kind: 'aborted', sent: false });
    if (this.#closed) return err(SHUTTING_DOWN);
    return request.era === 'modern' ? this.#sendModern(request) : this.#sendLegacy(request);
  }

  async close(graceMs: number): Promise<void> {
    this.#closed = true;
    for (const { conversation } of this.#sessions.values()) conversation.endListening();
    const children = [...this.#children];
    for (const child of children) child.end(SHUTTING_DOWN.detail, graceMs);
    await Promise.all(children.map((child) => child.gone));
  }

  // ---- 2025 eras -------------------------------------------------------------------------------------------------

  async #sendLegacy(request: UpstreamRequest): Promise<Answer> {
    const { sessionId, message, method } = request;
    if (sessionId === undefined) {
      if (message?.kind === 'request' && message.method === 'initialize') return this.#initialize(request, message);
      return refusal(400, -32000, 'Bad Request: Mcp-Session-Id header is required', message);
    }
    const session = this.#sessions.get(sessionId);
    // Another principal's session is not even known to exist.
    if (session?.principal !== request.principal) return refusal(404, -32001, 'Session not found', message);
    const { conversation } = session;

    if (method === 'DELETE') {
      this.#endSession(session, 'the agent has ended its session');
      return ok(immediateResponse(200, {}, ''));
    }
    if (method === 'GET') {
      if (conversation.listening)
        return refusal(409, -32000, 'Conflict: Only one SSE stream is allowed per session', undefined);
      return conversation.listen(request.signal);
    }
    if (message === undefined) return refusal(400, -32600, 'Invalid Request: no message', undefined);
    if (message.kind !== 'request') {
      if (message.method === 'notifications/cancelled') conversation.cancelledByAgent(message.params?.requestId);
      const told = conversation.tell(request.body ?? message.bytes);
      return told.ok ? ok(immediateResponse(202, {}, '')) : told;
    }
    if (message.method === 'initialize')
      return refusal(400, -32600, 'Invalid Request: Server already initialized', message);
    if (conversation.collidesWith(message)) {
      return refusal(400, -32600, 'Invalid Request: the id or progress token of a request that is under way', message);
    }
    if (conversation.full) return busy('too many requests of this session are under way', NO_ROOM_RETRY_MS);
    return conversation.ask(request, message);
  }

  async #initialize(request: UpstreamRequest, message: Message): Promise<Answer> {
    if (this.#isFull) await this.#makeRoom();
    const id = randomUUID();
    const started = this.#start('legacy', () => this.#sessions.delete(id));
    if (!started.ok) return started;
    const session: Session = { id, principal: request.principal, conversation: started.value };
    this.#sessions.set(id, session);

    let initialized = false;
    const answer = await session.conversation.ask(request, message, {
      headers: { 'mcp-session-id': id },
      onAnswered: (body) => {
        initialized = 'result' in body;
        // Nobody will ever come back to a session that was refused.
        if (!initialized) this.#endSession(session, 'the server refused to initialize');
      },
    });
    if (answer.ok) this.#endWhenUnused(session.conversation, this.#options.limits.sessionIdleMs);
    else if (!initialized) this.#endSession(session, 'no agent knows of this session');
    return answer;
  }

  #endSession(session: Session, reason: string): void {
    this.#sessions.delete(session.id);
    session.conversation.endListening();
    session.conversation.child?.end(reason);
  }

  // ---- 2026-07-28 ------------------------------------------------------------------------------------------------

  async #sendModern(request: UpstreamRequest): Promise<Answer> {
    const { message, principal } = request;
    if (request.method !== 'POST') return ok(immediateResponse(405, { allow: 'POST' }, ''));
    if (message === undefined) return refusal(400, -32600, 'Invalid Request: no message', undefined);
    // Nothing in this era is tied to a notification: a request is cancelled by closing its stream. Passed on to a
    // shared child, one agent's `notifications/cancelled` could end another request that has the same id.
    if (message.kind !== 'request') return ok(immediateResponse(202, {}, ''));
    const isProbe = message.method === 'server/discover';
    if (this.#modern === 'no') {
      return isProbe ? methodNotFound(message) : refusal(400, -32000, 'Bad Request: Server not initialized', message);
    }
    let placed = this.#place(principal, message);
    if (!placed.ok && this.#isFull) {
      await this.#makeRoom();
      placed = this.#place(principal, message);
    }
    if (!placed.ok) return placed;
    return isProbe ? this.#probe(placed.value, request, message) : placed.value.ask(request, message);
  }

  /** A child of this principal on which nothing in flight could be mistaken for `message`. */
  #place(principal: string, message: Message): Result<StdioConversation, UpstreamFailure> {
    const mine = this.#shared.get(principal) ?? new Set();
    for (const conversation of mine)
      if (!conversation.full && !conversation.collidesWith(message)) return ok(conversation);

    const started = this.#start('modern', (conversation) => {
      mine.delete(conversation);
      if (mine.size === 0) this.#shared.delete(principal);
    });
    if (!started.ok) return started;
    mine.add(started.value);
    this.#shared.set(principal, mine);
    this.#endWhenUnused(started.value, SHARED_IDLE_MS);
    return started;
  }

  /**
   * `server/discover`. Servers older than 2026-07-28 answer «Method not found», or nothing, or die; the agent gets the
   * same plain answer for all of these, and goes on with `initialize`.
   */
  async #probe(conversation: StdioConversation, request: UpstreamRequest, message: Message): Promise<Answer> {
    const unproven = this.#modern === 'unknown' && !conversation.hasSpoken;
    const answer = await conversation.ask(request, message, {
      ...(unproven ? { firstMs: PROBE_SILENCE_MS } : undefined),
      // Also called for a late answer: a server that knows the revision may only have been slow to start.
      onAnswered: (body) => {
        if ('result' in body) this.#modern = 'yes';
        else if ((body.error as { code?: unknown } | null)?.code === -32601) this.#foundLegacy();
        if (this.#modern === 'no' && !conversation.busy) conversation.child?.end('the server does not know 2026-07-28');
      },
    });
    if (answer.ok || !unproven || conversation.hasSpoken || this.#closed || !saysLegacy(answer.error)) return answer;
    this.#foundLegacy();
    return methodNotFound(message);
  }

  #foundLegacy(): void {
    if (this.#modern !== 'unknown') return;
    this.#modern = 'no';
    this.#options.ports.log.info('does not know revision 2026-07-28, is used with the 2025 revisions', {
      server: this.name,
    });
  }

  // ---- children --------------------------------------------------------------------------------------------------

  #start(
    era: 'legacy' | 'modern',
    onDown: (conversation: StdioConversation) => void,
  ): Result<StdioConversation, UpstreamFailure> {
    const { name, command, env, cwd, limits, timeouts, ports } = this.#options;
    const { messageBytesMax, queueMax } = limits;
    const pauseMs = waitMs(this.#backoff, ports.now());
    if (pauseMs > 0) return busy('the server has crashed and is given time', pauseMs);
    if (this.#isFull) return busy(`all ${limits.childrenMax} child processes are in use`, NO_ROOM_RETRY_MS);
    if (this.#closed) return err(SHUTTING_DOWN);
    const environment = env();
    if (!environment.ok) {
      ports.log.warn(environment.error, { server: name });
      return err({ kind: 'unreachable', detail: environment.error, sent: false });
    }

    const startedAt = ports.now();
    const conversation = new StdioConversation({
      era,
      timeouts,
      queueMax,
      messageBytesMax,
      now: ports.now,
      setTimer: this.#setTimer,
      onStray: (what) => ports.log.debug(`left out ${what}`, { server: name }),
    });
    const log = createChildLog(name, environment.value, this.#lineBudget, ports.log);
    const child = spawnChild({ command, env: environment.value, cwd, messageBytesMax }, log, {
      onMessage: (message) => conversation.receive(message),
      onDown: (failure, crashed) => {
        // A server that dies of a probe is an old one, not a broken one.
        if (crashed && !conversation.onlyProbed) {
          this.#backoff = afterCrash(this.#backoff, ports.now() - startedAt, ports.now());
        }
        const abnormal = crashed || failure.kind === 'garbage' || ('sent' in failure && !failure.sent);
        if (abnormal && 'detail' in failure) ports.log.warn(failure.detail, { server: name });
        conversation.fail(failure);
        onDown(conversation);
      },
    });
    conversation.child = child;
    this.#children.add(child);
    void child.gone.then(() => this.#children.delete(child));
    return ok(conversation);
  }

  get #isFull(): boolean {
    return this.#children.size >= this.#options.limits.childrenMax;
  }

  /** Ends a shared child that nobody uses, and waits for children that are ending; gives up when there are none. */
  async #makeRoom(): Promise<void> {
    const unused = [...this.#shared.values()].flatMap((mine) => [...mine]).find((conversation) => !conversation.busy);
    unused?.child?.end('its place was needed');
    const ending = [...this.#children].filter((child) => child.down);
    if (ending.length > 0) await Promise.race(ending.map((child) => child.gone));
  }

  #endWhenUnused(conversation: StdioConversation, idleMs: number): void {
    const look = (): void => {
      const unusedMs = this.#options.ports.now() - conversation.lastUsed;
      if (conversation.busy) cancel = this.#setTimer(look, idleMs);
      else if (unusedMs < idleMs) cancel = this.#setTimer(look, idleMs - unusedMs);
      else conversation.child?.end('it was unused for too long');
    };
    let cancel = this.#setTimer(look, idleMs);
    void conversation.child?.gone.then(() => cancel());
  }
}

/** Silent, or gone before it said anything. (A command that could not be started says nothing about the server.) */
function saysLegacy(failure: UpstreamFailure): boolean {
  return (
    (failure.kind === 'timeout' && failure.phase === 'headers') || (failure.kind === 'unreachable' && failure.sent)
  );
}

function methodNotFound(message: Message): Answer {
  return refusal(404, -32601, 'Method not found', message);
}

function refusal(status: number, code: number, text: string, message: Message | undefined): Answer {
  const id = message === undefined ? 'null' : idText(message);
  const error = JSON.stringify({ code, message: text });
  return ok(immediateResponse(status, {}, `{"jsonrpc":"2.0","id":${id},"error":${error}}`));
}

function busy(detail: string, retryAfterMs: number): Result<never, UpstreamFailure> {
  return err({ kind: 'busy', detail, retryAfterMs, sent: false });
}

function setUnreferencedTimer(callback: () => void, ms: number): () => void {
  const timer = setTimeout(callback, ms);
  timer.unref();
  return () => clearTimeout(timer);
}
