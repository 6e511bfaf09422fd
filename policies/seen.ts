/**
 * What is remembered of many calls of the same thing: enough to say what they had in common, in bounded memory. Pure.
 */
import type { RecordedRequest } from './recorded.ts';
import { REDACTED } from './redact.ts';

/** Different values that are remembered of one thing. Beyond, it only matters that there were more. */
const VALUES_MAX = 20;
/** Arguments of one tool that are looked at. */
const ARGUMENTS_MAX = 32;
const VALUE_LENGTH_MAX = 64;

/** Different values, as long as they are few. */
export class FewValues<T> {
  readonly #values = new Set<T>();
  #isMore = false;

  add(value: T): void {
    if (this.#values.has(value)) return;
    if (this.#values.size < VALUES_MAX) this.#values.add(value);
    else this.#isMore = true;
  }

  /** Also when there is one that cannot be told from others. */
  addMore(): void {
    this.#isMore = true;
  }

  /** `undefined` when there were too many. */
  get all(): ReadonlySet<T> | undefined {
    return this.#isMore ? undefined : this.#values;
  }
}

/** From the least to the greatest. */
export interface Span {
  least: number;
  greatest: number;
}

/** One argument, over all calls that had it. */
export class SeenArgument {
  /** Calls that had it. */
  count = 0;
  /** Strings, numbers and booleans of at most 64 characters. */
  readonly values = new FewValues<string | number | boolean>();
  /** `undefined` once a value was no number. */
  numbers: Span | undefined = { least: Number.POSITIVE_INFINITY, greatest: Number.NEGATIVE_INFINITY };
  /** Characters; `undefined` once a value was no string. */
  sizes: Span | undefined = { least: Number.POSITIVE_INFINITY, greatest: Number.NEGATIVE_INFINITY };

  add(value: unknown): void {
    this.count += 1;
    this.numbers = typeof value === 'number' ? widen(this.numbers, value) : undefined;
    this.sizes = typeof value === 'string' && value !== REDACTED ? widen(this.sizes, lengthOf(value)) : undefined;
    if (isSmall(value)) this.values.add(value);
    else this.values.addMore();
  }
}

export interface Sample {
  readonly time: number;
  readonly sequence: number;
  readonly file: string;
}

/** Calls of one agent and one thing that came out the same way. */
export class Seen {
  count = 0;
  failed = 0;
  first: Sample | undefined;
  last: Sample | undefined;
  readonly users = new FewValues<string | undefined>();
  readonly methods = new FewValues<string>();
  /** Roles of the identity that every call had; `undefined` before the first. */
  rolesOfAll: ReadonlySet<string> | undefined;
  readonly rolesOfAny = new FewValues<string>();
  /** UTC. */
  readonly hours = new Set<number>();
  /** 0: Sunday. */
  readonly weekdays = new Set<number>();
  /** `undefined` once the arguments of a call are not known, or it had too many. */
  args: Map<string, SeenArgument> | undefined = new Map();

  add(recorded: RecordedRequest, file: string): void {
    const { time, sequence, user, method, hasFailed } = recorded;
    const roles = recorded.roles === 'omitted' ? [] : (recorded.roles ?? []);
    this.count += 1;
    if (hasFailed) this.failed += 1;
    this.last = { time, sequence, file };
    this.first ??= this.last;
    this.users.add(user);
    this.methods.add(method);
    this.rolesOfAll = new Set(
      this.rolesOfAll === undefined ? roles : roles.filter((role) => this.rolesOfAll!.has(role)),
    );
    for (const role of roles) this.rolesOfAny.add(role);
    const date = new Date(time);
    this.hours.add(date.getUTCHours());
    this.weekdays.add(date.getUTCDay());
    this.#addArguments(recorded.args);
  }

  #addArguments(args: unknown): void {
    if (args === undefined || this.args === undefined) return;
    if (typeof args !== 'object' || args === null) {
      this.args = undefined;
      return;
    }
    for (const [name, value] of Object.entries(args)) {
      let seen = this.args.get(name);
      if (seen === undefined) {
        if (this.args.size === ARGUMENTS_MAX) {
          this.args = undefined;
          return;
        }
        seen = new SeenArgument();
        this.args.set(name, seen);
      }
      seen.add(value);
    }
  }
}

function isSmall(value: unknown): value is string | number | boolean {
  if (typeof value === 'string') return value.length <= VALUE_LENGTH_MAX && value !== REDACTED;
  return typeof value === 'number' || typeof value === 'boolean';
}

function widen(span: Span | undefined, value: number): Span | undefined {
  return span && { least: Math.min(span.least, value), greatest: Math.max(span.greatest, value) };
}

/** As CEL's size(): code points. */
function lengthOf(text: string): number {
  let length = 0;
  for (const _character of text) length += 1;
  return length;
}
