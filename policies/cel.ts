/**
 * Conditions (`when`) in CEL: checked when the policy is loaded, compiled once, bounded in cost.
 *
 * Why `@marcbachmann/cel-js` 8.0 and not `@bufbuild/cel` 0.6 (both measured on one machine with Node 26):
 * it type-checks at load, which the other does not export; an expression takes 1.0 to 1.3 µs on plain JSON (9 to 10 µs);
 * import 40 ms and 9 MiB (302 ms, 29 MiB). On 43 expressions of values, errors, && and || both agree on every result.
 *
 * Bounds: length, nodes and depth of the expression; its work is counted while it is done, and ends at a bound
 * (cel-meter.ts). What would reach that bound by its shape is refused at load already: a loop over the message that looks
 * at the message again from inside, and `matches` (a backtracking regular expression here, which nothing can count), in
 * favour of `glob`. Numbers of the message are CEL doubles, as JSON's are everywhere in CEL: they
 * compare with integers as written; arithmetic wants `int(args.n) + 1`.
 *
 * An error's text names the place in the expression and never a value of the message: it goes to the audit.
 */
import {
  type ASTNode,
  Environment,
  EvaluationError,
  type ParseError,
  type TypeError as TypingError,
} from '@marcbachmann/cel-js';
import { hintFor } from './cel-hints.ts';
import { countWork, startWork } from './cel-meter.ts';
import { type Native, nativeOf, UNSURE } from './cel-native.ts';
import type { Call, Subject, Target } from './decision.ts';
import { globProblem, matchGlob } from './glob.ts';
import { err, ok, type Result } from './result.ts';

/** Longest expression, in characters. */
export const EXPRESSION_MAX = 4096;
const LIMITS = { maxAstNodes: 1000, maxDepth: 50, maxListElements: 1000, maxMapEntries: 100, maxCallArguments: 8 };

/** A part of a condition, ready to be asked. The error is a sentence for the audit. */
export type Predicate = (variables: Variables) => Result<boolean, string>;

/**
 * A condition, its `&&` operands sorted by what they need. It holds when both parts hold; a part that is `undefined`
 * always holds.
 */
export interface Condition {
  /** Mentions only agent, user, server, tool and env: known when a list is filtered. */
  readonly stable: Predicate | undefined;
  /** Mentions args, body, method, session or now. */
  readonly perCall: Predicate | undefined;
  readonly usesAnnotations: boolean;
}

class Agent {
  readonly name: string;
  readonly group: string;
  readonly roles: readonly string[];
  readonly claims: Readonly<Record<string, unknown>>;
  constructor({ name, group, claims }: Subject['agent'], roles: readonly string[]) {
    this.name = name;
    this.group = group;
    this.roles = roles;
    this.claims = claims;
  }
}

class User {
  readonly sub: string | undefined;
  readonly claims: Readonly<Record<string, unknown>>;
  constructor(user: Subject['user']) {
    this.sub = user?.sub;
    this.claims = user?.claims ?? {};
  }
}

class Server {
  readonly name: string;
  constructor(name: string) {
    this.name = name;
  }
}

class Tool {
  readonly name: string;
  readonly #given: Readonly<Record<string, unknown>> | undefined;
  constructor(target: Target) {
    this.name = target.kind === 'tool' ? target.name : '';
    this.#given = target.kind === 'tool' ? target.annotations : undefined;
  }
  get annotations(): Readonly<Record<string, unknown>> {
    return withDefaultHints(this.#given);
  }
}

class Session {
  readonly id: string | undefined;
  constructor(id: string | undefined) {
    this.id = id;
  }
}

/** What an expression can name. The last five are `undefined` where there is no call. */
export interface Variables {
  readonly agent: Agent;
  readonly user: User;
  readonly server: Server;
  readonly tool: Tool;
  readonly env: Readonly<Record<string, string>>;
  readonly method: string | undefined;
  readonly args: Readonly<Record<string, unknown>> | undefined;
  readonly body: Readonly<Record<string, unknown>> | undefined;
  readonly session: Session | undefined;
  readonly now: Date | undefined;
}

/**
 * @param roles All of the agent's roles, the policy's included.
 * @param call  `undefined` for a list filter. A call without arguments has `args` empty, so that `has(args.x)` is false.
 */
export function variablesOf(
  subject: Subject,
  roles: readonly string[],
  target: Target,
  env: Readonly<Record<string, string>>,
  call: Call | undefined,
): Variables {
  return {
    agent: new Agent(subject.agent, roles),
    user: new User(subject.user),
    server: new Server(target.server),
    tool: new Tool(target),
    env,
    method: call?.method,
    args: call && (call.args ?? {}),
    body: call?.body,
    session: call && new Session(call.sessionId),
    now: call && new Date(call.now),
  };
}

/**
 * MCP's own defaults for a hint that is missing or is no boolean (schema 2026-07-28, `ToolAnnotations`): a tool that
 * says nothing, or is not known, may write, destroy, repeat badly and reach out.
 */
function withDefaultHints(given: Readonly<Record<string, unknown>> | undefined): Readonly<Record<string, unknown>> {
  const hint = (name: string, byDefault: boolean): boolean => {
    const value = given?.[name];
    return typeof value === 'boolean' ? value : byDefault;
  };
  return {
    ...given,
    readOnlyHint: hint('readOnlyHint', false),
    destructiveHint: hint('destructiveHint', true),
    idempotentHint: hint('idempotentHint', false),
    openWorldHint: hint('openWorldHint', true),
  };
}

const PER_CALL = new Set(['method', 'args', 'body', 'session', 'now']);

const language = new Environment({ limits: LIMITS })
  .registerType('Agent', {
    ctor: Agent,
    fields: { name: 'string', group: 'string', roles: 'list<string>', claims: 'map' },
  })
  .registerType('User', { ctor: User, fields: { sub: 'string', claims: 'map' } })
  .registerType('Server', { ctor: Server, fields: { name: 'string' } })
  .registerType('Tool', { ctor: Tool, fields: { name: 'string', annotations: 'map' } })
  .registerType('Session', { ctor: Session, fields: { id: 'string' } })
  .registerVariable('agent', 'Agent')
  .registerVariable('user', 'User')
  .registerVariable('server', 'Server')
  .registerVariable('tool', 'Tool')
  .registerVariable('env', 'map<string, string>')
  .registerVariable('method', 'string')
  .registerVariable('args', 'map')
  .registerVariable('body', 'map')
  .registerVariable('session', 'Session')
  .registerVariable('now', 'google.protobuf.Timestamp')
  .registerFunction('string.glob(string): bool', globFunction, { async: false });

/** The language plus two macros that evaluate one sort of `&&` operand and leave the others alone. */
const splitting = language
  .clone({ limits: { maxAstNodes: LIMITS.maxAstNodes + 1, maxDepth: LIMITS.maxDepth + 1 } })
  .registerFunction('stablePart(ast): bool', partMacro(isStable))
  .registerFunction(
    'perCallPart(ast): bool',
    partMacro((node) => !isStable(node)),
  );

/** Conditions are asked for twice at each load (the schema checks them), and most are the same at the next. */
const compiledLately = new Map<string, Result<Condition, string>>();
const COMPILED_MAX = 20_000;

/** The error is a sentence about the expression, to be shown to its author. */
export function compileCondition(expression: string): Result<Condition, string> {
  const known = compiledLately.get(expression);
  if (known !== undefined) return known;
  const compiled = compileAnew(expression);
  if (compiledLately.size >= COMPILED_MAX) compiledLately.clear();
  // One that is too long is refused unread.
  if (expression.length <= EXPRESSION_MAX) compiledLately.set(expression, compiled);
  return compiled;
}

function compileAnew(expression: string): Result<Condition, string> {
  const checked = check(expression, new Set(['bool', 'dyn']), 'true or false');
  if (!checked.ok) return checked;
  const root = checked.value;
  const conjuncts = conjunctsOf(root);
  return ok({
    stable: predicate('stablePart', expression, conjuncts.filter(isStable)),
    perCall: predicate(
      'perCallPart',
      expression,
      conjuncts.filter((one) => !isStable(one)),
    ),
    usesAnnotations: usesAnnotations(root),
  });
}

/** The value of an expression, by which a quota is counted. The error is a sentence for the audit. */
export type ValueExpression = (variables: Variables) => Result<string | number | boolean, string>;

/** As {@link compileCondition}, for an expression that is text, a number, true or false. */
export function compileValue(expression: string): Result<ValueExpression, string> {
  const checked = check(
    expression,
    new Set(['string', 'int', 'uint', 'double', 'bool', 'dyn']),
    'text, a number, true or false',
  );
  if (!checked.ok) return checked;
  const evaluate = language.parse(expression);
  evaluate.check();
  countAll(evaluate.ast);
  return ok((variables) => {
    try {
      startWork();
      const value: unknown = evaluate(variables);
      // CEL's integers have 64 bits.
      if (typeof value === 'bigint') return ok(String(value));
      if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return ok(value);
      return err('neither text nor a number nor true or false');
    } catch (error) {
      return err(evaluationProblem(error));
    }
  });
}

/** What holds for every expression: its length, its types, and that its cost is bounded. */
function check(expression: string, types: ReadonlySet<string>, wanted: string): Result<ASTNode, string> {
  if (expression.length > EXPRESSION_MAX) return err(`must not be longer than ${EXPRESSION_MAX} characters`);
  try {
    const parsed = language.parse(expression);
    const checked = parsed.check();
    if (!checked.valid) return err(loadProblem(checked.error!, expression));
    if (!types.has(String(checked.type))) return err(`must be ${wanted}, but is a ${checked.type}`);
    countAll(parsed.ast);
    const problem = refusedCall(parsed.ast) ?? nestedLoop(parsed.ast, new Set(['args', 'body']));
    return problem === undefined ? ok(parsed.ast) : err(problem);
  } catch (error) {
    return err(loadProblem(error as ParseError, expression));
  }
}

const TRUE = ok(true);
const FALSE = ok(false);

/**
 * The operands that are known natively are asked first, as each of them may settle it: `false` wins. The library is left
 * for what they leave open, all operands together, so that its answer is the same as if there were no others.
 */
function predicate(
  part: 'stablePart' | 'perCallPart',
  expression: string,
  conjuncts: readonly ASTNode[],
): Predicate | undefined {
  if (conjuncts.length === 0) return undefined;
  const natives = conjuncts.map(nativeOf).filter((native) => native !== undefined);
  const isWhole = natives.length === conjuncts.length;
  // Where nothing is left open it is hardly ever needed, and costs more to make than all the rest.
  let library = isWhole ? undefined : libraryPredicate(part, expression);
  return (variables) => {
    let holds = isWhole;
    for (const native of natives) {
      const value = ask(native, variables);
      if (value === false) return FALSE;
      if (value !== true) holds = false;
    }
    if (holds) return TRUE;
    library ??= libraryPredicate(part, expression);
    return library(variables);
  };
}

/** A value that throws when it is looked at (of a record that does not hold it) is for the library to be told of. */
function ask(native: Native, variables: Variables): unknown {
  try {
    return native(variables);
  } catch {
    return UNSURE;
  }
}

/** The expression was parsed alone before, hence its parentheses are balanced; the newline ends a comment. */
function libraryPredicate(part: 'stablePart' | 'perCallPart', expression: string): Predicate {
  const evaluate = splitting.parse(`${part}(${expression}\n)`);
  evaluate.check();
  return (variables) => {
    try {
      startWork();
      return evaluate(variables) === true ? TRUE : FALSE;
    } catch (error) {
      return err(evaluationProblem(error));
    }
  };
}

function countAll(node: ASTNode): void {
  countWork(node);
  for (const child of childrenOf(node)) countAll(child);
}

interface Runner {
  run(node: ASTNode, context: unknown): unknown;
}

interface Checker {
  check(node: ASTNode, context: unknown): unknown;
  getType(name: string): unknown;
}

/** As CEL's `&&`: a false operand wins over an error in another, in whichever order they stand. */
function partMacro(belongs: (conjunct: ASTNode) => boolean) {
  return ({ args }: { args: readonly ASTNode[] }) => {
    const conjuncts = conjunctsOf(args[0]!).filter(belongs);
    return {
      typeCheck(checker: Checker, _macro: unknown, context: unknown): unknown {
        for (const conjunct of conjuncts) {
          checker.check(conjunct, context);
          countAll(conjunct);
        }
        return checker.getType('bool');
      },
      evaluate(runner: Runner, _macro: unknown, context: unknown): boolean {
        let failure: unknown;
        for (const conjunct of conjuncts) {
          try {
            const value = runner.run(conjunct, context);
            if (value === false) return false;
            if (value !== true)
              failure ??= new EvaluationError({
                code: 'not_true_or_false',
                message: 'not true or false',
                node: conjunct,
              });
          } catch (error) {
            failure ??= error;
          }
        }
        if (failure !== undefined) throw failure;
        return true;
      },
    };
  };
}

function globFunction(text: string, pattern: string): boolean {
  const problem = globProblem(pattern);
  if (problem !== undefined) throw new EvaluationError({ code: 'bad_glob', message: problem });
  return matchGlob(pattern, text);
}

function conjunctsOf(node: ASTNode): readonly ASTNode[] {
  return node.op === '&&' ? node.args.flatMap(conjunctsOf) : [node];
}

function isStable(node: ASTNode): boolean {
  return !mentions(node, PER_CALL);
}

function childrenOf(node: ASTNode): readonly ASTNode[] {
  switch (node.op) {
    case 'value':
    case 'id':
      return [];
    case '.':
    case '.?':
      return [node.args[0]];
    case 'call':
      return node.args[1];
    case 'rcall':
      return [node.args[1], ...node.args[2]];
    case 'map':
      return node.args.flat();
    case '!_':
    case '-_':
      return [node.args];
    default:
      return node.args;
  }
}

/** The first of `names` that the expression mentions. A loop's own variable of that name counts too: on the safe side. */
function mentions(node: ASTNode, names: ReadonlySet<string>): string | undefined {
  if (node.op === 'id') return names.has(node.args) ? node.args : undefined;
  for (const child of childrenOf(node)) {
    const name = mentions(child, names);
    if (name !== undefined) return name;
  }
  return undefined;
}

/** Any use of `tool` but `tool.name`. */
function usesAnnotations(node: ASTNode): boolean {
  if (node.op === 'id') return node.args === 'tool';
  if (node.op === '.' && node.args[0].op === 'id' && node.args[0].args === 'tool') return node.args[1] !== 'name';
  return childrenOf(node).some(usesAnnotations);
}

function refusedCall(node: ASTNode): string | undefined {
  if (node.op === 'rcall' && node.args[0] === 'matches')
    return 'matches() is refused, since an argument could make a regular expression run for ever: use glob(), startsWith(), endsWith() or contains()';
  if (node.op === 'id' && node.args === 'cel') return 'cel.bind() is refused, since it hides what a loop looks at';
  for (const child of childrenOf(node)) {
    const problem = refusedCall(child);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

const LOOPS = new Set(['all', 'exists', 'exists_one', 'map', 'filter']);

/**
 * Loops over one message inside each other would let an agent choose a cost of n². Each element may be looked at in
 * its own turn, and in loops over its own parts: all of that together is linear.
 *
 * @param large Names whose value the agent chooses.
 */
function nestedLoop(node: ASTNode, large: ReadonlySet<string>): string | undefined {
  if (node.op !== 'rcall' || !LOOPS.has(node.args[0])) return firstNestedLoop(childrenOf(node), large);
  const [name, iterable, [variable, ...inside]] = node.args;
  if (variable?.op !== 'id') return undefined;
  const outer = new Set(large);
  outer.delete(variable.args);
  if (mentions(iterable, large) === undefined) return firstNestedLoop(inside, outer);
  for (const expression of inside) {
    const offender = mentions(expression, outer);
    if (offender !== undefined)
      return `${name}(${variable.args}, …) loops over the message and looks at ${offender} from inside: only ${variable.args} may be used there, so that the cost stays linear`;
  }
  return nestedLoop(iterable, large) ?? firstNestedLoop(inside, outer.add(variable.args));
}

function firstNestedLoop(nodes: readonly ASTNode[], large: ReadonlySet<string>): string | undefined {
  for (const node of nodes) {
    const problem = nestedLoop(node, large);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

/** The library's texts at load speak of the expression only, which is the author's own. */
function loadProblem(error: ParseError | TypingError, expression: string): string {
  const text = error.summary ?? error.message;
  const place = error.range === undefined ? '' : ` (at character ${error.range.start + 1})`;
  return text + place + hintFor(text, expression);
}

/** The library's texts at run time may hold values (`bool("secret")`): only the code and the place are told. */
function evaluationProblem(error: unknown): string {
  if (!(error instanceof EvaluationError)) return 'cannot be evaluated';
  const { node } = error;
  const place = node?.input?.slice(node.start, node.end);
  return `${error.code.replaceAll('_', ' ')}${place ? ` at ${place}` : ''}`;
}
