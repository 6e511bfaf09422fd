/**
 * Stage 13. Relays the answer: bytes as they came, event by event, with lists filtered by the permit on whatever
 * stream they come. Learns tools for the catalog, counts tokens, and never lets through what it could not read where a
 * list could hide in it.
 */
import { listKindOf } from '../../../policies/methods.ts';
import type { Pointer } from '../../../policies/policy.ts';
import { resultPointersFor } from '../../../policies/redact.ts';
import { filterLists, type Keep } from '../../protocol/filter.ts';
import type { JsonObject } from '../../protocol/message.ts';
import { addToResultMeta } from '../../protocol/result-meta.ts';
import { createFrameSplitter, encodeEvent, type Frame } from '../../protocol/sse.ts';
import { estimateTokens, TOKENIZED_BYTES_MAX, usageIn } from '../../quota/tokens.ts';
import type { Catalog } from '../../upstream/catalog.ts';
import type { ToolPins } from '../../upstream/tool-pins.ts';
import { UpstreamBroken, type UpstreamResponse } from '../../upstream/upstream.ts';
import type { Outcome, Stage } from '../compose.ts';
import type { Answered } from '../exchange.ts';
import type { LateAnswers } from '../late-answers.ts';
import type { ListFilter } from '../permit.ts';
import { describeReason, type Reason, ruleOf, toWire, type Wire } from '../reason.ts';
import { redactResult } from '../redact-result.ts';
import type { Sessions } from '../sessions.ts';
import { reasonOf } from './forward.ts';
import { refusalText } from './rescue.ts';

export interface InspectPorts {
  readonly limits: {
    /** One event of a stream. */
    readonly eventBytes: number;
    /** One answer that must be read whole (a list). */
    readonly wholeBytes: number;
  };
  readonly sessions: Sessions;
  readonly catalog: Catalog;
  readonly pins: ToolPins;
  readonly late: LateAnswers;
  /** A server said that a list or a resource changed. */
  readonly changed: (server: string) => void;
  /** Calls back when the sidecar drains, so that open streams end; returns how to stop listening. */
  readonly onDrain: (listener: () => void) => () => void;
  readonly newErrorId: () => string;
}

/** Answers up to this size are read whole before their head goes out, so that a broken one is still a clear error. */
const WHOLE_BYTES_MAX = 64 * 1024;

export function inspect(ports: InspectPorts): Stage<Answered, never> {
  return (exchange): Outcome | Promise<Outcome> => {
    const { answer, message } = exchange;
    const type = answer.headers['content-type'] ?? '';
    if (answer.status === 200 && type.startsWith('text/event-stream')) return relayStream(exchange, ports);
    if (answer.status >= 400) return relayError(exchange, ports);
    if (message?.kind === 'request') {
      if (answer.status !== 200 || !type.startsWith('application/json')) {
        return {
          kind: 'upstreamGarbage',
          detail: `status ${answer.status} with ${mediaTypeOf(type)} for a request`,
        };
      }
      return relayJson(exchange, ports);
    }
    return relayAcknowledgement(exchange, ports);
  };
}

/** Only what looks like one: a server may write anything there, what we sent it included. */
function mediaTypeOf(type: string): string {
  return /^[a-z]{1,20}\/[a-z0-9.+-]{1,40}(?=\s*(?:;|$))/i.exec(type)?.[0] ?? 'no media type';
}

/** A JSON answer to a request. */
async function relayJson(exchange: Answered, ports: InspectPorts): Promise<Outcome> {
  const { answer, reply } = exchange;
  const mustReadWhole = listKindOf(exchange.message!.method) !== undefined || redactedPointers(exchange).length > 0;
  const head = await readUpTo(answer, mustReadWhole ? ports.limits.wholeBytes : WHOLE_BYTES_MAX);
  if ('failure' in head) return head.failure;

  if (head.whole) {
    const read = readMessage(head.bytes);
    if (read === undefined) return { kind: 'upstreamGarbage', detail: 'the answer is not a JSON-RPC message' };
    if (read.id !== exchange.message!.id)
      return { kind: 'upstreamGarbage', detail: 'the answer carries the id of another request' };
    const absent = findAbsent(exchange, ports.catalog, read);
    if (absent !== undefined) return absent;
    const bytes = inspectMessage(exchange, ports, read, head.bytes);
    const spent = spendOn(exchange, head.bytes.length);
    if (spent !== undefined) return spent;
    if (reply.gone) return undefined;
    reply.head(200, { ...replyHeaders(exchange, ports), 'content-length': String(bytes.length) });
    reply.end(bytes);
    return undefined;
  }
  if (mustReadWhole)
    return {
      kind: 'upstreamGarbage',
      detail: `an answer that must be read whole, and is larger than limits.response (${ports.limits.wholeBytes} bytes)`,
    };

  let bytesIn = head.bytes.length;
  let spent = spendOn(exchange, bytesIn);
  try {
    if (spent !== undefined) return spent;
    reply.head(200, replyHeaders(exchange, ports));
    await reply.write(head.bytes);
    for await (const chunk of answer.body) {
      bytesIn += chunk.length;
      spent = spendOn(exchange, bytesIn);
      // The head is out: `rescue` cuts the connection, so that nobody takes this for the whole answer.
      if (spent !== undefined) return spent;
      if (!reply.gone) await reply.write(chunk);
    }
    exchange.answered = true;
  } catch (error) {
    if (!(error instanceof UpstreamBroken)) throw error;
    return reasonOf(error.failure);
  } finally {
    exchange.tokensOut = estimateTokens(bytesIn);
  }
  reply.end();
  return undefined;
}

/** So many bytes of the answer have come. Says why no more of it may pass; only where its tokens are charged. */
function spendOn({ spend, serverUsage }: Answered, bytes: number): Reason | undefined {
  return spend?.(serverUsage?.output ?? estimateTokens(bytes));
}

/** An event stream: the answer to a request, or the server's own messages. */
async function relayStream(exchange: Answered, ports: InspectPorts): Promise<Outcome> {
  const { answer, reply, message } = exchange;
  const splitter = createFrameSplitter(ports.limits.eventBytes);
  const isPush = message === undefined || message.method === 'subscriptions/listen';
  const state: StreamState = { resumable: false, late: [] };
  let drained = false;
  const stopListening = isPush
    ? ports.onDrain(() => {
        drained = true;
        answer.cancel();
      })
    : undefined;
  // The agent of a 2025 era may be gone and its request left to run: read on, write nothing.
  const write = (bytes: Buffer) => (reply.gone ? undefined : reply.write(bytes));

  const open = () =>
    reply.head(200, { 'cache-control': 'no-cache', 'x-accel-buffering': 'no', ...replyHeaders(exchange, ports) });
  // While the first message may still say that there is no such tool, the head waits for it.
  let held: Buffer[] | undefined = mayBeAbsent(exchange, ports.catalog) ? [] : undefined;
  if (held === undefined) open();
  let broken: Reason | undefined;
  let streamed = 0;
  try {
    reading: for await (const chunk of answer.body) {
      const frames = splitter.push(chunk);
      if (!frames.ok) {
        broken = {
          kind: 'upstreamGarbage',
          detail: `an event larger than limits.event (${ports.limits.eventBytes} bytes)`,
        };
        break;
      }
      // A stream may go on for hours: its first event is answer enough for the breaker.
      if (frames.value.length > 0) exchange.attempt.succeeded();
      for (const frame of frames.value) {
        const wasAnswered = exchange.answered;
        let bytes = inspectFrame(exchange, ports, frame, state);
        if (state.late.length > 0) bytes = (await chargeLate(exchange, ports, frame, state)) ?? bytes;
        streamed += frame.data?.length ?? 0;
        const spent = isEmpty(frame) ? undefined : spendOn(exchange, streamed);
        // The answer itself is withheld: it is still to come, for whoever takes the stream up again.
        if (spent !== undefined) exchange.answered = wasAnswered;
        if (held !== undefined) {
          const absent = absentIn(exchange, ports.catalog, frame);
          if (absent !== undefined) return absent;
          if (spent !== undefined) return spent;
          held.push(bytes);
          if (isEmpty(frame)) continue;
          bytes = Buffer.concat(held);
          held = undefined;
          open();
        }
        if (spent !== undefined) {
          answer.cancel();
          broken = spent;
          break reading;
        }
        const waiting = write(bytes);
        if (waiting !== undefined) await waiting;
      }
    }
  } catch (error) {
    if (!(error instanceof UpstreamBroken)) throw error;
    broken = reasonOf(error.failure);
  } finally {
    stopListening?.();
    noteStreamed(exchange, streamed);
  }

  if (held !== undefined) {
    open();
    await write(Buffer.concat(held));
  }
  const isLost = message?.id !== undefined && !exchange.answered && !drained;
  const reason: Reason | undefined =
    broken ??
    (isLost && !state.resumable
      ? { kind: 'upstreamGarbage', detail: 'the stream ended without an answer' }
      : undefined);
  const wire = reason === undefined || reason.kind === 'aborted' ? undefined : noteBroken(exchange, ports, reason);
  if (!reply.gone && message?.id !== undefined && !exchange.answered) {
    if (drained) await write(encodeEvent({ event: 'message', data: gracefulEnd(message.id) }));
    // A stream with event ids is taken up again by `Last-Event-ID`; any other has lost its answer, and the agent must hear it.
    // One that was cut off is not to be: the request is over.
    else if ((!state.resumable || broken?.kind === 'quota') && wire !== undefined)
      await write(encodeEvent({ event: 'message', data: refusalText(wire, exchange.era, message.id) }));
  }
  reply.end();
  return undefined;
}

/** What came beside the answer counts too: then the whole is estimated. */
function noteStreamed(exchange: Answered, bytes: number): void {
  const tokens = estimateTokens(bytes);
  if (exchange.message?.id === undefined || tokens <= (exchange.tokensOut ?? 0)) return;
  exchange.tokensOut = tokens;
  exchange.answerBytes = undefined;
}

/** A stream whose head is out is past `rescue`: what became of it is noted here. */
function noteBroken(exchange: Answered, ports: InspectPorts, reason: Reason): Wire {
  const errorId = ports.newErrorId();
  const wire = toWire(reason, { errorId, era: exchange.era, method: exchange.message?.method });
  // A stream that we cut off is no fault of its server.
  if (reason.kind !== 'quota') exchange.attempt.failed(undefined);
  exchange.reason = { text: describeReason(reason), rule: ruleOf(reason), kind: reason.kind, errorId };
  exchange.rpcCode = wire.error.code;
  return wire;
}

interface StreamState {
  /** Events carry ids, so the agent can resume. */
  resumable: boolean;
  /** Answers in the present event to requests that came on other streams. */
  late: { readonly id: unknown; readonly tokens: number }[];
}

const NOTHING = Buffer.alloc(0);

/** The bytes of an event to pass on: as they came, filtered, or none. */
function inspectFrame(exchange: Answered, ports: InspectPorts, frame: Frame, state: StreamState): Buffer {
  if (frame.id !== undefined) state.resumable = true;
  if (isEmpty(frame)) return frame.bytes;
  const elements = readMessages(frame.data!);
  // What cannot be read cannot be judged, and a list might be in it.
  if (elements === undefined) return NOTHING;

  let changed = false;
  const texts = elements.map((element) => {
    const before =
      elements.length === 1 && !frame.data!.trimStart().startsWith('[')
        ? Buffer.from(frame.data!)
        : Buffer.from(JSON.stringify(element));
    if (!('method' in element) && !isOwnAnswer(exchange, element))
      state.late.push({ id: element.id, tokens: usageIn(element.result)?.output ?? estimateTokens(before.length) });
    const after = inspectMessage(exchange, ports, element, before);
    if (after !== before) changed = true;
    return after.toString();
  });
  if (!changed) return frame.bytes;
  const data = frame.data!.trimStart().startsWith('[') ? `[${texts.join(',')}]` : texts[0]!;
  return encodeEvent({
    ...(frame.id === undefined ? undefined : { id: frame.id }),
    ...(frame.event === undefined ? undefined : { event: frame.event }),
    data,
  });
}

/** Charges the answers to their calls. An error for each, in place of the event, when one is too much. */
async function chargeLate(
  exchange: Answered,
  ports: InspectPorts,
  frame: Frame,
  state: StreamState,
): Promise<Buffer | undefined> {
  const answers = state.late.splice(0);
  let spent: Reason | undefined;
  for (const { id, tokens } of answers) spent ??= await ports.late.charge(exchange, id, tokens);
  if (spent === undefined) return undefined;
  const wire = noteBroken(exchange, ports, spent);
  const texts = answers.map(({ id }) => refusalText(wire, exchange.era, id as string | number | undefined));
  return encodeEvent({
    ...(frame.id === undefined ? undefined : { id: frame.id }),
    event: 'message',
    data: texts.length === 1 ? texts[0]! : `[${texts.join(',')}]`,
  });
}

/** Comments, and the priming event of 2025-11-25, carry no message. */
function isEmpty({ data }: Frame): boolean {
  return data === undefined || data === '';
}

/**
 * Where policy hides tools, a name that the server has never listed may not exist at all, and the server's own words
 * for that would tell it from a hidden one.
 */
function mayBeAbsent({ message, policy, route }: Answered, catalog: Catalog): boolean {
  if (message?.method !== 'tools/call' || !policy.hidesTools || policy.audit) return false;
  return !catalog.knows(route.server, String(message.params?.name));
}

/** The refusal that a hidden tool would have had, when the server says that it has no such tool. */
function findAbsent(exchange: Answered, catalog: Catalog, read: JsonObject): Reason | undefined {
  if (!mayBeAbsent(exchange, catalog)) return undefined;
  const name = String(exchange.message!.params?.name);
  const code = (read.error as { code?: unknown } | undefined)?.code;
  const { isError, content } = (read.result ?? {}) as { isError?: unknown; content?: readonly { text?: unknown }[] };
  const says = isError === true && Array.isArray(content) && content.length === 1 ? String(content[0]?.text) : '';
  const isAbsent = code === -32602 || code === -32601 || (says.includes(name) && SAYS_ABSENT.test(says));
  if (!isAbsent) return undefined;
  return { kind: 'hidden', what: 'tool', name, rule: undefined, detail: 'the server says that it has no such tool' };
}

const SAYS_ABSENT = /unknown|not found|no such|does not exist/i;

function absentIn(exchange: Answered, catalog: Catalog, frame: Frame): Reason | undefined {
  const [read] = isEmpty(frame) ? [] : (readMessages(frame.data!) ?? []);
  return read !== undefined && read.id === exchange.message?.id ? findAbsent(exchange, catalog, read) : undefined;
}

/** One message of the server: filters its lists, and notes what the observers and the quota want to know. */
function inspectMessage(exchange: Answered, ports: InspectPorts, read: JsonObject, bytes: Buffer): Buffer {
  const { server } = exchange.route;
  const method = read.method;
  if (typeof method === 'string') {
    if (method.endsWith('/list_changed') || method === 'notifications/resources/updated') ports.changed(server);
    if (method === 'notifications/tools/list_changed') ports.catalog.changed(server);
    if (method !== 'notifications/tasks') return bytes;
    return redactResult(bytes, resultPointersFor(exchange.policy, server, undefined), 'noticeResult');
  }
  const result = read.result;
  const isOwn = isOwnAnswer(exchange, read);
  if (isOwn) noteAnswer(exchange, read, bytes);
  if (typeof result !== 'object' || result === null) return bytes;

  // A call's own result may well have a member called `tools`; on a stream that is not ours to match, only the shape is known.
  const mayBeList = !isOwn || listKindOf(exchange.message!.method) !== undefined;
  const names = isOwn && isWholeToolList(exchange, result) ? new Set<unknown>() : undefined;
  const filtered = mayBeList ? filterLists(bytes, learning(exchange.permit.filter, server, ports, names)) : bytes;
  if (names !== undefined) ports.pins.listed(server, names);
  // On a stream that is taken up again, the answer to a call of which nothing is known here.
  const pointers = isOwn ? redactedPointers(exchange) : resultPointersFor(exchange.policy, server, undefined);
  const isCall = isOwn && exchange.message?.method === 'tools/call';
  const inTask = isCall ? filtered : redactResult(filtered, pointers, 'taskResult');
  const redacted = redactResult(inTask, pointers);
  if (!isOwn) return redacted;
  exchange.keepAnswer?.(redacted);
  return tellShares(exchange, redacted);
}

/** Where policy wants the result of this call redacted. */
function redactedPointers({ message, policy, route }: Answered): readonly Pointer[] {
  if (message?.method === 'tools/call') return resultPointersFor(policy, route.server, String(message.params?.name));
  // A task may be that of any tool.
  return message?.method.startsWith('tasks/') ? resultPointersFor(policy, route.server, undefined) : [];
}

const QUOTA_META = 'mcp-sidecar.io/quota';

/** Near the wall, the answer tells how much of each quota is left: an agent that reads it can slow down by itself. */
function tellShares({ quotaUsage, policy }: Answered, bytes: Buffer): Buffer {
  if (quotaUsage.length === 0) return bytes;
  const shares = quotaUsage.flatMap(({ quota: name, dimension, used, limit }) => {
    const warnAt = policy.quotas.find((one) => one.name === name)?.warnAt ?? 1;
    if (used < warnAt * limit) return [];
    return [{ name, dimension, remaining: Math.max(0, Math.round((1 - used / limit) * 1000) / 1000) }];
  });
  return shares.length === 0 ? bytes : addToResultMeta(bytes, QUOTA_META, JSON.stringify(shares));
}

function isOwnAnswer({ message }: Answered, read: JsonObject): boolean {
  return message?.id !== undefined && read.id === message.id && !('method' in read);
}

function noteAnswer(exchange: Answered, read: JsonObject, bytes: Buffer): void {
  exchange.answered = true;
  exchange.tokensOut = estimateTokens(bytes.length);
  if (exchange.policy.countsTokens) {
    exchange.serverUsage = usageIn(read.result);
    if (bytes.length <= TOKENIZED_BYTES_MAX) exchange.answerBytes = bytes;
  }
  const error = read.error as { code?: unknown } | undefined;
  if (typeof error?.code === 'number') exchange.rpcCode = error.code;
  if ((read.result as { isError?: unknown } | undefined)?.isError === true) exchange.toolError = true;
}

/**
 * Every tool that passes is learned and held against its pin, those that are filtered out too: policy may be reloaded.
 * Their names are put into `names`.
 */
function learning(
  filter: ListFilter,
  server: string,
  { catalog, pins }: InspectPorts,
  names: Set<unknown> | undefined,
): Keep {
  return (kind, item, text) => {
    if (kind !== 'tools') return filter(kind, item);
    names?.add((item as { name?: unknown } | null)?.name);
    catalog.learn(server, item);
    return pins.judge(server, item, text) && filter(kind, item);
  };
}

/** The answer to `tools/list` is all the tools there are, and not a page of them. */
function isWholeToolList(
  { message }: Answered,
  { tools, nextCursor }: { tools?: unknown; nextCursor?: unknown },
): boolean {
  if (message?.method !== 'tools/list' || !Array.isArray(tools)) return false;
  return message.params?.cursor === undefined && nextCursor === undefined;
}

/** An answer of 400 and above. A JSON-RPC error is the server's word to the agent; anything else is only a status. */
async function relayError(exchange: Answered, ports: InspectPorts): Promise<Outcome> {
  const { answer, reply } = exchange;
  const head = await readUpTo(answer, WHOLE_BYTES_MAX);
  const bytes = 'failure' in head ? NOTHING : head.bytes;
  const read = 'failure' in head || !head.whole ? undefined : readMessage(bytes);
  // A result beside the error would be one that nobody has looked at.
  const isError = read !== undefined && !('result' in read);
  if (isError && typeof (read.error as { code?: unknown } | undefined)?.code === 'number') {
    noteAnswer(exchange, read, bytes);
    const spent = spendOn(exchange, bytes.length);
    if (spent !== undefined) return spent;
    if (reply.gone) return undefined;
    reply.head(answer.status, { ...replyHeaders(exchange, ports), 'content-length': String(bytes.length) });
    reply.end(bytes);
    return undefined;
  }
  const detail = `the body is ${bytes.length === 0 ? 'empty' : 'not a JSON-RPC error'}`;
  const retryAfter = answer.headers['retry-after'];
  switch (answer.status) {
    case 503:
      return {
        kind: 'unavailable',
        why: 'unreachable',
        detail: `the server answered 503; ${detail}`,
        retryAfterMs: secondsOf(retryAfter) * 1000,
      };
    case 504:
      return { kind: 'upstreamTimeout', phase: 'behind the server (504)', afterMs: 0 };
    case 404:
    case 405:
      // Statuses that the transport itself gives a meaning: session gone, no stream here.
      if (exchange.message === undefined) return relayBare(exchange, ports);
      break;
    default:
      if (answer.status >= 500)
        return { kind: 'upstreamGarbage', detail: `the server answered ${answer.status}; ${detail}` };
  }
  return { kind: 'upstreamRefused', status: answer.status, detail, retryAfter };
}

/** RFC 9110 section 10.2.3; a date, or nothing, counts as one second. */
function secondsOf(retryAfter: string | undefined): number {
  return retryAfter !== undefined && /^\d{1,6}$/.test(retryAfter) ? Number(retryAfter) : 1;
}

/** The answer to a notification, a response or a DELETE: its status is all there is to it. */
function relayAcknowledgement(exchange: Answered, ports: InspectPorts): Outcome {
  if (exchange.permit.method === 'GET')
    return { kind: 'upstreamGarbage', detail: 'a GET was answered with something that is not an event stream' };
  return relayBare(exchange, ports);
}

function relayBare(exchange: Answered, ports: InspectPorts): undefined {
  const { 'content-type': _, ...headers } = replyHeaders(exchange, ports);
  exchange.reply.head(exchange.answer.status, headers);
  exchange.reply.end();
  return undefined;
}

/** What of the server's head the agent gets: no cookie, no challenge, nothing that tells of what stands behind. */
function replyHeaders(
  { answer, request, route, caller, upstreamSessionId }: Answered,
  { sessions }: InspectPorts,
): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const name of RETURNED) {
    const value = answer.headers[name];
    if (value !== undefined) headers[name] = value;
  }
  const sessionId = answer.headers['mcp-session-id'];
  if (sessionId !== undefined) {
    const own = request.headers['mcp-session-id'];
    headers['mcp-session-id'] =
      sessionId === upstreamSessionId && typeof own === 'string'
        ? own
        : sessions.seal({
            server: route.server,
            agent: caller.agent,
            upstreamSessionId: sessionId,
            protocolVersion: undefined,
            virtual: route.virtual,
          });
  }
  return headers;
}

const RETURNED = ['content-type', 'cache-control', 'x-accel-buffering', 'retry-after', 'allow'] as const;

type Head = { readonly bytes: Buffer; readonly whole: boolean } | { readonly failure: Reason };

/** The first chunks of a body: all of it when it ends within `bytesMax`. */
async function readUpTo(answer: UpstreamResponse, bytesMax: number): Promise<Head> {
  const chunks: Buffer[] = [];
  let length = 0;
  const body = answer.body[Symbol.asyncIterator]();
  try {
    while (length <= bytesMax) {
      const next = await body.next();
      if (next.done === true)
        return { bytes: chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks, length), whole: true };
      chunks.push(next.value);
      length += next.value.length;
    }
  } catch (error) {
    if (!(error instanceof UpstreamBroken)) throw error;
    return { failure: reasonOf(error.failure) };
  }
  return { bytes: Buffer.concat(chunks, length), whole: false };
}

/** A JSON-RPC message of the server, or `undefined` for anything else. */
function readMessage(bytes: Buffer): JsonObject | undefined {
  const text = bytes.toString();
  // An array of one would be taken for its element here, and for a list that nobody filters behind us.
  return text.trimStart().startsWith('[') ? undefined : readMessages(text)?.[0];
}

function readMessages(text: string): readonly JsonObject[] | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const elements = Array.isArray(value) ? value : [value];
  return elements.every(isMessage) ? elements : undefined;
}

/** One that is a request and an answer at once is neither: who reads it as the one would not look at the other. */
function isMessage(value: unknown): value is JsonObject {
  if (typeof value !== 'object' || value === null || (value as JsonObject).jsonrpc !== '2.0') return false;
  return !('method' in value) || !('result' in value || 'error' in value);
}

/** 2026-07-28, subscriptions/listen: a stream that its server ends gracefully ends with the result of the request. */
function gracefulEnd(id: string | number): string {
  return JSON.stringify({
    jsonrpc: '2.0',
    id,
    result: { resultType: 'complete', _meta: { 'io.modelcontextprotocol/subscriptionId': id } },
  });
}
