/**
 * What the servers list, held against what is pinned of them: the differences of each server in words, and the lock that
 * would have none.
 */
import { describeDrift } from '../../policies/drift.ts';
import { definitionOf, hiddenCharactersOf } from '../../policies/tool-definition.ts';
import { type Lock, type PinnedTool, pin } from '../config/lock-file.ts';
import type { ListedServer } from './list-servers.ts';

export interface ToolChange {
  readonly tool: string;
  readonly kind: 'changed' | 'new' | 'gone';
  /** In words; empty for one that is new or gone. */
  readonly changes: readonly string[];
}

export type ServerChanges =
  | {
      readonly server: string;
      readonly ok: true;
      readonly tools: number;
      readonly wasPinned: boolean;
      readonly changes: readonly ToolChange[];
      /** Where hidden characters are, by tool. */
      readonly hidden: readonly { readonly tool: string; readonly places: readonly string[] }[];
      /** Sentences on what cannot be pinned. */
      readonly problems: readonly string[];
    }
  | { readonly server: string; readonly ok: false; readonly problem: string; readonly kept: number };

export interface PinChanges {
  readonly servers: readonly ServerChanges[];
  /** Servers that are pinned and no longer configured. */
  readonly dropped: readonly string[];
  /** What those that cannot be asked had is kept. */
  readonly lock: Lock;
}

type Tools = ReadonlyMap<string, PinnedTool>;

/** @param isAsked Whether a server was asked; the pins of the others are kept. */
export function findChanges(
  before: Lock,
  listings: readonly ListedServer[],
  isAsked: (server: string) => boolean,
): PinChanges {
  const asked = new Set(listings.map(({ server }) => server));
  const dropped = [...before.keys()].filter((server) => isAsked(server) && !asked.has(server));
  const lock = new Map([...before].filter(([server]) => !dropped.includes(server)));
  const servers = listings.map(({ server, listed }): ServerChanges => {
    const pinned = before.get(server);
    if (!listed.ok) return { server, ok: false, problem: listed.error, kept: pinned?.size ?? 0 };
    const { tools, problems } = pinAll(listed.value.tools);
    lock.set(server, tools);
    const hidden = [...tools].map(([tool, { definition }]) => ({ tool, places: hiddenCharactersOf(definition) }));
    return {
      server,
      ok: true,
      tools: tools.size,
      wasPinned: pinned !== undefined,
      changes: pinned === undefined ? [] : compare(pinned, tools),
      hidden: hidden.filter(({ places }) => places.length > 0),
      problems,
    };
  });
  return { servers, dropped, lock };
}

function pinAll(items: readonly unknown[]): { readonly tools: Tools; readonly problems: string[] } {
  const tools = new Map<string, PinnedTool>();
  const problems: string[] = [];
  for (const [index, item] of items.entries()) {
    const defined = definitionOf(item);
    if (!defined.ok) {
      problems.push(`tool ${index + 1} of its list ${defined.error}, and cannot be pinned`);
      continue;
    }
    const pinned = pin(defined.value);
    const { name } = defined.value.definition;
    const earlier = tools.get(name);
    if (earlier === undefined) tools.set(name, pinned);
    else if (earlier.sha256 !== pinned.sha256)
      problems.push(`tool ${index + 1} of its list has the name of an earlier one and is another: the first is pinned`);
  }
  return { tools, problems };
}

function compare(before: Tools, after: Tools): ToolChange[] {
  const names = [...new Set([...before.keys(), ...after.keys()])].sort();
  return names.flatMap((tool): ToolChange[] => {
    const [one, other] = [before.get(tool), after.get(tool)];
    if (one === undefined) return [{ tool, kind: 'new', changes: [] }];
    if (other === undefined) return [{ tool, kind: 'gone', changes: [] }];
    if (one.sha256 === other.sha256) return [];
    return [{ tool, kind: 'changed', changes: describeDrift(one.definition, other.definition) }];
  });
}
