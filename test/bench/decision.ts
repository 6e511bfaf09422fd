/**
 * What deciding costs, without any network: the pure functions that a 1 KiB `tools/call` goes through between its last
 * byte read and its first byte sent, in the order of the pipeline. Own process, so that the heap is quiet.
 */
import { chargesOf } from '../../policies/charges.ts';
import { compilePolicy } from '../../policies/compile.ts';
import { decide } from '../../policies/decide.ts';
import type { Call, Subject } from '../../policies/decision.ts';
import { targetsOf } from '../../policies/methods.ts';
import { createQuotaState, reserve, settle } from '../../policies/quota.ts';
import { continueTrace } from '../../sidecar/pipeline/stages/parse.ts';
import { classify } from '../../sidecar/protocol/ladder.ts';
import { parseBody } from '../../sidecar/protocol/parse.ts';
import { spliceTrace } from '../../sidecar/protocol/splice.ts';
import { estimateTokens } from '../../sidecar/quota/tokens.ts';
import { callHeaders, callWith, nthId } from './call.ts';
import { answerParent } from './child.ts';
import { policy } from './policy.ts';

export interface DecisionQuestion {
  readonly warmUpCalls: number;
  readonly batches: number;
  readonly callsPerBatch: number;
}

const subject: Subject = { agent: { name: 'bench', group: 'bench', roles: [], claims: {} }, user: undefined };
const headers = {
  protocolVersion: callHeaders['mcp-protocol-version'],
  method: callHeaders['mcp-method'],
  name: callHeaders['mcp-name'],
  sessionId: undefined,
  contentType: callHeaders['content-type'],
  accept: callHeaders.accept,
};
const tracing = { enabled: true, sampleRatio: 1 };

function compiledPolicy() {
  const compiled = compilePolicy(policy(), { env: {} });
  if (!compiled.ok) throw new Error(`the policy does not compile: ${JSON.stringify(compiled.error)}`);
  return compiled.value;
}

const compiled = compiledPolicy();
const spent = createQuotaState();

/** parse → ladder → permit → quota → splice. Answers the bytes to send; throws when the call is not let through. */
function decideOne(bytes: Buffer, now: number): Buffer {
  const parsed = parseBody(bytes, { depthMax: 64, batchMax: 50 });
  if (!parsed.ok || parsed.value.kind !== 'single') throw new Error('the call was not understood');
  const { message } = parsed.value;
  if (!classify(parsed.value, headers).ok) throw new Error('the headers were refused');
  const trace = continueTrace({}, tracing);
  const targets = targetsOf('bench', message, () => undefined);
  if (!targets.ok) throw new Error(targets.error);
  const target = targets.value[0]!;
  const args = message.params?.arguments as Call['args'];
  const call: Call = { method: message.method, args, body: message.body, sessionId: undefined, now };
  if (decide(compiled, subject, target, call).effect !== 'allow') throw new Error('the policy refused the call');
  const range = message.layout.arguments;
  const tokens = estimateTokens(range === undefined ? 0 : range.end - range.start);
  const reserved = reserve(spent, chargesOf(compiled, subject, target, call, tokens), now);
  if (!reserved.ok) throw new Error('the quota refused the call');
  const spliced = spliceTrace(message, { traceparent: trace.inject, tracestate: trace.traceState });
  settle(spent, reserved.value, tokens * 2, now);
  return spliced;
}

function median(values: Float64Array): number {
  return values.sort()[values.length >> 1]!;
}

/** The median of each batch, in microseconds. */
function measure({ warmUpCalls, batches, callsPerBatch }: DecisionQuestion): number[] {
  const calls = Array.from({ length: 1000 }, (_, index) => callWith(nthId(index)));
  const spliced = JSON.parse(decideOne(calls[0]!, Date.now()).toString('utf8'));
  if (typeof spliced.params._meta.traceparent !== 'string') throw new Error('no trace context was spliced in');
  for (let index = 0; index < warmUpCalls; index++) decideOne(calls[index % calls.length]!, Date.now());
  const micros = new Float64Array(callsPerBatch);
  return Array.from({ length: batches }, () => {
    for (let index = 0; index < callsPerBatch; index++) {
      const startedAt = performance.now();
      decideOne(calls[index % calls.length]!, Date.now());
      micros[index] = (performance.now() - startedAt) * 1000;
    }
    return median(micros);
  });
}

answerParent<DecisionQuestion>(measure);
