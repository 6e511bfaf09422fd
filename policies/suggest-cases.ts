/**
 * Cases for a suggested policy: each need once, and some of what was refused. Pure. What a case expects is what the
 * policy says of it, so that they hold when they are written; they are there for the day on which somebody changes it.
 */
import { compilePolicy } from './compile.ts';
import type { Subject } from './decision.ts';
import { judge } from './judge.ts';
import type { Need } from './needs.ts';
import { messageOf, QUALIFIED_NAME, type Request } from './request.ts';
import type { Example } from './separate.ts';
import { documentOf, onOneLine, type Suggestion } from './suggest.ts';

export interface SuggestedCase {
  readonly name: string;
  readonly agent: string | { readonly name: string; readonly roles: readonly string[] };
  readonly user?: string;
  /** As a file of cases has it. */
  readonly at?: string;
  readonly request: Request;
  readonly expect: 'allow' | 'refuse' | 'hide';
}

/** Of each sort: more are not read, and a file of cases takes no more than 10,000. */
const CASES_MAX = 4_000;
/** A file of cases takes no longer names. */
const NAME_MAX = 200;

/** @param needs All of them: those that were never let through make the cases of what is refused. */
export function casesFor(suggestion: Suggestion, needs: readonly Need[]): SuggestedCase[] {
  const compiled = compilePolicy(documentOf(suggestion), { env: {} });
  if (!compiled.ok) throw new Error(`a suggested policy does not compile: ${JSON.stringify(compiled.error)}`);
  const expectOf = (one: Omit<SuggestedCase, 'expect'>) => {
    const { server, body } = messageOf(one.request);
    const { name, roles } = typeof one.agent === 'string' ? { name: one.agent, roles: [] } : one.agent;
    const subject: Subject = {
      agent: { name, group: 'default', roles, claims: {} },
      user: one.user === undefined ? undefined : { sub: one.user, claims: {} },
    };
    const now = one.at === undefined ? 0 : Date.parse(one.at);
    const question = { subject, server, body, sessionId: undefined, now, annotationsOf: () => undefined };
    return judge(compiled.value, question).decision.effect;
  };
  const judged = (need: Need, verb: string, example: Example): SuggestedCase[] => {
    const request = requestOf(need, example);
    if (request === undefined || !isShort(need.agent)) return [];
    const name = onOneLine(`${need.agent} ${verb} ${need.server}.${need.matter.name}`, NAME_MAX);
    const one = { name, ...circumstancesOf(need.agent, example), request };
    return [{ ...one, expect: expectOf(one) }];
  };

  const allowed = [
    ...suggestion.roles.flatMap(({ selectors }) =>
      selectors.flatMap(({ names }) => names.flatMap((name) => name.needs.map((need) => ({ need, example: {} })))),
    ),
    ...suggestion.rules.flatMap(({ need, example }) => (example === undefined ? [] : [{ need, example }])),
  ];
  const refused = needs.filter(({ through }) => through.count === 0);
  return [
    ...allowed
      .slice(0, CASES_MAX)
      .flatMap(({ need, example }) => judged(need, 'may ask for', example))
      .filter(({ expect }) => expect === 'allow'),
    ...refused
      .slice(0, CASES_MAX)
      .flatMap((need) => judged(need, 'may not ask for', {}))
      .filter(({ expect }) => expect !== 'allow'),
  ];
}

function circumstancesOf(agent: string, { roles, user, time }: Example) {
  return {
    agent: roles === undefined ? agent : { name: agent, roles },
    ...(user === undefined ? undefined : { user }),
    ...(time === undefined ? undefined : { at: new Date(time).toISOString() }),
  };
}

/** `undefined` for a name that cannot be written. */
function requestOf({ server, matter, through, refused }: Need, { args, method: wanted }: Example): Request | undefined {
  const { kind, name } = matter;
  if (!name.isWellFormed()) return undefined;
  const [method = ''] =
    wanted === undefined ? [...(through.methods.all ?? []), ...(refused.methods.all ?? [])] : [wanted];
  const qualified = `${server}.${name}`;
  const isPlain = /^[ -~]+$/.test(qualified) && qualified.length <= 300 && QUALIFIED_NAME.test(qualified);
  if (kind === 'tool' && isPlain) return { tool: qualified, ...(args === undefined ? undefined : { args }) };
  if (method === 'prompts/get' && isPlain) return { prompt: qualified, ...(args === undefined ? undefined : { args }) };
  if (method === 'resources/read' && name.length > 0) return { resource: { server, uri: name } };
  return { server, body: { jsonrpc: '2.0', id: 1, method, params: paramsOf(kind, name, method, args) } };
}

function paramsOf(kind: Need['matter']['kind'], name: string, method: string, args: Example['args']) {
  if (method === 'completion/complete')
    return { ref: kind === 'prompt' ? { type: 'ref/prompt', name } : { type: 'ref/resource', uri: name } };
  if (method === 'subscriptions/listen') return { notifications: { resourceSubscriptions: [name] } };
  if (kind === 'resource') return { uri: name };
  return kind === 'method' ? {} : { name, arguments: args ?? {} };
}

function isShort(name: string): boolean {
  return name.length > 0 && name.length <= NAME_MAX && name.isWellFormed();
}
