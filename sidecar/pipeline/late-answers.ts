/**
 * Answers that come another way than as the reply to their request: in the 2025 eras on a stream that is taken up
 * again (`Last-Event-ID`), or on the one that is open for whatever the server has to say. Each is charged its tokens as
 * its call was charged.
 *
 * Known are the calls of the latest {@link EXPECTED_MAX} ids in sessions that were not answered yet. What else comes on
 * such a stream says of no call that it belongs to it, and is not charged; nor are answers of a server without sessions.
 * Calls that share an id, which MCP forbids, are all charged for its answer: nobody can tell whose it is.
 */
import { LRUCache } from 'lru-cache';
import type { Charge, Usage } from '../../policies/charge.ts';
import type { CompiledPolicy } from '../../policies/policy.ts';
import { boundedKey } from '../quota/bounded-keys.ts';
import type { QuotaStore } from '../quota/store.ts';
import type { Answered, Permitted } from './exchange.ts';
import { type Reason, spentMeanwhile } from './reason.ts';
import { keyOf } from './running-requests.ts';

const EXPECTED_MAX = 4096;
const SAME_ID_MAX = 8;

interface Expected {
  readonly charges: readonly Charge[];
  readonly method: string;
  readonly policy: CompiledPolicy;
}

export interface LateAnswersPorts {
  readonly store: QuotaStore;
  /** Wall clock, milliseconds since the epoch. */
  readonly now: () => number;
  /** A quota has reached its warning share. */
  readonly warn: (usage: Usage, exchange: Permitted) => void;
}

export class LateAnswers {
  readonly #ports: LateAnswersPorts;
  readonly #expected = new LRUCache<string, readonly Expected[]>({ max: EXPECTED_MAX });

  constructor(ports: LateAnswersPorts) {
    this.#ports = ports;
  }

  /** Why a call is not taken: too many of its id are under way already. */
  refusalOf(exchange: Permitted): Reason | undefined {
    const id = exchange.message?.id;
    const key = this.#expected.size === 0 ? undefined : keyOfCall(exchange, id);
    if (key === undefined || this.#expectedBy(key).length < SAME_ID_MAX) return undefined;
    const detail = 'its id is that of requests which are not answered yet';
    return { kind: 'malformed', reason: { kind: 'envelopeMissing', detail, id } };
  }

  /** A call is under way whose tokens are charged. Returns how to forget it, once it is answered. */
  expect(exchange: Permitted, charges: readonly Charge[]): (() => void) | undefined {
    const { message, policy } = exchange;
    const key = keyOfCall(exchange, message?.id);
    if (message?.id === undefined || key === undefined) return undefined;
    // Of the call itself, all but the tokens was charged when it came.
    const late = charges.filter(({ perToken }) => perToken > 0).map((one) => ({ ...one, base: 0, cost: 0 }));
    const expected = { charges: late, method: message.method, policy };
    this.#expected.set(key, [...this.#expectedBy(key), expected]);
    return () => {
      const others = this.#expectedBy(key).filter((one) => one !== expected);
      if (others.length === 0) this.#expected.delete(key);
      else this.#expected.set(key, others);
    };
  }

  #expectedBy(key: string): readonly Expected[] {
    return this.#expected.peek(key) ?? [];
  }

  /** So many tokens are the answer to the request of this id. Says why it is withheld. */
  async charge(exchange: Answered, id: unknown, tokens: number): Promise<Reason | undefined> {
    const key = this.#expected.size === 0 ? undefined : keyOfCall(exchange, id);
    let spent: Reason | undefined;
    for (const { charges, method, policy } of (key === undefined ? undefined : this.#expected.get(key)) ?? [])
      for (const charge of charges) {
        if (!(await this.#isOver(exchange, charge, tokens)) || policy.audit) continue;
        const quota = policy.quotas.find(({ name, hard }) => hard && name === charge.quota);
        if (quota !== undefined) spent ??= spentMeanwhile(quota, method, this.#ports.now());
      }
    return spent;
  }

  async #isOver(exchange: Answered, charge: Charge, tokens: number): Promise<boolean> {
    const { store, warn } = this.#ports;
    const reserved = await store.reserve([charge]);
    if (!reserved.ok) return true;
    const { over } = store.progress(reserved.value, tokens);
    for (const usage of store.settle(reserved.value, tokens)) if (usage.warned) warn(usage, exchange);
    return over.length > 0;
  }
}

/** An agent chooses its ids, and how long they are. */
function keyOfCall(exchange: Permitted, id: unknown): string | undefined {
  const key = keyOf(exchange, id);
  return key === undefined ? undefined : boundedKey(key);
}
