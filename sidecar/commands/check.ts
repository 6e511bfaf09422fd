/**
 * `sidecar check`: validates the configuration and explains it: where it listens, where it leads, and what each agent
 * may do. Starts nothing and connects to nothing but the URL of a policy bundle, unless `--connect` asks for more.
 */

import { type PolicyDocument, policySchema } from '../../policies/schema.ts';
import type { OpenedBundle } from '../bundle/open.ts';
import type { Loaded } from '../config/assemble.ts';
import { discoverConfig } from '../config/discover.ts';
import type { PolicySource } from '../config/policy-source.ts';
import { formatProblems, type Problem, showFile } from '../config/problem.ts';
import { isLoopback, showAddress } from '../config/quantity.ts';
import type { Config, ServerConfig } from '../config/schema.ts';
import { maskSecrets, showUrl } from '../config/secret-shapes.ts';
import { withoutEndpoint } from '../config/virtual-endpoint.ts';
import { describePins } from './pin-text.ts';

export interface CheckOptions {
  readonly config?: string;
  /** Ask every server for its tools. */
  readonly connect: boolean;
  readonly json: boolean;
}

export async function check({ config, connect, json }: CheckOptions): Promise<number> {
  const loaded = await discoverConfig(config);
  if (!loaded.ok) return tellProblems(loaded.error, json);
  if (!loaded.value.lock.ok) return tellProblems(loaded.value.lock.error, json);
  const explanation = explain(loaded.value);
  if (connect) return checkConnections(loaded.value, explanation, json);
  if (json) writeJson({ ok: true, ...explanation });
  else process.stdout.write(describe(explanation));
  return 0;
}

export function tellProblems(problems: readonly Problem[], json: boolean): 2 {
  if (json) writeJson({ ok: false, problems });
  else process.stderr.write(`${formatProblems(problems)}\n`);
  return 2;
}

async function checkConnections(loaded: Loaded, explanation: Explanation, json: boolean): Promise<number> {
  // Loaded for this alone: credentials, HTTP client and children are not needed to validate.
  const { connect, describeConnection } = await import('./connect.ts');
  const agents = explanation.agents.map(({ name }) => name);
  const connected = await connect(loaded, agents);
  if (!connected.ok) {
    if (json) writeJson({ ok: false, problems: [{ path: '', message: connected.error }] });
    else process.stderr.write(`${connected.error}\n`);
    return 2;
  }
  const connections = connected.value;
  const allOk = connections.every(({ ok }) => ok);
  if (json) writeJson({ ok: allOk, ...explanation, connections });
  else process.stdout.write(describe(explanation) + section('connections', connections.flatMap(describeConnection)));
  return allOk ? 0 : 1;
}

export function writeJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`);
}

export interface Explanation {
  readonly origin: string;
  readonly group: string;
  readonly listen: { readonly mcp: readonly string[]; readonly admin: string };
  readonly identify: readonly { readonly type: string; readonly agents: readonly string[] }[];
  readonly servers: readonly { readonly name: string; readonly target: string; readonly credential: string }[];
  readonly policy: {
    readonly file: string;
    readonly mode: string;
    readonly default: string;
    readonly quotas: readonly string[];
  };
  readonly agents: readonly { readonly name: string; readonly may: readonly string[] }[];
  /** Of the tools; empty without a lock. */
  readonly pins: readonly string[];
  /** What holds for everyone. */
  readonly rules: readonly string[];
  readonly warnings: readonly string[];
}

export type Selector = NonNullable<PolicyDocument['rules'][number]['allow']>[number];

export function explain({
  config,
  origin,
  policy: compiled,
  policySource,
  policyDocument,
  bundle,
  lock,
  notes,
}: Loaded): Explanation {
  // It has compiled, so that this cannot fail; the schema fills in the defaults.
  const policy = policySchema.parse(policyDocument);
  const known = identifiedAgents(config);
  const named = Object.keys(policy.agents).filter((name) => name !== '*');
  return {
    origin: origin.file === undefined ? 'the bundled demo' : showFile(origin.file),
    group: config.group,
    listen: {
      mcp: config.listen.mcp.map((one) =>
        one.kind === 'unix' ? `unix:${one.path}` : `${showAddress(one)}${one.tls ? ' (TLS)' : ''}`,
      ),
      admin: showAddress(config.listen.admin),
    },
    identify: config.identify.map(({ type, agents }) => ({ type, agents: [...new Set(namesOf(type, agents))] })),
    servers: Object.entries(config.servers).map(([name, server]) => ({ name, ...targetOf(server) })),
    policy: {
      file: showSource(policySource, bundle),
      mode: policy.mode,
      default: policy.default,
      quotas: [
        ...policy.quotas.map(({ name, key, calls, tokens, burst, concurrent }) => {
          const bounds = [
            calls && `${calls} calls`,
            tokens && `${tokens} tokens`,
            burst && `burst ${burst}`,
            concurrent && `${concurrent} at a time`,
          ];
          return `${name}, for each ${showKey(key)}: ${bounds.filter(Boolean).join(', ')}`;
        }),
        ...policy.budgets.map(({ name, key, cost }) => `${name}, for each ${showKey(key)}: ${cost}`),
      ],
    },
    pins: describePins({ config, lock }),
    agents: [...new Set([...known, ...named])].map((name) => ({ name, may: grantsOf(name, policy) })),
    rules: policy.rules.map(({ name, allow = [], deny = [], when, mode }) => {
      const condition = when === undefined ? '' : ` when ${when}`;
      return `${name}: ${showEffects(allow, deny)}${condition}${mode === 'audit' ? ' (recorded only)' : ''}`;
    }),
    warnings: [
      ...notes,
      ...oddityOf(bundle),
      ...findOddities(config, policy, known, named),
      ...withoutEndpoint(compiled, (server) => Object.hasOwn(config.servers, server)),
    ],
  };
}

function showSource(source: PolicySource, bundle: OpenedBundle | undefined): string {
  if (source.kind === 'path') return showFile(source.path);
  return source.kind === 'inline' ? 'inline' : `${source.shownUrl} (version ${bundle?.bundle.version})`;
}

function oddityOf(bundle: OpenedBundle | undefined): string[] {
  if (bundle?.insteadOf === undefined) return [];
  return [`the policy is the copy kept of version ${bundle.bundle.version}: ${bundle.insteadOf}`];
}

function identifiedAgents(config: Config): string[] {
  if (config.identify.length === 0) return [config.group];
  return [...new Set(config.identify.flatMap(({ type, agents }) => namesOf(type, agents)))];
}

/** `uid` maps ids to names, the others names to where their secret or socket is. */
function namesOf(type: string, agents: Readonly<Record<string, unknown>>): string[] {
  return type === 'uid' ? Object.values(agents).map(String) : Object.keys(agents);
}

function targetOf(server: ServerConfig): { target: string; credential: string } {
  if (server.kind === 'http') {
    const { auth } = server;
    const credential = auth.type === 'client_credentials' ? `client_credentials as ${auth.clientId}` : auth.type;
    return { target: showUrl(server.url), credential };
  }
  const secrets = Object.entries(server.env).filter(([, value]) => typeof value !== 'string');
  return {
    target: maskSecrets(server.command).join(' '),
    credential: secrets.length === 0 ? 'none' : `env ${secrets.map(([name]) => name).join(', ')}`,
  };
}

function grantsOf(agent: string, { roles, agents }: PolicyDocument): string[] {
  const held = [...(agents[agent]?.roles ?? []), ...(agents['*']?.roles ?? [])];
  return [...new Set(held)].map((role) => {
    const { allow = [], deny = [] } = roles[role] ?? {};
    return `${role}: ${showEffects(allow, deny)}`;
  });
}

function showEffects(allow: readonly Selector[], deny: readonly Selector[]): string {
  const parts = [
    ...allow.map((selector) => `allow ${showSelector(selector)}`),
    ...deny.map((selector) => `deny ${showSelector(selector)}`),
  ];
  return parts.join('; ') || 'nothing';
}

export function showSelector({ server, ...kinds }: Selector): string {
  const parts = Object.entries(kinds).map(([kind, globs = []]) => `${kind} ${globs.join(', ')}`);
  return `${server === '*' ? 'every server' : server}: ${parts.join(' and ')}`;
}

function findOddities(
  config: Config,
  policy: PolicyDocument,
  known: readonly string[],
  named: readonly string[],
): string[] {
  const selectors = [...Object.values(policy.roles), ...policy.rules].flatMap(({ allow = [], deny = [] }) => [
    ...allow,
    ...deny,
  ]);
  const strangers = new Set(
    selectors.map(({ server }) => server).filter((name) => !/[*?]/.test(name) && !(name in config.servers)),
  );
  return [
    ...(policy.mode === 'audit'
      ? ['the policy is in audit mode: it records what it would refuse, and refuses nothing']
      : []),
    ...[...strangers].map((name) => `the policy speaks of server ${name}, which is not configured`),
    ...findUnreachable(config).map(
      (type) =>
        `identify: ${type} is never asked, since uid before it knows or refuses every caller: write it before uid`,
    ),
    ...named
      .filter((name) => !known.includes(name))
      .map((name) => `the policy speaks of agent ${name}, which identify does not know`),
  ];
}

/** The ways to know a caller that stand behind `uid`, where that has the last word for everyone who can connect. */
function findUnreachable({ identify, listen }: Config): string[] {
  const isLastWord = listen.mcp.every((one) => one.kind === 'tcp' && isLoopback(one.host));
  const uid = identify.findIndex(({ type }) => type === 'uid');
  if (!isLastWord || uid === -1) return [];
  // The sockets of `socket` are listeners of their own, of which `uid` knows nothing.
  return identify.slice(uid + 1).flatMap(({ type }) => (type === 'socket' ? [] : [type]));
}

function describe(it: Explanation): string {
  return [
    `${it.origin} is valid.\n\n`,
    section('listens on', [...it.listen.mcp, `${it.listen.admin} (probes and metrics)`]),
    section(
      'callers',
      it.identify.length === 0
        ? [`everyone on this machine is ${it.group}`]
        : it.identify.map(({ type, agents }) => `by ${type}: ${agents.join(', ')}`),
    ),
    section(
      'servers',
      it.servers.map(({ name, target, credential }) => `${name}: ${target} (credential: ${credential})`),
    ),
    section('policy', [`${it.policy.file}: mode ${it.policy.mode}, default ${it.policy.default}`]),
    section(
      'agents',
      it.agents.map(({ name, may }) => `${name}: ${may.join(' | ') || 'no role; only what the rules say'}`),
    ),
    section('pins', it.pins.length > 0 ? it.pins : ['none: sidecar pin writes sidecar.lock']),
    section('rules', it.rules),
    section('quotas', it.policy.quotas),
    section('mind', it.warnings),
  ].join('');
}

function section(title: string, lines: readonly string[]): string {
  return lines.length === 0 ? '' : `${title}\n${lines.map((line) => `  ${line}\n`).join('')}`;
}

function showKey(key: PolicyDocument['quotas'][number]['key']): string {
  return key.map((part) => (typeof part === 'string' ? part : part.cel)).join(' and ');
}
