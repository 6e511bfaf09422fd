/**
 * Which agent each container of a pod is, by the user that it runs as. PURE.
 *
 * Guarantees: agents are told apart only where none of them can take the user of another. Otherwise everybody is the
 * group, and a warning says why. Containers that are added later, for debugging or by other webhooks, are not seen here.
 */
import type { Mode } from './container.ts';
import { capabilitiesIn, isLasting, type Place, userOf } from './pod.ts';
import { type Raw, rawAt } from './raw-object.ts';

export interface Agents {
  /** User id to agent name; empty where agents are not told apart. */
  readonly byUser: Readonly<Record<string, string>>;
  readonly warnings: readonly string[];
}

/** @param places The pod's own containers, of which those that last are agents. */
export function agentsOf(pod: Raw, places: readonly Place[], mode: Mode): Agents {
  const users = places
    .filter(isLasting)
    .map(({ container }) => ({ name: String(container.name), user: userOf(pod, container) }));
  if (users.every(({ user }) => user === undefined)) return { byUser: {}, warnings: [] };
  const unnamed = users.filter(({ user }) => user === undefined).map(({ name }) => name);
  if (unnamed.length > 0) return together(`no runAsUser is declared for ${unnamed.join(', ')}`);
  const posers = posersAmong(pod, places, mode);
  if (posers.length > 0) return together(`a container could take the user of another: ${posers.join(', ')}`);

  const byUser: Record<string, string> = {};
  const warnings: string[] = [];
  for (const { name, user } of users) {
    const first = byUser[String(user)];
    if (first === undefined) byUser[String(user)] = name;
    else warnings.push(`mcp-sidecar: ${name} has the runAsUser of ${first}, and counts as the same agent`);
  }
  return { byUser, warnings };
}

function together(why: string): Agents {
  return { byUser: {}, warnings: [`mcp-sidecar: agents are not told apart, since ${why}`] };
}

/** Containers that could call as another one, each with the reason. */
function posersAmong(pod: Raw, places: readonly Place[], mode: Mode): readonly string[] {
  // Init containers run beside a native sidecar, and before a classic one.
  const callers = mode === 'native' ? places : places.filter(isLasting);
  // A container that is alone has nobody to pose as.
  if (callers.length === 1) return [];
  return callers.flatMap(({ container }) => {
    const reason = reasonToDoubt(pod, container);
    return reason === undefined ? [] : [`${String(container.name)} (${reason})`];
  });
}

/** Why a process of the container could get another user; `undefined`: none can. */
function reasonToDoubt(pod: Raw, container: Raw): string | undefined {
  const context = rawAt(container, 'securityContext');
  const user = userOf(pod, container);
  if (user === 0) return 'runs as root';
  const isNonRoot = context.runAsNonRoot ?? rawAt(pod, 'spec', 'securityContext').runAsNonRoot;
  if (user === undefined && isNonRoot !== true) return 'may run as root';
  if (context.allowPrivilegeEscalation !== false) return 'lacks allowPrivilegeEscalation: false';
  const isDropped = capabilitiesIn(context, 'drop').some((one) => one === 'ALL' || one === 'SETUID');
  if (!isDropped || capabilitiesIn(context, 'add').includes('SETUID')) return 'keeps the capability SETUID';
  return undefined;
}
