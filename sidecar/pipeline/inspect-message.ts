/**
 * One message of a server, on its way to the agent: its lists filtered by the permit, its tools learned and held against
 * their pins, its result redacted, and noted what observers and quota want to know. What cannot be read is no message.
 */
import { listKindOf } from '../../policies/methods.ts';
import type { Pointer } from '../../policies/policy.ts';
import { resultPointersFor } from '../../policies/redact.ts';
import { filterLists, type Keep } from '../protocol/filter.ts';
import type { JsonObject } from '../protocol/message.ts';
import { addToResultMeta } from '../protocol/result-meta.ts';
import { estimateTokens, TOKENIZED_BYTES_MAX, usageIn } from '../quota/tokens.ts';
import type { Catalog } from '../upstream/catalog.ts';
import type { ToolPins } from '../upstream/tool-pins.ts';
import type { Answered } from './exchange.ts';
import type { ListFilter } from './permit.ts';
import type { Reason } from './reason.ts';
import { redactResult } from './redact-result.ts';

export interface MessagePorts {
  readonly catalog: Catalog;
  readonly pins: ToolPins;
  /** A server said that a list or a resource changed. */
  readonly changed: (server: string) => void;
}

/** One message of the server: filters its lists, and notes what the observers and the quota want to know. */
export function inspectMessage(exchange: Answered, ports: MessagePorts, read: JsonObject, bytes: Buffer): Buffer {
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
export function redactedPointers({ message, policy, route }: Answered): readonly Pointer[] {
  if (message?.method === 'tools/call') return resultPointersFor(policy, route.server, String(message.params?.name));
  // A task may be that of any tool.
  return message?.method.startsWith('tasks/') ? resultPointersFor(policy, route.server, undefined) : [];
}

const QUOTA_META = 'mcp-sidecar.io/quota';

/** Near the wall, the answer tells how much of each quota is left: an agent that reads it can slow down by itself. */
function tellShares(exchange: Answered, bytes: Buffer): Buffer {
  const { quotaUsage, policy } = exchange;
  if (quotaUsage.length === 0) return bytes;
  const tokens = tokensBeyond(exchange);
  const shares = quotaUsage.flatMap(({ quota: name, dimension, used: reserved, limit, perToken = 0 }) => {
    const warnAt = policy.quotas.find((one) => one.name === name)?.warnAt ?? 1;
    const used = reserved + perToken * tokens;
    if (used < warnAt * limit) return [];
    return [{ name, dimension, remaining: Math.max(0, Math.round((1 - used / limit) * 1000) / 1000) }];
  });
  return shares.length === 0 ? bytes : addToResultMeta(bytes, QUOTA_META, JSON.stringify(shares));
}

/** Tokens of the call that were not reserved, as far as they are known while its answer is on its way. */
function tokensBeyond({ serverUsage, tokensIn = 0, tokensOut = 0 }: Answered): number {
  return serverUsage === undefined ? tokensOut : (serverUsage.input ?? tokensIn) + serverUsage.output - tokensIn;
}

export function isOwnAnswer({ message }: Answered, read: JsonObject): boolean {
  return message?.id !== undefined && read.id === message.id && !('method' in read);
}

export function noteAnswer(exchange: Answered, read: JsonObject, bytes: Buffer): void {
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
  { catalog, pins }: MessagePorts,
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

/** So many bytes of the answer have come. Says why no more of it may pass; only where its tokens are charged. */
export function spendOn({ spend, serverUsage }: Answered, bytes: number): Reason | undefined {
  return spend?.(serverUsage?.output ?? estimateTokens(bytes));
}

/** A JSON-RPC message of the server, or `undefined` for anything else. */
export function readMessage(bytes: Buffer): JsonObject | undefined {
  const text = bytes.toString();
  // An array of one would be taken for its element here, and for a list that nobody filters behind us.
  return text.trimStart().startsWith('[') ? undefined : readMessages(text)?.[0];
}

export function readMessages(text: string): readonly JsonObject[] | undefined {
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
