/**
 * How many tokens a text has. Never waits.
 *
 * The tokenizer is gpt-tokenizer's o200k_base: real, local, and near enough to those of other models (they differ by a
 * tenth or two for English and JSON). It costs 70 MiB and half a second to load and 100 µs for 1 KiB, so it is loaded when
 * the first call is counted, asked once the reply is out, and given a share of the time; the rest is estimated. So is
 * what it would take long for: a large text, and a long run without a break, for which its cost is quadratic.
 */
/** How a count was made: by the server's own figures, by the tokenizer, or from the bytes. */
export type CountedBy = 'server' | 'tokenizer' | 'estimate';

export interface TokenCount {
  readonly tokens: number;
  readonly by: CountedBy;
}

/** Larger texts are estimated. */
export const TOKENIZED_BYTES_MAX = 8 * 1024;
const LONG_RUN = /\S{256}|\s{256}/;
/** Of the time, for the tokenizer: some hundreds of calls a second. */
const SHARE = 1 / 20;
/** What of it may be used at once: more would be felt by the calls of that moment. */
const SAVED_MAX_MS = 10;

/** What holds for English and JSON alike. */
export function estimateTokens(bytes: number): number {
  return Math.ceil(bytes / 4);
}

export class TokenCounter {
  readonly #now: () => number;
  #count: ((text: string) => number) | undefined;
  #loading: Promise<void> | undefined;
  #savedMs = SAVED_MAX_MS;
  #savedAt: number;

  /** @param now Monotonic clock, milliseconds. */
  constructor(now: () => number) {
    this.#now = now;
    this.#savedAt = now();
  }

  /** Loads the tokenizer; what is counted before it is there is estimated. */
  load(): Promise<void> {
    this.#loading ??= import('gpt-tokenizer/encoding/o200k_base').then(({ countTokens }) => {
      // What looks like a special token is text here.
      this.#count = (text) => countTokens(text, { disallowedSpecial: new Set() });
    });
    return this.#loading;
  }

  count(bytes: Buffer): TokenCount {
    const estimate: TokenCount = { tokens: estimateTokens(bytes.length), by: 'estimate' };
    if (this.#loading === undefined) this.load().catch(() => {});
    if (this.#count === undefined || bytes.length > TOKENIZED_BYTES_MAX) return estimate;
    const started = this.#now();
    this.#savedMs = Math.min(SAVED_MAX_MS, this.#savedMs + (started - this.#savedAt) * SHARE);
    this.#savedAt = started;
    if (this.#savedMs <= 0) return estimate;
    const text = bytes.toString();
    const counted: TokenCount = LONG_RUN.test(text) ? estimate : { tokens: this.#count(text), by: 'tokenizer' };
    this.#savedMs -= this.#now() - started;
    return counted;
  }
}

/**
 * The server's own figures, where a result has them: `usage` in the result or in its `_meta`, in the spellings of the
 * model vendors. `undefined` for anything that is not a whole number of tokens.
 */
export function usageIn(result: unknown): { readonly input: number | undefined; readonly output: number } | undefined {
  const { usage, _meta } = Object(result) as { usage?: unknown; _meta?: unknown };
  const figures = Object(usage ?? (Object(_meta) as { usage?: unknown }).usage) as Readonly<Record<string, unknown>>;
  const read = (...names: string[]) => names.map((name) => figures[name]).find(isCount);
  const input = read('inputTokens', 'input_tokens', 'promptTokens', 'prompt_tokens');
  const output = read('outputTokens', 'output_tokens', 'completionTokens', 'completion_tokens');
  const total = read('totalTokens', 'total_tokens');
  if (output !== undefined) return { input, output };
  // A total counts what went in as well.
  return total === undefined ? undefined : { input: input ?? 0, output: Math.max(0, total - (input ?? 0)) };
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
