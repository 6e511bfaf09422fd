/**
 * Enforces a tool's own input schema on the arguments of a call, where policy asks for it.
 *
 * `@cfworker/json-schema` interprets a schema; one that compiles it would run code made from what a server sent. It is
 * loaded when a policy first asks for it. 2020-12, unless the schema says otherwise (2026-07-28, server/tools).
 *
 * Fails closed: a schema that is not known, too large, that refers to what it does not hold (nothing is ever fetched)
 * or takes too much work refuses. schema-meter.ts says how work is bounded, and which keywords are left out for that.
 */
import type { Schema, SchemaDraft, ValidationResult } from '@cfworker/json-schema';
import { err, ok, type Result } from '../../policies/result.ts';
import { scan } from '../protocol/scan.ts';
import { SchemaMeter, TooMuchWork } from './schema-meter.ts';

const SCHEMA_CHARACTERS_MAX = 256 * 1024;
const SCHEMA_DEPTH_MAX = 128;
/** Of the place that is told. */
const PLACE_MAX = 200;
const DRAFTS: readonly [RegExp, SchemaDraft][] = [
  [/draft-04/, '4'],
  [/draft-07/, '7'],
  [/2019-09/, '2019-09'],
];

/** Says why arguments do not fit: the place and the keyword, never a value. */
type ArgumentCheck = (args: unknown) => Result<void, string>;

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
      check = this.#prepare(schema);
      this.#checks.set(schema, check);
    }
    return check(args);
  }

  #prepare(schema: object): ArgumentCheck {
    const meter = new SchemaMeter();
    const made = orRefusal(() => {
      const text = JSON.stringify(schema);
      if (text.length > SCHEMA_CHARACTERS_MAX) return undefined;
      if (!scan(Buffer.from(text), { depthMax: SCHEMA_DEPTH_MAX, batchMax: 0 }).ok) return undefined;
      const draft = DRAFTS.find(([name]) => name.test(String((schema as Schema).$schema)))?.[1] ?? '2020-12';
      meter.begin();
      return new this.#library!.Validator(meter.readSchema(text) as Schema, draft, true);
    });
    if (!made.ok) return () => made;
    const validator = made.value;
    if (validator === undefined) return () => err('the tool’s schema is too large to be enforced');
    return (args) => {
      meter.begin();
      // A reference that leads nowhere shows only here.
      const checked = orRefusal(() => validator.validate(meter.watch(args)));
      if (!checked.ok) return checked;
      return checked.value.valid ? ok(undefined) : err(describe(checked.value.errors));
    };
  }
}

function orRefusal<T>(run: () => T): Result<T, string> {
  try {
    return ok(run());
  } catch (error) {
    return err(
      error instanceof TooMuchWork
        ? 'the arguments take too much work to be held against the tool’s schema'
        : 'the tool’s schema cannot be enforced',
    );
  }
}

/** The innermost place. That a schema `false` admits nothing says less than where that schema stands. */
function describe(errors: ValidationResult['errors']): string {
  const place = errors.at(-1)?.instanceLocation.replace(/^#/, '').slice(0, PLACE_MAX) || '/';
  return `${place} breaks ${errors.findLast(({ keyword }) => keyword !== 'false')?.keyword ?? 'false'}`;
}
