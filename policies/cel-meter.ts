/**
 * The work of evaluating an expression, counted while it is done and ended at a bound, whatever the expression and the
 * message are. One unit is about one character looked at.
 *
 * Needed because the shape of an expression does not tell: a loop in a loop multiplies, `x + x` doubles, and some
 * functions of the library take more than linear time (`duration()` of a long run of digits: its cube). What would go
 * beyond the bound is refused before it is done, with an error, and from then on every further step is: `&&`, `||` and
 * loops pass over errors of single operands, hence the end comes soon and not at once.
 *
 * The library has no such bound. It calls `node.handle` with the operands of an operator, a function or a loop, once it
 * has checked the types: that is where the counting is put. Where there is no such place, nothing compiles.
 */
import { type ASTNode, EvaluationError } from '@marcbachmann/cel-js';

/** Units for one evaluation: some 0.1 s at the most. */
const WORK_MAX = 2 ** 25;
/** A turn of a loop. It may end in an error, which costs some 10 µs. */
const TURN = 2 ** 12;
/** To copy an element of a list. */
const COPY = 16;
/** To look at the clock of another time zone, some 0.1 ms. */
const TIME_ZONE = 2 ** 16;

let left = WORK_MAX;

/** Before each evaluation. */
export function startWork(): void {
  left = WORK_MAX;
}

type Handle = (...operands: unknown[]) => unknown;

/** What the library's types do not tell of a node. */
interface Handled {
  readonly meta: { readonly alternate?: Handled; readonly macro?: unknown };
  handle?: Handle;
}

/** @param node One whose types have been checked, and whose children are counted too. */
export function countWork(node: ASTNode): void {
  const handled = node as unknown as Handled;
  const { alternate, macro } = handled.meta;
  // A loop is made into another node; other macros look at few things, and have children that are counted.
  if (node.op === 'rcall' && alternate !== undefined) wrap(alternate, node, (items) => sizeOf(items) * TURN);
  else if (macro !== undefined) return;
  else if (node.op === 'call' || node.op === 'rcall')
    wrap(handled, node, (values) => workOfCall(node.args[0], values as unknown[]));
  else if (BINARY.has(node.op)) wrap(handled, node, (one, other) => workOfOperator(node.op, one, other));
}

const BINARY: ReadonlySet<string> = new Set(['==', '!=', '<', '<=', '>', '>=', 'in', '+']);

function wrap(handled: Handled, node: ASTNode, work: (first: unknown, second: unknown) => number): void {
  const { handle } = handled;
  if (handle === undefined) throw new Error(`the CEL library has no place to count the work of ${node.op}`);
  handled.handle = (first, second, ...rest) => {
    left -= work(first, second);
    // Written so that what is no number is refused too.
    if (!(left >= 0)) throw new EvaluationError({ code: 'too_much_work', message: 'too much work', node });
    return handle(first, second, ...rest);
  };
}

function workOfOperator(operator: string, one: unknown, other: unknown): number {
  if (operator === 'in') return 1 + sizeOf(other) * (isList(other) ? deepSizeOf(one) : 1);
  if (operator === '+' && isList(one)) return (sizeOf(one) + sizeOf(other)) * COPY;
  if (operator === '+') return 1 + sizeOf(one) + sizeOf(other);
  // Of two that are compared, no more is looked at than the smaller one has.
  if (typeof one === 'string') return 1 + Math.min(one.length, sizeOf(other));
  return deepSizeOf(one);
}

/** @param values The receiver first, where there is one. */
function workOfCall(name: string, values: readonly unknown[]): number {
  const [subject, detail] = values;
  const size = sizeOf(subject);
  switch (name) {
    case 'duration':
      return size ** 3;
    case 'glob':
      return size * (1 + sizeOf(detail) / 4);
    // Searching goes back at most so far that every 256th character counts.
    case 'contains':
    case 'indexOf':
    case 'lastIndexOf':
    case 'split':
      return size * (1 + sizeOf(detail) / 256);
    case 'join':
      return lengthsOf(subject) + size * (COPY + sizeOf(detail));
    case 'json':
      return size * COPY;
    default:
      return subject instanceof Date && typeof detail === 'string' ? TIME_ZONE : 1 + size;
  }
}

function isList(value: unknown): boolean {
  return Array.isArray(value) || value instanceof Set;
}

/** Characters, elements or members. */
function sizeOf(value: unknown): number {
  if (typeof value === 'string') return value.length;
  if (Array.isArray(value) || value instanceof Uint8Array) return value.length;
  if (value instanceof Map || value instanceof Set) return value.size;
  return typeof value === 'object' && value !== null ? Object.keys(value).length : 1;
}

function lengthsOf(list: unknown): number {
  let sum = 0;
  for (const one of Array.isArray(list) ? list : []) sum += sizeOf(one);
  return sum;
}

/** With all that is in it. No further than the bound, which it may be in a loop. */
function deepSizeOf(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 1;
  const waiting: unknown[] = [value];
  let size = 0;
  while (waiting.length > 0 && size <= left) {
    const one = waiting.pop();
    size += typeof one === 'string' ? one.length : 1;
    if (typeof one !== 'object' || one === null) continue;
    const inside = Array.isArray(one) ? one : Object.values(one);
    size += inside.length;
    for (const inner of inside) waiting.push(inner);
  }
  return size;
}
