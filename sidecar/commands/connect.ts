/**
 * What `sidecar check --connect` adds: asks each server for its tools, with its credential, and says which of them
 * each agent will see. Nothing of it stays: children and sockets are gone when it resolves.
 */
import { isVisible } from '../../policies/decide.ts';
import type { Subject } from '../../policies/decision.ts';
import { listedTarget, listKindOf } from '../../policies/methods.ts';
import { ok, type Result } from '../../policies/result.ts';
import type { Loaded } from '../config/assemble.ts';
import type { ToolList } from '../upstream/list-tools.ts';
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
      readonly agents: readonly { readonly name: string; readonly sees: readonly string[] }[];
    }
  | { readonly server: string; readonly ok: false; readonly problem: string };

/** Names shown of one agent's tools; `--json` has them all. */
const SHOWN_MAX = 100;

/**
 * @param agents By name. Roles and claims that only a token gives are not known here.
 * @returns the connections in the order of the configuration; the error is one of configuration.
 */
export async function connect(
  loaded: Loaded,
  agents: readonly string[],
): Promise<Result<readonly Connection[], string>> {
  const listings = await listServers(loaded);
  if (!listings.ok) return listings;
  const subjects = agents.map(
    (name): Subject => ({ agent: { name, group: loaded.config.group, roles: [], claims: {} }, user: undefined }),
  );
  return ok(
    listings.value.map(({ server, listed }): Connection => {
      if (!listed.ok) return { server, ok: false, problem: `${server} ${listed.error}` };
      const { era, protocolVersion, serverInfo, tools } = listed.value;
      const targets = tools.flatMap((tool) => listedTarget(server, LIST, tool) ?? []);
      return {
        server,
        ok: true,
        era,
        protocolVersion,
        says: [serverInfo?.name, serverInfo?.version].filter((part) => typeof part === 'string').join(' ') || undefined,
        tools: tools.length,
        agents: subjects.map((subject) => ({
          name: subject.agent.name,
          sees: targets.flatMap((target) =>
            target.kind === 'tool' && isVisible(loaded.policy, subject, target) ? [target.name] : [],
          ),
        })),
      };
    }),
  );
}

const LIST = listKindOf('tools/list')!;

/** Lines for people. What a server wrote is made safe to show. */
export function describeConnection(connection: Connection): string[] {
  if (!connection.ok) return [connection.problem];
  const { server, era, protocolVersion, says, tools, agents } = connection;
  const itself = says === undefined ? '' : `, ${printable(says)}`;
  return [
    `${server}: revision ${protocolVersion} (${era}), ${plural(tools, 'tool')}${itself}`,
    ...agents.map(({ name, sees }) => `  ${name} sees ${showNames(sees)}`),
  ];
}

function showNames(names: readonly string[]): string {
  if (names.length === 0) return 'none of them';
  const shown = names
    .slice(0, SHOWN_MAX)
    .map((name) => printable(name))
    .join(', ');
  return names.length > SHOWN_MAX ? `${shown} and ${names.length - SHOWN_MAX} more` : shown;
}
