/**
 * Stage 2. The only place where a reason becomes a reply. Directly inside `observe`, so that no stage needs to know
 * what a refusal looks like, and a bug anywhere below is a generic -32603 with an error id rather than a crash.
 */
import type { JsonObject } from '../../protocol/message.ts';
import type { Log } from '../../telemetry/log.ts';
import type { Outcome, Stage } from '../compose.ts';
import type { Exchange } from '../exchange.ts';
import { describeReason, type Reason, ruleOf, toWire, type Wire } from '../reason.ts';

export interface RescuePorts {
  readonly log: Log;
  /** A short random id that ties the public text to the audit line. */
  readonly newErrorId: () => string;
  /** The id of a request that was refused before its body was read. */
  readonly recoverId: (exchange: Exchange) => Promise<string | number | undefined>;
}

export function rescue(ports: RescuePorts): Stage<Exchange, Exchange> {
  return async (exchange, next): Promise<Outcome> => {
    let reason: Outcome;
    try {
      reason = await next(exchange);
    } catch (error) {
      reason = { kind: 'internal', detail: error instanceof Error ? `${error.name}: ${error.message}` : String(error) };
      ports.log.error('internal error: a bug in the sidecar', {
        error: error instanceof Error ? (error.stack ?? error.message) : String(error),
      });
    }
    if (reason === undefined) return undefined;

    const errorId = ports.newErrorId();
    exchange.reason = { text: describeReason(reason), rule: ruleOf(reason), kind: reason.kind, errorId };
    const { reply } = exchange;
    if (reply.started) {
      // A head is out already: a cut connection is the only honest way to say that the answer is not whole.
      reply.destroy();
      return undefined;
    }
    if (reply.gone) return undefined;

    const wire = toWire(reason, { errorId, era: exchange.era, method: exchange.message?.method });
    exchange.rpcCode = wire.error.code;
    const id = exchange.message === undefined ? await findId(exchange, reason, ports) : exchange.message.id;
    writeRefusal(exchange, wire, id);
    return undefined;
  };
}

const BY_HEAD: ReadonlySet<Reason['kind']> = new Set([
  'hostNotAllowed',
  'originNotAllowed',
  'crossSite',
  'badHeader',
  'unsupportedMediaType',
  'pathUnknown',
  'methodNotAllowed',
]);

function writeRefusal({ reply, request, era }: Exchange, wire: Wire, id: string | number | undefined): void {
  const body = refusalText(wire, era, id);
  reply.head(
    // A notification gets no JSON-RPC answer, so HTTP has to say no.
    wire.status === 200 && id === undefined ? 403 : wire.status,
    {
      ...wire.headers,
      'content-type': 'application/json',
      'content-length': String(Buffer.byteLength(body)),
      // What is left of an unread body is not worth reading, nor safe to take for the next request.
      ...(request.complete ? undefined : { connection: 'close' }),
    },
  );
  reply.end(body);
}

/** The refusal as a JSON-RPC message. */
export function refusalText(wire: Wire, era: Exchange['era'], id: string | number | undefined): string {
  return JSON.stringify(
    wire.asToolError && id !== undefined
      ? { jsonrpc: '2.0', id, result: toolErrorResult(wire, era) }
      : { jsonrpc: '2.0', id: id ?? null, error: wire.error },
  );
}

function toolErrorResult(wire: Wire, era: Exchange['era']): JsonObject {
  return {
    ...(era === 'modern' ? { resultType: 'complete' } : undefined),
    content: [{ type: 'text', text: wire.error.message }],
    isError: true,
  };
}

/** A body that was refused has been looked at; one that was not read yet is read for its id alone. */
async function findId(exchange: Exchange, reason: Reason, ports: RescuePorts): Promise<string | number | undefined> {
  // A web page, or whoever else is not let in, gets none of our time.
  if (BY_HEAD.has(reason.kind)) return undefined;
  if (reason.kind !== 'malformed') return ports.recoverId(exchange);
  return 'id' in reason.reason ? reason.reason.id : exchange.refusedId;
}
