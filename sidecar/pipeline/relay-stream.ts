/**
 * Relays an event stream: the answer to a request, or the server's own messages, event by event and as they came.
 *
 * What becomes of a stream after its head is out is told in the stream itself: that it broke off, that a quota is spent,
 * that the sidecar drains. A stream with event ids may be taken up again, and then nothing is told that is not over.
 */
import type { JsonObject } from '../protocol/message.ts';
import { createFrameSplitter, encodeEvent, type Frame } from '../protocol/sse.ts';
import { estimateTokens, usageIn } from '../quota/tokens.ts';
import type { Catalog } from '../upstream/catalog.ts';
import { UpstreamBroken } from '../upstream/upstream.ts';
import { findAbsent, mayBeAbsent } from './absence.ts';
import type { Outcome } from './compose.ts';
import type { Answered } from './exchange.ts';
import { HeldHead } from './held-head.ts';
import { inspectMessage, isOwnAnswer, type MessagePorts, readMessages, spendOn } from './inspect-message.ts';
import type { LateAnswers } from './late-answers.ts';
import { describeReason, type Reason, ruleOf, toWire, type Wire } from './reason.ts';
import { replyHeaders } from './reply-headers.ts';
import type { Sessions } from './sessions.ts';
import { reasonOf } from './stages/forward.ts';
import { refusalText } from './stages/rescue.ts';

export interface StreamPorts extends MessagePorts {
  readonly limits: {
    /** One event of a stream. */
    readonly eventBytes: number;
  };
  readonly sessions: Sessions;
  readonly late: LateAnswers;
  /** Calls back when the sidecar drains, so that open streams end; returns how to stop listening. */
  readonly onDrain: (listener: () => void) => () => void;
  readonly newErrorId: () => string;
}

/** An event stream: the answer to a request, or the server's own messages. */
export async function relayStream(exchange: Answered, ports: StreamPorts): Promise<Outcome> {
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
    reply.head(200, {
      'cache-control': 'no-cache',
      'x-accel-buffering': 'no',
      ...replyHeaders(exchange, ports.sessions),
    });
  // While the answer may still be that there is no such thing, the head waits for it.
  const head = mayBeAbsent(exchange, ports.catalog)
    ? new HeldHead((bytes) => {
        open();
        return write(bytes);
      })
    : undefined;
  if (head === undefined) open();
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
        const elements = isEmpty(frame) ? [] : readMessages(frame.data!);
        const finding = head && absentIn(exchange, ports.catalog, elements);
        const absent = finding && (await finding);
        if (absent !== undefined && head?.isHeld) return absent;
        let bytes = inspectFrame(exchange, ports, frame, elements, state, absent);
        if (state.late.length > 0) bytes = (await chargeLate(exchange, ports, frame, state)) ?? bytes;
        streamed += frame.data?.length ?? 0;
        const spent = isEmpty(frame) ? undefined : spendOn(exchange, streamed);
        // The answer itself is withheld: it is still to come, for whoever takes the stream up again.
        if (spent !== undefined) exchange.answered = wasAnswered;
        if (head?.isHeld) {
          if (spent !== undefined) return spent;
          const passing = exchange.answered || showsWork(elements) ? head.release(bytes) : head.hold(bytes);
          if (passing !== undefined) await passing;
          continue;
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
    head?.stop();
    noteStreamed(exchange, streamed);
  }

  await head?.release();
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
function noteBroken(exchange: Answered, ports: StreamPorts, reason: Reason): Wire {
  const errorId = ports.newErrorId();
  const wire = toWire(reason, { errorId, era: exchange.era, method: exchange.message?.method });
  // A stream that we cut off is no fault of its server, nor is what it does not have.
  if (reason.kind !== 'quota' && reason.kind !== 'hidden') exchange.attempt.failed(undefined);
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

type Elements = readonly JsonObject[] | undefined;

const NOTHING = Buffer.alloc(0);

/**
 * The bytes of an event to pass on: as they came, filtered, with our words in place of the answer (`absent`), or none.
 *
 * @param elements The messages in it; `undefined` where it cannot be read.
 */
function inspectFrame(
  exchange: Answered,
  ports: StreamPorts,
  frame: Frame,
  elements: Elements,
  state: StreamState,
  absent: Reason | undefined,
): Buffer {
  if (frame.id !== undefined) state.resumable = true;
  // What cannot be read cannot be judged, and a list might be in it.
  if (elements === undefined) return NOTHING;

  let changed = false;
  const texts = elements.map((element) => {
    if (absent !== undefined && isOwnAnswer(exchange, element)) {
      changed = true;
      exchange.answered = true;
      return refusalText(noteBroken(exchange, ports, absent), exchange.era, exchange.message?.id);
    }
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
  ports: StreamPorts,
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

function absentIn(exchange: Answered, catalog: Catalog, elements: Elements): Promise<Reason | undefined> | undefined {
  const own = elements?.find((element) => isOwnAnswer(exchange, element));
  return own && findAbsent(exchange, catalog, own);
}

/** Who tells of progress, or asks the agent something, has the thing. */
function showsWork(elements: Elements = []): boolean {
  return elements.some(
    ({ method, id }) => method === 'notifications/progress' || (method !== undefined && id !== undefined),
  );
}

/** 2026-07-28, subscriptions/listen: a stream that its server ends gracefully ends with the result of the request. */
function gracefulEnd(id: string | number): string {
  return JSON.stringify({
    jsonrpc: '2.0',
    id,
    result: { resultType: 'complete', _meta: { 'io.modelcontextprotocol/subscriptionId': id } },
  });
}
