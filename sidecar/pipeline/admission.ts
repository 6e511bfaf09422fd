/**
 * The places for what is under way: how many are taken, by whom, and whether another may be had. One per sidecar.
 *
 * Where several agents share the places, none of them gets more than half of any kind. Knows nothing of exchanges: who
 * takes a place gives it back.
 */
import { err, ok, type Result } from '../../policies/result.ts';
import type { Reason } from './reason.ts';

/** `leftBehind`: requests of the 2025 eras whose agent has gone; beside `inFlight`, and no more of them. */
export type PlaceKind = 'inFlight' | 'streams' | 'leftBehind';

export interface AdmissionLimits {
  /** Requests under way at once. */
  readonly inFlight: number;
  /** Open event streams that the server pushes (GET, `subscriptions/listen`). */
  readonly streams: number;
}

const SHED_RETRY_MS = 1_000;

export class Admission {
  draining = false;
  inFlight = 0;
  streams = 0;
  leftBehind = 0;
  readonly #limits: Readonly<Record<PlaceKind, number>>;
  readonly #isShared: boolean;
  /** How many places each agent has, by kind and name. */
  readonly #byAgent = new Map<string, number>();
  readonly #idle: (() => void)[] = [];

  /** @param isShared Several agents share the places. */
  constructor({ inFlight, streams }: AdmissionLimits, isShared: boolean) {
    this.#limits = { inFlight, streams, leftBehind: inFlight };
    this.#isShared = isShared;
  }

  get taken(): number {
    return this.inFlight + this.streams + this.leftBehind;
  }

  /** @param agent `undefined` while nobody knows who it is. */
  enter(kind: PlaceKind, agent?: string): Result<Place, Reason> {
    const full = this.take(kind, agent);
    return full === undefined ? ok(new Place(this, kind, agent)) : err(full);
  }

  /** Resolves when the last place is free. */
  async whenIdle(): Promise<void> {
    if (this.taken === 0) return;
    await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  left(): void {
    if (this.taken > 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  /** For {@link Place}. Says why there is no room, and takes nothing then. */
  take(kind: PlaceKind, agent: string | undefined): Reason | undefined {
    const limit = this.#limits[kind];
    if (this[kind] >= limit)
      return shed(`limits.${kind}: ${limit} ${kind === 'streams' ? 'streams are open' : 'requests are under way'}`);
    if (this.#isShared && agent !== undefined) {
      const key = `${kind} ${agent}`;
      const held = this.#byAgent.get(key) ?? 0;
      if (held >= Math.ceil(limit / 2)) return shed(`agent ${agent} has half of limits.${kind} (${limit}) already`);
      this.#byAgent.set(key, held + 1);
    }
    this[kind] += 1;
    return undefined;
  }

  /** For {@link Place}. */
  giveBack(kind: PlaceKind, agent: string | undefined): void {
    this[kind] -= 1;
    if (!this.#isShared || agent === undefined) return;
    const key = `${kind} ${agent}`;
    const left = this.#byAgent.get(key)! - 1;
    if (left === 0) this.#byAgent.delete(key);
    else this.#byAgent.set(key, left);
  }
}

/** A place that was taken. */
export class Place {
  readonly #admission: Admission;
  #kind: PlaceKind;
  #agent: string | undefined;
  #isLeft = false;

  constructor(admission: Admission, kind: PlaceKind, agent: string | undefined) {
    this.#admission = admission;
    this.#kind = kind;
    this.#agent = agent;
  }

  /** From here on it is of this agent's share. */
  enterAs(agent: string): Reason | undefined {
    return this.#change(this.#kind, agent);
  }

  /** Gives this place back for one of another kind. */
  move(kind: PlaceKind): Reason | undefined {
    return kind === this.#kind ? undefined : this.#change(kind, this.#agent);
  }

  /** One more of the same kind, for the same agent. */
  another(): Result<Place, Reason> {
    return this.#admission.enter(this.#kind, this.#agent);
  }

  leave(): void {
    if (this.#isLeft) return;
    this.#isLeft = true;
    this.#admission.giveBack(this.#kind, this.#agent);
    this.#admission.left();
  }

  /** When there is no room, all stays as it is. */
  #change(kind: PlaceKind, agent: string | undefined): Reason | undefined {
    if (this.#isLeft) return undefined;
    this.#admission.giveBack(this.#kind, this.#agent);
    const full = this.#admission.take(kind, agent);
    if (full === undefined) {
      this.#kind = kind;
      this.#agent = agent;
    } else {
      this.#admission.take(this.#kind, this.#agent);
    }
    return full;
  }
}

function shed(detail: string): Reason {
  return { kind: 'unavailable', why: 'shedding', detail, retryAfterMs: SHED_RETRY_MS };
}
