/**
 * One exchange on its way through the pipeline: what arrived, and what each stage has found out about it.
 *
 * Stages fill it from the outside in; the types below say what is there at which point, so that a stage which needs
 * a caller cannot be stacked before the one that finds it.
 */
import type { IncomingMessage } from 'node:http';
import type { Usage } from '../../policies/charge.ts';
import type { Call, Decision, Subject, Target } from '../../policies/decision.ts';
import type { CompiledPolicy } from '../../policies/policy.ts';
import type { Caller } from '../identity/identify.ts';
import type { Era, Message } from '../protocol/message.ts';
import type { CountedBy } from '../quota/tokens.ts';
import type { Upstream, UpstreamFailure, UpstreamResponse } from '../upstream/upstream.ts';
import type { Place } from './admission.ts';
import type { Permit } from './permit.ts';
import type { Reason } from './reason.ts';
import type { Reply } from './reply.ts';

/** Where the request's path leads. */
export interface Route {
  readonly server: string;
  /** The name of the virtual server in the path. */
  readonly virtual: string | undefined;
  readonly upstream: Upstream;
}

/** Trace context of this exchange (W3C Trace Context; SEP-414 for `_meta`). */
export interface Trace {
  readonly traceId: string;
  readonly serverSpanId: string;
  readonly clientSpanId: string;
  readonly parentSpanId: string | undefined;
  readonly traceState: string | undefined;
  readonly sampled: boolean;
  /** What goes into `_meta.traceparent`. */
  readonly inject: string;
  /** The agent's `baggage` header, where `_meta` has none. */
  readonly baggage: string | undefined;
}

/** One try at the upstream. */
export interface Attempt {
  succeeded(): void;
  failed(failure: UpstreamFailure | undefined): void;
}

/** What came back, as far as the observers need it. Filled by `forward` and `inspect`. */
export interface Outgoing {
  startedAt: number;
  endedAt: number;
  status: number | undefined;
  attempts: number;
  /** In some attempt a byte of the request may have reached the server. */
  reached: boolean;
}

export class Exchange {
  readonly request: IncomingMessage;
  readonly reply: Reply;
  /** Wall clock, milliseconds since the epoch: for people. */
  readonly startedAt: number;
  /** Monotonic clock, milliseconds: for durations. */
  readonly started: number;

  route: Route | undefined = undefined;
  caller: Caller | undefined = undefined;
  message: Message | undefined = undefined;
  /** The id in a body that was refused as ambiguous, where the id itself is not. */
  refusedId: string | number | undefined = undefined;
  era: Era | undefined = undefined;
  protocolVersion: string | undefined = undefined;
  /** The upstream's own session id, unsealed and found to belong to this caller and server. */
  upstreamSessionId: string | undefined = undefined;
  sessionHash: string | undefined = undefined;
  trace: Trace | undefined = undefined;

  subject: Subject | undefined = undefined;
  targets: readonly Target[] = [];
  call: Call | undefined = undefined;
  decision: Decision | undefined = undefined;
  /** The policy in force when the exchange came: it judges, charges and redacts to the end, whatever is loaded meanwhile. */
  policy: CompiledPolicy | undefined = undefined;
  policyVersion: string | undefined = undefined;
  permit: Permit | undefined = undefined;

  /** What it takes of the limits. Set by `admit`; elements of a batch that run one after the other have the same. */
  place: Place | undefined = undefined;

  /** Set by `route` for the attempt under way: `forward` tells it what became of the server. */
  attempt: Attempt | undefined = undefined;
  /** What the credential added for this attempt. */
  credentialHeaders: Readonly<Record<string, string>> = {};
  /** Everything that goes upstream as headers in this attempt. */
  outgoingHeaders: Readonly<Record<string, string>> = {};
  /** Called with the whole answer when it may be kept for the next one who asks the same. */
  keepAnswer: ((answer: Buffer) => void) | undefined = undefined;
  outgoing: Outgoing | undefined = undefined;
  answer: UpstreamResponse | undefined = undefined;

  reason:
    | { readonly text: string; readonly rule: string | undefined; readonly kind: string; readonly errorId: string }
    | undefined = undefined;
  rpcCode: number | undefined = undefined;
  toolError = false;
  cached = false;
  tokensIn: number | undefined = undefined;
  tokensOut: number | undefined = undefined;
  /** How the tokens were counted; set where policy counts them. */
  tokensBy: CountedBy | undefined = undefined;
  /** The result's own figures. Set by `inspect`. */
  serverUsage: { readonly input: number | undefined; readonly output: number } | undefined = undefined;
  /** The whole answer, where it is small enough to be counted. Set by `inspect`. */
  answerBytes: Buffer | undefined = undefined;
  /** By the policy's prices, in their unit. */
  cost: number | undefined = undefined;
  /** How full the quotas of this call were when it was reserved. */
  quotaUsage: readonly (Usage & { readonly perToken?: number })[] = [];
  /** Set by `quota` while a call is under way whose tokens are charged: so many have come. Says why no more may pass. */
  spend: ((tokensOut: number) => Reason | undefined) | undefined = undefined;
  /** The answer to the request has come as its reply. Set by `inspect`. */
  answered = false;
  bytesIn = 0;
  /** A batch that was taken apart: its elements are what happened, each an exchange of its own. */
  isBatch = false;
  /** Policy has changed the arguments: `message` is what was made of it. */
  argumentsChanged = false;
  /** All the `Mcp-Param-*` that go with the changed arguments, in place of the agent's. Set by `authorize`, 2026-07-28 only. */
  paramHeaders: Readonly<Record<string, string>> | undefined = undefined;

  constructor(request: IncomingMessage, reply: Reply, startedAt: number, started: number) {
    this.request = request;
    this.reply = reply;
    this.startedAt = startedAt;
    this.started = started;
  }
}

type With<E, K extends keyof Exchange> = E & { readonly [P in K]-?: NonNullable<Exchange[P]> };

/** After `guard`. */
export type Routed = With<Exchange, 'route'>;
/** After `identify`. */
export type Identified = With<Routed, 'caller'>;
/** After `parse`. A GET or DELETE has no message. */
export type Parsed = With<Identified, 'era' | 'trace'>;
/** After `authorize`: only an exchange with a permit gets this far. */
export type Permitted = With<Parsed, 'permit' | 'policy' | 'subject' | 'decision'>;
/** After `route`. */
export type Attempted = With<Permitted, 'attempt'>;
/** After `forward`. */
export type Answered = With<Attempted, 'answer' | 'outgoing'>;
