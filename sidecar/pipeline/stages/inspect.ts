/**
 * Stage 13. Relays the answer: bytes as they came, but for what each message is inspected for (inspect-message.ts), by
 * whatever stream it comes (relay-stream.ts). Never lets through what it could not read where a list could hide in it.
 */
import { listKindOf } from '../../../policies/methods.ts';
import { estimateTokens } from '../../quota/tokens.ts';
import { UpstreamBroken, type UpstreamResponse } from '../../upstream/upstream.ts';
import { findAbsent } from '../absence.ts';
import type { Outcome, Stage } from '../compose.ts';
import type { Answered } from '../exchange.ts';
import { inspectMessage, noteAnswer, readMessage, redactedPointers, spendOn } from '../inspect-message.ts';
import type { Reason } from '../reason.ts';
import { relayStream, type StreamPorts } from '../relay-stream.ts';
import { replyHeaders } from '../reply-headers.ts';
import { reasonOf } from './forward.ts';

export interface InspectPorts extends StreamPorts {
  readonly limits: StreamPorts['limits'] & {
    /** One answer that must be read whole (a list). */
    readonly wholeBytes: number;
  };
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
    const finding = findAbsent(exchange, ports.catalog, read);
    const absent = finding && (await finding);
    if (absent !== undefined) return absent;
    const bytes = inspectMessage(exchange, ports, read, head.bytes);
    const spent = spendOn(exchange, head.bytes.length);
    if (spent !== undefined) return spent;
    if (reply.gone) return undefined;
    reply.head(200, { ...replyHeaders(exchange, ports.sessions), 'content-length': String(bytes.length) });
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
    reply.head(200, replyHeaders(exchange, ports.sessions));
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

/** An answer of 400 and above. A JSON-RPC error is the server's word to the agent; anything else is only a status. */
async function relayError(exchange: Answered, ports: InspectPorts): Promise<Outcome> {
  const { answer, reply } = exchange;
  const head = await readUpTo(answer, WHOLE_BYTES_MAX);
  const bytes = 'failure' in head ? Buffer.alloc(0) : head.bytes;
  const read = 'failure' in head || !head.whole ? undefined : readMessage(bytes);
  // A result beside the error would be one that nobody has looked at.
  const isError = read !== undefined && !('result' in read);
  if (isError && typeof (read.error as { code?: unknown } | undefined)?.code === 'number') {
    const absent = await findAbsent(exchange, ports.catalog, read);
    if (absent !== undefined) return absent;
    noteAnswer(exchange, read, bytes);
    const spent = spendOn(exchange, bytes.length);
    if (spent !== undefined) return spent;
    if (reply.gone) return undefined;
    reply.head(answer.status, { ...replyHeaders(exchange, ports.sessions), 'content-length': String(bytes.length) });
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
  const { 'content-type': _, ...headers } = replyHeaders(exchange, ports.sessions);
  exchange.reply.head(exchange.answer.status, headers);
  exchange.reply.end();
  return undefined;
}

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
