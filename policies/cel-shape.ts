/**
 * What is known of an expression before it is ever evaluated: its operands, what it looks at, and whether its shape alone
 * would let an agent choose what it costs.
 */
import type { ASTNode } from '@marcbachmann/cel-js';

const PER_CALL = new Set(['method', 'args', 'body', 'session', 'now']);

export function conjunctsOf(node: ASTNode): readonly ASTNode[] {
  return node.op === '&&' ? node.args.flatMap(conjunctsOf) : [node];
}

export function isStable(node: ASTNode): boolean {
  return !mentions(node, PER_CALL);
}

export function childrenOf(node: ASTNode): readonly ASTNode[] {
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

/** Any use of `tool`. */
export function looksAtTool(node: ASTNode): boolean {
  return mentions(node, TOOL) !== undefined;
}

const TOOL = new Set(['tool']);

/** Any use of `tool` but `tool.name`. */
export function usesAnnotations(node: ASTNode): boolean {
  if (node.op === 'id') return node.args === 'tool';
  if (node.op === '.' && node.args[0].op === 'id' && node.args[0].args === 'tool') return node.args[1] !== 'name';
  return childrenOf(node).some(usesAnnotations);
}

/** Why an expression is refused by its shape, in a sentence; `undefined`: it is not. */
export function refusalOf(node: ASTNode): string | undefined {
  return refusedCall(node) ?? comparedHint(node) ?? nestedLoop(node, AGENT_CHOSEN);
}

/** MCP's own hints of a tool, which are true or false. */
const HINTS: ReadonlySet<string> = new Set(['readOnlyHint', 'destructiveHint', 'idempotentHint', 'openWorldHint']);

/** What a hint never is: a deny that compares it so would never deny. */
function comparedHint(node: ASTNode): string | undefined {
  if (node.op === '==' || node.op === '!=') {
    const [left, right] = node.args;
    for (const [hint, other] of [
      [left, right],
      [right, left],
    ] as const)
      if (isHint(hint) && other.op === 'value' && typeof other.args !== 'boolean')
        return `tool.annotations.${hint.args[1]} is true or false: write it alone, or ! before it`;
  }
  for (const child of childrenOf(node)) {
    const problem = comparedHint(child);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

function isHint(node: ASTNode): node is ASTNode & { readonly op: '.' } {
  if (node.op !== '.' || !HINTS.has(node.args[1])) return false;
  const [holder] = node.args;
  return holder.op === '.' && holder.args[1] === 'annotations' && holder.args[0].op === 'id';
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

/** Names whose value the agent chooses. */
const AGENT_CHOSEN: ReadonlySet<string> = new Set(['args', 'body']);
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
