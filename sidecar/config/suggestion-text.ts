/**
 * A suggested policy as the text of a policy.yaml, and its cases as that of a *.cases.yaml: with what was seen beside
 * each entry, and what people may want to narrow, widen or bound as comments.
 *
 * Names come from agents and servers. The documents are built as values and never as text, so that no name can be more
 * than a name; in comments it is on one line. What is hidden in a name shows, everywhere.
 */
import { Document, isMap, isSeq, type Pair, type Scalar, stringify, visit, type YAMLMap, type YAMLSeq } from 'yaml';
import { escapeHiddenInJson } from '../../policies/hidden-characters.ts';
import type { Need, Needs, TouchedTool } from '../../policies/needs.ts';
import {
  documentOf,
  onOneLine,
  type SuggestedName,
  type SuggestedRule,
  type Suggestion,
} from '../../policies/suggest.ts';
import type { SuggestedCase } from '../../policies/suggest-cases.ts';
import { narrowingsOf, ratesOf, type Widening, wideningsOf } from '../../policies/suggest-hints.ts';

const FORMAT = {
  lineWidth: 0,
  flowCollectionPadding: true,
  doubleQuotedMinMultiLineLength: Number.POSITIVE_INFINITY,
} as const;

/** @param about Lines for the head of the file. */
export function policyText(suggestion: Suggestion, needs: Needs, about: readonly string[]): string {
  const document = new Document(documentOf(suggestion), { aliasDuplicateObjects: false });
  document.commentBefore = comment([
    ...about,
    'Nothing but what was asked for is allowed, and nothing is allowed to agents that are not named.',
    'An audit does not show quotas, budgets and redactions: take over those of your present policy.',
    ...takeOver(suggestion, needs).map((line) => `${line}.`),
    ...suggestion.leftOut.map(
      ({ need, why }) =>
        `Left out: ${nameOf(need)} for ${shown(need.agent)} (${need.through.count} let through, ${need.refused.count} refused): ${why}.`,
    ),
  ]);
  const root = document.contents as YAMLMap;
  noteRoles(root, suggestion);
  noteRules(root, suggestion);
  return textOf(document) + hints(suggestion, needs);
}

/** Tools that are named in a sentence. */
const TOOLS_SHOWN = 10;

/** What of the present policy is not suggested, or not as a whole, by what of it shows in the audit. */
export function takeOver({ virtualServers }: Suggestion, { touchedTools }: Needs): string[] {
  const by = (did: 'changed' | 'refused', sentence: (count: number, tools: string) => string) => {
    const tools = touchedTools.filter((touched) => touched[did] > 0);
    const count = tools.reduce((sum, touched) => sum + touched[did], 0);
    return count === 0 ? [] : [sentence(count, listOf(tools))];
  };
  return [
    ...by('changed', (count, tools) => {
      const had = count === 1 ? '1 call had its' : `${count} calls had their`;
      return `${had} arguments changed by policy (${tools}): take over its arguments entries`;
    }),
    ...by('refused', (count, tools) => {
      const were = count === 1 ? '1 call was' : `${count} calls were`;
      return `${were} refused by arguments entries of policy (${tools}), and nothing here refuses them: take those entries over`;
    }),
    ...(virtualServers.length === 0
      ? []
      : [
          `Virtual servers hold what was let through there (${virtualServers.map(({ name }) => shown(name)).join(', ')}): compare them with those of your present policy`,
        ]),
  ];
}

function listOf(tools: readonly TouchedTool[]): string {
  const names = tools.slice(0, TOOLS_SHOWN).map(({ server, tool }) => `${shown(server)}.${shown(tool)}`);
  return [...names, ...(tools.length > TOOLS_SHOWN ? [`${tools.length - TOOLS_SHOWN} tools more`] : [])].join(', ');
}

export function casesText(policyFile: string, cases: readonly SuggestedCase[]): string {
  const document = new Document({ policy: policyFile, cases }, { aliasDuplicateObjects: false });
  const list = document.get('cases') as YAMLSeq;
  for (const one of list.items) if (isMap(one)) one.flow = true;
  document.commentBefore = comment([
    'What the policy beside this file has to allow and to refuse, according to the audit that it was made from.',
    'sidecar policy test runs them.',
  ]);
  return textOf(document);
}

function textOf(document: Document): string {
  visit(document, {
    Scalar: (_key, scalar) => {
      if (typeof scalar.value === 'string' && mustBeQuoted(scalar.value)) scalar.type = 'QUOTE_DOUBLE';
    },
  });
  // Between double quotes an escape of JSON is one of YAML, and elsewhere nothing hidden is left.
  return escapeHiddenInJson(document.toString(FORMAT));
}

/** yaml 2.9.1 writes some texts of several lines without quotes inside `{ }`, where they are not YAML. */
function mustBeQuoted(text: string): boolean {
  return text.includes('\n') || escapeHiddenInJson(text) !== text;
}

function noteRoles(root: YAMLMap, { roles }: Suggestion): void {
  for (const [index, { selectors }] of roles.entries())
    for (const [place, { section, names }] of selectors.entries()) {
      const role = (root.get('roles') as YAMLMap).items[index] as Pair<Scalar, YAMLMap>;
      const list = role.value!.getIn(['allow', place, section]) as YAMLSeq<Scalar>;
      for (const [item, name] of names.entries()) list.items[item]!.comment = ` ${seenBy(name)}`;
      if (section === 'resources') list.comment = comment(wideningsOf(names).map(describeWidening));
    }
  const agents = root.get('agents');
  if (isMap(agents)) for (const { value } of agents.items) if (isMap(value)) value.flow = true;
}

function noteRules(root: YAMLMap, { rules }: Suggestion): void {
  const list = root.get('rules');
  if (!isSeq(list)) return;
  for (const [index, rule] of rules.entries()) (list.items[index] as YAMLMap).commentBefore = comment(aboutRule(rule));
  for (const item of list.items)
    if (isMap(item) && isSeq(item.get('allow'))) (item.get('allow') as YAMLSeq).flow = true;
}

function aboutRule({ need }: SuggestedRule): string[] {
  const { refused, earlier } = need;
  return [
    `${nameOf(need)}: ${seenBy({ pattern: need.matter.name, needs: [need] })}`,
    ...(refused.count === 0
      ? ['A rule with a condition, since as an entry of a role it would hold for others too.']
      : [
          `${refused.count} calls were refused. The condition is what tells them apart, and may not be why: look at it.`,
        ]),
    ...(earlier === 0 ? [] : [`${earlier} calls were judged by an earlier policy.`]),
  ];
}

/** Agents that are named in a comment. */
const AGENTS_SHOWN = 3;

/** `12 calls by triage, 3 by writer; 2026-01-07 to 2026-01-09; audit.jsonl sequence 4`. */
function seenBy({ needs }: SuggestedName): string {
  const calls = needs.map(({ agent, through }) => `${through.count} by ${shown(agent)}`);
  const more = calls.length > AGENTS_SHOWN ? [`${calls.length - AGENTS_SHOWN} agents more`] : [];
  const seen = needs.map(({ through }) => through);
  const total = seen.reduce((sum, { count }) => sum + count, 0);
  const hasFailed = seen.every(({ count, failed }) => count === failed) ? ['the answer was always an error'] : [];
  const earlier = needs.reduce((sum, need) => sum + need.earlier, 0);
  const before = earlier === 0 ? [] : [`${earlier} judged by an earlier policy`];
  const { sequence, file } = seen[0]!.first!;
  const first = seen.reduce((least, { first: one }) => Math.min(least, one!.time), Number.POSITIVE_INFINITY);
  const last = seen.reduce((greatest, { last: one }) => Math.max(greatest, one!.time), 0);
  const of = needs.length > 1 ? `${total} calls, ` : '';
  return [
    `${of}${[...calls.slice(0, AGENTS_SHOWN), ...more].join(', ')}`,
    day(first) === day(last) ? day(first) : `${day(first)} to ${day(last)}`,
    `${shown(file)} sequence ${sequence}`,
    ...hasFailed,
    ...before,
  ].join('; ');
}

function describeWidening({ pattern, covers }: Widening): string {
  return `- ${stringify(pattern, FORMAT).trimEnd()} # in place of the ${covers.length} in this folder: wider than the traffic (--widen)`;
}

function hints(suggestion: Suggestion, needs: Needs): string {
  const rules = narrowingsOf(suggestion).map(({ name, need, when }) => ({
    name,
    deny: [{ server: need.server, tools: [need.matter.name] }],
    when,
  }));
  const quotas = ratesOf(suggestion, needs).map(({ agent, callsPerMinute }) => ({
    name: onOneLine(`calls of ${agent}`, 100),
    key: ['agent'],
    calls: `${callsPerMinute}/min`,
    when: `agent.name == ${JSON.stringify(agent)}`,
  }));
  return [
    ...asComment(
      'Narrower: tools whose argument has had few values. Add them to the rules where that is no accident.',
      { rules },
    ),
    ...asComment('Twice what the busiest minutes have seen.', { quotas }),
  ].join('');
}

function asComment(words: string, part: Readonly<Record<string, readonly object[]>>): string[] {
  if (Object.values(part).every((list) => list.length === 0)) return [];
  const document = new Document(part);
  for (const { value } of (document.contents as YAMLMap<unknown, YAMLSeq>).items)
    for (const item of value!.items) (item as YAMLMap).flow = true;
  const lines = [words, ...textOf(document).trimEnd().split('\n')];
  return ['\n', ...lines.map((line) => `# ${line}\n`)];
}

function nameOf({ server, matter }: Need): string {
  return `${matter.kind} ${shown(server)}.${shown(matter.name)}`;
}

/** In a comment. */
function shown(text: string): string {
  return onOneLine(text, 200);
}

function day(time: number): string {
  return new Date(time).toISOString().slice(0, 10);
}

function comment(lines: readonly string[]): string | null {
  return lines.length === 0 ? null : lines.map((line) => ` ${line}`).join('\n');
}
