/**
 * What the pipeline knows of an upstream MCP server: an exchange of one HTTP-shaped message for one
 * HTTP-shaped answer. Transport (Streamable HTTP, stdio child), era and endpoint stay behind this interface.
 */
import type { Result } from '../../policies/result.ts';
import type { Era, Message } from '../protocol/message.ts';

export interface UpstreamRequest {
  readonly method: 'POST' | 'GET' | 'DELETE';
  /** Lower-case names. Only what the pipeline decided to forward; never the agent's own credentials. */
  readonly headers: Readonly<Record<string, string>>;
  /** The bytes to send: the agent's own, with trace context spliced in. Empty for GET and DELETE. */
  readonly body: Buffer | undefined;
  /** The parsed message behind `body` (POST only): for upstreams that need to know ids, methods or era. */
  readonly message: Message | undefined;
  readonly era: Era;
  /** Who is calling: upstreams that keep state per caller (stdio sessions) key it by this. */
  readonly principal: string;
  /** The upstream's own session id (already unsealed), of the 2025 eras. */
  readonly sessionId: string | undefined;
  /** Aborted when nobody waits for the answer any more: the agent has gone, and where its era lets the request run on, for long. */
  readonly signal: AbortSignal | undefined;
}

export interface UpstreamResponse {
  readonly status: number;
  /** Lower-case names; values as they came. Repeated headers are joined with `, `. */
  readonly headers: Readonly<Record<string, string>>;
  /** Chunks as they arrive. Back-pressure: the next chunk is produced when the last was taken. Throws {@link UpstreamBroken} when the answer dies half-way. */
  readonly body: AsyncIterable<Buffer>;
  /** Ends the answer early and frees what it holds. Safe to call more than once, and after the end. */
  cancel(): void;
}

/** Why an upstream gave no answer. `sent` tells whether any byte of the request may have reached the server. */
export type UpstreamFailure =
  | { readonly kind: 'unreachable'; readonly detail: string; readonly sent: boolean }
  | {
      readonly kind: 'timeout';
      readonly phase: 'connect' | 'headers' | 'idle' | 'total';
      readonly afterMs: number;
      readonly sent: boolean;
    }
  | { readonly kind: 'garbage'; readonly detail: string; readonly sent: boolean }
  | { readonly kind: 'busy'; readonly detail: string; readonly retryAfterMs: number; readonly sent: false }
  | { readonly kind: 'aborted'; readonly sent: boolean };

/** Thrown by a response body that ends before its message is whole. */
export class UpstreamBroken extends Error {
  override readonly name = 'UpstreamBroken';
  readonly failure: UpstreamFailure;
  constructor(failure: UpstreamFailure) {
    super('detail' in failure ? failure.detail : failure.kind);
    this.failure = failure;
  }
}

export interface Upstream {
  readonly name: string;
  /** For spans and the audit: `tcp` with host and port, or `pipe` for a child process. Never shown to agents. */
  readonly target: { readonly transport: 'tcp' | 'pipe'; readonly address: string; readonly port: number | undefined };
  send(request: UpstreamRequest): Promise<Result<UpstreamResponse, UpstreamFailure>>;
  /** Ends connections and children. Resolves when they are gone, or killed after `graceMs`. */
  close(graceMs: number): Promise<void>;
}
