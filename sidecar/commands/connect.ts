/**
 * What `sidecar check --connect` adds: asks each server for its tools, with its credential, and says which of them
 * each agent will see; and whether the store of shared quota is there. Nothing of it stays: children and sockets are gone
 * when it resolves.
 */
import { isVisible } from '../../policies/decide.ts';
import type { Subject, Target } from '../../policies/decision.ts';
import { idOf, listedTarget, listKindOf } from '../../policies/methods.ts';
import type { CompiledPolicy } from '../../policies/policy.ts';
import { ok, type Result } from '../../policies/result.ts';
import type { Loaded } from '../config/assemble.ts';
import type { Lock } from '../config/lock-file.ts';
import type { ToolList } from '../upstream/list-tools.ts';
import { ToolPins } from '../upstream/tool-pins.ts';
import { listServers } from './list-servers.ts';
import { plural } from './output.ts';
import { printable } from './printable.ts';

export type Connection =
  | {
      readonly server: string;
      readonly ok: true;
      readonly era: ToolList['era'];
      readonly protocolVersion: string;
      /** Name and version by its own account. */
      readonly says: string | undefined;
      readonly tools: number;
      /** By sidecar.lock: no agent sees or calls them. */
      readonly blocked: readonly { readonly tool: string; readonly why: string }[];
      readonly agents: readonly {
        readonly name: string;
        readonly sees: readonly string[];
        /** In audit mode: once the policy is enforced. */
        readonly willSee?: readonly string[];
      }[];
    }
  | { readonly server: string; readonly ok: false; readonly problem: string };

export interface Connections {
  /** In the order of the configuration. */
  readonly connections: readonly Connection[];
  /** `undefined` where quota is not shared. */
  readonly quotaStore:
    | { readonly redis: string; readonly ok: true }
    | { readonly redis: string; readonly ok: false; readonly problem: string }
    | undefined;
}

/** Names shown of one agent's tools; `--json` has them all. */
const SHOWN_MAX = 100;

/**
 * @param agents By name. Roles and claims that only a token gives are not known here.
 * @returns the error is one of configuration.
 */
export async function connect(loaded: Loaded, agents: readonly string[]): Promise<Result<Connections, string>> {
  const [listings, quotaStore] = await Promise.all([listServers(loaded), askQuotaStore(loaded)]);
  if (!listings.ok) return listings;
  const subjects = agents.map(
    (name): Subject => ({ agent: { name, group: loaded.config.group, roles: [], claims: {} }, user: undefined }),
  );
  const { config, policy } = loaded;
  const lock = loaded.lock.ok ? loaded.lock.value : undefined;
  const enforced: CompiledPolicy = { ...policy, audit: false };
  return ok({
    quotaStore,
    connections: listings.value.map(({ server, listed }): Connection => {
      if (!listed.ok) return { server, ok: false, problem: `${server} ${listed.error}` };
      const { era, protocolVersion, serverInfo, tools } = listed.value;
      const targets = tools.flatMap((tool) => listedTarget(server, LIST, tool) ?? []);
      const blocked =
        lock === undefined ? new Map<string, string>() : blockedBy(lock, config.pins, server, targets, tools);
      const seenBy = (subject: Subject, policy: CompiledPolicy) =>
        targets.filter((target) => !blocked.has(idOf(target)) && isVisible(policy, subject, target)).map(idOf);
      return {
        server,
        ok: true,
        era,
        protocolVersion,
        says: [serverInfo?.name, serverInfo?.version].filter((part) => typeof part === 'string').join(' ') || undefined,
        tools: tools.length,
        blocked: [...blocked].map(([tool, why]) => ({ tool, why })),
        agents: subjects.map((subject) => ({
          name: subject.agent.name,
          sees: seenBy(subject, policy),
          ...(policy.audit ? { willSee: seenBy(subject, enforced) } : undefined),
        })),
      };
    }),
  });
}

async function askQuotaStore({
  config: { group, quotaStore },
  environment,
}: Loaded): Promise<Connections['quotaStore']> {
  if (quotaStore === 'memory') return undefined;
  const { findTrouble } = await import('../quota/open-redis.ts');
  const { redis } = quotaStore;
  const trouble = await findTrouble(quotaStore, {
    group,
    environment,
    now: () => performance.now(),
    random: Math.random,
  });
  return trouble === undefined ? { redis, ok: true } : { redis, ok: false, problem: `is away (${trouble})` };
}

const LIST = listKindOf('tools/list')!;

/** Which tools are blocked, and why: the judgement that a running sidecar makes. What it would tell is shown here. */
function blockedBy(
  lock: Lock,
  settings: Loaded['config']['pins'],
  server: string,
  targets: readonly Target[],
  tools: readonly unknown[],
): ReadonlyMap<string, string> {
  const pins = new ToolPins(lock, { settings, record: () => {}, log: { warn: () => {} } });
  if (!pins.needsTools(server)) return new Map();
  for (const tool of tools) pins.judge(server, tool);
  return new Map(
    targets.flatMap((target): [string, string][] => {
      const why = pins.refusalOf(server, idOf(target), 'known');
      return why === undefined ? [] : [[idOf(target), why]];
    }),
  );
}

/** Lines for people. What a server wrote is made safe to show. */
export function describeConnection(connection: Connection): string[] {
  if (!connection.ok) return [connection.problem];
  const { server, era, protocolVersion, says, tools, blocked, agents } = connection;
  const itself = says === undefined ? '' : `, ${printable(says)}`;
  return [
    `${server}: revision ${protocolVersion} (${era}), ${plural(tools, 'tool')}${itself}`,
    ...(blocked.length === 0 ? [] : [`  blocked: ${showNames(blocked.map(({ tool, why }) => `${tool} (${why})`))}`]),
    ...agents.map(({ name, sees, willSee }) => {
      const later = willSee === undefined ? '' : `; once the policy is enforced, ${showNames(willSee)}`;
      return `  ${name} sees ${showNames(sees)}${later}`;
    }),
  ];
}

export function describeQuotaStore(store: Connections['quotaStore']): string[] {
  if (store === undefined) return [];
  return [`quota store ${store.redis} ${store.ok ? 'is there' : store.problem}`];
}

function showNames(names: readonly string[]): string {
  if (names.length === 0) return 'none of them';
  const shown = names
    .slice(0, SHOWN_MAX)
    .map((name) => printable(name))
    .join(', ');
  return names.length > SHOWN_MAX ? `${shown} and ${names.length - SHOWN_MAX} more` : shown;
}
