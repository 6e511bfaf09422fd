/**
 * What is under way on one child: which of its messages belongs to which answer.
 *
 * Guarantee: a message reaches the agent that it is for, or nobody. An id or progress token stays taken until the
 * child has answered it, also when nobody waits any more, so that a late answer cannot meet a later request.
 */
import { err, type Result } from '../../policies/result.ts';
import type { Era, JsonObject, Message } from '../protocol/message.ts';
import { type SetTimer, StdioAnswer } from './stdio-answer.ts';
import type { ChildMessage, StdioChild } from './stdio-child.ts';
import { toLine } from './stdio-line.ts';
import type { UpstreamFailure, UpstreamRequest, UpstreamResponse } from './upstream.ts';

export interface ConversationOptions {
  readonly era: Era;
  readonly timeouts: { readonly headersMs: number; readonly idleMs: number; readonly totalMs: number };
  /** Requests under way on one child, and events that wait for one reader. */
  readonly queueMax: number;
  readonly messageBytesMax: number;
  readonly now: () => number;
  readonly setTimer: SetTimer;
  /** A message of the child was for nobody. */
  readonly onStray: (what: string) => void;
}

interface Pending {
  readonly id: string;
  readonly token: string | undefined;
  readonly message: Message;
  /** `undefined`: nobody waits any more. */
  answer: StdioAnswer | undefined;
  readonly onAnswered: ((body: JsonObject) => void) | undefined;
}

export interface Asking {
  readonly headers?: Readonly<Record<string, string>>;
  /** Instead of the configured time until the first message. */
  readonly firstMs?: number;
  /** The child's response, whether or not somebody still waits for it. */
  readonly onAnswered?: (body: JsonObject) => void;
}

const SUBSCRIPTION_ID = 'io.modelcontextprotocol/subscriptionId';

export class StdioConversation {
  /** Set right after the child was spawned with this conversation's handlers. */
  child: StdioChild | undefined;
  lastUsed: number;
  /** The child has said something that is MCP. */
  hasSpoken = false;
  readonly #options: ConversationOptions;
  readonly #byId = new Map<string, Pending>();
  readonly #byToken = new Map<string, Pending>();
  #listener: StdioAnswer | undefined;
  /** Messages for which nobody was there yet (2025 eras). */
  readonly #held: Buffer[] = [];
  #heldBytes = 0;

  constructor(options: ConversationOptions) {
    this.#options = options;
    this.lastUsed = options.now();
  }

  /** Somebody waits for an answer or listens. */
  get busy(): boolean {
    if (this.#listener !== undefined) return true;
    for (const { answer } of this.#byId.values()) if (answer !== undefined) return true;
    return false;
  }

  get listening(): boolean {
    return this.#listener !== undefined;
  }

  /** As many requests are under way as may be. */
  get full(): boolean {
    return this.#byId.size >= this.#options.queueMax;
  }

  /** The child has been asked whether it knows 2026-07-28, nothing else, and has not said a word. */
  get onlyProbed(): boolean {
    if (this.hasSpoken || this.#byId.size === 0) return false;
    return [...this.#byId.values()].every(({ message }) => message.method === 'server/discover');
  }

  /** Its id or its progress token is in use here. */
  collidesWith(message: Message): boolean {
    const token = progressTokenOf(message);
    return this.#byId.has(keyOf(message.id)) || (token !== undefined && this.#byToken.has(token));
  }

  /** Asks the child and gives its answer. Not while {@link full}, and no message that {@link collidesWith} others. */
  ask(
    request: UpstreamRequest,
    message: Message,
    asking: Asking = {},
  ): Promise<Result<UpstreamResponse, UpstreamFailure>> {
    const { timeouts } = this.#options;
    if (request.signal?.aborted) return Promise.resolve(err({ kind: 'aborted', sent: false }));
    const phase = asking.firstMs === undefined && timeouts.totalMs < timeouts.headersMs ? 'total' : 'headers';
    const firstMs = asking.firstMs ?? Math.min(timeouts.headersMs, timeouts.totalMs);
    const isSubscription = message.method === 'subscriptions/listen';
    const id = keyOf(message.id);
    const answer = this.#createAnswer(request.signal, {
      headers: asking.headers ?? {},
      first: { ms: firstMs, phase },
      idleMs: isSubscription ? undefined : timeouts.idleMs,
      // A server whose first message after a probe is a notification could take it for the start of a 2025 session.
      onDropped: () => this.#abandon(pending, message.method !== 'server/discover'),
    });
    const pending: Pending = { id, token: progressTokenOf(message), message, answer, onAnswered: asking.onAnswered };
    if (!this.#write(request.body ?? message.bytes)) {
      answer.end();
      return Promise.resolve(err(notReading()));
    }
    this.#byId.set(id, pending);
    if (pending.token !== undefined) this.#byToken.set(pending.token, pending);
    if (this.#options.era === 'legacy' && this.#listener === undefined) this.#deliverHeld(answer);
    return answer.result;
  }

  /** A notification, or an answer to the child's own request. */
  tell(body: Buffer): Result<undefined, UpstreamFailure> {
    return this.#write(body) ? { ok: true, value: undefined } : err(notReading());
  }

  /** The agent itself has cancelled: the specification lets the child stay silent from here on. */
  cancelledByAgent(requestId: unknown): void {
    const pending = this.#byId.get(keyOf(requestId));
    if (pending?.answer === undefined) return;
    pending.answer.fail({ kind: 'aborted', sent: true });
    this.#abandon(pending, false);
  }

  /** The stream of a GET: what the child says of its own accord (2025 eras). */
  listen(signal: AbortSignal | undefined): Promise<Result<UpstreamResponse, UpstreamFailure>> {
    const listener = this.#createAnswer(signal, {
      headers: {},
      first: undefined,
      idleMs: undefined,
      onDropped: () => {
        this.#listener = undefined;
        this.#touch();
      },
    });
    this.#listener = listener;
    listener.startStream();
    this.#deliverHeld(listener);
    return listener.result;
  }

  /** The child is down: whoever waits learns it now. */
  fail(failure: UpstreamFailure): void {
    for (const { answer } of this.#byId.values()) answer?.fail(failure);
    this.#byId.clear();
    this.#byToken.clear();
    this.#listener?.fail(failure);
    this.#listener = undefined;
    this.#held.length = 0;
  }

  /** A session that ends as agreed: its stream ends cleanly. */
  endListening(): void {
    this.#listener?.end();
    this.#listener = undefined;
  }

  receive(message: ChildMessage): void {
    this.hasSpoken = true;
    if (message.kind === 'response') this.#receiveResponse(message);
    else if (this.#options.era === 'modern') this.#receiveModern(message);
    else this.#receiveLegacy(message);
  }

  #receiveResponse({ body, bytes }: ChildMessage): void {
    const pending = this.#byId.get(keyOf(body.id));
    if (pending === undefined) {
      this.#options.onStray('a response to nothing that was asked');
      return;
    }
    this.#forget(pending);
    const error = errorCodeOf(body);
    const status = this.#options.era === 'modern' ? modernStatus(error) : 200;
    pending.answer?.respond(bytes, status, error !== undefined);
    pending.onAnswered?.(body);
    this.#touch();
  }

  #receiveLegacy({ body, bytes }: ChildMessage): void {
    const asked = this.#askedWithToken(body);
    if (asked !== undefined) {
      asked.answer?.event(bytes);
      return;
    }
    if (this.#listener !== undefined) this.#listener.event(bytes);
    else {
      // Which request it belongs to cannot be known; it is the same agent's session whichever it is.
      const answer = [...this.#byId.values()].findLast((pending) => pending.answer !== undefined)?.answer;
      if (answer !== undefined) answer.event(bytes);
      else this.#hold(bytes);
    }
  }

  /** Without sessions a message belongs to a request that names it, and is nobody's otherwise. */
  #receiveModern({ body, bytes }: ChildMessage): void {
    const params = objectOf(body.params);
    const method = body.method;
    const subscription = objectOf(params?._meta)?.[SUBSCRIPTION_ID];
    let pending = this.#askedWithToken(body);
    if (subscription !== undefined) pending = this.#byId.get(keyOf(subscription));
    else if (method === 'notifications/cancelled') pending = this.#byId.get(keyOf(params?.requestId));
    else if (method === 'notifications/message') pending = this.#onlyOneThatLogs();

    if (pending === undefined) {
      this.#options.onStray(`a message that names no request: ${String(method).slice(0, 100)}`);
      return;
    }
    pending.answer?.event(bytes);
    // A server may end a subscription by cancelling it instead of answering it.
    if (method === 'notifications/cancelled' && pending.message.method === 'subscriptions/listen') {
      this.#forget(pending);
      pending.answer?.end();
      this.#touch();
    }
  }

  /** A log message names no request. It is passed on only where there is no doubt whose it is. */
  #onlyOneThatLogs(): Pending | undefined {
    const [only, another] = [...this.#byId.values()].filter(({ message }) => message.method !== 'subscriptions/listen');
    const asked = only?.message.meta?.['io.modelcontextprotocol/logLevel'] !== undefined;
    return asked && another === undefined ? only : undefined;
  }

  #askedWithToken(body: JsonObject): Pending | undefined {
    if (body.method !== 'notifications/progress') return undefined;
    return this.#byToken.get(keyOf(objectOf(body.params)?.progressToken));
  }

  /** Nobody waits for it any more; its id stays taken. The 2025 eras let the child work on, 2026-07-28 stops it. */
  #abandon(pending: Pending, mayCancel: boolean): void {
    pending.answer = undefined;
    this.#touch();
    if (mayCancel && this.#options.era === 'modern' && this.#byId.get(pending.id) === pending)
      this.#write(cancellationOf(pending.message));
  }

  #hold(bytes: Buffer): void {
    this.#held.push(bytes);
    this.#heldBytes += bytes.length;
    while (
      this.#held.length > this.#options.queueMax ||
      (this.#heldBytes > this.#options.messageBytesMax && this.#held.length > 1)
    ) {
      this.#heldBytes -= this.#held.shift()?.length ?? 0;
      this.#options.onStray('a message for which no agent was listening');
    }
  }

  #deliverHeld(answer: StdioAnswer): void {
    this.#heldBytes = 0;
    for (const bytes of this.#held.splice(0)) answer.event(bytes);
  }

  #createAnswer(
    signal: AbortSignal | undefined,
    own: Pick<ConstructorParameters<typeof StdioAnswer>[0], 'headers' | 'first' | 'idleMs' | 'onDropped'>,
  ): StdioAnswer {
    const { setTimer, queueMax, messageBytesMax } = this.#options;
    return new StdioAnswer({ ...own, signal, setTimer, waiting: { eventsMax: queueMax, bytesMax: messageBytesMax } });
  }

  #write(json: Buffer): boolean {
    this.#touch();
    return this.child?.write(toLine(json)) === true;
  }

  #forget(pending: Pending): void {
    this.#byId.delete(pending.id);
    if (pending.token !== undefined) this.#byToken.delete(pending.token);
  }

  #touch(): void {
    this.lastUsed = this.#options.now();
  }
}

/** `1` and `"1"` are two ids. */
function keyOf(id: unknown): string {
  return `${typeof id}:${String(id)}`;
}

function progressTokenOf(message: Message): string | undefined {
  const token = message.meta?.progressToken;
  return token === undefined ? undefined : keyOf(token);
}

function objectOf(value: unknown): JsonObject | undefined {
  return typeof value === 'object' && value !== null ? (value as JsonObject) : undefined;
}

/** `undefined`: not an error. */
function errorCodeOf(body: JsonObject): unknown {
  return 'error' in body ? (objectOf(body.error)?.code ?? null) : undefined;
}

/** 2026-07-28, Streamable HTTP: an unknown method is 404; an unsupported version and a missing capability are 400. */
function modernStatus(errorCode: unknown): number {
  if (errorCode === -32601) return 404;
  return errorCode === -32022 || errorCode === -32021 ? 400 : 200;
}

/** The JSON text of the request's id, to the digit. */
export function idText({ id, bytes, layout }: Message): string {
  if (layout.id !== undefined) return bytes.toString('utf8', layout.id.start, layout.id.end);
  return id === undefined ? 'null' : JSON.stringify(id);
}

function cancellationOf(message: Message): Buffer {
  const params = `{"requestId":${idText(message)},"reason":"the agent has gone"}`;
  return Buffer.from(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":${params}}`);
}

function notReading(): UpstreamFailure {
  return {
    kind: 'busy',
    detail: 'the server does not read its stdin, and too much is waiting for it',
    retryAfterMs: 1000,
    sent: false,
  };
}
