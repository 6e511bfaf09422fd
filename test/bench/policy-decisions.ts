/**
 * What the policy alone costs: `decide()` over a mix of agents, tools and arguments, with twenty rules and with ten
 * thousand. Own process, so that the heap is quiet.
 *
 * No question is asked twice in a row, so that what is measured is not one remembered answer; where a first decision is
 * meant, every agent is a new one, and nothing is remembered.
 */
import { compilePolicy } from '../../policies/compile.ts';
import { decide } from '../../policies/decide.ts';
import type { Call, Subject, Target } from '../../policies/decision.ts';
import type { CompiledPolicy } from '../../policies/policy.ts';
import { answerParent } from './child.ts';
import { manyRules, servers, twentyRules } from './policy.ts';

export interface PolicyDecisionsQuestion {
  readonly batches: number;
  readonly decisionsPerBatch: number;
}

/** The median of each batch, in microseconds; of each compilation, in milliseconds. */
export interface PolicyDecisions {
  readonly rules20: readonly number[];
  readonly rules10000: readonly number[];
  readonly rules10000First: readonly number[];
  readonly compile10000Ms: readonly number[];
}

interface Request {
  readonly subject: Subject;
  readonly target: Target;
  readonly call: Call;
}

const MANY = 10_000;
const VERBS = ['list', 'get', 'find', 'update', 'delete', 'push'];
const AGENTS = ['triage', 'writer', 'reviewer', 'root'];
const ARGUMENTS: readonly Record<string, unknown>[] = [
  {},
  { query: 'open issues of the last week', limit: 50, language: 'en', tags: ['a', 'b'] },
  { owner: 'acme', repository: 'site', path: '/srv/data/report.txt' },
  { query: 'x'.repeat(1000), limit: 5000, language: 'fr' },
];
const ANNOTATIONS = [undefined, { readOnlyHint: true }, { readOnlyHint: false, destructiveHint: true }];

/** The `index`-th request of a mix that repeats after some thousand. */
function requestOf(index: number, server: string, name: string, agent: string): Request {
  const args = ARGUMENTS[index % ARGUMENTS.length]!;
  const method = 'tools/call';
  const roles = index % 3 === 0 ? ['maintainer'] : [];
  return {
    subject: {
      agent: { name: agent, group: 'bench', roles, claims: { team: 'blue' } },
      user: { sub: `user-${index % 7}`, claims: {} },
    },
    target: { kind: 'tool', server, name, annotations: ANNOTATIONS[index % ANNOTATIONS.length] },
    call: {
      method,
      args,
      body: { jsonrpc: '2.0', id: index, method, params: { name, arguments: args } },
      sessionId: undefined,
      now: 1_700_000_000_000 + index * 1000,
    },
  };
}

function requestOfTwenty(index: number): Request {
  const name = `${VERBS[index % VERBS.length]}_${['issues', 'page', 'ticket'][index % 3]}`;
  return requestOf(index, servers[index % servers.length]!, name, AGENTS[(index >> 2) % AGENTS.length]!);
}

function requestOfMany(index: number, agent: string): Request {
  const rule = (index * 7919) % MANY;
  const names = [`tool_${rule}`, `area${rule}_read`, `old_purge_${rule}`, `get_page_${rule}`, `list_${index % 100}`];
  return requestOf(index, servers[rule % servers.length]!, names[index % names.length]!, agent);
}

function compiled(document: object): CompiledPolicy {
  const result = compilePolicy(document, { env: { STAGE: 'bench' } });
  if (!result.ok) throw new Error(`the policy does not compile: ${JSON.stringify(result.error.slice(0, 3))}`);
  return result.value;
}

function medianOf(micros: Float64Array): number {
  return micros.sort()[micros.length >> 1]!;
}

/** @param requestAt Made before the clock starts. */
function measure(
  policy: CompiledPolicy,
  { batches, decisionsPerBatch }: PolicyDecisionsQuestion,
  requestAt: (index: number) => Request,
): number[] {
  const micros = new Float64Array(decisionsPerBatch);
  const effects = new Set<string>();
  let index = 0;
  const batch = () => {
    for (let at = 0; at < decisionsPerBatch; at++) {
      const { subject, target, call } = requestAt(index++);
      const startedAt = performance.now();
      const { effect } = decide(policy, subject, target, call);
      micros[at] = (performance.now() - startedAt) * 1000;
      effects.add(effect);
    }
    return medianOf(micros);
  };
  batch();
  const medians = Array.from({ length: batches }, batch);
  if (!effects.has('allow') || !effects.has('hide')) throw new Error(`the mix has one outcome only: ${[...effects]}`);
  return medians;
}

function measureAll(question: PolicyDecisionsQuestion): PolicyDecisions {
  const compile10000Ms: number[] = [];
  let many: CompiledPolicy | undefined;
  // Rules of its own each time: what is the same at a reload is not compiled again.
  for (const round of [0, 1, 2]) {
    const document = manyRules(MANY, round);
    const startedAt = performance.now();
    many = compiled(document);
    compile10000Ms.push(performance.now() - startedAt);
  }
  return {
    rules20: measure(compiled(twentyRules()), question, requestOfTwenty),
    rules10000: measure(many!, question, (index) => requestOfMany(index % 4000, `agent-${index % 50}`)),
    rules10000First: measure(many!, question, (index) => requestOfMany(index, `new-agent-${index}`)),
    compile10000Ms,
  };
}

answerParent<PolicyDecisionsQuestion>(measureAll);
