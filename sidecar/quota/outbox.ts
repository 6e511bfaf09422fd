/**
 * Changes to shared counters that nobody waits for: gathered for a moment, added up, and sent together.
 *
 * They are sent before any question that is asked over the same connection, which keeps their order: a question sees all
 * that was changed before it. Bounded. What cannot be sent is lost, and counted: what was to be given back then counts
 * until it leaves its window, and what was to be charged does not.
 */
import type { Result } from '../../policies/result.ts';
import type { Command } from './redis-connection.ts';
import { CHANGE } from './redis-script.ts';
import { noteAnswer, type SharedCounter, windowOf } from './shared-counter.ts';

const GATHER_MS = 20;
const COUNTERS_MAX = 10_000;
/** A script holds up the server for everybody. */
const COUNTERS_PER_SCRIPT = 100;

type Changes = Map<number, number>;
type Run = (command: Command) => Promise<Result<readonly unknown[], string>>;

export class Outbox {
  readonly #run: Run;
  readonly #now: () => number;
  #waiting = new Map<SharedCounter, Changes>();
  #timer: NodeJS.Timeout | undefined;
  #lost = 0;

  /** @param now The clock of this process. */
  constructor(run: Run, now: () => number) {
    this.#run = run;
    this.#now = now;
  }

  /** How often a counter was not changed. */
  get lost(): number {
    return this.#lost;
  }

  add(counter: SharedCounter, slot: number, amount: number): void {
    if (amount === 0) return;
    const changes = this.#changesOf(counter);
    if (changes === undefined) {
      this.#lost += 1;
      return;
    }
    changes.set(slot, (changes.get(slot) ?? 0) + amount);
    counter.unsent += amount;
    this.#timer ??= setTimeout(() => void this.flush(), GATHER_MS).unref();
  }

  /** Sent when it returns; answered, or lost, when it resolves. Never rejects. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    const sending: Promise<void>[] = [];
    for (let start = 0; start < waiting.length; start += COUNTERS_PER_SCRIPT)
      sending.push(this.#send(waiting.slice(start, start + COUNTERS_PER_SCRIPT)));
    await Promise.all(sending);
  }

  #changesOf(counter: SharedCounter): Changes | undefined {
    const known = this.#waiting.get(counter);
    if (known !== undefined || this.#waiting.size >= COUNTERS_MAX) return known;
    const changes: Changes = new Map();
    this.#waiting.set(counter, changes);
    return changes;
  }

  async #send(sent: readonly (readonly [SharedCounter, Changes])[]): Promise<void> {
    const answer = await this.#run({
      script: CHANGE,
      keys: sent.map(([{ key }]) => key),
      args: sent.flatMap(([counter, changes]) => [
        windowOf(counter),
        String(changes.size),
        ...[...changes].flat().map(String),
      ]),
    });
    if (!answer.ok) this.#lost += sent.length;
    for (const [index, [counter, changes]] of sent.entries()) {
      for (const amount of changes.values()) counter.unsent -= amount;
      if (answer.ok) noteAnswer(counter, Number(answer.value[index]), this.#now());
    }
  }
}
