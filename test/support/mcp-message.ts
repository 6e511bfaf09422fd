/** Requests as the pipeline hands them to an upstream. */
import assert from 'node:assert/strict';
import type { Era, Message } from '../../sidecar/protocol/message.ts';
import { parseBody } from '../../sidecar/protocol/parse.ts';
import type { UpstreamRequest } from '../../sidecar/upstream/upstream.ts';

export interface RequestOptions {
  readonly era?: Era;
  readonly principal?: string;
  readonly sessionId?: string | undefined;
  readonly signal?: AbortSignal;
}

/** A POST of `content`: JSON text, or an object to be written as such. */
export function post(content: string | object, options: RequestOptions = {}): UpstreamRequest {
  const message = messageOf(typeof content === 'string' ? content : JSON.stringify(content));
  return { ...bodyless('POST', options), body: message.bytes, message };
}

export function bodyless(method: UpstreamRequest['method'], options: RequestOptions = {}): UpstreamRequest {
  return {
    method,
    headers: {},
    body: undefined,
    message: undefined,
    era: options.era ?? 'legacy',
    principal: options.principal ?? 'triage',
    sessionId: options.sessionId,
    signal: options.signal ?? new AbortController().signal,
  };
}

function messageOf(json: string): Message {
  const parsed = parseBody(Buffer.from(json), { depthMax: 64, batchMax: 1 });
  assert.ok(parsed.ok && parsed.value.kind === 'single', json.slice(0, 200));
  return parsed.value.message;
}
