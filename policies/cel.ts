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
import { childrenOf, conjunctsOf, isStable, looksAtTool, refusalOf, usesAnnotations } from './cel-shape.ts';
import { Agent, Server, Session, Tool, User, type Variables } from './cel-variables.ts';
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
  /** Its name or its annotations. */
  readonly looksAtTool: boolean;
}

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
    looksAtTool: looksAtTool(root),
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
    const problem = refusalOf(parsed.ast);
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
