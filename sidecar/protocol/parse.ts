/**
 * Bytes of a POST body → messages that have one meaning.
 *
 * Whatever a second parser could read in another way is refused before anything acts on it: bad UTF-8, repeated keys at
 * any depth (the last wins here, the first elsewhere), keys that look like the protocol's, ids that would be rounded.
 * The bytes are kept, and forwarded as they came. Pure; time and memory are linear in the body, which the caller bounds.
 */
import { err, ok, type Result } from '../../policies/result.ts';
import { KeyFolds, type KnownKeys, knownKeys, refuseLookalikes, refuseTwins } from './lookalike.ts';
import type { JsonObject, Layout, MalformedReason, Message, ParsedBody } from './message.ts';
import { findDuplicate, type ScanLimits, scan } from './scan.ts';

const ROOT_KEYS = knownKeys('jsonrpc', 'id', 'method', 'params', 'result', 'error');
/** What routing, policy or the splice read of `params`, in any method. */
const PARAMS_KEYS = knownKeys(
  '_meta',
  'name',
  'arguments',
  'uri',
  'taskId',
  'ref',
  'argument',
  'cursor',
  'notifications',
  'protocolVersion',
  'requestState',
  'inputResponses',
);
const META_KEYS = knownKeys(
  'traceparent',
  'tracestate',
  'baggage',
  'progressToken',
  'io.modelcontextprotocol/protocolVersion',
  'io.modelcontextprotocol/clientCapabilities',
  'io.modelcontextprotocol/clientInfo',
  'io.modelcontextprotocol/logLevel',
);
/** Objects inside `params` that policy reads: completion/complete and subscriptions/listen. */
const REF_KEYS = knownKeys('type', 'name', 'uri');
const NOTIFICATIONS_KEYS = knownKeys(
  'toolsListChanged',
  'promptsListChanged',
  'resourcesListChanged',
  'resourceSubscriptions',
);

/** Reads a body: one message, or a batch of 2025-03-26 (whether its revision allows one is for the ladder to say). */
export function parseBody(bytes: Buffer, limits: ScanLimits): Result<ParsedBody, MalformedReason> {
  const scanned = scan(bytes, limits);
  if (!scanned.ok) return scanned;
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString());
  } catch {
    // The parser's own message quotes the body, which may hold a secret.
    return err({ kind: 'notJson', detail: bytes.length === 0 ? 'the body is empty' : 'the body is not valid JSON' });
  }
  const repeated = scanned.value.mayRepeatKeys ? findDuplicate(bytes) : undefined;
  if (repeated !== undefined) return err({ kind: 'duplicateKey', path: repeated });

  const { elements, layout } = scanned.value;
  const folds = new KeyFolds();
  if (elements === undefined) {
    const message = readMessage(value, bytes, layout, folds);
    return message.ok ? ok({ kind: 'single', message: message.value }) : message;
  }

  if (elements.length === 0) return err({ kind: 'batchRefused', detail: 'an empty batch' });
  const messages: Message[] = [];
  for (const [index, { start, end }] of elements.entries()) {
    const element = (value as unknown[])[index];
    if (Array.isArray(element)) return err({ kind: 'batchRefused', detail: 'a batch inside a batch' });
    const own = bytes.subarray(start, end);
    const ownScan = scan(own, limits);
    if (!ownScan.ok) return ownScan;
    const message = readMessage(element, own, ownScan.value.layout, folds);
    if (!message.ok) return message;
    if (message.value.method === 'initialize')
      return err({ kind: 'batchRefused', detail: 'initialize must not be part of a batch' });
    messages.push(message.value);
  }
  return ok({ kind: 'batch', messages });
}

function readMessage(body: unknown, bytes: Buffer, layout: Layout, folds: KeyFolds): Result<Message, MalformedReason> {
  if (!isObject(body)) return err({ kind: 'notJsonRpc', detail: 'a message must be a JSON object', id: undefined });
  const unclearRoot = refuseLookalikes(body, ROOT_KEYS, folds);
  if (unclearRoot !== undefined) return err(unclearRoot);

  const { jsonrpc, method, params, result, error } = body;
  const id = isId(body.id) ? body.id : undefined;
  const refuse = (detail: string) => err<MalformedReason>({ kind: 'notJsonRpc', detail, id });

  if (jsonrpc !== '2.0') return refuse('jsonrpc must be "2.0"');
  if (id === undefined && body.id !== undefined) return refuse('id must be a string or an integer of at most 2^53 - 1');
  if (method === undefined) {
    if ((result === undefined) === (error === undefined))
      return refuse('a message must have one of method, result and error');
    if (result !== undefined && id === undefined) return refuse('a result must have an id');
    if (params !== undefined) return refuse('a response must not have params');
    return ok({ kind: 'response', method: '', id, params: undefined, meta: undefined, body, bytes, layout });
  }
  if (typeof method !== 'string') return refuse('method must be a string');
  if (method === '') return refuse('method must not be empty');
  if (result !== undefined || error !== undefined)
    return refuse('a message with a method must not have a result or an error');
  const kind = id === undefined ? 'notification' : 'request';
  if (params === undefined) return ok({ kind, method, id, params, meta: undefined, body, bytes, layout });

  if (!isObject(params)) return refuse('params must be a JSON object');
  const meta = params._meta;
  if (meta !== undefined && !isObject(meta)) return refuse('params._meta must be a JSON object');
  const unclear = refuseUnclearParams(params, meta, folds);
  if (unclear !== undefined) return err(unclear);
  return ok({ kind, method, id, params, meta, body, bytes, layout });
}

function refuseUnclearParams(
  params: JsonObject,
  meta: JsonObject | undefined,
  folds: KeyFolds,
): MalformedReason | undefined {
  const { arguments: args, ref, notifications } = params;
  return (
    lookalikeIn(params, PARAMS_KEYS, folds) ??
    lookalikeIn(meta, META_KEYS, folds) ??
    lookalikeIn(ref, REF_KEYS, folds) ??
    lookalikeIn(notifications, NOTIFICATIONS_KEYS, folds) ??
    (isObject(args) ? refuseTwins(args, folds) : undefined)
  );
}

function lookalikeIn(value: unknown, known: KnownKeys, folds: KeyFolds): MalformedReason | undefined {
  return isObject(value) ? refuseLookalikes(value, known, folds) : undefined;
}

/** MCP narrows JSON-RPC: a string or an integer, never null. Beyond 2^53 the id that we log would not be the one that is sent. */
function isId(value: unknown): value is string | number {
  return typeof value === 'string' || Number.isSafeInteger(value);
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
