/**
 * What could be narrower, wider or bounded in a suggested policy, for people to decide on. Pure. Nothing of it is in
 * force: it would be a guess, or change what the recorded requests get.
 */
import type { Need, Needs } from './needs.ts';
import { celText } from './separate.ts';
import { onOneLine, type SuggestedName, type Suggestion } from './suggest.ts';

/** A rule that would let through only what an argument has always been. */
export interface Narrowing {
  readonly name: string;
  readonly need: Need;
  readonly when: string;
}

/** Calls, and values among them, from which a habit is one. */
const CALLS_MIN = 20;
const VALUES_MAX = 3;
const NARROWINGS_MAX = 100;

export function narrowingsOf({ roles }: Suggestion): Narrowing[] {
  const needs = roles.flatMap(({ selectors }) => selectors.flatMap(({ names }) => names.flatMap((name) => name.needs)));
  return needs.flatMap(narrowingsFor).slice(0, NARROWINGS_MAX);
}

function narrowingsFor(need: Need): Narrowing[] {
  const { agent, server, matter, through } = need;
  if (matter.kind !== 'tool' || through.count < CALLS_MIN) return [];
  return [...(through.args ?? [])].flatMap(([argument, { count, values }]) => {
    const texts = [...(values.all ?? [])].filter((value) => typeof value === 'string');
    const isHabit = count === through.count && texts.length === values.all?.size && texts.length <= VALUES_MAX;
    if (!isHabit) return [];
    const held = `args[${celText(argument)}] in [${texts.sort().map(celText).join(', ')}]`;
    return [
      {
        name: onOneLine(`${agent}: ${server}.${matter.name} only with the usual ${argument}`, 100),
        need,
        when: `agent.name == ${celText(agent)} && !(${held})`,
      },
    ];
  });
}

/** A glob in place of several resources in one folder. Wider than what was asked for. */
export interface Widening {
  readonly pattern: string;
  readonly covers: readonly SuggestedName[];
}

const COVERED_MIN = 5;

export function wideningsOf(names: readonly SuggestedName[]): Widening[] {
  const folders = new Map<string, SuggestedName[]>();
  for (const name of names) {
    const folder = name.pattern.slice(0, name.pattern.lastIndexOf('/') + 1);
    const inside = folders.get(folder);
    if (inside !== undefined) inside.push(name);
    else if (isFolder(folder)) folders.set(folder, [name]);
  }
  return [...folders]
    .filter(([, inside]) => inside.length >= COVERED_MIN)
    .map(([folder, covers]) => ({ pattern: `${folder}*`, covers }));
}

/** Below an authority: `file:///docs/`, `https://host/a/`, and not all of a scheme or host. */
function isFolder(text: string): boolean {
  return /^[a-z][a-z0-9+.-]*:(?:\/\/[^/]*\/|\/(?!\/)|(?!\/))[^/].*\/$/i.test(text) && text.length < 200;
}

/** A quota that the busiest minutes of an agent would not have reached. */
export interface RateHint {
  readonly agent: string;
  readonly callsPerMinute: number;
}

const CALLS_PER_MINUTE_MIN = 10;
const RATES_MAX = 100;

export function ratesOf({ roles }: Suggestion, needs: Needs): RateHint[] {
  return roles
    .flatMap(({ agents }) => agents)
    .slice(0, RATES_MAX)
    .map((agent) => ({ agent, callsPerMinute: Math.max(CALLS_PER_MINUTE_MIN, 2 * needs.busiestMinuteOf(agent)) }));
}

/** The suggestion with globs in place of what they cover. */
export function widen(suggestion: Suggestion): Suggestion {
  return {
    ...suggestion,
    roles: suggestion.roles.map((role) => ({
      ...role,
      selectors: role.selectors.map((selector) => {
        if (selector.section !== 'resources') return selector;
        const widenings = wideningsOf(selector.names);
        const covered = new Set(widenings.flatMap(({ covers }) => covers));
        const globs = widenings.map(({ pattern, covers }) => ({
          pattern,
          needs: covers.flatMap(({ needs }) => needs),
        }));
        return { ...selector, names: [...globs, ...selector.names.filter((name) => !covered.has(name))] };
      }),
    })),
  };
}
