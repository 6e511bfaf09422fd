/**
 * What to write instead of what other products' CEL has, or of what looks like CEL: for the errors at load.
 */

/** Variables of other gateways, and what is closest to them here. */
const ELSEWHERE: ReadonlyMap<string, string> = new Map([
  ['mcp', 'write tool.name, args, server.name, method or body'],
  ['request', 'write body for the MCP message; headers and paths of HTTP are not looked at'],
  ['jwt', 'write agent.claims or user.claims'],
  ['auth', 'write agent.claims or user.claims'],
  ['claims', 'write agent.claims or user.claims'],
  ['identity', 'write agent, user, agent.claims or user.claims'],
  ['principal', 'write agent or user'],
  ['params', 'write body.params, or args for the arguments'],
  ['arguments', 'write args'],
  ['resource', 'write body.params.uri'],
  ['source', 'addresses are not looked at: write agent, which identify has found'],
  ['connection', 'addresses are not looked at: write agent, which identify has found'],
]);
const METHODS_OF_TEXT: ReadonlySet<string> = new Set(['startsWith', 'endsWith', 'contains', 'glob', 'size']);
const VARIABLES = 'agent, user, server, tool, method, args, body, session, now and env';

/** To be put behind the library's own words; empty when there is nothing to say. */
export function hintFor(problem: string, expression: string): string {
  const [, unknown] = /^Unknown variable: (\w+)/.exec(problem) ?? [];
  if (unknown !== undefined) return `: ${ELSEWHERE.get(unknown) ?? `there are ${VARIABLES}`}`;
  const [, method] = /no matching overload for '\w+(?:<\w+>)?\.(\w+)\(/.exec(problem) ?? [];
  if (method !== undefined && !METHODS_OF_TEXT.has(method))
    return `: text has ${[...METHODS_OF_TEXT].join(', ')}; lists have size, in, all, exists and filter`;
  if (/'list(?:<\w+>)?\.contains\(/.test(problem)) return ': write x in list';
  if (
    /^(?:Unexpected|Expected)/.test(problem) &&
    (/\b(?:and|or|not)\b/i.test(expression) || SINGLE_EQUALS.test(expression))
  )
    return ': CEL writes && for and, || for or, ! for not, == for equals';
  return '';
}

const SINGLE_EQUALS = /[^=!<>]=[^=]/;
