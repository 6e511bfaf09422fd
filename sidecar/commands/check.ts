/**
 * `sidecar check`: validates the configuration and explains it: where it listens, where it leads, and what each agent
 * may do. Starts nothing and connects to nothing.
 */
import type { Loaded } from '../config/load.ts';
import { discoverConfig } from '../config/discover.ts';
import { formatProblems, showFile } from '../config/problem.ts';
import { showAddress } from '../config/quantity.ts';
import type { Config, ServerConfig } from '../config/schema.ts';
import { looksLikeToken, maskSecrets } from '../config/secret-shapes.ts';

export interface CheckOptions {
  readonly config?: string;
  readonly json: boolean;
}

export async function check({ config, json }: CheckOptions): Promise<number> {
  const loaded = await discoverConfig(config);
  if (!loaded.ok) {
    if (json) writeJson({ ok: false, problems: loaded.error });
    else process.stderr.write(`${formatProblems(loaded.error)}\n`);
    return 2;
  }
  const explanation = explain(loaded.value);
  if (json) writeJson({ ok: true, ...explanation });
  else process.stdout.write(describe(explanation));
  return 0;
}

function writeJson(value: unknown): void {
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
  /** What holds for everyone. */
  readonly rules: readonly string[];
  readonly warnings: readonly string[];
}

/** What of a policy is shown here. The document has passed `compilePolicy`, so that it has this shape. */
interface PolicyText {
  readonly mode?: string;
  readonly default?: string;
  readonly roles?: Readonly<Record<string, { readonly allow?: readonly Scope[]; readonly deny?: readonly Scope[] }>>;
  readonly agents?: Readonly<Record<string, { readonly roles?: readonly string[] }>>;
  readonly rules?: readonly {
    readonly name: string;
    readonly allow?: readonly Scope[];
    readonly deny?: readonly Scope[];
    readonly when?: string;
  }[];
  readonly quotas?: readonly { readonly name: string; readonly calls?: string; readonly tokens?: string }[];
}

interface Scope {
  readonly server?: string;
  readonly tools?: readonly string[];
  readonly prompts?: readonly string[];
  readonly resources?: readonly string[];
}

export function explain({ config, origin, policySource, policyDocument, notes }: Loaded): Explanation {
  const policy = policyDocument as PolicyText;
  const known = identifiedAgents(config);
  const named = Object.keys(policy.agents ?? {});
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
      file: policySource.kind === 'path' ? showFile(policySource.path) : 'inline',
      mode: policy.mode ?? 'enforce',
      default: policy.default ?? 'deny',
      quotas: (policy.quotas ?? []).map(
        ({ name, calls, tokens }) =>
          `${name}: ${[calls && `${calls} calls`, tokens && `${tokens} tokens`].filter(Boolean).join(', ')}`,
      ),
    },
    agents: [...new Set([...known, ...named])].map((name) => ({ name, may: grantsOf(name, policy) })),
    rules: (policy.rules ?? []).map(
      ({ name, allow, deny, when }) =>
        `${name}: ${[...(allow ?? []).map((scope) => `allow ${showScope(scope)}`), ...(deny ?? []).map((scope) => `deny ${showScope(scope)}`)].join('; ')}${when === undefined ? '' : ` when ${when}`}`,
    ),
    warnings: [...notes, ...findOddities(config, policy, known, named)],
  };
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
    const { origin, pathname } = new URL(server.url);
    // Some servers take a key in the query or the path.
    const shown = pathname.split('/').map((part) => (looksLikeToken(part) ? '…' : part));
    return { target: `${origin}${shown.join('/')}`, credential };
  }
  const secrets = Object.entries(server.env).filter(([, value]) => typeof value !== 'string');
  return {
    target: maskSecrets(server.command).join(' '),
    credential: secrets.length === 0 ? 'none' : `env ${secrets.map(([name]) => name).join(', ')}`,
  };
}

function grantsOf(agent: string, { roles = {}, agents = {} }: PolicyText): string[] {
  const held = [...(agents[agent]?.roles ?? []), ...(agents['*']?.roles ?? [])];
  return [...new Set(held)].map((role) => {
    const { allow = [], deny = [] } = roles[role] ?? {};
    const parts = [...allow.map(showScope), ...deny.map((scope) => `not ${showScope(scope)}`)];
    return `${role}: ${parts.join('; ') || 'nothing'}`;
  });
}

function showScope({ server = '*', tools, prompts, resources }: Scope): string {
  const parts = Object.entries({ tools, prompts, resources }).flatMap(([kind, globs]) =>
    globs === undefined ? [] : [`${kind} ${globs.join(', ')}`],
  );
  return `${server === '*' ? 'every server' : server} ${parts.join(' and ') || 'everything'}`;
}

function findOddities(
  config: Config,
  policy: PolicyText,
  known: readonly string[],
  named: readonly string[],
): string[] {
  const scopes = [...Object.values(policy.roles ?? {}), ...(policy.rules ?? [])].flatMap(
    ({ allow = [], deny = [] }) => [...allow, ...deny],
  );
  const strangers = new Set(
    scopes
      .map(({ server }) => server)
      .filter((name) => name !== undefined && !/[*?]/.test(name) && !(name in config.servers)),
  );
  return [
    ...(policy.mode === 'audit'
      ? ['the policy is in audit mode: it records what it would refuse, and refuses nothing']
      : []),
    ...[...strangers].map((name) => `the policy speaks of server ${name}, which is not configured`),
    ...named
      .filter((name) => name !== '*' && !known.includes(name))
      .map((name) => `the policy speaks of agent ${name}, which identify does not know`),
  ];
}

function describe(it: Explanation): string {
  const list = (lines: readonly string[]) => lines.map((line) => `  ${line}\n`).join('');
  const section = (title: string, lines: readonly string[]) => (lines.length === 0 ? '' : `${title}\n${list(lines)}`);
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
    section('rules', it.rules),
    section('quotas', it.policy.quotas),
    section('mind', it.warnings),
  ].join('');
}
