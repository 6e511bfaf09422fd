/**
 * What was refused before it was a request (broken HTTP, CONNECT, oversized heads): counted by kind for the metrics,
 * and told to the audit with a count at most once in ten seconds, so that nobody fills the log with garbage.
 */
import type { AuditEvent } from './audit-line.ts';

const TELL_MS = 10_000;

export class RefusedConnections {
  readonly totals = new Map<string, number>();
  readonly #untold = new Map<string, number>();
  readonly #record: (event: AuditEvent) => void;
  readonly #now: () => number;
  #toldAt = Number.NEGATIVE_INFINITY;

  /** @param now Monotonic clock, milliseconds. */
  constructor(record: (event: AuditEvent) => void, now: () => number) {
    this.#record = record;
    this.#now = now;
  }

  refused(kind: string): void {
    this.totals.set(kind, (this.totals.get(kind) ?? 0) + 1);
    this.#untold.set(kind, (this.#untold.get(kind) ?? 0) + 1);
    if (this.#now() - this.#toldAt >= TELL_MS) this.flush();
  }

  /** Tells what is left untold: also at the end. */
  flush(): void {
    this.#toldAt = this.#now();
    for (const [kind, count] of this.#untold) this.#record({ event: 'http.refused', kind, count });
    this.#untold.clear();
  }
}
