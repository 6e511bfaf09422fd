/**
 * Stage 6. Reads the bounded body, refuses everything that could be read in two ways, and finds era, session and trace
 * context. Nothing before this stage has looked at the body, and nothing after it parses again.
 *
 * The session id is opened here rather than in `route`, since policy and audit want to know it too.
 */
import { randomFillSync } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { err, ok, type Result } from '../../../policies/result.ts';
import { LISTEN_METHOD } from '../../protocol/eras.ts';
import { classify } from '../../protocol/ladder.ts';
import type { JsonObject, MalformedReason, Message } from '../../protocol/message.ts';
import { parseBody } from '../../protocol/parse.ts';
import {
  boundBaggage,
  boundTracestate,
  formatTraceparent,
  makeSpanId,
  makeTraceId,
  parseTraceparent,
} from '../../protocol/trace-context.ts';
import { runBatch } from '../batch.ts';
import { readBody } from '../body.ts';
import type { Next, Outcome, Stage } from '../compose.ts';
import type { Exchange, Identified, Parsed, Trace } from '../exchange.ts';
import type { Reason } from '../reason.ts';
import type { Sessions } from '../sessions.ts';

export interface ParsePorts {
  readonly limits: {
    readonly bodyBytes: number;
    readonly depth: number;
    readonly batch: number;
    readonly batchAnswerBytes: number;
  };
  readonly sessions: Sessions;
  /** Whether a trace that starts here is recorded, and whether one that arrives is continued by spans of ours. */
  readonly tracing: { readonly enabled: boolean; readonly sampleRatio: number };
  /** `observe` and `rescue` around the stages that follow, for each element of a batch. */
  readonly perElement: (inner: Next<Parsed>) => Next<Parsed>;
}

export function parse(ports: ParsePorts): Stage<Identified, Parsed> {
  const { limits, sessions } = ports;

  return async (exchange, next): Promise<Outcome> => {
    const { request } = exchange;
    if (request.method !== 'POST') {
      exchange.era = 'legacy';
      exchange.protocolVersion = headerOf(request.headers['mcp-protocol-version']);
      exchange.trace = continueTrace(headerContext(request.headers), ports.tracing);
      return openSession(exchange, sessions) ?? next(exchange as Parsed);
    }

    const body = await readBody(request, limits.bodyBytes);
    if (!body.ok) {
      if (body.error === 'aborted')
        return { kind: 'aborted', detail: 'the agent closed the connection before the request was whole' };
      if (body.error === 'noRoom')
        return {
          kind: 'unavailable',
          why: 'shedding',
          detail: 'too many large bodies are being read',
          retryAfterMs: 1_000,
        };
      return { kind: 'malformed', reason: { kind: 'tooLarge', bytesMax: limits.bodyBytes } };
    }
    exchange.bytesIn = body.value.length;

    const parsed = parseBody(body.value, { depthMax: limits.depth, batchMax: limits.batch });
    if (!parsed.ok) {
      exchange.refusedId = idIn(body.value, parsed.error);
      return { kind: 'malformed', reason: parsed.error };
    }
    // Known from here on, so that a refusal by the ladder carries the request's id.
    if (parsed.value.kind === 'single') exchange.message = parsed.value.message;

    const classified = classify(parsed.value, {
      protocolVersion: headerOf(request.headers['mcp-protocol-version']),
      method: headerOf(request.headers['mcp-method']),
      name: headerOf(request.headers['mcp-name']),
    });
    if (!classified.ok) return { kind: 'malformed', reason: classified.error };
    exchange.era = classified.value.era;
    exchange.protocolVersion = classified.value.protocolVersion;

    // SEP-414: what `_meta` says beats the HTTP header.
    const traceOf = (message: Message | undefined): Trace => {
      const meta = message?.meta;
      const arrived = meta?.traceparent === undefined ? headerContext(request.headers) : metaContext(meta);
      const baggage = meta?.baggage === undefined ? headerOf(request.headers.baggage) : undefined;
      return continueTrace({ ...arrived, baggage }, ports.tracing);
    };
    exchange.trace = traceOf(exchange.message);

    const unknown = openSession(exchange, sessions);
    if (unknown !== undefined) return unknown;
    if (parsed.value.kind === 'single') {
      if (parsed.value.message.method === LISTEN_METHOD) {
        // A POST that turns out to be a stream once its body is read.
        const full = exchange.place?.move('streams');
        if (full !== undefined) return full;
      }
      return next(exchange as Parsed);
    }
    exchange.isBatch = true;
    const perElement = ports.perElement((element) => {
      // It has waited for a place, and nobody waits for it any more.
      if (element.reply.gone) return { kind: 'aborted', detail: 'the agent has gone before this was begun' };
      return next(element);
    });
    await runBatch(exchange as Parsed, parsed.value.messages, traceOf, perElement, limits.batchAnswerBytes);
    return undefined;
  };
}

/** Finds the upstream's session behind the agent's. It must be this endpoint's and this caller's (GHSA-mvgg-jvj2-4frq). */
function openSession(exchange: Exchange, sessions: Sessions): Reason | undefined {
  // 2026-07-28 has no sessions: the header is ignored.
  if (exchange.era === 'modern') return undefined;
  const sealed = headerOf(exchange.request.headers['mcp-session-id']);
  if (sealed === undefined) return undefined;
  const session = sessions.open(sealed);
  if (session === undefined)
    return {
      kind: 'sessionUnknown',
      detail: 'the session id was not issued by this sidecar, or by an earlier run of it',
    };
  const { route, caller } = exchange;
  const isHere = session.server === route?.server && session.virtual === route.virtual;
  if (!isHere || session.agent !== caller?.agent)
    return { kind: 'sessionUnknown', detail: 'the session belongs to another agent, server or virtual server' };
  exchange.upstreamSessionId = session.upstreamSessionId;
  exchange.sessionHash = session.hash;
  return undefined;
}

const randomPool = Buffer.alloc(4096);
let randomUsed = randomPool.length;

/** Random bytes from a pool: one system call in a hundred exchanges. */
function randomBytes(count: number): Buffer {
  if (randomUsed + count > randomPool.length) {
    randomFillSync(randomPool);
    randomUsed = 0;
  }
  randomUsed += count;
  return randomPool.subarray(randomUsed - count, randomUsed);
}

/**
 * The context of this exchange: the agent's own continued, or a new one. With tracing off a trace that arrives passes
 * as it is, since spans that nobody records would only tear it.
 */
export function continueTrace(
  { traceparent, tracestate, baggage }: ArrivedContext,
  tracing: ParsePorts['tracing'],
): Trace {
  const parent = traceparent === undefined ? undefined : parseTraceparent(traceparent);
  const traceId = parent?.traceId ?? makeTraceId(randomBytes);
  const clientSpanId = makeSpanId(randomBytes);
  const sampled = tracing.enabled && (parent === undefined ? isSampled(traceId, tracing.sampleRatio) : parent.sampled);
  return {
    traceId,
    serverSpanId: makeSpanId(randomBytes),
    clientSpanId,
    parentSpanId: parent?.spanId,
    traceState: parent === undefined ? undefined : boundTracestate(tracestate),
    sampled,
    inject:
      parent !== undefined && !tracing.enabled
        ? formatTraceparent({ traceId, spanId: parent.spanId, sampled: parent.sampled })
        : formatTraceparent({ traceId, spanId: clientSpanId, sampled }),
    baggage: boundBaggage(baggage),
  };
}

/** What an agent sent of its trace context. `tracestate` belongs to the `traceparent` that came with it. */
interface ArrivedContext {
  readonly traceparent?: string | undefined;
  readonly tracestate?: string | undefined;
  readonly baggage?: string | undefined;
}

function headerContext(headers: IncomingHttpHeaders): ArrivedContext {
  return { traceparent: headerOf(headers.traceparent), tracestate: headerOf(headers.tracestate) };
}

function metaContext(meta: JsonObject): ArrivedContext {
  return { traceparent: textOf(meta.traceparent), tracestate: textOf(meta.tracestate) };
}

/** As OpenTelemetry's TraceIdRatioBased sampler: by the trace id, so that every hop decides alike. */
function isSampled(traceId: string, ratio: number): boolean {
  return ratio >= 1 || Number.parseInt(traceId.slice(-8), 16) < ratio * 0x1_0000_0000;
}

/** A duplicate or look-alike key elsewhere leaves the id clear, and the refusal can carry it. */
function idIn(body: Buffer, reason: MalformedReason): string | number | undefined {
  if (reason.kind !== 'lookalikeKey' && (reason.kind !== 'duplicateKey' || reason.path === 'id')) return undefined;
  const { id } = JSON.parse(body.toString()) as { id?: unknown };
  return typeof id === 'string' || (typeof id === 'number' && Number.isSafeInteger(id)) ? id : undefined;
}

/** The id in a body that was not read because the exchange was refused by its head. Only a small body that is here already. */
export async function recoverId(exchange: Exchange): Promise<string | number | undefined> {
  if (exchange.request.method !== 'POST' || exchange.request.readableEnded || exchange.request.destroyed)
    return undefined;
  const patience = AbortSignal.timeout(RECOVER_MS);
  const late = new Promise<undefined>((resolve) => patience.addEventListener('abort', () => resolve(undefined)));
  const message = await Promise.race([readSmallMessage(exchange), late]);
  return message?.ok ? message.value.id : undefined;
}

const RECOVER_BYTES_MAX = 64 * 1024;
/** A stranger, and whoever calls while the sidecar is full, must not hold it by sending slowly. */
const RECOVER_MS = 100;

async function readSmallMessage({ request }: Exchange): Promise<Result<Message, undefined>> {
  const body = await readBody(request, RECOVER_BYTES_MAX);
  if (!body.ok) return err(undefined);
  const parsed = parseBody(body.value, { depthMax: 64, batchMax: 1 });
  return parsed.ok && parsed.value.kind === 'single' ? ok(parsed.value.message) : err(undefined);
}

function headerOf(value: string | string[] | undefined): string | undefined {
  return typeof value === 'string' ? value : value?.join(', ');
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}
