/**
 * Slices of shared quota that this process may spend by itself for a short time.
 *
 * A slice of a sliding window was counted one slot later than it was taken, and is spent within the length of a slot: so
 * what is spent last counts for a whole window too.
 */
import type { Charge } from '../../policies/charge.ts';

export interface Lease {
  readonly charge: Charge;
  readonly key: string;
  /** Where Redis counts it. */
  readonly slot: number;
  left: number;
  /** Of the counter, the slice included. */
  readonly used: number;
}

interface Held extends Lease {
  readonly until: number;
}

export interface LeasedPart {
  readonly charge: Charge;
  readonly key: string;
  readonly slot: number;
  used: number;
  charged: number;
}

const SLOTS = 60;
const LEASE_MS = 2_000;

export class Leases {
  readonly #now: () => number;
  readonly #held = new Map<string, Held>();

  constructor(now: () => number) {
    this.#now = now;
  }

  /** All of the charges out of slices that are held; `undefined` where one is missing or too small. */
  take(keyed: readonly { readonly charge: Charge; readonly key: string }[]): LeasedPart[] | undefined {
    const now = this.#now();
    const parts: { held: Held; charge: Charge }[] = [];
    for (const { charge, key } of keyed) {
      const held = this.#held.get(key);
      if (held === undefined || now >= held.until || held.left < charge.cost) return undefined;
      parts.push({ held, charge });
    }
    return parts.map(({ held, charge }) => {
      held.left -= charge.cost;
      return { charge, key: held.key, slot: held.slot, used: held.used - held.left, charged: charge.cost };
    });
  }

  /**
   * Holds what was not spent at once.
   *
   * @param remainingMs Until the slot in which it was taken no longer counts: a day's slice ends with the day.
   * @returns what was held of the key before, to be given back.
   */
  keep(lease: Lease, remainingMs: number): Lease[] {
    const { windowMs, period } = lease.charge;
    const lifeMs = period === undefined ? Math.min(LEASE_MS, windowMs / SLOTS) : Math.min(LEASE_MS, remainingMs);
    const before = this.#held.get(lease.key);
    this.#held.set(lease.key, { ...lease, until: this.#now() + lifeMs });
    return before === undefined || before.left === 0 ? [] : [before];
  }

  /** Those whose time is over, which are no longer held. */
  lapsed(): Lease[] {
    const now = this.#now();
    const lapsed: Lease[] = [];
    // In the order in which they were taken, and all live about as long.
    for (const [key, held] of this.#held) {
      if (now < held.until) break;
      this.#held.delete(key);
      if (held.left > 0) lapsed.push(held);
    }
    return lapsed;
  }

  all(): Lease[] {
    const all = [...this.#held.values()].filter(({ left }) => left > 0);
    this.#held.clear();
    return all;
  }
}
