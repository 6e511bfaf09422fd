/**
 * Answers that their server allows to be kept (`ttlMs` of 2026-07-28), per agent and policy.
 *
 * A gateway cannot keep what is `private`, since it does not know for whom; a sidecar is one principal per agent, so
 * the key holds the agent and the policy version, and a change of either starts empty. Bounded in entries and bytes.
 */
import { LRUCache } from 'lru-cache';
import { parseBody } from '../protocol/parse.ts';

/** 0 of either turns the cache off: nothing is kept, and nothing found. */
export interface AnswerCacheLimits {
  readonly entries: number;
  readonly bytes: number;
}

/** An answer cut open where its id stood. */
interface KeptAnswer {
  readonly head: Buffer;
  readonly tail: Buffer;
  readonly storedAt: number;
  readonly ttlMs: number;
  /** Where the digits of `ttlMs` stand in `tail`: what is left of it is written there. */
  readonly ttl: { readonly start: number; readonly end: number };
}

export class AnswerCache {
  /** Absent when the cache is off: to LRUCache, 0 would mean «without bound». */
  readonly #kept: LRUCache<string, KeptAnswer> | undefined;
  readonly #now: () => number;
  readonly #entryBytesMax: number;
  /** Raised when a server says that something changed: older answers of it are no longer found. */
  readonly #generations = new Map<string, number>();

  /** @param now Monotonic clock, milliseconds. */
  constructor(limits: AnswerCacheLimits, now: () => number) {
    this.#now = now;
    this.#entryBytesMax = limits.bytes;
    if (limits.entries === 0 || limits.bytes === 0) return;
    this.#kept = new LRUCache({
      max: limits.entries,
      maxSize: limits.bytes,
      sizeCalculation: ({ head, tail }) => head.length + tail.length + 1,
    });
  }

  keyOf(server: string, rest: string): string {
    return `${server} ${this.#generations.get(server) ?? 0} ${rest}`;
  }

  /** A kept answer with this request's id in it and the time that is left as its `ttlMs`. */
  find(key: string, id: string | number): Buffer | undefined {
    const kept = this.#kept?.get(key);
    if (kept === undefined) return undefined;
    const left = Math.floor(kept.ttlMs - (this.#now() - kept.storedAt));
    if (left <= 0) {
      this.#kept?.delete(key);
      return undefined;
    }
    const { head, tail, ttl } = kept;
    return Buffer.concat([
      head,
      Buffer.from(JSON.stringify(id)),
      tail.subarray(0, ttl.start),
      Buffer.from(String(left)),
      tail.subarray(ttl.end),
    ]);
  }

  keep(key: string, answer: Buffer): void {
    if (this.#kept === undefined || answer.length > this.#entryBytesMax) return;
    const parsed = parseBody(answer, { depthMax: 64, batchMax: 1 });
    if (!parsed.ok || parsed.value.kind !== 'single' || parsed.value.message.kind !== 'response') return;
    const { body, layout } = parsed.value.message;
    const result = body.result as { ttlMs?: unknown; resultType?: unknown } | undefined;
    if (layout.id === undefined || typeof result?.ttlMs !== 'number' || !(result.ttlMs > 0)) return;
    // An answer that asks for more input belongs to one round trip.
    if (result.resultType !== undefined && result.resultType !== 'complete') return;

    const tail = answer.subarray(layout.id.end);
    const found = [...tail.toString('latin1').matchAll(TTL)];
    // More than one member of that name: which of them is the result's is not worth finding out.
    if (found.length !== 1) return;
    const [whole, before] = found[0]! as unknown as [string, string];
    const start = found[0]!.index + before.length;
    this.#kept.set(key, {
      head: answer.subarray(0, layout.id.start),
      tail,
      storedAt: this.#now(),
      ttlMs: result.ttlMs,
      ttl: { start, end: found[0]!.index + whole.length },
    });
  }

  /** The server said that one of its lists or resources changed. */
  forget(server: string): void {
    this.#generations.set(server, (this.#generations.get(server) ?? 0) + 1);
  }
}

/** A quote inside a JSON string is escaped, so this matches members only. */
const TTL = /("ttlMs"\s*:\s*)\d+/g;
