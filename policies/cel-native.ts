/**
 * The commonest operands of conditions as functions of JavaScript, several times as fast as the CEL library.
 *
 * Guarantee: such a function answers `true` or `false` only where the library does, too; for all else (an error, a type
 * that is not the usual one, a shape that is not known here) it answers {@link UNSURE}, and the library is asked. So
 * there is one source of errors, and a shape needs to be right here only where it is plain. A property test compares the
 * two. No loops, and nothing that takes more than linear time.
 */
import type { ASTNode } from '@marcbachmann/cel-js';
import type { Variables } from './cel-variables.ts';
import { globOf, globProblem } from './glob.ts';

export const UNSURE = Symbol('the library has to be asked');

/** Its value, of JSON's types and of integers, or {@link UNSURE}. */
export type Native = (variables: Variables) => unknown;

/** `undefined` for a shape that is not known here. */
export function nativeOf(node: ASTNode): Native | undefined {
  switch (node.op) {
    case 'value':
      return isPlain(node.args) ? () => node.args : undefined;
    case 'id':
      return node.args === 'method' ? ({ method }) => method ?? UNSURE : undefined;
    case '.':
      return accessOf(node);
    case '!_':
      return withOperands([node.args], ([value]) => (typeof value === 'boolean' ? !value : UNSURE));
    case '&&':
    case '||':
      return logicalOf(node.op === '||', node.args);
    case '==':
      return withOperands(node.args, ([one, other]) => (areAlike(one, other) ? isSame(one, other) : UNSURE));
    case '!=':
      return withOperands(node.args, ([one, other]) => (areAlike(one, other) ? !isSame(one, other) : UNSURE));
    case '<':
      return comparisonOf(node.args, (one, other) => one < other);
    case '<=':
      return comparisonOf(node.args, (one, other) => one <= other);
    case '>':
      return comparisonOf(node.args, (one, other) => one > other);
    case '>=':
      return comparisonOf(node.args, (one, other) => one >= other);
    case 'in':
      return membershipOf(node.args);
    case 'call':
      return callOf(node.args[0], node.args[1]);
    case 'rcall':
      return methodOf(node.args);
    default:
      return undefined;
  }
}

function isPlain(value: unknown): boolean {
  return typeof value === 'string' || typeof value === 'boolean' || isNumber(value);
}

/** CEL's double and int. */
function isNumber(value: unknown): value is number | bigint {
  return typeof value === 'number' || typeof value === 'bigint';
}

/** Of one of the types that are compared here. */
function areAlike(one: unknown, other: unknown): boolean {
  return (isPlain(one) && typeof one === typeof other) || (isNumber(one) && isNumber(other));
}

/** A double and an int are the same where they are the same number. */
function isSame(one: unknown, other: unknown): boolean {
  // biome-ignore lint/suspicious/noDoubleEquals: of alike types, it differs for number and bigint only
  return one == other;
}

function withOperands(nodes: readonly ASTNode[], act: (values: readonly unknown[]) => unknown): Native | undefined {
  const [first, second] = nodes.map(nativeOf);
  if (first === undefined) return undefined;
  if (nodes.length === 1) return (variables) => act([first(variables)]);
  return second && ((variables) => act([first(variables), second(variables)]));
}

function comparisonOf(
  nodes: readonly ASTNode[],
  compare: (one: string | number | bigint, other: string | number | bigint) => boolean,
): Native | undefined {
  return withOperands(nodes, ([one, other]) =>
    areAlike(one, other) && typeof one !== 'boolean'
      ? compare(one as string | number | bigint, other as string | number | bigint)
      : UNSURE,
  );
}

/** The right side is asked for only where the left one does not decide, as it may not be there. */
function logicalOf(deciding: boolean, nodes: readonly ASTNode[]): Native | undefined {
  const [left, right] = nodes.map(nativeOf);
  if (left === undefined || right === undefined) return undefined;
  return (variables) => {
    const one = left(variables);
    if (one === deciding) return deciding;
    if (one !== !deciding) return UNSURE;
    const other = right(variables);
    return typeof other === 'boolean' ? other : UNSURE;
  };
}

type Fields = Readonly<Record<string, unknown>>;

/** Of variables that are no maps: the fields that are plain, and those that are maps. */
const FIELDS: ReadonlyMap<string, ReadonlySet<string>> = new Map([
  ['agent', new Set(['name', 'group', 'claims'])],
  ['user', new Set(['sub', 'claims'])],
  ['server', new Set(['name'])],
  ['tool', new Set(['name', 'annotations'])],
  ['session', new Set(['id'])],
]);
const MAPS: ReadonlySet<string> = new Set(['args', 'body', 'env']);

/** `args.a.b` as `['args', 'a', 'b']`. */
function pathOf(node: ASTNode): readonly string[] | undefined {
  if (node.op === 'id') return MAPS.has(node.args) || FIELDS.has(node.args) ? [node.args] : undefined;
  if (node.op !== '.') return undefined;
  const before = pathOf(node.args[0]);
  if (before === undefined) return undefined;
  const name = node.args[1];
  if (before.length === 1 && FIELDS.get(before[0]!)?.has(name) === false) return undefined;
  return [...before, name];
}

/** The map that a path ends in, before its last name. */
function mapBefore(path: readonly string[]): ((variables: Variables) => Fields | undefined) | undefined {
  const [variable, ...names] = path.slice(0, -1) as [keyof Variables, ...string[]];
  if (variable === undefined) return undefined;
  const [field] = FIELDS.has(variable) ? names.splice(0, 1) : [''];
  if (field === undefined) return undefined;
  return (variables) => {
    const start = variables[variable] as Fields | undefined;
    let value: unknown = field === '' ? start : start?.[field];
    for (const name of names) value = isMap(value) && Object.hasOwn(value, name) ? value[name] : undefined;
    return isMap(value) ? value : undefined;
  };
}

function isMap(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && value.constructor === Object;
}

function accessOf(node: ASTNode): Native | undefined {
  const path = pathOf(node);
  if (path === undefined) return undefined;
  const last = path.at(-1)!;
  const map = mapBefore(path);
  if (map !== undefined)
    return (variables) => {
      const fields = map(variables);
      const value = fields !== undefined && Object.hasOwn(fields, last) ? fields[last] : UNSURE;
      return isPlain(value) ? value : UNSURE;
    };
  const variable = path[0] as keyof Variables;
  return (variables) => {
    const value = (variables[variable] as Fields | undefined)?.[last];
    return typeof value === 'string' ? value : UNSURE;
  };
}

/** `x in ["a", "b"]`, `x in agent.roles`. Not of a map: the library looks at the types of what is in it. */
function membershipOf([item, list]: readonly [ASTNode, ASTNode]): Native | undefined {
  const [itemOf, listOf] = [nativeOf(item), textsOf(list)];
  if (itemOf === undefined || listOf === undefined) return undefined;
  return (variables) => {
    const value = itemOf(variables);
    return typeof value === 'string' ? listOf(variables).includes(value) : UNSURE;
  };
}

function textsOf(list: ASTNode): ((variables: Variables) => readonly string[]) | undefined {
  if (list.op === '.' && list.args[0].op === 'id' && list.args[0].args === 'agent' && list.args[1] === 'roles')
    return ({ agent }) => agent.roles;
  if (list.op !== 'list' || list.args.length === 0) return undefined;
  const texts = list.args.map((one) => (one.op === 'value' && typeof one.args === 'string' ? one.args : undefined));
  return texts.includes(undefined) ? undefined : () => texts as string[];
}

function callOf(name: string, nodes: readonly ASTNode[]): Native | undefined {
  const [operand] = nodes;
  if (operand === undefined || nodes.length > 1) return undefined;
  if (name === 'size') return sizeOf(operand);
  const path = name === 'has' ? pathOf(operand) : undefined;
  if (path === undefined) return undefined;
  const map = mapBefore(path);
  if (map === undefined) return undefined;
  const last = path.at(-1)!;
  return (variables) => {
    const fields = map(variables);
    if (fields === undefined) return UNSURE;
    const value = Object.hasOwn(fields, last) ? fields[last] : undefined;
    if (value === undefined) return false;
    // The library looks at the type of what is there, and a member `constructor` confuses it.
    return isPlain(value) || value === null || Array.isArray(value) || isMap(value) ? true : UNSURE;
  };
}

/** Of text: characters, of which an emoji is one. */
function sizeOf(operand: ASTNode): Native | undefined {
  const textOf = nativeOf(operand);
  return (
    textOf &&
    ((variables) => {
      const text = textOf(variables);
      if (typeof text !== 'string') return UNSURE;
      return BigInt(SURROGATE.test(text) ? [...text].length : text.length);
    })
  );
}

const SURROGATE = /[\ud800-\udfff]/;

/** The argument is written in the policy, so that searching for it is linear. */
const TEXT_METHODS: Readonly<Record<string, (argument: string) => (text: string) => boolean>> = {
  startsWith: (argument) => (text) => text.startsWith(argument),
  endsWith: (argument) => (text) => text.endsWith(argument),
  contains: (argument) => (text) => text.includes(argument),
  glob: (argument) => globOf(argument),
};

const TIMES: Readonly<Record<string, (now: Date) => number>> = {
  getHours: (now) => now.getUTCHours(),
  getMinutes: (now) => now.getUTCMinutes(),
  getDayOfWeek: (now) => now.getUTCDay(),
};

function methodOf([name, receiver, nodes]: readonly [string, ASTNode, readonly ASTNode[]]): Native | undefined {
  const [argument] = nodes;
  if (argument === undefined) {
    if (name === 'size') return sizeOf(receiver);
    const read =
      Object.hasOwn(TIMES, name) && receiver.op === 'id' && receiver.args === 'now' ? TIMES[name] : undefined;
    return read && (({ now }) => (now === undefined ? UNSURE : BigInt(read(now))));
  }
  if (nodes.length > 1 || argument.op !== 'value' || typeof argument.args !== 'string') return undefined;
  if (!Object.hasOwn(TEXT_METHODS, name) || (name === 'glob' && globProblem(argument.args) !== undefined))
    return undefined;
  const holds = TEXT_METHODS[name]!(argument.args);
  const textOf = nativeOf(receiver);
  return (
    textOf &&
    ((variables) => {
      const text = textOf(variables);
      return typeof text === 'string' ? holds(text) : UNSURE;
    })
  );
}
