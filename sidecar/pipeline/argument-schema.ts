/**
 * Enforces a tool's own input schema on the arguments of a call, where policy asks for it.
 *
 * `@cfworker/json-schema` interprets a schema; one that compiles it would run code made from what a server sent. The
 * schema is the server's and the arguments are the agent's, so what either could make run for ever is left out:
 * `pattern`, `patternProperties` and `format` are not enforced, nothing is fetched for a `$ref`, and a schema too large
 * is refused. 2020-12, unless the schema says otherwise (2026-07-28, server/tools).
 */
import type { Schema, SchemaDraft, Validator } from '@cfworker/json-schema';
import { err, ok, type Result } from '../../policies/result.ts';

const SCHEMA_CHARACTERS_MAX = 256 * 1024;
const LEFT_OUT = new Set(['pattern', 'patternProperties', 'format']);
const DRAFTS: readonly [RegExp, SchemaDraft][] = [
  [/draft-04/, '4'],
  [/draft-07/, '7'],
  [/2019-09/, '2019-09'],
];

/** Says why arguments do not fit: the place and the keyword, never a value. */
export type ArgumentCheck = (args: unknown) => Result<void, string>;

export class ArgumentSchemas {
  #library: typeof import('@cfworker/json-schema') | undefined;
  #loading: Promise<void> | undefined;
  /** By the schema as the catalog has it: another list is another object. */
  readonly #checks = new WeakMap<object, ArgumentCheck>();

  /** `undefined`: it is loaded. */
  load(): Promise<void> | undefined {
    if (this.#library !== undefined) return undefined;
    this.#loading ??= import('@cfworker/json-schema').then((library) => {
      this.#library = library;
    });
    return this.#loading;
  }

  /** After {@link load}. */
  check(schema: unknown, args: unknown): Result<void, string> {
    if (typeof schema !== 'object' || schema === null || Array.isArray(schema))
      return err('the tool’s schema is not known');
    let check = this.#checks.get(schema);
    if (check === undefined) {
      check = this.#compile(schema);
      this.#checks.set(schema, check);
    }
    return check(args);
  }

  #compile(schema: object): ArgumentCheck {
    let validator: Validator;
    try {
      // Throws where the schema nests without end.
      const text = JSON.stringify(schema);
      if (text.length > SCHEMA_CHARACTERS_MAX) return () => err('the tool’s schema is too large to be enforced');
      const kept = JSON.parse(text, withoutKeywords) as Schema;
      const draft = DRAFTS.find(([name]) => name.test(String(kept.$schema)))?.[1] ?? '2020-12';
      validator = new this.#library!.Validator(kept, draft, true);
    } catch {
      return () => err('the tool’s schema cannot be enforced');
    }
    return (args) => {
      try {
        const { valid, errors } = validator.validate(args);
        if (valid) return ok(undefined);
        const { instanceLocation, keyword } = errors.at(-1) ?? { instanceLocation: '#', keyword: 'schema' };
        return err(`${instanceLocation.replace(/^#/, '') || '/'} breaks ${keyword}`);
      } catch {
        // A reference that leads nowhere shows only here.
        return err('the tool’s schema cannot be enforced');
      }
    };
  }
}

/** Keywords only: a property may well be called `pattern`. */
function withoutKeywords(this: unknown, key: string, value: unknown): unknown {
  const isText = key === 'pattern' || key === 'format' ? typeof value === 'string' : true;
  return LEFT_OUT.has(key) && isText && !isProperties(this) ? undefined : value;
}

/** The values of `properties` are schemas, those of a schema are keywords: a schema has one of these, or none of ours matters. */
function isProperties(holder: unknown): boolean {
  return Object.values(holder as object).every((value) => typeof value === 'object' || typeof value === 'boolean');
}
