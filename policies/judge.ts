/**
 * One JSON-RPC message judged: by the pipeline, and from its text alone by `policy test` and `policy explain`. Pure.
 *
 * A message can name several things (a URI that can be written in two ways, several subscriptions): each has to be
 * allowed, and the first that is not decides. One that is malformed goes nowhere, which is a refusal too.
 */
import { type ArgumentProblem, argumentPlanFor, changeArguments } from './arguments.ts';
import { decide } from './decide.ts';
import type { Call, Decision, Subject, Target } from './decision.ts';
import { type AnnotationsOf, targetsOf } from './methods.ts';
import type { CompiledPolicy } from './policy.ts';
import { ok, type Result } from './result.ts';

export interface Question {
  readonly subject: Subject;
  readonly server: string;
  /** The whole JSON-RPC message. */
  readonly body: Readonly<Record<string, unknown>>;
  readonly sessionId: string | undefined;
  /** Milliseconds since the epoch. */
  readonly now: number;
  /** The hints that the server gives for a tool. */
  readonly annotationsOf: AnnotationsOf;
}

export interface Judgement {
  readonly decision: Decision;
  readonly call: Call;
  /** Up to the one that decided. Empty for the protocol's own messages and for malformed ones. */
  readonly targets: readonly Target[];
}

export function judge(policy: CompiledPolicy, question: Question): Judgement {
  const { subject, server, sessionId, now, annotationsOf } = question;
  const changed = changedBody(policy, question);
  const body = changed.ok ? changed.value : question.body;
  const method = typeof body.method === 'string' ? body.method : '';
  const params = objectOr(body.params);
  const call: Call = { method, args: argumentsOf(params), body, sessionId, now };
  const kind = method === '' ? 'response' : body.id === undefined ? 'notification' : 'request';
  const named = targetsOf(server, { kind, method, params }, annotationsOf);
  if (!named.ok) return { decision: malformed(named.error), call, targets: [] };
  const judged = decideAll(policy, subject, named.value, call);
  // What is hidden stays so, whatever could not be done to its arguments.
  if (changed.ok || judged.decision.effect === 'hide') return { ...judged, call };
  const { rule, detail } = changed.error;
  return { decision: { effect: 'refuse', rule, reason: detail }, call, targets: judged.targets };
}

/** It goes nowhere. */
export function malformed(problem: string): Decision {
  return { effect: 'refuse', rule: undefined, reason: `the message is malformed: ${problem}` };
}

/** The message as it is judged: with what policy makes of its arguments. Their schema is the server's, and not known here. */
export function changedBody(
  policy: CompiledPolicy,
  { server, body }: Pick<Question, 'server' | 'body'>,
): Result<Question['body'], ArgumentProblem> {
  const params = objectOr(body.params);
  if (body.method !== 'tools/call' || typeof params?.name !== 'string') return ok(body);
  const plan = argumentPlanFor(policy, server, params.name);
  if (!plan.ok) return plan;
  if (plan.value === undefined) return ok(body);
  const args = changeArguments(params.arguments, plan.value);
  if (!args.ok) return args;
  return ok(args.value === params.arguments ? body : { ...body, params: { ...params, arguments: args.value } });
}

/** Each target has to be allowed. The first that is not decides; in audit mode, the first that would not be. */
export function decideAll(
  policy: CompiledPolicy,
  subject: Subject,
  targets: readonly Target[],
  call: Call,
): { readonly decision: Decision; readonly targets: readonly Target[] } {
  let decision = ALLOWED;
  for (let index = 0; index < targets.length; index++) {
    const next = decide(policy, subject, targets[index]!, call);
    if (next.effect !== 'allow') return { decision: next, targets: targets.slice(0, index + 1) };
    if (decision.wouldBe === undefined) decision = next;
  }
  return { decision, targets };
}

type Allowed = Extract<Decision, { effect: 'allow' }>;

/** Of the protocol's own messages, which name nothing. */
const ALLOWED: Allowed = { effect: 'allow', rule: undefined, wouldBe: undefined };

/** `args` of conditions. */
export function argumentsOf(
  params: Readonly<Record<string, unknown>> | undefined,
): Readonly<Record<string, unknown>> | undefined {
  return objectOr(params?.arguments);
}

function objectOr(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
}
