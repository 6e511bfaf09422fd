/**
 * `sidecar check`: validates the configuration and explains it: where it listens, where it leads, and what each agent
 * may do. Starts nothing and connects to nothing but the URL of a policy bundle, unless `--connect` asks for more.
 */
import type { Loaded } from '../config/assemble.ts';
import { discoverConfig } from '../config/discover.ts';
import { type Summary, summarize } from './configuration-summary.ts';
import { tellProblems, tellSentence, writeJson, writeLines } from './output.ts';

export interface CheckOptions {
  readonly config?: string;
  /** Ask every server for its tools, and the quota store whether it is there. */
  readonly connect: boolean;
  readonly json: boolean;
}

export async function check({ config, connect, json }: CheckOptions): Promise<number> {
  const loaded = await discoverConfig(config);
  if (!loaded.ok) return tellProblems(loaded.error, json);
  if (!loaded.value.lock.ok) return tellProblems(loaded.value.lock.error, json);
  const summary = summarize(loaded.value);
  if (connect) return checkConnections(loaded.value, summary, json);
  if (json) writeJson({ ok: true, ...summary });
  else writeLines(describe(summary));
  return 0;
}

async function checkConnections(loaded: Loaded, summary: Summary, json: boolean): Promise<number> {
  // Loaded for this alone: credentials, HTTP client and children are not needed to validate.
  const { connect, describeConnection, describeQuotaStore } = await import('./connect.ts');
  const agents = summary.agents.map(({ name }) => name);
  const connected = await connect(loaded, agents);
  if (!connected.ok) return tellSentence(connected.error, json);
  const { connections, quotaStore } = connected.value;
  const isOk = connections.every(({ ok }) => ok) && quotaStore?.ok !== false;
  const lines = [...connections.flatMap(describeConnection), ...describeQuotaStore(quotaStore)];
  if (json) writeJson({ ok: isOk, ...summary, connections, quotaStore });
  else writeLines([...describe(summary), ...section('connections', lines)]);
  return isOk ? 0 : 1;
}

function describe(it: Summary): string[] {
  return [
    `${it.origin} is valid.`,
    '',
    ...section('listens on', [...it.listen.mcp, `${it.listen.admin} (probes and metrics)`]),
    ...section(
      'callers',
      it.identify.length === 0
        ? [`everyone on this machine is ${it.group}`]
        : it.identify.map(({ type, agents }) => `by ${type}: ${agents.join(', ')}`),
    ),
    ...section(
      'servers',
      it.servers.map(({ name, target, credential }) => `${name}: ${target} (credential: ${credential})`),
    ),
    ...section('policy', [
      `${it.policy.file}: mode ${it.policy.mode}, default ${it.policy.default}`,
      ...(it.policy.extends.length > 0 ? [`extends ${it.policy.extends.join(', ')}`] : []),
    ]),
    ...section(
      'agents',
      it.agents.map(({ name, may }) => `${name}: ${may.join(' | ') || 'no role; only what the rules say'}`),
    ),
    ...section('pins', it.pins.length > 0 ? it.pins : ['none: sidecar pin writes sidecar.lock']),
    ...section('rules', it.rules),
    ...section('arguments', it.arguments),
    ...section('quotas', [...it.policy.quotas, ...(it.policy.quotas.length > 0 ? [it.policy.counted] : [])]),
    ...section('prices', it.prices),
    ...section('redact', it.redact),
    ...section('mind', it.warnings),
  ];
}

function section(title: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : [title, ...lines.map((line) => `  ${line}`)];
}
