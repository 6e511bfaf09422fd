/**
 * The bodies that come in, bounded each and all together, in size and time.
 *
 * Where there is no more room, the largest of those under way is refused and not the one that came last: pods are small,
 * and go on being reviewed whatever somebody uploads beside them.
 */
import type { IncomingMessage } from 'node:http';
import { err, ok, type Result } from '../policies/result.ts';

/** HTTP statuses: it did not arrive in time, is too large, or there is no room now. */
export type BodyRefusal = 408 | 413 | 503;

export interface BodyLimits {
  readonly bytesMax: number;
  /** Of all that are under way. */
  readonly bytesInAllMax: number;
  readonly withinMs: number;
}

interface UnderWay {
  length: number;
  readonly refuse: (status: BodyRefusal) => void;
}

export class Bodies {
  readonly #limits: BodyLimits;
  readonly #underWay = new Set<UnderWay>();
  #length = 0;

  constructor(limits: BodyLimits) {
    this.#limits = limits;
  }

  read(request: IncomingMessage): Promise<Result<Buffer, BodyRefusal>> {
    const { bytesMax, withinMs } = this.#limits;
    if (Number(request.headers['content-length'] ?? 0) > bytesMax) return Promise.resolve(err(413));
    return new Promise((resolve) => {
      let chunks: Buffer[] = [];
      const finish = (result: Result<Buffer, BodyRefusal>) => {
        if (!this.#underWay.delete(body)) return;
        this.#length -= body.length;
        chunks = [];
        clearTimeout(timer);
        request.pause();
        resolve(result);
      };
      const body: UnderWay = { length: 0, refuse: (status) => finish(err(status)) };
      this.#underWay.add(body);
      const timer = setTimeout(() => body.refuse(408), withinMs);
      request.on('data', (chunk: Buffer) => {
        if (!this.#underWay.has(body)) return;
        body.length += chunk.length;
        this.#length += chunk.length;
        chunks.push(chunk);
        if (body.length > bytesMax) body.refuse(413);
        else this.#makeRoom();
      });
      request.on('end', () => finish(ok(Buffer.concat(chunks, body.length))));
      request.on('error', () => body.refuse(408));
      request.on('close', () => body.refuse(408));
    });
  }

  #makeRoom(): void {
    if (this.#length <= this.#limits.bytesInAllMax) return;
    const [first, ...others] = this.#underWay;
    const largest = others.reduce((one, other) => (other.length > one.length ? other : one), first!);
    largest.refuse(503);
  }
}
