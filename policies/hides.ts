/**
 * Whether policy may hide some of what a server has from an agent while it lets others through. Then a server's own
 * words for what it does not have would tell a hidden name from an absent one. Pure.
 *
 * Guarantee: never false where a name that nothing spells out is let through and another one is hidden. On the safe side
 * otherwise: a condition that looks at the tool counts as one that hides some.
 *
 * Nothing is hidden in this sense where all that is allowed is allowed by its whole name: every other name is answered
 * alike, whether it exists or not.
 */
import { rolesOf } from './decide.ts';
import type { Subject, Target } from './decision.ts';
import { globOf } from './glob.ts';
import type { CompiledPolicy, Grant } from './policy.ts';

/** What lists show and calls name. */
export type Hideable = Exclude<Target['kind'], 'method'>;

/** Most answers kept: agents' names may come from their tokens. */
const KEPT_MAX = 10_000;

export function mayHide(policy: CompiledPolicy, agent: Subject['agent'], server: string, kind: Hideable): boolean {
  if (policy.within !== undefined) return true;
  if (policy.audit) return false;
  const key = JSON.stringify([kind, server, agent.name, agent.roles]);
  const known = policy.hiding.get(key);
  if (known !== undefined) return known;
  const found = findHiding(policy, agent, server, kind);
  if (policy.hiding.size >= KEPT_MAX) policy.hiding.clear();
  policy.hiding.set(key, found);
  return found;
}

function findHiding(policy: CompiledPolicy, agent: Subject['agent'], server: string, kind: Hideable): boolean {
  const roles = rolesOf(policy, agent);
  const concerned = policy.grants
    .filter(({ audit, role }) => !audit && (role === undefined || roles.includes(role)))
    .map((grant) => ({ grant, globs: globsFor(grant, server, kind) }))
    .filter(({ globs }) => globs.length > 0);
  // One that only looks at the call refuses, and hides nothing.
  const denies = concerned.filter(
    ({ grant }) => grant.effect === 'deny' && (grant.condition === undefined || grant.condition.stable !== undefined),
  );
  if (denies.some(({ grant, globs }) => !isAllOrNothing(grant, globs, kind))) return true;
  if (policy.allowByDefault) return false;
  const allows = concerned.filter(({ grant }) => grant.effect === 'allow');
  const hasAll = allows.some(({ grant, globs }) => globs.includes('*') && grant.condition?.stable === undefined);
  return (
    !hasAll &&
    allows.some(({ grant, globs }) => globs.some((glob) => /[*?]/.test(glob)) && !isAllOrNothing(grant, globs, kind))
  );
}

function globsFor({ selectors }: Grant, server: string, kind: Hideable): readonly string[] {
  return selectors.flatMap((selector) => (globOf(selector.server)(server) ? selector[kind] : []));
}

/** It concerns all that the server has, or none of it: by who asks, and not by what for. */
function isAllOrNothing({ condition }: Grant, globs: readonly string[], kind: Hideable): boolean {
  return globs.includes('*') && (kind !== 'tool' || condition?.looksAtTool !== true);
}
