/** Subjects, targets and calls for tests of the policy language: one valid one each, to spread a change over. */
import { compilePolicy } from '../../policies/compile.ts';
import type { Call, Subject, Target } from '../../policies/decision.ts';
import type { CompiledPolicy } from '../../policies/policy.ts';

export function policyOf(document: object, env: Record<string, string> = {}): CompiledPolicy {
  const compiled = compilePolicy({ version: 1, ...document }, { env });
  if (!compiled.ok) throw new Error(JSON.stringify(compiled.error));
  return compiled.value;
}

export function agent(name: string, change: Partial<Subject['agent']> = {}): Subject {
  return { agent: { name, group: 'support', roles: [], claims: {}, ...change }, user: undefined };
}

export function tool(name: string, server = 'github', annotations?: Record<string, unknown>): Target {
  return { kind: 'tool', server, name, annotations };
}

/** A tools/call of `name`; 1970-01-01 12:00 UTC. */
export function callOf(name: string, args: Record<string, unknown> = {}, change: Partial<Call> = {}): Call {
  const body = { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name, arguments: args } };
  return { method: 'tools/call', args, body, sessionId: 's1', now: 12 * 3_600_000, ...change };
}
