/**
 * `sidecar policy replay`: the requests of an audit judged again by another policy, and what would change. Starts
 * nothing and connects to nothing. 1 when something would change; what cannot be judged surely is told, and is no change.
 */
import { type Change, Comparing, type Comparison, type Limited, type UnsureGroup } from '../../policies/comparison.ts';
import { rejudgeBy } from '../../policies/replay.ts';
import { loadPolicy, policyPath } from '../config/policy-source.ts';
import { recordedRequest } from '../telemetry/recorded-request.ts';
import { describeReading, readAuditFiles } from './audit-files.ts';
import { plural, tellLines, tellProblems, tellSentence, writeJson, writeLines } from './output.ts';
import { printable } from './printable.ts';

export interface PolicyReplayOptions {
  readonly audit: readonly string[];
  /** A file, a folder or library/<name>. */
  readonly policy: string;
  /** Only these; none: all. */
  readonly agent: readonly string[];
  readonly json: boolean;
}

export async function policyReplay({ audit, policy, agent, json }: PolicyReplayOptions): Promise<number> {
  const loaded = await loadPolicy({ kind: 'path', path: policyPath(policy, process.cwd()) });
  if (!loaded.ok) return tellProblems(loaded.error, json);
  const agents = agent.length === 0 ? undefined : new Set(agent);
  const comparing = new Comparing(rejudgeBy(loaded.value.policy), agents);
  const read = await readAuditFiles(audit, (record, file) => {
    const request = recordedRequest(record);
    if (request !== undefined) comparing.add(request, file);
  });
  if (!read.ok) return tellSentence(read.error, json);
  const { result } = comparing;
  const letsAllThrough = loaded.value.policy.audit;
  if (json)
    writeJson({ ok: result.changed === 0, mode: letsAllThrough ? 'audit' : 'enforce', ...result, read: read.value });
  else {
    writeLines(describeComparison(result));
    if (letsAllThrough) tellLines([`note: ${policy} is in audit mode, and lets everything through`]);
    tellLines([describeReading(read.value)]);
  }
  return result.changed === 0 ? 0 : 1;
}

export function describeComparison(comparison: Comparison): string[] {
  const { judged, changed, unsure, changes, unsureGroups, limited, freed, countedUnsurely, unlisted } = comparison;
  const told = (count: number, words: string) => (count === 0 ? [] : [`${plural(count, 'request')} ${words}`]);
  return [
    ...changes.map(describeChange),
    ...limited.map(describeLimited),
    ...unsureGroups.map(describeUnsure),
    ...told(unlisted, 'of more agents and names than are listed here'),
    changed === 0
      ? `${plural(judged, 'request')} judged again: nothing would change`
      : `${plural(judged, 'request')} judged again: ${changed} would change`,
    ...told(unsure, 'cannot be judged surely from the audit alone'),
    ...told(freed, 'that a quota stopped would be stopped by none'),
    ...told(countedUnsurely, 'may be counted by other quotas than is assumed here'),
  ];
}

function describeLimited({ agent, quota, count, first }: Limited): string {
  return `${printable(agent)}: ${plural(count, 'call')} would be stopped by quota ${printable(quota)}; ${describeFirst(first)}`;
}

function describeChange(change: Change): string {
  const { wasLetThrough, ruleBefore, decision } = change;
  const before = wasLetThrough ? 'allowed' : `refused${byRule(ruleBefore)}`;
  const after =
    decision.effect === 'allow' ? 'allowed' : `refused${byRule(decision.rule) || `: ${printable(decision.reason)}`}`;
  const by = decision.effect === 'allow' && !wasLetThrough ? byRule(decision.rule) : '';
  return `${describeGroup(change)} ${before} → ${after}${by}; ${describeFirst(change.first)}`;
}

function describeUnsure(group: UnsureGroup): string {
  return `${describeGroup(group)} unsure: ${group.why.map((why) => printable(why)).join('; ')}; ${describeFirst(group.first)}`;
}

function describeGroup({ agent, server, matter, count }: Change | UnsureGroup): string {
  const { kind, name } = matter;
  const what =
    kind === 'tool' || kind === 'prompt'
      ? `${printable(server)}.${printable(name)}`
      : `${printable(name)} of ${printable(server)}`;
  return `${printable(agent)} ${kind === 'tool' ? '' : `${kind} `}${what}: ${plural(count, 'call')}`;
}

function describeFirst({ time, sequence, file }: Change['first']): string {
  return `first at ${new Date(time).toISOString()}, ${printable(file)} sequence ${sequence}`;
}

/** A role is called `role <name>` by the policy itself. */
function byRule(rule: string | undefined): string {
  if (rule === undefined) return '';
  return rule.startsWith('role ') ? ` by ${printable(rule)}` : ` by rule ${printable(rule)}`;
}
