/**
 * Spent quota in Redis or Valkey, shared between replicas.
 *
 * A reservation is one script and one round trip, all of its charges or none, by the server's clock. With a lease a share
 * of each limit is taken at once and spent here: Redis is asked once a slice, and what is left of one is given back. The
 * sum of what all replicas grant in a window is never more than the limit. What is settled is sent and not waited for.
 *
 * `concurrent` counts in this process alone. Never rejects: while Redis is away, reservations are refused, or granted from
 * counters of this process, as configured.
 */
import { hash } from 'node:crypto';
import type { Charge, Spent, Usage } from '../../policies/charge.ts';
import { amountFor } from '../../policies/charges.ts';
import { createQuotaState, progress, type Reservation, release, reserve, settle } from '../../policies/quota.ts';
import { err, ok, type Result } from '../../policies/result.ts';
import { Leases } from './lease.ts';
import { CHANGE, RESERVE } from './redis-script.ts';
import type { Grant, QuotaStore } from './store.ts';

/** What is asked of a connection; the client is one. */
export interface RedisConnection {
  /** Whether a command would be sent at once. */
  readonly isReady: boolean;
  run(script: string, keys: readonly string[], argument: string): Promise<unknown>;
  close(): Promise<void>;
}

export interface RedisStorePorts {
  readonly connection: RedisConnection;
  /** Before each key; the braces keep the keys of one call on one node of a cluster. */
  readonly group: string;
  /** Share of each limit that is taken at once, 0 to 1; 0: Redis is asked for every call. */
  readonly leaseShare: number;
  readonly onStoreFailure: 'refuse' | 'local';
  readonly timeoutMs: number;
  /** Milliseconds since the epoch, by a clock that is not set while it runs. */
  readonly now: () => number;
  readonly log: { warn(message: string): void; info(message: string): void };
}

interface SharedPart {
  readonly charge: Charge;
  readonly key: string;
  readonly slot: number;
  used: number;
  charged: number;
}

interface RedisGrant extends Grant {
  /** `concurrent`, and everything while Redis is away. */
  readonly local: Reservation | undefined;
  readonly shared: readonly SharedPart[];
  open: boolean;
}

const AWAY_RETRY_MS = 1_000;
/** Changes that wait for an answer. */
const CHANGES_MAX = 10_000;

export function createRedisStore(ports: RedisStorePorts): QuotaStore<RedisGrant> {
  const { connection, now, log } = ports;
  const state = createQuotaState();
  const leases = new Leases(now);
  let isAway = false;
  let changes = 0;

  const tellAway = (away: boolean, why = '') => {
    if (away === isAway) return;
    isAway = away;
    const meanwhile =
      ports.onStoreFailure === 'refuse'
        ? 'calls under a quota are refused'
        : 'each sidecar counts by itself, and together they may grant more';
    if (away) log.warn(`the quota store is away${why}: ${meanwhile}`);
    else log.info('the quota store is back');
  };

  const run = async (script: string, keys: readonly string[], argument: unknown): Promise<unknown> => {
    if (!connection.isReady) throw new Error('not connected');
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(new Error(`no answer within ${ports.timeoutMs} ms`)), ports.timeoutMs);
    });
    try {
      const answer = await Promise.race([connection.run(script, keys, JSON.stringify(argument)), late]);
      tellAway(false);
      return answer;
    } finally {
      clearTimeout(timer);
    }
  };

  /** Sent, and not waited for. */
  const change = (parts: readonly (SharedPart & { readonly amount: number })[]) => {
    const due = parts.filter(({ amount }) => amount !== 0);
    if (due.length === 0 || changes >= CHANGES_MAX) return;
    changes += 1;
    run(
      CHANGE,
      due.map(({ key }) => key),
      due.map(({ charge: { windowMs, period }, slot, amount }) => ({ windowMs, period, slot, amount })),
    )
      .catch((error: unknown) => tellAway(true, whyOf(error)))
      .finally(() => {
        changes -= 1;
      });
  };

  const giveBack = (lapsed: readonly { charge: Charge; key: string; slot: number; left: number }[]) =>
    change(lapsed.map(({ left, ...one }) => ({ ...one, used: 0, charged: 0, amount: -left })));

  const reserveShared = async (charges: readonly Charge[]): Promise<Result<SharedPart[], Spent>> => {
    const keyed = charges.map((charge) => ({ charge, key: keyOf(ports.group, charge) }));
    giveBack(leases.lapsed());
    const leased = leases.take(keyed);
    if (leased !== undefined) return ok(leased);
    const asked = keyed.map(({ charge: { limit, windowMs, period, cost } }) => ({
      limit,
      windowMs,
      period,
      cost,
      want: Math.max(cost, Math.floor(limit * ports.leaseShare)),
      later: ports.leaseShare > 0 && period === undefined,
    }));
    const answer = (await run(
      RESERVE,
      keyed.map(({ key }) => key),
      asked,
    )) as readonly [1, number, readonly (readonly [number, number, number, number])[]] | readonly [0, number, number];
    if (answer[0] === 0) {
      const [, index, wait] = answer;
      return err({ quota: charges[index - 1]!.quota, retryAfterMs: wait < 0 ? Number.POSITIVE_INFINITY : wait });
    }
    return ok(
      answer[2].map(([used, granted, slot, remainingMs], index) => {
        const { charge, key } = keyed[index]!;
        const left = granted - charge.cost;
        if (left > 0) giveBack(leases.keep({ charge, key, slot, left, used }, remainingMs));
        return { charge, key, slot, used: used - left, charged: charge.cost };
      }),
    );
  };

  const grantOf = (
    charges: readonly Charge[],
    local: Reservation | undefined,
    shared: readonly SharedPart[],
  ): RedisGrant => {
    const usage = new Map<Charge, Usage>();
    for (const [index, { charge }] of (local?.entries ?? []).entries()) usage.set(charge, local!.usage[index]!);
    for (const { charge, used } of shared) usage.set(charge, usageOf(charge, used - charge.cost, used));
    return { usage: charges.map((charge) => usage.get(charge)!), local, shared, open: true };
  };

  /** Shared charges: what they have been charged by now becomes `amount`. */
  const amend = (shared: readonly SharedPart[], amountOf: (charge: Charge) => number, mayShrink: boolean): Usage[] => {
    const parts = shared.map((part) => {
      const difference = amountOf(part.charge) - part.charged;
      return { part, amount: mayShrink ? difference : Math.max(0, difference) };
    });
    change(parts.map(({ part, amount }) => ({ ...part, amount })));
    return parts.map(({ part, amount }) => {
      const before = part.used;
      part.used += amount;
      part.charged += amount;
      return usageOf(part.charge, before, part.used);
    });
  };

  return {
    async reserve(charges) {
      const own = charges.filter(({ dimension }) => dimension === 'concurrent');
      const others = charges.filter(({ dimension }) => dimension !== 'concurrent');
      const local = own.length === 0 ? undefined : reserve(state, own, now());
      if (local?.ok === false) return local;
      if (others.length === 0) return ok(grantOf(charges, local?.value, []));
      try {
        const shared = await reserveShared(others);
        if (shared.ok) return ok(grantOf(charges, local?.value, shared.value));
        if (local?.ok) release(state, local.value, now());
        return shared;
      } catch (error) {
        tellAway(true, whyOf(error));
        if (local?.ok) release(state, local.value, now());
        if (ports.onStoreFailure === 'refuse')
          return err({ quota: others[0]!.quota, retryAfterMs: AWAY_RETRY_MS, store: 'away' });
        const here = reserve(state, charges, now());
        return here.ok ? ok(grantOf(charges, here.value, [])) : here;
      }
    },
    progress({ local, shared, open }, tokens) {
      if (!open) return { over: [] };
      const over = local === undefined ? [] : [...progress(state, local, tokens, now())];
      const counted = shared.filter(({ charge }) => charge.perToken > 0);
      amend(counted, ({ base, perToken }) => amountFor(base, perToken, tokens), false);
      for (const { charge, used } of counted) if (used > charge.limit) over.push(charge.quota);
      return { over };
    },
    settle(grant, tokens) {
      if (!grant.open) return [];
      grant.open = false;
      const local = grant.local === undefined ? [] : settle(state, grant.local, tokens, now());
      return [...local, ...amend(grant.shared, ({ base, perToken }) => amountFor(base, perToken, tokens), true)];
    },
    release(grant) {
      if (!grant.open) return;
      grant.open = false;
      if (grant.local !== undefined) release(state, grant.local, now());
      amend(grant.shared, () => 0, true);
    },
    async close() {
      const left = leases.all();
      if (left.length > 0 && connection.isReady)
        await run(
          CHANGE,
          left.map(({ key }) => key),
          left.map(({ charge: { windowMs, period }, slot, left: amount }) => ({
            windowMs,
            period,
            slot,
            amount: -amount,
          })),
        ).catch(() => {});
      await connection.close();
    },
  };
}

function usageOf({ quota, dimension, limit, warnAt }: Charge, before: number, used: number): Usage {
  return { quota, dimension, used, limit, warned: before < warnAt * limit && used >= warnAt * limit };
}

/** Agents choose parts of a key: hashed, it is short and says nothing. */
function keyOf(group: string, { key }: Charge): string {
  return `mcp-sidecar:{${group}}:${hash('sha256', key)}`;
}

/** Never the address, which may hold a name that is nobody's business. */
function whyOf(error: unknown): string {
  return error instanceof Error && /^(?:not connected|no answer within)/.test(error.message)
    ? ` (${error.message})`
    : '';
}
