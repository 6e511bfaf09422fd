/**
 * What a schema finds wrong with a document, in sentences: for policies, and for every file that people write. An
 * unknown key names the known one that it is nearest to.
 *
 * No sentence ever quotes a value: it could be a secret that somebody wrote into the wrong place. Where the parts of a
 * document stand in a file is not known here.
 */
import * as z from 'zod';
import { nearestOf } from './nearest.ts';

/** A problem of a document, before its place in the file is known. `at`: whether the key or the value is to blame. */
export interface DocumentProblem {
  readonly path: readonly (string | number)[];
  readonly at: 'key' | 'value';
  readonly message: string;
}

/**
 * Turns what zod found in `document` into sentences; an unknown key names the nearest known one.
 *
 * @param later Keys that a coming version will know. Default: none.
 */
export function problemsOfIssues(
  issues: readonly z.core.$ZodIssue[],
  document: unknown,
  schema: z.ZodType,
  later: ReadonlySet<string> = new Set(),
): DocumentProblem[] {
  const jsonSchema = z.toJSONSchema(schema, { io: 'input' });
  return issues.flatMap((issue) => problemsOfIssue(issue, [], document, jsonSchema, later));
}

function problemsOfIssue(
  issue: z.core.$ZodIssue,
  prefix: readonly (string | number)[],
  document: unknown,
  jsonSchema: z.core.JSONSchema.BaseSchema,
  later: ReadonlySet<string>,
): DocumentProblem[] {
  const path = [...prefix, ...(issue.path as (string | number)[])];
  switch (issue.code) {
    case 'unrecognized_keys': {
      const known = [...knownKeys(jsonSchema, path, jsonSchema)];
      return issue.keys.map((key) => ({
        path: [...path, key],
        at: 'key',
        message: later.has(key) ? 'is not supported yet' : unknownKey(key, known),
      }));
    }
    case 'invalid_key':
      return [{ path, at: 'key', message: invalidKey(issue.issues[0]) }];
    case 'invalid_union': {
      if (issue.message !== 'Invalid input') break;
      const branch = likeliestBranch(issue.errors, path, document);
      if (branch.length === 0) break;
      return branch.flatMap((inner) => problemsOfIssue(inner, path, document, jsonSchema, later));
    }
    case 'invalid_type':
      if (valueAt(document, path) === undefined && issue.message.startsWith('Invalid input'))
        return [{ path, at: 'value', message: 'is missing' }];
      break;
  }
  return [{ path, at: 'value', message: sentenceOf(issue) }];
}

/** zod's own sentences for what the schema gives no sentence of its own. */
function sentenceOf(issue: z.core.$ZodIssue): string {
  if (!/^(Invalid|Too) /.test(issue.message)) return issue.message;
  switch (issue.code) {
    case 'invalid_type':
      return `must be ${KINDS[issue.expected] ?? issue.expected}`;
    case 'invalid_value':
      return `must be ${issue.values.length === 1 ? '' : 'one of '}${issue.values.map(String).join(', ')}`;
    case 'too_small':
      if (isNumeric(issue.origin))
        return `must be ${issue.inclusive === false ? 'more than' : 'at least'} ${issue.minimum}`;
      return issue.origin === 'string' ? 'must not be empty' : `must have at least ${issue.minimum} entries`;
    case 'too_big':
      if (isNumeric(issue.origin))
        return `must be ${issue.inclusive === false ? 'less than' : 'at most'} ${issue.maximum}`;
      return `must not be longer than ${issue.maximum}`;
    default:
      return 'is not valid';
  }
}

function isNumeric(origin: string): boolean {
  return origin === 'number' || origin === 'int';
}

function invalidKey(inner: z.core.$ZodIssue | undefined): string {
  return inner === undefined ? 'is not a valid key' : sentenceOf(inner);
}

const KINDS: Readonly<Record<string, string>> = {
  object: 'a mapping',
  record: 'a mapping',
  array: 'a list',
  string: 'text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
};

/**
 * Which form of a union the author meant: the one with the right kind of value, then with no required key missing,
 * then with the fewest unknown keys.
 */
function likeliestBranch(
  branches: readonly (readonly z.core.$ZodIssue[])[],
  path: readonly (string | number)[],
  document: unknown,
): readonly z.core.$ZodIssue[] {
  const weigh = (issue: z.core.$ZodIssue): number => {
    if (issue.code === 'invalid_type' && issue.path.length === 0) return 10_000;
    if (valueAt(document, [...path, ...(issue.path as (string | number)[])]) === undefined) return 1000;
    if (issue.code === 'unrecognized_keys' && issue.path.length === 0) return issue.keys.length * 50;
    return 1;
  };
  const weighed = branches.map((issues) => ({ issues, weight: issues.reduce((sum, issue) => sum + weigh(issue), 0) }));
  return weighed.sort((left, right) => left.weight - right.weight)[0]?.issues ?? [];
}

function valueAt(document: unknown, path: readonly (string | number)[]): unknown {
  return path.reduce<unknown>(
    (value, segment) =>
      typeof value === 'object' && value !== null && Object.hasOwn(value, segment)
        ? (value as Record<string | number, unknown>)[segment]
        : undefined,
    document,
  );
}

type JsonSchema = z.core.JSONSchema.BaseSchema;

function knownKeys(schema: JsonSchema, path: readonly (string | number)[], root: JsonSchema): Set<string> {
  const here = new Set<string>();
  for (const form of formsOf(schema, root)) {
    const [segment, ...rest] = path;
    if (segment === undefined) {
      for (const key of Object.keys(form.properties ?? {})) here.add(key);
      continue;
    }
    const inner = typeof segment === 'number' ? form.items : (form.properties?.[segment] ?? form.additionalProperties);
    if (typeof inner !== 'object' || Array.isArray(inner)) continue;
    for (const key of knownKeys(inner as JsonSchema, rest, root)) here.add(key);
  }
  return here;
}

function formsOf(schema: JsonSchema, root: JsonSchema): JsonSchema[] {
  const target = schema.$ref?.startsWith('#/$defs/') ? root.$defs?.[schema.$ref.slice('#/$defs/'.length)] : schema;
  if (target === undefined) return [];
  const branches = [...(target.anyOf ?? []), ...(target.oneOf ?? [])] as JsonSchema[];
  return branches.length === 0 ? [target] : branches.flatMap((branch) => formsOf(branch, root));
}

function unknownKey(key: string, known: readonly string[]): string {
  // Known, but in another form of the same thing: `command` beside `url`.
  if (known.includes(key)) return 'does not go together with the other keys here';
  const nearest = nearestOf(key, known);
  if (nearest !== undefined) return `is not a known key; did you mean ${nearest}?`;
  return known.length === 0 ? 'is not a known key' : `is not a known key; known here: ${known.join(', ')}`;
}
