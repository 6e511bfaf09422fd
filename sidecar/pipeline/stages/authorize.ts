/**
 * Stage 7. Asks the policy and issues the permit. The one compiled decision judges the call here, filters the lists in
 * `inspect` (through the permit) and is what the audit records: what an agent sees is what it can call.
 *
 * Waits for nothing, but where a condition looks at a tool's annotations, pins have to hold, or headers repeat arguments,
 * and the tool is not known: then for the server's list of tools.
 */
import type { IncomingHttpHeaders } from 'node:http';
import {
  type ArgumentPlan,
  type ArgumentProblem,
  argumentPlanFor,
  argumentRulesFor,
} from '../../../policies/arguments.ts';
import { denialOf, isVisible } from '../../../policies/decide.ts';
import type { Call, Decision, Refused, Subject, Target } from '../../../policies/decision.ts';
import { argumentsOf, decideAll } from '../../../policies/judge.ts';
import { idOf, listedTarget, listKindOf, targetsOf } from '../../../policies/methods.ts';
import type { CompiledPolicy } from '../../../policies/policy.ts';
import { ok, type Result } from '../../../policies/result.ts';
import { policyAt } from '../../../policies/virtual.ts';
import type { Caller } from '../../identity/identify.ts';
import { checkParamHeaders, PARAM_PREFIX, paramHeadersOf } from '../../protocol/param-headers.ts';
import type { Catalog } from '../../upstream/catalog.ts';
import type { ToolPins } from '../../upstream/tool-pins.ts';
import { findUnlisted } from '../absence.ts';
import type { ArgumentSchemas } from '../argument-schema.ts';
import { changeMessage } from '../change-arguments.ts';
import type { Outcome, Stage } from '../compose.ts';
import type { Parsed, Permitted } from '../exchange.ts';
import { issuePermit, type ListFilter } from '../permit.ts';
import type { Reason } from '../reason.ts';
import { rootsOf, tellsOfRoots, withoutRoots } from '../withhold-roots.ts';

/** A policy in force and the name under which the audit knows it. */
export interface ActivePolicy {
  readonly policy: CompiledPolicy;
  readonly version: string;
}

export interface AuthorizePorts {
  readonly group: string;
  /** Read anew for each exchange, which keeps the one it got to its end: a reload never splits a decision. */
  readonly policy: () => ActivePolicy;
  readonly catalog: Catalog;
  readonly schemas: ArgumentSchemas;
  readonly pins: ToolPins;
  /** Wall clock, milliseconds since the epoch. */
  readonly now: () => number;
}

/** Methods of the 2025 eras that name what policy protects, and that 2026-07-28 no longer has. */
const REMOVED = new Set(['resources/subscribe', 'resources/unsubscribe']);

const UNLISTED_RETRY_MS = 1_000;

const ALLOWED: Decision = { effect: 'allow', rule: undefined, wouldBe: undefined };

export function authorize(ports: AuthorizePorts): Stage<Parsed, Permitted> {
  return (exchange, next): Outcome | Promise<Outcome> => {
    const active = ports.policy();
    const learning = learnWhatIsNeeded(exchange, active.policy, ports);
    if (learning === undefined) return judge(exchange, active, ports) ?? next(exchange as Permitted);
    return learning.then(() => {
      const refused = judge(exchange, active, ports);
      if (refused !== undefined) return refused;
      // Nothing was sent yet, so that nothing is lost in any era.
      return exchange.reply.gone ? { kind: 'aborted', detail: 'the agent has gone' } : next(exchange as Permitted);
    });
  };
}

function learnWhatIsNeeded(
  exchange: Parsed,
  policy: CompiledPolicy,
  ports: AuthorizePorts,
): Promise<unknown> | undefined {
  const { message, route, era, request } = exchange;
  const rules =
    message?.method === 'tools/call' ? argumentRulesFor(policy, route.server, String(message.params?.name)) : [];
  const validates = rules.some(({ validate }) => validate);
  // In 2026-07-28 a tool may want arguments repeated as headers: those have to follow, and to say what the arguments say.
  const needsSchema =
    validates || (era === 'modern' && (rules.length > 0 || paramHeaderIn(request.headers) !== undefined));
  const needsTools = needsSchema || policy.usesAnnotations || ports.pins.needsTools(route.server);
  const learning = needsTools ? learnTool(exchange, ports.catalog) : undefined;
  const loading = validates ? ports.schemas.load() : undefined;
  return loading === undefined ? learning : Promise.all([loading, learning]);
}

/** Policy looks at annotations or the tool is pinned, and it is not known: after a restart, or when the agent calls without listing. */
function learnTool({ message, route }: Parsed, catalog: Catalog): Promise<void> | undefined {
  const name = message?.method === 'tools/call' ? message.params?.name : undefined;
  return typeof name === 'string' ? catalog.ensureKnown(route.server, name) : undefined;
}

/** Issues the permit, or says why not. */
function judge(exchange: Parsed, active: ActivePolicy, ports: AuthorizePorts): Reason | undefined {
  const { route } = exchange;
  const { version } = active;
  const policy = policyAt(active.policy, route.virtual);
  // It was there when the path was looked at: a reload came between.
  if (policy === undefined) return { kind: 'pathUnknown', detail: 'No such endpoint' };
  const subject = subjectOf(exchange.caller, ports.group);
  exchange.subject = subject;
  exchange.policy = policy;
  exchange.policyVersion = version;

  const sentArgs = argumentsOf(exchange.message?.params);
  const planned = planArguments(exchange, policy);
  const refused = settleRoots(exchange, active.policy);
  if (refused !== undefined) return refused;
  const { message } = exchange;
  let decision: Decision = ALLOWED;
  if (message !== undefined && message.kind !== 'response') {
    if (exchange.era === 'modern' && REMOVED.has(message.method)) {
      return {
        kind: 'hidden',
        what: 'method',
        name: message.method,
        rule: undefined,
        detail: `2026-07-28 has no ${message.method}`,
      };
    }
    const targets = targetsOf(route.server, message, (tool) => ports.catalog.annotationsOf(route.server, tool));
    if (!targets.ok)
      return { kind: 'malformed', reason: { kind: 'envelopeMissing', detail: targets.error, id: message.id } };
    exchange.targets = targets.value;
    const args = argumentsOf(message.params);
    const call: Call = {
      method: message.method,
      args,
      body: message.body,
      sessionId: exchange.sessionHash,
      now: ports.now(),
    };
    exchange.call = call;
    const judged = decideAll(policy, subject, targets.value, call);
    decision = judged.decision;
    exchange.decision = decision;
    const unlisted = decision.effect === 'hide' ? undefined : findUnlisted(exchange as Permitted, ports.catalog);
    if (unlisted !== undefined) return unlisted;
    // What is hidden stays so, whatever could not be done to its arguments.
    if (!planned.ok && decision.effect !== 'hide') return { kind: 'argumentsRefused', ...planned.error };
    if (decision.effect !== 'allow') return refusalOf(judged.targets.at(-1)!, decision);
    const drifted = findDrift(targets.value, ports);
    if (drifted !== undefined) return { kind: 'drifted', detail: drifted };
    const plan = planned.ok ? planned.value : undefined;
    // After the decision: who may not call a tool does not learn of its schema.
    if (exchange.era === 'modern' && message.method === 'tools/call') {
      const unclear = settleParamHeaders(exchange, sentArgs, args, plan, ports);
      if (unclear !== undefined) return unclear;
    }
    const validatedBy = plan?.validatedBy;
    if (validatedBy !== undefined && message.method === 'tools/call') {
      const schema = ports.catalog.inputSchemaOf(route.server, String(message.params?.name));
      const valid = ports.schemas.check(schema, args ?? {});
      if (!valid.ok) return { kind: 'argumentsRefused', rule: validatedBy, detail: valid.error, told: valid.error };
    }
  }
  exchange.decision = decision;
  exchange.permit = issuePermit({
    server: route.server,
    method: exchange.request.method as 'POST' | 'GET' | 'DELETE',
    message,
    filter: filterOf(policy, subject, route.server, ports.catalog),
  });
  return undefined;
}

/** Where policy denies them, an agent that has roots becomes one that has none. */
function settleRoots(exchange: Parsed, policy: CompiledPolicy): Reason | undefined {
  const { message, route, subject } = exchange;
  if (message === undefined || !tellsOfRoots(message)) return undefined;
  const target = rootsOf(route.server);
  const denied = denialOf(policy, subject!, target);
  if (denied === undefined) return undefined;
  const rest = withoutRoots(message);
  if (rest !== undefined) {
    exchange.message = rest;
    return undefined;
  }
  exchange.targets = [target];
  exchange.decision = denied;
  return refusalOf(target, denied);
}

/** The agent's headers have to say what the agent's arguments say; what goes on says what the changed ones say. */
function settleParamHeaders(
  exchange: Parsed,
  sentArgs: Call['args'],
  args: Call['args'],
  plan: ArgumentPlan | undefined,
  { catalog }: AuthorizePorts,
): Reason | undefined {
  const { server } = exchange.route;
  const { headers } = exchange.request;
  const name = String(exchange.message?.params?.name);
  const schema = catalog.inputSchemaOf(server, name);
  const param = paramHeaderIn(headers);
  if (param !== undefined && catalog.stateOf(server, name) === 'unknown') {
    const detail = `the server's tools could not be listed, so that ${param} cannot be held against the arguments`;
    return { kind: 'unavailable', why: 'unreachable', detail, retryAfterMs: UNLISTED_RETRY_MS };
  }
  const checked = checkParamHeaders(schema, sentArgs, headers);
  if (!checked.ok) return { kind: 'malformed', reason: checked.error };
  if (plan === undefined || !exchange.argumentsChanged) return undefined;
  if (param !== undefined && !catalog.knows(server, name)) {
    const detail = `policy changes the arguments of ${name}, and which of them ${param} repeats is not known`;
    return { kind: 'argumentsRefused', rule: [...plan.removes, ...plan.sets][0]!.rule, detail };
  }
  exchange.paramHeaders = paramHeadersOf(schema, args);
  return undefined;
}

function paramHeaderIn(headers: IncomingHttpHeaders): string | undefined {
  for (const name in headers) if (name.startsWith(PARAM_PREFIX)) return name;
  return undefined;
}

/** Before anything is judged: what rules see, what is recorded and what the server gets is one and the same. */
function planArguments(exchange: Parsed, policy: CompiledPolicy): Result<ArgumentPlan | undefined, ArgumentProblem> {
  const { message, route } = exchange;
  const name = message?.method === 'tools/call' ? message.params?.name : undefined;
  if (message === undefined || typeof name !== 'string') return ok(undefined);
  const plan = argumentPlanFor(policy, route.server, name);
  if (!plan.ok || plan.value === undefined) return plan;
  const changed = changeMessage(message, plan.value);
  if (!changed.ok) return changed;
  exchange.argumentsChanged = changed.value !== message;
  exchange.message = changed.value;
  return plan;
}

/**
 * Why a tool that is not as it was pinned is not called. To whom policy shows the tool it is refused and not hidden: it
 * was there yesterday, and somebody has to look at what became of it. Policy's audit mode does not concern it.
 */
function findDrift(targets: readonly Target[], { pins, catalog }: AuthorizePorts): string | undefined {
  for (const target of targets) {
    if (target.kind !== 'tool' || !pins.needsTools(target.server)) continue;
    const refusal = pins.refusalOf(target.server, target.name, catalog.stateOf(target.server, target.name));
    if (refusal !== undefined) return refusal;
  }
  return undefined;
}

function subjectOf(caller: Caller, group: string): Subject {
  return { agent: { name: caller.agent, group, roles: caller.roles, claims: caller.claims }, user: caller.user };
}

function refusalOf(target: Target, refused: Refused): Reason {
  if (refused.effect === 'refuse')
    return { kind: 'forbidden', rule: refused.rule ?? 'default', detail: refused.reason };
  return { kind: 'hidden', what: target.kind, name: idOf(target), rule: refused.rule, detail: refused.reason };
}

/**
 * An item that does not name itself cannot be judged, and is not shown. A tool is judged by what the catalog has of it,
 * as its call will be: `inspect` lets the catalog learn an item before it asks here.
 */
function filterOf(policy: CompiledPolicy, subject: Subject, server: string, catalog: Catalog): ListFilter {
  return (kind, item) => {
    const target = listedTarget(server, LIST_OF[kind], item);
    if (target?.kind === 'tool')
      return isVisible(policy, subject, { ...target, annotations: catalog.annotationsOf(server, target.name) });
    return target !== undefined && isVisible(policy, subject, target);
  };
}

const LIST_OF = {
  tools: listKindOf('tools/list')!,
  prompts: listKindOf('prompts/list')!,
  resources: listKindOf('resources/list')!,
  resourceTemplates: listKindOf('resources/templates/list')!,
} as const;
