/**
 * The least privilege that recorded requests need, as a policy. Pure; the words around it are the caller's.
 *
 * Agents with equal needs share a role. Names are exact: one that a glob would read otherwise (`*`, `?`, very long) gets a
 * rule with a condition, and so does what was let through for some calls and refused for others, where a condition tells
 * them apart. Where none does, it is left out, and said to be. So judging the same requests again changes nothing but
 * what was left out, and what an earlier policy had judged otherwise.
 */
import { compileCondition } from './cel.ts';
import { GLOB_MAX, globProblem } from './glob.ts';
import { showHidden } from './hidden-characters.ts';
import type { Need, Needs } from './needs.ts';
import { celText, type Example, separate } from './separate.ts';
import { normaliseUri } from './uri.ts';

/** An entry of `tools`, `prompts`, `resources` or `methods`, and the needs behind it. */
export interface SuggestedName {
  readonly pattern: string;
  readonly needs: readonly Need[];
}

export interface SuggestedSelector {
  readonly server: string;
  readonly section: Section;
  readonly names: readonly SuggestedName[];
}

export interface SuggestedRole {
  readonly name: string;
  readonly agents: readonly string[];
  readonly selectors: readonly SuggestedSelector[];
}

export interface SuggestedRule {
  readonly name: string;
  readonly server: string;
  readonly section: Section;
  readonly patterns: readonly string[];
  readonly when: string;
  readonly need: Need;
  /** What a request needs for the rule to hold; `undefined` when that is too much to show. */
  readonly example: Example | undefined;
}

/** Of what was let through at its endpoint, by whomever. */
export interface SuggestedVirtualServer {
  readonly name: string;
  /** `<server>.<glob>` */
  readonly tools: readonly string[];
  readonly prompts: readonly string[];
  readonly resources: readonly { readonly server: string; readonly uris: readonly string[] }[];
}

export interface Suggestion {
  readonly roles: readonly SuggestedRole[];
  readonly virtualServers: readonly SuggestedVirtualServer[];
  readonly rules: readonly SuggestedRule[];
  /** Was let through for some calls, and is not suggested. */
  readonly leftOut: readonly { readonly need: Need; readonly why: string }[];
}

export type Section = 'tools' | 'prompts' | 'resources' | 'methods';
const SECTIONS = { tool: 'tools', prompt: 'prompts', resource: 'resources', method: 'methods' } as const;

export function suggest(needs: Needs): Suggestion {
  const exact = new Map<string, Need[]>();
  const rules: SuggestedRule[] = [];
  const leftOut: { need: Need; why: string }[] = [];
  const nameOf = uniqueNames();
  const refused = new Set(needs.all.filter((need) => need.refused.count > 0).map((need) => keyOf(need)));
  for (const need of needs.all) {
    if (need.through.count === 0) continue;
    const exactly = isExact(need, refused);
    if (need.refused.count === 0 && isAgentKey(need.agent) && isServerName(need.server) && exactly) {
      listIn(exact, need.agent).push(need);
      continue;
    }
    const rule: SuggestedRule | { readonly why: string } = isServerName(need.server)
      ? ruleFor(need, exactly, nameOf)
      : { why: 'its server has a name that no server of a sidecar can have' };
    if ('why' in rule) leftOut.push({ need, why: rule.why });
    else rules.push(rule);
  }
  return { roles: rolesOf(exact, nameOf), virtualServers: virtualServersOf(needs), rules, leftOut };
}

/** The policy as its compiler takes it. */
export function documentOf({ roles, virtualServers, rules }: Suggestion): Readonly<Record<string, unknown>> {
  return {
    version: 1,
    default: 'deny',
    roles: Object.fromEntries(
      roles.map(({ name, selectors }) => [
        name,
        {
          allow: selectors.map(({ server, section, names }) => ({
            server,
            [section]: names.map(({ pattern }) => pattern),
          })),
        },
      ]),
    ),
    agents: Object.fromEntries(roles.flatMap(({ name, agents }) => agents.map((agent) => [agent, { roles: [name] }]))),
    ...(virtualServers.length === 0
      ? undefined
      : { virtualServers: Object.fromEntries(virtualServers.map(virtualDocumentOf)) }),
    rules: rules.map(({ name, server, section, patterns, when }) => ({
      name,
      allow: [{ server, [section]: patterns }],
      when,
    })),
  };
}

function virtualDocumentOf({ name, ...members }: SuggestedVirtualServer): [string, object] {
  return [name, Object.fromEntries(Object.entries(members).filter(([, list]) => list.length > 0))];
}

/** A virtual server has to name something, and of this one only the lists were asked for. */
const NO_URI = 'nothing:';

function virtualServersOf(needs: Needs): SuggestedVirtualServer[] {
  const all = needs.all.filter(({ server }) => isServerName(server));
  const named = [...needs.serverOfVirtual].filter((names) => names.every(isServerName));
  return named.map(([name, server]) => {
    const members = all.filter(({ virtuals }) => virtuals.has(name));
    const qualified = (kind: Need['matter']['kind']) =>
      inOrder(
        members
          .filter(({ matter }) => matter.kind === kind)
          .flatMap((need) => patternsOf(need).map((glob) => `${need.server}.${glob}`)),
      );
    const uris = new Map<string, string[]>();
    for (const need of members)
      if (need.matter.kind === 'resource') listIn(uris, need.server).push(...patternsOf(need));
    const tools = qualified('tool');
    const prompts = qualified('prompt');
    if (tools.length + prompts.length + uris.size === 0) uris.set(server, [NO_URI]);
    const resources = [...uris].map(([of, found]) => ({ server: of, uris: inOrder(found) }));
    return { name, tools, prompts, resources };
  });
}

/** Each once, and no more than there may be. */
function inOrder(texts: readonly string[]): string[] {
  return [...new Set(texts)].sort().slice(0, NAMES_MAX);
}

function rolesOf(exact: ReadonlyMap<string, readonly Need[]>, nameOf: (name: string) => string): SuggestedRole[] {
  const clusters = new Map<string, { agents: string[]; needs: Need[] }>();
  for (const [agent, needs] of [...exact].sort(([one], [other]) => compare(one, other))) {
    const signature = needs
      .map(({ server, matter }) => JSON.stringify([server, matter.kind, matter.name]))
      .sort()
      .join();
    const cluster = clusters.get(signature) ?? { agents: [], needs: [] };
    clusters.set(signature, cluster);
    cluster.agents.push(agent);
    cluster.needs.push(...needs);
  }
  return [...clusters.values()].map(({ agents, needs }) => ({
    // Not the agent's name alone: a role of that name may be brought by somebody's identity.
    name: nameOf(`needs of ${agents.length > 2 ? `${agents[0]} and ${agents.length - 1} more` : agents.join(' and ')}`),
    agents,
    selectors: selectorsOf(needs),
  }));
}

/** The policy language takes no more in one list. */
const NAMES_MAX = 1000;

function selectorsOf(needs: readonly Need[]): SuggestedSelector[] {
  const groups = new Map<string, { server: string; section: Section; byName: Map<string, Need[]> }>();
  for (const need of needs) {
    const { server, matter } = need;
    const section = SECTIONS[matter.kind];
    const key = `${server} ${section}`;
    const group = groups.get(key) ?? { server, section, byName: new Map<string, Need[]>() };
    groups.set(key, group);
    listIn(group.byName, matter.name).push(need);
  }
  const sorted = [...groups].sort(([one], [other]) => compare(one, other)).map(([, group]) => group);
  return sorted.flatMap(({ server, section, byName }) => {
    const names = [...byName]
      .sort(([one], [other]) => compare(one, other))
      .map(([pattern, behind]) => ({ pattern, needs: behind }));
    return chunksOf(names, NAMES_MAX).map((chunk) => ({ server, section, names: chunk }));
  });
}

function ruleFor(
  need: Need,
  exactly: boolean,
  nameOf: (name: string) => string,
): SuggestedRule | { readonly why: string } {
  const { agent, server, matter, through, refused } = need;
  const separation = refused.count === 0 ? { condition: undefined, example: {} } : separate(through, refused);
  if (separation === undefined)
    return { why: 'some calls were let through and some refused, and nothing recorded tells them apart' };
  const conditions = [
    `agent.name == ${celText(agent)}`,
    ...(exactly ? [] : [exactCondition(need)]),
    ...(separation.condition === undefined ? [] : [separation.condition]),
  ];
  const when = conditions.join(' && ');
  if (!compileCondition(when).ok) return { why: 'its name or its arguments cannot be written as a condition' };
  return {
    name: nameOf(`${agent}: ${server}.${matter.name}`),
    server,
    section: SECTIONS[matter.kind],
    patterns: patternsOf(need),
    when,
    need,
    example: separation.example,
  };
}

/** As the key of a mapping in YAML, and not every agent's. */
function isAgentKey(name: string): boolean {
  return name.length > 0 && name.length <= NAME_MAX && name !== '*' && name !== '__proto__' && name.isWellFormed();
}

function isServerName(name: string): boolean {
  return /^[a-z0-9][a-z0-9-]{0,62}$/.test(name);
}

/**
 * The name as a glob matches itself and nothing else. That of a resource matches its normal form too, which must not have
 * been refused.
 */
function isExact(need: Need, refused: ReadonlySet<string>): boolean {
  const spellings = spellingsOf(need.matter);
  return spellings.every((name) => isLiteral(name) && (name === need.matter.name || !refused.has(keyOf(need, name))));
}

function keyOf({ agent, server, matter }: Need, name = matter.name): string {
  return JSON.stringify([agent, server, matter.kind, name]);
}

function isLiteral(name: string): boolean {
  return globProblem(name) === undefined && !/[*?]/.test(name) && name.isWellFormed();
}

function spellingsOf({ kind, name }: Need['matter']): string[] {
  return kind === 'resource' ? [...new Set([name, normaliseUri(name)])] : [name];
}

/** Globs that match the name, as narrow as they can be. */
function patternsOf({ matter }: Need): string[] {
  const patterns = spellingsOf(matter).map((name) => {
    if (name === '') return '*';
    const visible = name.replace(/[\u0000-\u001f\u007f]|\p{Surrogate}/gu, '?');
    return visible.length > GLOB_MAX ? `${visible.slice(0, GLOB_MAX - 1).replace(/[\ud800-\udbff]$/, '')}*` : visible;
  });
  return [...new Set(patterns)];
}

/** That it is this name and no other, by each method that was seen. */
function exactCondition({ matter: { kind, name }, through }: Need): string {
  const text = celText(name);
  if (kind === 'tool') return `tool.name == ${text}`;
  if (kind === 'method') return `method == ${text}`;
  const field = kind === 'prompt' ? 'name' : 'uri';
  const methods = [...(through.methods.all ?? [])].sort();
  const alternatives = methods.map((method) => {
    const same =
      method === 'completion/complete'
        ? `body.params.ref.${field} == ${text}`
        : method === 'subscriptions/listen'
          ? `${text} in body.params.notifications.resourceSubscriptions`
          : `body.params.${field} == ${text}`;
    return `method == ${celText(method)} && ${same}`;
  });
  return `(${alternatives.join(' || ')})`;
}

/** The policy language takes no longer names of roles, rules and agents. */
const NAME_MAX = 100;

/** For people: what is hidden in it shows. */
export function onOneLine(text: string, lengthMax: number): string {
  return showHidden(text.slice(0, lengthMax))
    .replace(/[\n\r\t]/g, ' ')
    .slice(0, lengthMax)
    .toWellFormed();
}

/** Makes names that fit, and that differ from all that it has made before. */
function uniqueNames(): (name: string) => string {
  const taken = new Map<string, number>();
  return (wanted) => {
    const base = onOneLine(wanted, NAME_MAX - 12);
    for (;;) {
      const count = (taken.get(base) ?? 0) + 1;
      taken.set(base, count);
      const name = count === 1 ? base : `${base} (${count})`;
      if (count === 1 || !taken.has(name)) {
        if (count > 1) taken.set(name, 1);
        return name;
      }
    }
  };
}

function chunksOf<T>(items: readonly T[], size: number): (readonly T[])[] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, index) =>
    items.slice(index * size, (index + 1) * size),
  );
}

function listIn<T>(lists: Map<string, T[]>, key: string): T[] {
  const known = lists.get(key);
  if (known !== undefined) return known;
  const list: T[] = [];
  lists.set(key, list);
  return list;
}

function compare(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}
