/**
 * Counts and bounds the work of holding arguments against a server's schema. The schema is the server's and the
 * arguments are the agent's, and either could make it run for ever: subschemas that double with every `$ref`, an `$id`
 * at every level, `uniqueItems` over a long list.
 *
 * The validator cannot be asked to count, so what it looks at counts: a schema when it is asked for its
 * `$recursiveRef`, which is once for each time that it is applied or registered and before any keyword of a pattern is
 * read; and the arguments whenever a member or the keys of them are. What is too much is thrown: there is no other way
 * out through somebody else's code. The same schema and arguments always cost the same.
 *
 * Regular expressions cannot be counted, so `pattern`, `patternProperties` and `format` are taken out of a schema when
 * it is first applied; and with `patternProperties` what is said of properties that match none of them, which nobody can
 * tell then. Not earlier: only then is it known to be a schema and not, say, the properties of one, where those are names.
 */

/** A schema applied costs ten: a tenth of a second together, about. */
const WORK_MAX = 500_000;
const APPLIED_COST = 10;
/** Of a text that is compared or measured. */
const CHARACTERS_A_UNIT = 64;

const COMPARED = new Set(['enum', 'const', 'required', 'type', 'dependentRequired', 'dependencies']);

type Json = Record<string, unknown>;

export class TooMuchWork extends Error {}

export class SchemaMeter {
  #left = 0;
  /** Of the text handed out last: what is applied next is applied to it. */
  #textLength = 0;
  #keyLength = 0;
  readonly #watching: ProxyHandler<object>;

  constructor() {
    this.#watching = {
      get: (target, key) => {
        this.#spend(1);
        return this.watch(Reflect.get(target, key));
      },
      ownKeys: (target) => {
        const keys = Reflect.ownKeys(target);
        this.#spend(keys.length);
        for (const key of keys) this.#keyLength = Math.max(this.#keyLength, String(key).length);
        return keys;
      },
      getOwnPropertyDescriptor: (target, key) => {
        this.#spend(1);
        return Reflect.getOwnPropertyDescriptor(target, key);
      },
    };
  }

  /** Before each use of what it counts. */
  begin(): void {
    this.#left = WORK_MAX;
    this.#textLength = 0;
    this.#keyLength = 0;
  }

  /** A schema that counts, from JSON text. */
  readSchema(text: string): unknown {
    return JSON.parse(text, (_key, value: unknown) => {
      if (typeof value === 'object' && value !== null && !Array.isArray(value)) this.#count(value as Json);
      return value;
    });
  }

  /** Arguments that count. */
  watch(value: unknown): unknown {
    if (typeof value === 'string') this.#textLength = value.length;
    return typeof value === 'object' && value !== null ? new Proxy(value, this.#watching) : value;
  }

  #count(schema: Json): void {
    const reference = schema.$recursiveRef;
    let cost: number | undefined;
    Object.defineProperty(schema, '$recursiveRef', {
      enumerable: Object.hasOwn(schema, '$recursiveRef'),
      configurable: true,
      get: () => {
        if (cost === undefined) {
          // Looking through the keywords asks for this one too.
          cost = APPLIED_COST;
          leaveOutPatterns(schema);
          cost = costOf(schema);
        }
        const measures = schema.minLength !== undefined || schema.maxLength !== undefined;
        this.#spend(cost + (measures ? Math.max(this.#textLength, this.#keyLength) / CHARACTERS_A_UNIT : 0));
        return reference;
      },
    });
  }

  #spend(units: number): void {
    this.#left -= units;
    if (this.#left < 0) throw new TooMuchWork();
  }
}

function leaveOutPatterns(schema: Json): void {
  delete schema.pattern;
  delete schema.format;
  if (schema.patternProperties === undefined) return;
  delete schema.patternProperties;
  delete schema.additionalProperties;
  delete schema.unevaluatedProperties;
}

/** What it takes to look through its keywords once; what is below them is counted where it is applied. */
function costOf(schema: Json): number {
  let cost = APPLIED_COST;
  for (const [keyword, value] of Object.entries(schema)) {
    if (COMPARED.has(keyword)) cost += (JSON.stringify(value) ?? '').length / CHARACTERS_A_UNIT;
    if (typeof value === 'object' && value !== null) cost += Object.keys(value).length;
  }
  return cost;
}
