/**
 * What changed between two definitions of a tool, in words for people. Pure.
 *
 * Guarantees: at least one sentence for definitions that differ, none for those that do not; every sentence is one
 * line, shows hidden characters as escapes and is bounded, whatever a server wrote.
 */
import { showHidden } from './hidden-characters.ts';
import { canonicalJson, PINNED_PARTS, type ToolDefinition } from './tool-definition.ts';

type Mapping = Readonly<Record<string, unknown>>;

const CHANGES_MAX = 20;
/** UTF-16 units of a text that are shown, and how many of them before the first that differs. */
const SHOWN_MAX = 120;
const BEFORE_MAX = 30;
const NAME_MAX = 100;

export function describeDrift(before: ToolDefinition, after: ToolDefinition): string[] {
  const changes = PINNED_PARTS.flatMap((part) => {
    const [one, other] = [before[part], after[part]];
    if (isSame(one, other)) return [];
    if (part === 'inputSchema') return schemaChanges({ whole: part, member: 'argument' }, '', one, other);
    if (part === 'outputSchema') return schemaChanges({ whole: part, member: 'result field' }, '', one, other);
    const hints = part === 'annotations' ? hintChanges(one, other) : [];
    return hints.length > 0 ? hints : [change(part, one, other)];
  });
  const rest = changes.length - CHANGES_MAX;
  return rest > 0 ? [...changes.slice(0, CHANGES_MAX), `and ${rest} more`] : changes;
}

function hintChanges(before: unknown = {}, after: unknown = {}): string[] {
  if (!isMapping(before) || !isMapping(after)) return [];
  return keysOf(before, after).map((key) => change(showName(key), ownMember(before, key), ownMember(after, key)));
}

/** The words for the schema as a whole, and for what its properties are. */
interface Subject {
  readonly whole: 'inputSchema' | 'outputSchema';
  readonly member: 'argument' | 'result field';
}

/** @param path Of the property that the schema is for, `a.b`; empty for the schema as a whole. */
function schemaChanges(subject: Subject, path: string, before: unknown, after: unknown): string[] {
  const label = path === '' ? subject.whole : `${subject.member} \`${path}\``;
  if (!isMapping(before) || !isMapping(after)) return [change(label, before, after)];
  const found = propertyChanges(subject, path, before, after);
  for (const key of keysOf(before, after)) {
    const [one, other] = [ownMember(before, key), ownMember(after, key)];
    if (key === 'properties' && isMapping(one ?? {}) && isMapping(other ?? {})) continue;
    if (key === 'required' && !isSame(sortedNames(one), sortedNames(other))) continue;
    if (key === 'items' && isMapping(one) && isMapping(other))
      found.push(...schemaChanges(subject, `${path}[]`, one, other));
    else found.push(change(path === '' ? `${label}.${showName(key)}` : `${label}: ${showName(key)}`, one, other));
  }
  // An empty list of properties that comes or goes says nothing about any property.
  return found.length > 0 ? found : [`${label} is written differently`];
}

function propertyChanges(subject: Subject, path: string, before: Mapping, after: Mapping): string[] {
  const [had, has] = [propertiesOf(before), propertiesOf(after)];
  const [needed, needs] = [requiredOf(before), requiredOf(after)];
  const names = new Set([...Object.keys(had), ...Object.keys(has), ...needed, ...needs]);
  return [...names].flatMap((name): string[] => {
    const [one, other] = [ownMember(had, name), ownMember(has, name)];
    const inner = path === '' ? showName(name) : `${path}.${showName(name)}`.slice(-NAME_MAX).toWellFormed();
    const label = `${subject.member} \`${inner}\``;
    if (one === undefined && other !== undefined)
      return [`${label} (${typeOf(other)}) is new and ${needs.has(name) ? 'required' : 'optional'}`];
    if (one !== undefined && other === undefined) return [`${label} is gone`];
    const found = isSame(one, other) ? [] : schemaChanges(subject, inner, one, other);
    if (needed.has(name) !== needs.has(name))
      found.push(`${label} is ${needs.has(name) ? 'now' : 'no longer'} required`);
    return found;
  });
}

/** One sentence for a member that changed, came or went. */
function change(label: string, before: unknown, after: unknown): string {
  if (before === undefined) return `${label} is new: ${show(after)}`;
  if (after === undefined) return `${label} is gone: it was ${show(before)}`;
  const [one, other] = [textOf(before), textOf(after)];
  const isText = typeof before === 'string' && typeof after === 'string';
  if (!isText && one.length <= SHOWN_MAX && other.length <= SHOWN_MAX)
    return `${label} went from ${show(before)} to ${show(after)}`;
  const at = firstDifference(one, other);
  return `${label} changed: ${excerpt(one, at)} became ${excerpt(other, at)}`;
}

function show(value: unknown): string {
  if (typeof value === 'string') return excerpt(value, 0);
  const json = canonicalJson(value);
  return json.length <= SHOWN_MAX ? oneLine(json) : excerpt(json, 0);
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : canonicalJson(value);
}

function firstDifference(one: string, other: string): number {
  let at = 0;
  while (at < one.length && one[at] === other[at]) at++;
  return at;
}

function excerpt(text: string, at: number): string {
  const from = at - BEFORE_MAX <= 0 ? 0 : wholeFrom(text, at - BEFORE_MAX);
  const to = wholeFrom(text, from + SHOWN_MAX);
  return `"${from > 0 ? '…' : ''}${oneLine(text.slice(from, to))}${to < text.length ? '…' : ''}"`;
}

/** Where a text can be cut without parting the two halves of a character. */
function wholeFrom(text: string, at: number): number {
  const isInside = /^[\ud800-\udbff][\udc00-\udfff]$/.test(text.slice(at - 1, at + 1));
  return Math.min(isInside ? at - 1 : at, text.length);
}

function oneLine(text: string): string {
  return showHidden(text).replaceAll('\r', '\\r').replaceAll('\n', '\\n').replaceAll('\t', '\\t');
}

function showName(name: string): string {
  return oneLine(name.length > NAME_MAX ? `${name.slice(0, wholeFrom(name, NAME_MAX))}…` : name);
}

function typeOf(schema: unknown): string {
  const type = isMapping(schema) ? schema.type : undefined;
  return typeof type === 'string' ? showName(type) : Array.isArray(type) ? showName(type.join(' or ')) : 'of any type';
}

function keysOf(before: Mapping, after: Mapping): string[] {
  const keys = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...keys].filter((key) => !isSame(ownMember(before, key), ownMember(after, key)));
}

/** A schema may well have a property called `constructor`. */
function ownMember(mapping: Mapping, key: string): unknown {
  return Object.hasOwn(mapping, key) ? mapping[key] : undefined;
}

function propertiesOf({ properties }: Mapping): Mapping {
  return isMapping(properties) ? properties : {};
}

function requiredOf(schema: Mapping): ReadonlySet<string> {
  return new Set(sortedNames(ownMember(schema, 'required')));
}

function sortedNames(required: unknown): string[] {
  return Array.isArray(required) ? required.filter((name) => typeof name === 'string').sort() : [];
}

/** As the canonical texts are: the order of members does not matter. Stops at the first difference. */
function isSame(one: unknown, other: unknown): boolean {
  if (Array.isArray(one) && Array.isArray(other))
    return one.length === other.length && one.every((item, index) => isSame(item, other[index]));
  if (!isMapping(one) || !isMapping(other)) return one === other;
  const keys = Object.keys(one);
  return (
    keys.length === Object.keys(other).length &&
    keys.every((key) => Object.hasOwn(other, key) && isSame(one[key], other[key]))
  );
}

function isMapping(value: unknown): value is Mapping {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
