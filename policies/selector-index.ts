/**
 * Selectors by what they select, so that a target finds its own among ten thousand without asking each: first by server,
 * then by its kind's globs. What is found is a number that the selector was added under: the place of its grant.
 */
import type { Target } from './decision.ts';
import { idOf } from './methods.ts';
import { PatternMap } from './pattern-map.ts';
import type { CompiledSelector, Grant } from './policy.ts';

type ByKind = Partial<Record<Target['kind'], PatternMap<number[]>>>;

const KINDS = ['tool', 'prompt', 'resource', 'method'] as const;

export class SelectorIndex {
  readonly #servers = new PatternMap<ByKind>();

  add(selector: CompiledSelector, place: number): void {
    const byKind = this.#servers.getOrMake(selector.server, () => ({}));
    for (const kind of KINDS)
      for (const pattern of selector[kind]) {
        byKind[kind] ??= new PatternMap();
        byKind[kind].getOrMake(pattern, () => []).push(place);
      }
  }

  /** The places of the selectors that select it: in no order, and one of them perhaps several times. */
  find(target: Target): number[] {
    const id = idOf(target);
    const places: number[] = [];
    for (const byKind of this.#servers.find(target.server))
      for (const found of byKind[target.kind]?.find(id) ?? []) for (const place of found) places.push(place);
    return places;
  }
}

/** Of the rules under `undefined`, of the others under the role that has to be held. */
export type GrantIndex = ReadonlyMap<string | undefined, SelectorIndex>;

export function indexGrants(grants: readonly Grant[]): GrantIndex {
  const byRole = new Map<string | undefined, SelectorIndex>();
  for (const [place, { role, selectors }] of grants.entries()) {
    const index = byRole.get(role) ?? new SelectorIndex();
    byRole.set(role, index);
    for (const selector of selectors) index.add(selector, place);
  }
  return byRole;
}

/** The places of the grants that concern a target and whoever has these roles, in the order of the policy. */
export function placesOf(index: GrantIndex, roles: readonly string[], target: Target): number[] {
  const places = new Set<number>();
  for (const role of [undefined, ...roles]) for (const place of index.get(role)?.find(target) ?? []) places.add(place);
  return [...places].sort((one, other) => one - other);
}
