/**
 * The two eras of MCP and the names by which a message tells its own. Constants and predicates only.
 */
import type { JsonObject } from './message.ts';

/** Revisions of the stateless era that the sidecar speaks, newest first. */
export const MODERN_VERSIONS: readonly string[] = ['2026-07-28'];

/** Revisions of the era of `initialize` that may stand in `MCP-Protocol-Version`, newest first. */
export const LEGACY_VERSIONS: readonly string[] = [
  '2025-11-25',
  '2025-06-18',
  '2025-03-26',
  '2024-11-05',
  '2024-10-07',
];

/** What a legacy request without `MCP-Protocol-Version` speaks (2025-06-18, basic/transports, Protocol Version Header). */
export const ASSUMED_VERSION = '2025-03-26';

/** The only revision with JSON-RPC batches (basic/index; removed in 2025-06-18). */
export const BATCH_VERSION = '2025-03-26';

/** Opens a stream (2026-07-28 only; the era before has GET). */
export const LISTEN_METHOD = 'subscriptions/listen';

/** `_meta` keys of the 2026-07-28 envelope (basic/index, `_meta`). */
export const VERSION_KEY = 'io.modelcontextprotocol/protocolVersion';
export const CAPABILITIES_KEY = 'io.modelcontextprotocol/clientCapabilities';

/** Revisions are dates, so they compare as text. Whatever sorts behind the first modern one is modern, known or not. */
export function isModernVersion(version: string): boolean {
  return version >= '2026-07-28';
}

/**
 * Whether a message says by its envelope which revision it speaks. A claim is not proof of the modern era: a legacy
 * client may start with an enveloped probe, and a claim may name a legacy revision.
 */
export function hasClaim(meta: JsonObject | undefined): meta is JsonObject {
  return meta !== undefined && Object.hasOwn(meta, VERSION_KEY);
}
