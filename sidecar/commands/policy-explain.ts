/**
 * `sidecar policy explain`: what a policy says of one request, and the part that each of its roles and rules has in
 * that. Starts nothing and connects to nothing; a tool's hints are those that `--annotations` gives.
 */
import type { Subject } from '../../policies/decision.ts';
import { type Explanation, explain, type Part } from '../../policies/explain.ts';
import { escapeHiddenInJson } from '../../policies/hidden-characters.ts';
import { hintOf } from '../../policies/nearest.ts';
import { messageOf, QUALIFIED_NAME, type Request } from '../../policies/request.ts';
import { err, ok, type Result } from '../../policies/result.ts';
import { policyAt } from '../../policies/virtual.ts';
import { ANONYMOUS, findNamedPolicy, type NamedPolicy } from '../config/named-policy.ts';
import { type LoadedPolicy, loadPolicy, policyPath } from '../config/policy-source.ts';
import type { Problem } from '../config/problem.ts';
import { describeCharge, showCharge } from './charge-text.ts';
import { identifiedAgents } from './configuration-summary.ts';
import { tellLines, tellProblems, tellSentence, writeJson, writeLines } from './output.ts';
import { describeDecision, describePart, finderOf, havingPart } from './policy-text.ts';

export interface PolicyExplainOptions {
  readonly config?: string;
  /** A file, a folder or library/<name>, in place of the policy that the configuration names. */
  readonly policy?: string;
  readonly agent?: string;
  /** In place of the configuration's. */
  readonly group?: string;
  readonly role: readonly string[];
  readonly claims?: string;
  readonly user?: string;
  readonly userClaims?: string;
  readonly session?: string;
  readonly virtual?: string;
  readonly server?: string;
  readonly tool?: string;
  readonly prompt?: string;
  readonly resource?: string;
  readonly method?: string;
  readonly args?: string;
  readonly annotations?: string;
  readonly at?: string;
  readonly json: boolean;
}

type Mapping = Readonly<Record<string, unknown>>;

export async function policyExplain(options: PolicyExplainOptions): Promise<number> {
  const asked = readOptions(options, Date.now());
  if (!asked.ok) return tellSentence(asked.error, options.json);
  const loaded = await load(options);
  if (!loaded.ok) return tellProblems(loaded.error, options.json);
  const { policy, named } = loaded.value;
  const { request, annotations, now, claims, userClaims } = asked.value;
  const group = options.group ?? named.group;
  const agent = { name: options.agent ?? group, group, roles: options.role, claims };
  const policyThere = policyAt(policy.policy, options.virtual);
  if (policyThere === undefined)
    return tellSentence(`the policy has no virtual server ${options.virtual}`, options.json);
  const user = options.user === undefined ? undefined : { sub: options.user, claims: userClaims };
  const subject: Subject = { agent, user };
  const message = messageOf(request);
  const annotationsOf = () => annotations;
  const explanation = explain(policyThere, { subject, ...message, sessionId: options.session, now, annotationsOf });
  const strangers = findStrangers(message.server, options.agent, named, policy.policy.agentRoles);
  tellLines(strangers.map((sentence) => `mind: ${sentence}`));
  if (options.json)
    writeJson({
      ok: true,
      subject,
      session: options.session,
      ...message,
      at: new Date(now).toISOString(),
      ...shown(explanation, policy),
    });
  else writeLines(describe(subject, asked.value, explanation, policy, options));
  return 0;
}

/** Names that are nowhere: most likely slips, of which the policy itself says nothing. */
function findStrangers(
  server: string,
  agent: string | undefined,
  { servers, identify = [], group }: NamedPolicy,
  agentRoles: ReadonlyMap<string, unknown>,
): string[] {
  const agents = [...new Set([...identifiedAgents({ identify, group }), ...agentRoles.keys()])].filter(
    (name) => name !== '*',
  );
  return [
    ...(servers === undefined || servers.includes(server)
      ? []
      : [`server ${server} is not configured; ${hintOf(server, servers)}`]),
    ...(agent === undefined || identify.length === 0 || agents.includes(agent)
      ? []
      : [`agent ${agent} is known neither to identify nor to the policy; ${hintOf(agent, agents)}`]),
  ];
}

function shown({ targets, charges, ...explanation }: Explanation, policy: LoadedPolicy) {
  const find = finderOf(policy);
  return {
    ...explanation,
    charges: charges.map(showCharge),
    targets: targets.map(({ target, parts }) => ({
      target,
      parts: parts.map((part) => ({ ...part, place: find(part).place, when: find(part).when })),
    })),
  };
}

async function load({ policy, config }: PolicyExplainOptions) {
  const named: Result<NamedPolicy, Problem[]> =
    policy === undefined
      ? await findNamedPolicy(config)
      : ok({ source: { kind: 'path', path: policyPath(policy, process.cwd()) }, ...ANONYMOUS });
  if (!named.ok) return named;
  const loaded = await loadPolicy(named.value.source);
  return loaded.ok ? ok({ policy: loaded.value, named: named.value }) : loaded;
}

interface Asked {
  readonly request: Request;
  readonly claims: Mapping;
  readonly userClaims: Mapping;
  readonly annotations: Mapping | undefined;
  readonly now: number;
}

/** The error is a sentence. */
function readOptions(options: PolicyExplainOptions, present: number): Result<Asked, string> {
  const args = readMapping('--args', options.args);
  if (!args.ok) return args;
  const claims = readMapping('--claims', options.claims);
  if (!claims.ok) return claims;
  const userClaims = readMapping('--user-claims', options.userClaims);
  if (!userClaims.ok) return userClaims;
  if (userClaims.value !== undefined && options.user === undefined) return err('--user-claims wants --user');
  const annotations = readMapping('--annotations', options.annotations);
  if (!annotations.ok) return annotations;
  const now = options.at === undefined ? present : Date.parse(options.at);
  if (Number.isNaN(now)) return err('--at must be a time such as 2026-03-01T12:00:00Z');
  const request = readRequest(options, args.value);
  if (!request.ok) return request;
  return ok({
    request: request.value,
    claims: claims.value ?? {},
    userClaims: userClaims.value ?? {},
    annotations: annotations.value,
    now,
  });
}

function readRequest(options: PolicyExplainOptions, args: Mapping | undefined): Result<Request, string> {
  const { tool, prompt, resource: uri, method, server } = options;
  const given = [tool, prompt, uri, method].filter((one) => one !== undefined);
  if (given.length !== 1) return err('name one of --tool, --prompt, --resource and --method');
  if (tool !== undefined || prompt !== undefined) {
    const name = server === undefined ? given[0]! : `${server}.${given[0]}`;
    if (!QUALIFIED_NAME.test(name))
      return err(`write the server in front (github.${given[0]}), or name it by --server`);
    return ok(tool === undefined ? { prompt: name, args } : { tool: name, args });
  }
  if (server === undefined) return err('--server is missing');
  return ok(uri === undefined ? { method: method!, server, params: args } : { resource: { server, uri } });
}

function readMapping(option: string, text: string | undefined): Result<Mapping | undefined, string> {
  if (text === undefined) return ok(undefined);
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return ok(value as Mapping);
  } catch {
    // Told below: what was written may be a secret.
  }
  return err(`${option} must be a JSON object, such as '{"name":"value"}'`);
}

function describe(
  { agent, user }: Subject,
  { request, now }: Asked,
  { decision, roles, targets, charges, args }: Explanation,
  policy: LoadedPolicy,
  { virtual, session }: PolicyExplainOptions,
): string[] {
  const find = finderOf(policy);
  const isWithoutArgs = ('tool' in request || 'prompt' in request) && request.args === undefined;
  const who = `${agent.name}${user === undefined ? '' : ` for user ${user.sub}`}`;
  const where = [
    ...(virtual === undefined ? [] : [` at virtual server ${virtual}`]),
    ...(session === undefined ? [] : [` in session ${session}`]),
  ];
  const parts = targets.flatMap((target) => target.parts);
  const having = havingPart(parts);
  const apart = parts.filter((part) => part.apart !== undefined);
  return [
    describeDecision(decision),
    '',
    `asked    ${nameOf(request)}${where.join('')}, at ${new Date(now).toISOString()}`,
    `by       ${who} (group ${agent.group}; ${roles.length === 0 ? 'no role' : `roles ${roles.join(', ')}`})`,
    ...describeChange(request, args),
    '',
    ...(having.length === 0
      ? ['no role and no rule has a part in it']
      : having.flatMap((part) => describePart(isWithoutArgs ? askingForArgs(part) : part, find))),
    ...(apart.length === 0 ? [] : ['', ...apart.flatMap((part) => describePart(part, find))]),
    ...(charges.length === 0 ? [] : ['', ...charges.map(describeCharge)]),
  ];
}

/** An error at the arguments says most likely that none were named. */
function askingForArgs(part: Part): Part {
  return part.error?.includes(' at args.') === true ? { ...part, error: `${part.error} (name them by --args)` } : part;
}

function describeChange(request: Request, judged: Explanation['args']): string[] {
  if (!('tool' in request)) return [];
  const text = JSON.stringify(judged);
  return text === JSON.stringify(request.args ?? {})
    ? []
    : [`judged   with the arguments that the policy makes of them: ${escapeHiddenInJson(text)}`];
}

function nameOf(request: Request): string {
  if ('tool' in request) return `tool ${request.tool}`;
  if ('prompt' in request) return `prompt ${request.prompt}`;
  if ('resource' in request) return `resource ${request.resource.uri} of ${request.resource.server}`;
  return `method ${'method' in request ? request.method : ''} of ${request.server}`;
}
