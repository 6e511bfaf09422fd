/**
 * What a configuration means, in words: where it listens and leads, who may do what, what is odd about it. For `check`
 * and for what `run` greets with.
 */
import { basename } from 'node:path';
import { type PolicyDocument, policySchema } from '../../policies/schema.ts';
import type { OpenedBundle } from '../bundle/open.ts';
import type { Loaded } from '../config/assemble.ts';
import { isInLibrary, type PolicySource } from '../config/policy-source.ts';
import { showFile } from '../config/problem.ts';
import { isLoopback, showAddress } from '../config/quantity.ts';
import type { Config, ServerConfig } from '../config/schema.ts';
import { maskSecrets, showUrl } from '../config/secret-shapes.ts';
import { withoutEndpoint } from '../config/virtual-endpoint.ts';
import { describePins } from './pin-text.ts';

export interface Summary {
  readonly origin: string;
  readonly group: string;
  readonly listen: { readonly mcp: readonly string[]; readonly admin: string };
  readonly identify: readonly { readonly type: string; readonly agents: readonly string[] }[];
  readonly servers: readonly { readonly name: string; readonly target: string; readonly credential: string }[];
  readonly policy: {
    readonly file: string;
    readonly mode: string;
    readonly default: string;
    /** What else it is made of: the files of its folder, and what it extends. */
    readonly extends: readonly string[];
    readonly quotas: readonly string[];
    /** Where what is spent of them is counted. */
    readonly counted: string;
  };
  readonly agents: readonly { readonly name: string; readonly may: readonly string[] }[];
  /** Of the tools; empty without a lock. */
  readonly pins: readonly string[];
  /** What holds for everyone. */
  readonly rules: readonly string[];
  /** What is done to arguments. */
  readonly arguments: readonly string[];
  readonly prices: readonly string[];
  readonly redact: readonly string[];
  readonly warnings: readonly string[];
}

export type Selector = NonNullable<PolicyDocument['rules'][number]['allow']>[number];

export function summarize({
  config,
  origin,
  policy: compiled,
  policySource,
  policyDocument,
  watch,
  bundle,
  lock,
  notes,
}: Loaded): Summary {
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
      extends: watch.filter((path) => policySource.kind !== 'path' || path !== policySource.path).map(showPolicyFile),
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
        ...policy.budgets.map(({ name, key, cost }) => `${name}, for each ${showKey(key)}: cost ${cost}`),
      ],
      counted: showStore(config),
    },
    pins: describePins({ config, lock }),
    agents: [...new Set([...known, ...named])].map((name) => ({ name, may: grantsOf(name, policy) })),
    rules: policy.rules.map(({ name, allow = [], deny = [], when, mode }) => {
      const condition = when === undefined ? '' : ` when ${showCondition(when)}`;
      return `${name}: ${showEffects(allow, deny)}${condition}${mode === 'audit' ? ' (recorded only)' : ''}`;
    }),
    arguments: policy.arguments.map(({ name, server, tools, remove = [], set = {}, validate }) => {
      const done = [
        ...(remove.length > 0 ? [`remove ${remove.join(', ')}`] : []),
        ...(Object.keys(set).length > 0 ? [`set ${Object.keys(set).join(', ')}`] : []),
        ...(validate === true ? ['validate'] : []),
      ];
      return `${name}, ${showSelector({ server, tools })}: ${done.join('; ')}`;
    }),
    prices: policy.prices.map(({ server, tools, perCall, perThousandTokens }) => {
      const price = [
        ...(perCall > 0 ? [`${perCall} per call`] : []),
        ...(perThousandTokens > 0 ? [`${perThousandTokens} per 1000 tokens`] : []),
      ];
      return `${showSelector({ server, tools })}: ${price.join(', ')}`;
    }),
    redact: policy.redact.map(({ server, tools = ['*'], arguments: args = [], result = [] }) => {
      const places = [
        ...(args.length > 0 ? [`arguments ${args.join(', ')}`] : []),
        ...(result.length > 0 ? [`result ${result.join(', ')}`] : []),
      ];
      return `${showSelector({ server, tools })}: ${places.join('; ')}`;
    }),
    warnings: [
      ...notes,
      ...oddityOf(bundle),
      ...findOddities(config, policy, known, named),
      ...withoutEndpoint(compiled, (server) => Object.hasOwn(config.servers, server)),
    ],
  };
}

function showStore({ quotaStore, state }: Config): string {
  if (quotaStore === 'memory') return `counted here, and kept in ${showFile(state)}`;
  const { redis, lease, onStoreFailure } = quotaStore;
  const share = lease === undefined ? 'asked for every call' : `asked for ${lease} of a limit at a time`;
  const away = onStoreFailure === 'refuse' ? 'calls are refused' : 'each sidecar counts by itself';
  return `counted by ${redis} for all replicas, ${share}; while it is away, ${away}`;
}

function showSource(source: PolicySource, bundle: OpenedBundle | undefined): string {
  if (source.kind === 'path') return showFile(source.path);
  return source.kind === 'inline' ? 'inline' : `${source.shownUrl} (version ${bundle?.bundle.version})`;
}

/** As a policy names it. */
export function showPolicyFile(file: string): string {
  return isInLibrary(file) ? `library/${basename(file, '.yaml')}` : showFile(file);
}

function oddityOf(bundle: OpenedBundle | undefined): string[] {
  if (bundle?.insteadOf === undefined) return [];
  return [`the policy is the copy kept of version ${bundle.bundle.version}: ${bundle.insteadOf}`];
}

export function identifiedAgents(config: Pick<Config, 'identify' | 'group'>): string[] {
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

/** On one line, however many it is written on. */
export function showCondition(when: string): string {
  return when.trim().replace(/\s*\n\s*/g, ' ');
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
    ...policy.rules
      .filter((rule) => policy.mode === 'audit' && rule.mode === 'enforce')
      .map(
        ({ name }) => `rule ${name} says mode: enforce, which has no effect while the whole policy is in audit mode`,
      ),
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

function showKey(key: PolicyDocument['quotas'][number]['key']): string {
  return key.map((part) => (typeof part === 'string' ? part : part.cel)).join(' and ');
}
