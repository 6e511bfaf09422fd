/**
 * Spent quota in Redis or Valkey, shared between replicas.
 *
 * A reservation is one script and one round trip, all of its charges or none, by the server's clock. With a lease a slice
 * of each limit is taken at once and spent here without asking (lease.ts); the next is fetched before it is used up. What
 * all replicas together grant in any window is never more than the limit. What a call cost in the end is sent and not
 * waited for; by then it may be more than the limit, and later calls wait that out.
 *
 * `concurrent` counts in this process alone. While the server is away slices at hand are spent; beyond them calls are
 * refused, or counted in this process by the same limits, as configured. Never rejects.
 */
import { hash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import type { Charge, Spent, Usage } from '../../policies/charge.ts';
import { amountFor } from '../../policies/charges.ts';
import { RING, slotAt } from '../../policies/counter.ts';
import {
  createQuotaState,
  KEYS_MAX,
  KEYS_PER_AGENT_MAX,
  progress,
  type Reservation,
  release,
  reserve,
  settle,
} from '../../policies/quota.ts';
import { err, ok, type Result } from '../../policies/result.ts';
import {
  createSlice,
  isOpenSlice,
  isRunningLow,
  Leases,
  leaseMsOf,
  type Place,
  type Slice,
  spendFrom,
} from './lease.ts';
import { Outbox } from './outbox.ts';
import type { Command, RedisConnection } from './redis-connection.ts';
import { RESERVE } from './redis-script.ts';
import {
  createSharedCounter,
  isFresh,
  noteAnswer,
  type SharedCounter,
  usageOf,
  usedOf,
  windowOf,
} from './shared-counter.ts';
import type { Grant, QuotaStore } from './store.ts';

export interface RedisStorePorts {
  readonly connection: RedisConnection;
  /** Before each key. With a hash tag, so that the keys of one call are on one node of a cluster. */
  readonly prefix: string;
  /** Share of each limit that is taken at once, 0 to 1; 0: the server is asked for every call. */
  readonly leaseShare: number;
  readonly onStoreFailure: 'refuse' | 'local';
  /** Milliseconds since the epoch, by a clock that is not set while it runs. */
  readonly now: () => number;
}

/** One charge of one call. */
interface Entry {
  readonly charge: Charge;
  readonly counter: SharedCounter;
  charged: number;
  /** Where that lies, oldest first. */
  readonly parts: { readonly place: Place; readonly amount: number }[];
}

interface RedisGrant extends Grant {
  /** `concurrent`, and everything while the server is away. */
  readonly own: Reservation | undefined;
  readonly entries: readonly Entry[];
  isOpen: boolean;
}

interface Asked {
  readonly charge: Charge;
  readonly counter: SharedCounter;
  /** The cost, and beyond it what is to be a slice. */
  readonly want: number;
}

/** One charge as the script has granted it. */
interface Granted {
  readonly used: number;
  readonly slot: number;
  readonly isSurplus: boolean;
  readonly slice: Slice | undefined;
}

const AWAY_RETRY_MS = 1_000;
/** In the answer, for each charge. */
const VALUES = 6;

export class RedisStore implements QuotaStore<RedisGrant> {
  readonly #ports: RedisStorePorts;
  readonly #outbox: Outbox;
  readonly #leases: Leases;
  /** What counts in this process. */
  readonly #own = createQuotaState();
  /** By the charge's key. */
  readonly #counters: LRUCache<string, SharedCounter>;
  /** The server's clock is ahead of ours by no more. */
  #aheadMs = 0;

  constructor(ports: RedisStorePorts) {
    this.#ports = ports;
    this.#outbox = new Outbox((command) => ports.connection.run(command), ports.now);
    this.#leases = new Leases({
      now: ports.now,
      timeThere: () => ports.now() + this.#aheadMs,
      change: (counter, slot, amount) => this.#outbox.add(counter, slot, amount),
    });
    this.#counters = new LRUCache({ max: KEYS_MAX, dispose: (counter) => this.#leases.endAll(counter) });
  }

  get figures(): { readonly isReady: boolean; readonly lost: number } {
    return { isReady: this.#ports.connection.isReady, lost: this.#outbox.lost };
  }

  reserve(charges: readonly Charge[]): Result<RedisGrant, Spent> | Promise<Result<RedisGrant, Spent>> {
    const shared = charges.filter(({ dimension }) => dimension !== 'concurrent');
    const never = shared.find(({ cost, limit }) => cost > limit);
    if (never !== undefined) return err({ quota: never.quota, retryAfterMs: Number.POSITIVE_INFINITY });
    const lanes = charges.filter(({ dimension }) => dimension === 'concurrent');
    const own = lanes.length === 0 ? undefined : reserve(this.#own, lanes, this.#ports.now());
    if (own?.ok === false) return own;
    const entries = this.#fromSlices(shared);
    if (entries !== undefined) return ok(grantOf(charges, own?.value, entries));
    return this.#ask(charges, shared, own?.value);
  }

  progress({ own, entries, isOpen }: RedisGrant, tokens: number): { readonly over: readonly string[] } {
    if (!isOpen) return { over: [] };
    const over = own === undefined ? [] : [...progress(this.#own, own, tokens, this.#ports.now())];
    for (const entry of entries) {
      const { charge, counter, charged } = entry;
      if (charge.perToken === 0) continue;
      const more = amountFor(charge.base, charge.perToken, tokens) - charged;
      if (more > 0) this.#spend(entry, more, this.#slotThere(charge));
      if (usedOf(counter) > charge.limit && isFresh(counter, this.#ports.now())) over.push(charge.quota);
    }
    return { over };
  }

  settle(grant: RedisGrant, tokens: number): readonly Usage[] {
    if (!grant.isOpen) return [];
    grant.isOpen = false;
    const own = grant.own === undefined ? [] : settle(this.#own, grant.own, tokens, this.#ports.now());
    const shared = grant.entries.flatMap((entry) => {
      const { charge, counter, charged, parts } = entry;
      const before = usedOf(counter);
      const more = amountFor(charge.base, charge.perToken, tokens) - charged;
      if (more > 0) this.#spend(entry, more, this.#slotOfLate(charge, parts.at(-1)!.place));
      else this.#giveBack(entry, -more);
      // What is not fresh warns of nothing: the next reservation will.
      return isFresh(counter, this.#ports.now()) ? [usageOf(counter, charge, before)] : [];
    });
    return [...own, ...shared];
  }

  release(grant: RedisGrant): void {
    if (!grant.isOpen) return;
    grant.isOpen = false;
    if (grant.own !== undefined) release(this.#own, grant.own, this.#ports.now());
    for (const entry of grant.entries) this.#giveBack(entry, entry.charged);
  }

  async close(): Promise<void> {
    this.#leases.close();
    await this.#outbox.flush();
    this.#ports.connection.close();
  }

  /** All of the charges from slices at hand, or none: nobody is asked. */
  #fromSlices(charges: readonly Charge[]): Entry[] | undefined {
    const found: (Omit<Asked, 'want'> & { readonly slice: Slice })[] = [];
    for (const charge of charges) {
      const counter = this.#counters.get(charge.key);
      const slice = counter && this.#leases.sliceFor(counter, charge.cost);
      if (counter === undefined || slice === undefined) return undefined;
      found.push({ charge, counter, slice });
    }
    return found.map(({ charge, counter, slice }) => {
      spendFrom(slice, charge.cost);
      if (isRunningLow(counter)) void this.#fetchAhead(charge, counter);
      return entryOf(charge, counter, slice);
    });
  }

  async #ask(
    charges: readonly Charge[],
    shared: readonly Charge[],
    own: Reservation | undefined,
  ): Promise<Result<RedisGrant, Spent>> {
    const answer = await this.#fetch(shared.map((charge) => this.#askedFor(charge)));
    if (answer.ok) return ok(grantOf(charges, own, answer.value));
    if (own !== undefined) release(this.#own, own, this.#ports.now());
    if (answer.error !== 'away') return err(answer.error);
    if (this.#ports.onStoreFailure === 'refuse')
      return err({ quota: shared[0]!.quota, retryAfterMs: AWAY_RETRY_MS, store: 'away' });
    const here = reserve(this.#own, charges, this.#ports.now());
    return here.ok ? ok(grantOf(charges, here.value, [])) : here;
  }

  #askedFor(charge: Charge): Asked {
    const counter = this.#counterOf(charge.key, charge);
    const covered = this.#leases.sliceFor(counter, charge.cost) !== undefined;
    if (!covered) this.#leases.endAll(counter);
    const want = covered || counter.isFetching ? charge.cost : Math.max(charge.cost, this.#sliceOf(charge));
    return { charge, counter, want };
  }

  /** Off the path, and one at a time. */
  async #fetchAhead(charge: Charge, counter: SharedCounter): Promise<void> {
    await this.#fetch([{ charge: { ...charge, cost: 0 }, counter, want: this.#sliceOf(charge) }]);
    counter.isDry = counter.next === undefined;
  }

  /** One round trip. */
  async #fetch(asked: readonly Asked[]): Promise<Result<Entry[], Spent | 'away'>> {
    const takers = asked.filter(({ charge, want }) => want > charge.cost);
    for (const { counter } of takers) counter.isFetching = true;
    void this.#outbox.flush();
    const askedAt = this.#ports.now();
    const answer = await this.#ports.connection.run(this.#commandOf(asked));
    for (const { counter } of takers) counter.isFetching = false;
    if (!answer.ok) return err('away');
    const [verdict, now, ...values] = answer.value.map(Number) as [number, number, ...number[]];
    // It was that time there when the question was on its way; milliseconds are cut.
    this.#aheadMs = now + 1 - askedAt;
    if (verdict === 0) return err({ quota: asked[values[0]! - 1]!.charge.quota, retryAfterMs: values[1]! });
    return ok(asked.map((one, index) => this.#take(one, grantedFrom(values.slice(index * VALUES), askedAt))));
  }

  #take({ charge, counter: named }: Asked, { used, slot, isSurplus, slice }: Granted): Entry {
    const counter = isSurplus ? this.#counterOf(charge.surplusKey!, charge) : named;
    noteAnswer(counter, used, this.#ports.now());
    counter.isDry = false;
    if (slice !== undefined) {
      this.#leases.hold(counter, slice);
      // Dropped meanwhile, to make room.
      if (this.#counters.peek(charge.key) !== counter) this.#leases.endAll(counter);
    }
    return entryOf(charge, counter, { slot });
  }

  #commandOf(asked: readonly Asked[]): Command {
    const keys = [this.#keyOf('agent', asked[0]!.charge.agent)];
    const args = [String(KEYS_PER_AGENT_MAX)];
    for (const { charge, counter, want } of asked) {
      keys.push(counter.key, charge.surplusKey === undefined ? counter.key : this.#keyOf('key', charge.surplusKey));
      args.push(windowOf(charge), ...[charge.limit, charge.cost, want, leaseMsOf(charge)].map(String));
    }
    return { script: RESERVE, keys, args };
  }

  #sliceOf({ limit }: Charge): number {
    return Math.floor(limit * this.#ports.leaseShare);
  }

  #counterOf(key: string, charge: Charge): SharedCounter {
    const known = this.#counters.get(key);
    if (known !== undefined) return known;
    const counter = createSharedCounter(this.#keyOf('key', key), charge);
    this.#counters.set(key, counter);
    return counter;
  }

  /** Agents choose parts of a key: hashed, it is short and says nothing. */
  #keyOf(kind: 'agent' | 'key', name: string): string {
    return `${this.#ports.prefix}${kind}:${hash('sha256', name, 'base64url')}`;
  }

  #slotThere(charge: Charge): number {
    return slotAt(this.#ports.now() + this.#aheadMs, charge);
  }

  /** Where the call was charged last; now, where that has left the window. */
  #slotOfLate(charge: Charge, { slot }: Place): number {
    const present = this.#slotThere(charge);
    const oldest = charge.period === undefined ? present - RING + 1 : present;
    return slot < oldest ? present : Math.min(slot, present);
  }

  #spend(entry: Entry, amount: number, slot: number): void {
    const slice = this.#leases.sliceFor(entry.counter, amount);
    if (slice === undefined) this.#outbox.add(entry.counter, slot, amount);
    else spendFrom(slice, amount);
    entry.parts.push({ place: slice ?? { slot }, amount });
    entry.charged += amount;
    // The oldest has left the window by now.
    if (entry.parts.length > RING) entry.parts.shift();
  }

  /** The newest first: it would count the longest. */
  #giveBack({ counter, parts }: Entry, amount: number): void {
    let left = amount;
    for (let part = parts.pop(); part !== undefined && left > 0; part = parts.pop()) {
      const back = Math.min(part.amount, left);
      if (isOpenSlice(part.place)) spendFrom(part.place, -back);
      else this.#outbox.add(counter, part.place.slot, -back);
      left -= back;
    }
  }
}

function entryOf(charge: Charge, counter: SharedCounter, place: Place): Entry {
  return { charge, counter, charged: charge.cost, parts: [{ place, amount: charge.cost }] };
}

function grantedFrom(values: readonly number[], askedAt: number): Granted {
  const [used, slot, isSurplus, size, sliceSlot, lastsMs] = values as [number, number, number, number, number, number];
  const slice = size > 0 ? createSlice(size, sliceSlot, lastsMs, askedAt) : undefined;
  return { used, slot, isSurplus: isSurplus === 1, slice };
}

function grantOf(charges: readonly Charge[], own: Reservation | undefined, entries: readonly Entry[]): RedisGrant {
  const usage = new Map<Charge, Usage>();
  for (const [index, { charge }] of (own?.entries ?? []).entries()) usage.set(charge, own!.usage[index]!);
  for (const { charge, counter } of entries) usage.set(charge, usageOf(counter, charge, usedOf(counter) - charge.cost));
  return { usage: charges.map((charge) => usage.get(charge)!), own, entries, isOpen: true };
}
