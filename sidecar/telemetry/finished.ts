/**
 * One finished exchange, as every observer sees it: audit, metrics, spans and the live page are fed by this one
 * stream, off the hot path. A field that does not apply is `undefined` and is left out of what is written.
 */
export interface FinishedExchange {
  /** Wall-clock start, milliseconds since the epoch (fraction kept). */
  readonly startedAt: number;
  /** Whole exchange, milliseconds: first byte of the request seen → last byte of the reply written or the agent gone. */
  readonly durationMs: number;
  readonly upstream:
    | {
        /** Milliseconds since the epoch at which the request went to the server. */
        readonly startedAt: number;
        /** Request sent → answer ended. */
        readonly durationMs: number;
        readonly transport: 'tcp' | 'pipe';
        readonly address: string;
        readonly port: number | undefined;
        readonly status: number | undefined;
        readonly attempts: number;
      }
    | undefined;
  readonly group: string;
  readonly agent: string | undefined;
  /** How the agent was known: by `uid`, `socket`, `apiKey`, or as the whole `group`. */
  readonly identifiedBy: string | undefined;
  /** Those that the caller's identity brought, not policy's. */
  readonly roles: readonly string[];
  readonly user: string | undefined;
  readonly server: string | undefined;
  /** The virtual server in the path. */
  readonly virtual: string | undefined;
  /** JSON-RPC method; for GET and DELETE `GET` and `DELETE`. */
  readonly method: string | undefined;
  readonly tool: string | undefined;
  readonly prompt: string | undefined;
  readonly resource: string | undefined;
  /** The URIs of a subscriptions/listen that names several, as many as are kept; `resource` is the first. */
  readonly resources: readonly string[] | undefined;
  /** How many of them are not. */
  readonly resourcesOmitted: number | undefined;
  /** The tool's hints by which the call was judged; `undefined` also when they were not known. */
  readonly annotations: Readonly<Record<string, unknown>> | undefined;
  /** JSON text of the arguments with the policy's redactions applied; never raw. */
  readonly argumentsJson: string | undefined;
  /** `allow`, `deny`, `limit` (quota), `audit` (mode audit let through what enforce would refuse), `error` (refused or failed without a verdict, or after it). */
  readonly decision: 'allow' | 'deny' | 'limit' | 'audit' | 'error';
  /** The rule, role or quota that decided. */
  readonly rule: string | undefined;
  /** The full reason, for people. Never in a reply. */
  readonly reason: string | undefined;
  /** The `kind` of that reason (pipeline/reason.ts) where the sidecar refused or failed: one of a fixed set. */
  readonly reasonKind: string | undefined;
  readonly httpStatus: number;
  /** JSON-RPC error code of the reply, ours or the server's. */
  readonly rpcCode: number | undefined;
  /** The result says `isError: true` (tools/call). */
  readonly toolError: boolean;
  readonly errorId: string | undefined;
  readonly tokensIn: number | undefined;
  readonly tokensOut: number | undefined;
  /** How the tokens were counted, where policy counts them; otherwise they are estimated from the bytes. */
  readonly tokensBy: 'server' | 'tokenizer' | 'estimate' | undefined;
  /** The arguments are not as the agent sent them: policy has removed or set some. */
  readonly argumentsChanged: boolean;
  /** By the policy's prices, in their unit. */
  readonly cost: number | undefined;
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly aborted: boolean;
  readonly cached: boolean;
  readonly era: 'legacy' | 'modern' | undefined;
  readonly protocolVersion: string | undefined;
  readonly requestId: string | undefined;
  /** First 16 hex digits of SHA-256 of the session id. */
  readonly sessionHash: string | undefined;
  readonly traceId: string;
  /** Ids of the SERVER and the CLIENT span: made before the exchange, so that the CLIENT span's context could be injected. */
  readonly serverSpanId: string;
  readonly clientSpanId: string;
  /** Remote parent from `_meta` (or the HTTP header where `_meta` had none). */
  readonly parentSpanId: string | undefined;
  readonly traceState: string | undefined;
  readonly sampled: boolean;
  readonly policyVersion: string | undefined;
}

/** A consumer of finished exchanges. Must not throw and must not block: it queues, and works in batches. */
export interface ExchangeObserver {
  finished(exchange: FinishedExchange): void;
}
