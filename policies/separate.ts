/**
 * A condition that holds for all calls that were let through and for none that was refused, where one look at them finds
 * it. Pure.
 *
 * It says what the calls had in common, not why a rule treated them so: whoever reads it has to agree. Narrow on purpose:
 * where values are few, those values; otherwise a bound.
 */
import type { Seen, SeenArgument, Span } from './seen.ts';

export interface Separation {
  /** CEL. */
  readonly condition: string;
  /** What a request needs for it to hold; `undefined` when that is too much to show. */
  readonly example: Example | undefined;
}

export interface Example {
  readonly args?: Readonly<Record<string, unknown>>;
  readonly user?: string;
  readonly roles?: readonly string[];
  readonly time?: number;
  readonly method?: string;
}

export function separate(through: Seen, refused: Seen): Separation | undefined {
  return (
    byMethod(through, refused) ??
    byUser(through, refused) ??
    byRole(through, refused) ??
    byArgument(through, refused) ??
    byTime(through, refused)
  );
}

function byMethod(through: Seen, refused: Seen): Separation | undefined {
  const methods = apart(through.methods.all, refused.methods.all);
  return methods && { condition: `method in ${celList(methods)}`, example: { method: methods[0]! } };
}

function byUser(through: Seen, refused: Seen): Separation | undefined {
  const users = apart(through.users.all, refused.users.all);
  const named = users?.filter((user) => user !== undefined);
  if (users === undefined || named?.length !== users.length) return undefined;
  return { condition: `user.sub in ${celList(named)}`, example: { user: named[0]! } };
}

function byRole(through: Seen, refused: Seen): Separation | undefined {
  const others = refused.rolesOfAny.all;
  const [role] = [...(through.rolesOfAll ?? [])].filter((one) => others?.has(one) === false).sort();
  return role === undefined
    ? undefined
    : { condition: `${celText(role)} in agent.roles`, example: { roles: [...through.rolesOfAll!].sort() } };
}

function byTime(through: Seen, refused: Seen): Separation | undefined {
  const example = { time: through.first!.time };
  const hours = apart(through.hours, refused.hours);
  if (hours !== undefined) return { condition: `now.getHours() in ${celIntegers(hours)}`, example };
  const weekdays = apart(through.weekdays, refused.weekdays);
  return weekdays && { condition: `now.getDayOfWeek() in ${celIntegers(weekdays)}`, example };
}

function byArgument(through: Seen, refused: Seen): Separation | undefined {
  if (through.args === undefined || refused.args === undefined) return undefined;
  const names = [...new Set([...through.args.keys(), ...refused.args.keys()])].sort();
  for (const find of [byPresence, byValue, byNumber, bySize])
    for (const name of names) {
      const mine = { argument: through.args.get(name), calls: through.count };
      const theirs = { argument: refused.args.get(name), calls: refused.count };
      const found = find(name, mine, theirs);
      if (found !== undefined) return found;
    }
  return undefined;
}

/** One argument in the calls of one side. */
interface Side {
  readonly argument: SeenArgument | undefined;
  readonly calls: number;
}

function byPresence(name: string, mine: Side, theirs: Side): Separation | undefined {
  const condition = `${celText(name)} in args`;
  if (isAlwaysThere(mine) && theirs.argument === undefined) {
    const [value = 'x'] = mine.argument?.values.all ?? [];
    return { condition, example: { args: { [name]: value } } };
  }
  return mine.argument === undefined && isAlwaysThere(theirs)
    ? { condition: `!(${condition})`, example: {} }
    : undefined;
}

/** A call without the argument is not let through: looking at it is an error, and an error does not allow. */
function byValue(name: string, mine: Side, theirs: Side): Separation | undefined {
  if (!isAlwaysThere(mine)) return undefined;
  const values = apart(
    mine.argument?.values.all,
    theirs.argument === undefined ? new Set() : theirs.argument.values.all,
  );
  if (values === undefined || new Set(values.map((value) => typeof value)).size !== 1) return undefined;
  const condition = `${argumentOf(name)} in [${values.map(celScalar).join(', ')}]`;
  return { condition, example: { args: { [name]: values[0] } } };
}

function byNumber(name: string, mine: Side, theirs: Side): Separation | undefined {
  const bound = isAlwaysThere(mine) ? boundBetween(mine.argument?.numbers, theirs.argument?.numbers) : undefined;
  if (bound === undefined) return undefined;
  const condition = `${argumentOf(name)} ${bound.sign} ${celScalar(bound.value)}`;
  return { condition, example: { args: { [name]: bound.value } } };
}

/** A longer text is no example that anybody reads. */
const EXAMPLE_LENGTH_MAX = 200;

function bySize(name: string, mine: Side, theirs: Side): Separation | undefined {
  const sizes = mine.argument?.sizes;
  const bound = isAlwaysThere(mine) ? boundBetween(sizes, theirs.argument?.sizes) : undefined;
  if (bound === undefined || sizes === undefined) return undefined;
  const condition = `size(${argumentOf(name)}) ${bound.sign} ${bound.value}`;
  const example = sizes.least > EXAMPLE_LENGTH_MAX ? undefined : { args: { [name]: 'x'.repeat(sizes.least) } };
  return { condition, example };
}

function isAlwaysThere({ argument, calls }: Side): boolean {
  return argument?.count === calls;
}

function argumentOf(name: string): string {
  return `args[${celText(name)}]`;
}

/** The end of my span that lies towards the other, when they do not overlap. */
function boundBetween(
  mine: Span | undefined,
  theirs: Span | undefined,
): { readonly sign: '<=' | '>='; readonly value: number } | undefined {
  if (mine === undefined || theirs === undefined) return undefined;
  if (mine.greatest < theirs.least) return { sign: '<=', value: mine.greatest };
  return mine.least > theirs.greatest ? { sign: '>=', value: mine.least } : undefined;
}

/** The values of the one side, in order, when both sides are known and share none. */
function apart<T>(mine: ReadonlySet<T> | undefined, theirs: ReadonlySet<unknown> | undefined): T[] | undefined {
  if (mine === undefined || theirs === undefined) return undefined;
  const values = [...mine];
  return values.some((value) => theirs.has(value)) ? undefined : values.sort();
}

function celList(texts: readonly string[]): string {
  return `[${texts.map(celText).join(', ')}]`;
}

function celIntegers(numbers: readonly number[]): string {
  return `[${[...numbers].sort((one, other) => one - other).join(', ')}]`;
}

/** Numbers of a message are doubles. */
function celScalar(value: string | number | boolean): string {
  if (typeof value === 'string') return celText(value);
  return typeof value === 'number' && Number.isInteger(value) && !String(value).includes('e')
    ? `${value}.0`
    : String(value);
}

/** A string literal of CEL: its escapes are those of JSON. */
export function celText(text: string): string {
  return JSON.stringify(text);
}
