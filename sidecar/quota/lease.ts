/**
 * Slices of shared counters that this process may spend for a short time without asking.
 *
 * Guarantees: a slice is counted before any of it is spent, in the slot in which the lease ends; so what is spent leaves
 * the window no sooner than a window later, and no window ever sees more than the limit, however many replicas hold slices.
 * When a slice ends, what is left of it goes back, and what was spent counts from then on. It ends by the clock of this
 * process, counted from before it was asked for. Who dies with a slice has spent it.
 */
import { slotAt, type Window } from '../../policies/counter.ts';
import type { SharedCounter } from './shared-counter.ts';

const LEASE_MAX_MS = 10_000;
/** Of a sliding window: for no longer than that what is spent counts too long. */
const LEASE_SHARE = 1 / 6;
/** Of a lease: clocks do not go equally fast. */
const SPENDABLE = 0.9;
/** Of a slice: below that the next is wanted. */
const LOW = 0.25;
const SWEEP_MS = 500;

/** Where an amount is counted. */
export interface Place {
  slot: number;
}

export interface Slice extends Place {
  readonly size: number;
  left: number;
  spent: number;
  /** Milliseconds by the clock of this process. */
  readonly until: number;
  hasEnded: boolean;
}

/** How long a lease is asked for, in milliseconds. */
export function leaseMsOf({ windowMs, period }: Window): number {
  return period === undefined ? Math.min(LEASE_MAX_MS, Math.floor(windowMs * LEASE_SHARE)) : LEASE_MAX_MS;
}

/** @param askedAt By the clock of this process. */
export function createSlice(size: number, slot: number, lastsMs: number, askedAt: number): Slice {
  return { size, slot, left: size, spent: 0, until: askedAt + lastsMs * SPENDABLE, hasEnded: false };
}

/** Negative: it was not spent. */
export function spendFrom(slice: Slice, amount: number): void {
  slice.left -= amount;
  slice.spent += amount;
}

/** Whether a place is a slice that can take back what was spent. */
export function isOpenSlice(place: Place): place is Slice {
  return 'hasEnded' in place && !(place as Slice).hasEnded;
}

export function isRunningLow({ slice, next, isFetching, isDry }: SharedCounter): boolean {
  return slice !== undefined && next === undefined && !isFetching && !isDry && slice.left < slice.size * LOW;
}

export interface LeasePorts {
  readonly now: () => number;
  /** The server's time, or a little later. */
  readonly timeThere: () => number;
  readonly change: (counter: SharedCounter, slot: number, amount: number) => void;
}

export class Leases {
  readonly #ports: LeasePorts;
  readonly #held = new Set<SharedCounter>();
  #timer: NodeJS.Timeout | undefined;

  constructor(ports: LeasePorts) {
    this.#ports = ports;
  }

  /** The slice that so much can be spent from. */
  sliceFor(counter: SharedCounter, cost: number): Slice | undefined {
    if (this.#covers(counter.slice, cost)) return counter.slice;
    if (!this.#covers(counter.next, cost)) return undefined;
    this.#proceed(counter);
    return counter.slice;
  }

  hold(counter: SharedCounter, slice: Slice): void {
    if (counter.slice !== undefined && counter.next !== undefined) {
      this.#end(counter, slice);
      return;
    }
    if (counter.slice === undefined) counter.slice = slice;
    else counter.next = slice;
    this.#held.add(counter);
    this.#sweepLater();
  }

  /** All that is held of the counter goes back. */
  endAll(counter: SharedCounter): void {
    while (counter.slice !== undefined) this.#proceed(counter);
  }

  close(): void {
    clearTimeout(this.#timer);
    for (const counter of this.#held) this.endAll(counter);
  }

  #covers(slice: Slice | undefined, cost: number): boolean {
    return slice !== undefined && slice.left >= cost && this.#ports.now() < slice.until;
  }

  /** To the next slice, if there is one. */
  #proceed(counter: SharedCounter): void {
    const { slice, next } = counter;
    counter.slice = next;
    counter.next = undefined;
    if (next === undefined) this.#held.delete(counter);
    if (slice !== undefined) this.#end(counter, slice);
  }

  #end(counter: SharedCounter, slice: Slice): void {
    const { slot: counted, left, spent } = slice;
    const present = Math.min(slotAt(this.#ports.timeThere(), counter), counted);
    slice.left = 0;
    slice.slot = present;
    slice.hasEnded = true;
    this.#ports.change(counter, counted, -left - spent);
    this.#ports.change(counter, present, spent);
  }

  /** What is over goes back though nobody asks for it. */
  #sweepLater(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      const now = this.#ports.now();
      for (const counter of this.#held) {
        while (counter.slice !== undefined && now >= counter.slice.until) this.#proceed(counter);
      }
      if (this.#held.size > 0) this.#sweepLater();
    }, SWEEP_MS).unref();
  }
}
