/**
 * A JSON-RPC message of MCP as the pipeline sees it: parsed once, with the offsets that let `_meta` be spliced
 * into the original bytes. Types only.
 */

/** `legacy`: 2025-03-26 … 2025-11-25 (initialize, sessions). `modern`: 2026-07-28 (stateless, `_meta` envelope). */
export type Era = 'legacy' | 'modern';

/** A half-open range of byte offsets into {@link Message.bytes}. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/** Where the parts lie that a splice touches. Offsets are into {@link Message.bytes}. */
export interface Layout {
  /** Just behind the `{` of the message, and whether the object has any member. */
  readonly root: { readonly inside: number; readonly empty: boolean };
  /** The value of `id`, when there is one. */
  readonly id: ByteRange | undefined;
  /** Just behind the `{` of `params`, when there is one. */
  readonly params: { readonly inside: number; readonly empty: boolean } | undefined;
  /** Just behind the `{` of `params._meta`, when there is one. */
  readonly meta: { readonly inside: number; readonly empty: boolean } | undefined;
  /** Values of `params._meta.traceparent` and `.tracestate`, when present. */
  readonly traceparent: ByteRange | undefined;
  readonly tracestate: ByteRange | undefined;
  /** The value of `params.arguments` (a JSON object), when present: what the audit copies without re-serializing. */
  readonly arguments: ByteRange | undefined;
}

export type JsonObject = { readonly [key: string]: unknown };

export interface Message {
  readonly kind: 'request' | 'notification' | 'response';
  /** Empty for a response. */
  readonly method: string;
  /** `undefined` for a notification. */
  readonly id: string | number | undefined;
  readonly params: JsonObject | undefined;
  /** `params._meta`. */
  readonly meta: JsonObject | undefined;
  /** The whole parsed message. Not to be changed. */
  readonly body: JsonObject;
  /** The bytes as the agent sent them (one element of a batch: its own range of them). */
  readonly bytes: Buffer;
  readonly layout: Layout;
}

export type ParsedBody =
  | { readonly kind: 'single'; readonly message: Message }
  /** JSON-RPC batch (2025-03-26 only): judged element by element. Never empty. */
  | { readonly kind: 'batch'; readonly messages: readonly Message[] };

/** Why a body or its headers were refused before anything acted on them. */
export type MalformedReason =
  | { readonly kind: 'notJson'; readonly detail: string }
  | { readonly kind: 'tooDeep'; readonly depthMax: number }
  | { readonly kind: 'tooManyMembers'; readonly membersMax: number }
  | { readonly kind: 'tooLarge'; readonly bytesMax: number }
  | { readonly kind: 'duplicateKey'; readonly path: string }
  | { readonly kind: 'lookalikeKey'; readonly key: string; readonly looksLike: string }
  | { readonly kind: 'notJsonRpc'; readonly detail: string; readonly id: string | number | undefined }
  | { readonly kind: 'batchRefused'; readonly detail: string }
  /** A method that the era of the message does not have. */
  | { readonly kind: 'methodUnknown'; readonly method: string; readonly id: string | number | undefined }
  | { readonly kind: 'headerMismatch'; readonly detail: string; readonly id: string | number | undefined }
  | {
      readonly kind: 'unsupportedVersion';
      readonly requested: string;
      readonly supported: readonly string[];
      readonly id: string | number | undefined;
      readonly era: Era;
    }
  | { readonly kind: 'envelopeMissing'; readonly detail: string; readonly id: string | number | undefined };
