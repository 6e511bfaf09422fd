/**
 * Manifests as text → the same manifests with sidecars in (or out of) the pods that ask for one. PURE.
 *
 * What is not touched stays as it came, byte by byte: documents of other kinds, comments, order, line ends. Read as
 * kubectl reads it (YAML 1.1: `yes` is a boolean). What cannot be changed in its place (aliases, merge keys) is a problem
 * with its line, and then nothing of the file is changed.
 */
import { type Document, isAlias, isCollection, isMap, isScalar, Scalar } from 'yaml';
import { err, ok, type Result } from '../policies/result.ts';
import type { Mode } from './container.ts';
import { type Group, isGroupName, readGroup } from './group.ts';
import { type AddOperation, applyPatch, segmentsOf } from './json-patch.ts';
import { parsePart, partsOf, printPart } from './manifest-text.ts';
import { CLIENT_CONFIG, CONTAINER, INJECT, STATUS, VOLUME } from './names.ts';
import type { InjectorOptions } from './options.ts';
import { inject } from './patch.ts';
import { annotationsOf } from './pod.ts';
import { isRaw, isSameJson, plainText, type Raw, rawAt, textAt } from './raw-object.ts';
import { reservedIn } from './refusal.ts';
import { misspeltIn } from './settings.ts';
import { readStatus, uninject } from './uninject.ts';

export interface ManifestProblem {
  readonly file: string;
  readonly line: number | undefined;
  readonly message: string;
}

/** What became of one object with pods in it. */
export interface ManifestNote {
  readonly file: string;
  /** `Deployment triage`. */
  readonly object: string;
  readonly kind: 'injected' | 'updated' | 'present' | 'skipped' | 'notAsked' | 'removed';
  readonly warnings: readonly string[];
}

export interface Rewritten {
  readonly text: string;
  readonly notes: readonly ManifestNote[];
}

/** A group as a manifest has it, and the namespace that it names. */
export interface ManifestGroup {
  readonly namespace: string | undefined;
  readonly group: Result<Group, string>;
}

export interface InjectPorts {
  readonly options: InjectorOptions;
  readonly mode: Mode;
  readonly groups: readonly ManifestGroup[];
}

/** Where the template of a pod stands in an object of each kind. */
const TEMPLATES: Readonly<Record<string, readonly string[]>> = {
  Pod: [],
  Deployment: ['spec', 'template'],
  StatefulSet: ['spec', 'template'],
  DaemonSet: ['spec', 'template'],
  ReplicaSet: ['spec', 'template'],
  ReplicationController: ['spec', 'template'],
  Job: ['spec', 'template'],
  CronJob: ['spec', 'jobTemplate', 'spec', 'template'],
};
const JOBS = new Set(['Job', 'CronJob']);
/** Lists inside lists are nobody's, and a document may not make us recurse for ever. */
const LIST_DEPTH_MAX = 4;

type Path = readonly (string | number)[];

interface Workload {
  readonly object: Raw;
  readonly template: Raw;
  readonly path: Path;
}

/** Puts the sidecar into every pod of the text that asks for it. */
export function injectManifest(file: string, text: string, ports: InjectPorts): Result<Rewritten, ManifestProblem[]> {
  return rewrite(file, text, (workload, document) => {
    const { object, template, path } = workload;
    const wish = annotationsOf(template)[INJECT];
    if (wish !== 'true') {
      if (wish === undefined) return ok(unchanged('notAsked', ...misspeltIn(annotationsOf(template))));
      if (wish === 'false') return ok(unchanged('notAsked'));
      return err(`the annotation ${INJECT} must be "true" or "false", in quotes`);
    }
    const namespace = textAt(rawAt(object, 'metadata'), 'namespace');
    const injected = inject(template, {
      options: ports.options,
      mode: ports.mode,
      groups: ports.groups.filter((one) => isSameNamespace(one.namespace, namespace)).map(({ group }) => group),
      isJob: JOBS.has(plainText(object.kind)),
    });
    if (!injected.ok) return err(injected.error.message);
    if (injected.value.kind === 'skipped') return ok(unchanged('skipped', injected.value.warning));
    if (injected.value.kind === 'present') return ok(unchanged('present'));
    for (const operation of injected.value.operations) {
      const fault = addTo(document, path, operation);
      if (fault !== undefined) return err(fault);
    }
    const after = applyPatch(template, injected.value.operations);
    return ok({ kind: injected.value.kind, warnings: injected.value.warnings, after });
  });
}

/** Takes the sidecar out of every pod of the text. */
export function uninjectManifest(file: string, text: string): Result<Rewritten, ManifestProblem[]> {
  return rewrite(file, text, ({ template, path }, document) => {
    const bare = uninject(template);
    if (bare === template) {
      const fault = leftOver(template);
      return fault === undefined ? ok(unchanged('notAsked')) : err(fault);
    }
    const fault = replaceWith(document, path, template, bare);
    return fault === undefined ? ok({ kind: 'removed', warnings: [], after: bare }) : err(fault);
  });
}

/** Why a pod cannot be freed of what has our names: only its status says what was put there. */
function leftOver(template: Raw): string | undefined {
  const status = readStatus(template);
  const reserved = reservedIn(template);
  if (status === undefined && reserved === undefined) return undefined;
  const why = status?.ok === false ? status.error : `it has no annotation ${STATUS}`;
  return `what an injection put here is not known, since ${why}: remove by hand ${[
    `containers named ${CONTAINER}`,
    `volumes and mounts whose names begin with ${VOLUME}`,
    `and the annotations ${STATUS} and ${CLIENT_CONFIG}`,
  ].join(', ')}`;
}

/** The groups among the objects of a text; a document that cannot be read has none. */
export function groupsInManifest(text: string): readonly ManifestGroup[] {
  return partsOf(text).flatMap((part) => {
    const parsed = parsePart(part);
    if (!parsed.ok) return [];
    return objectsIn(parsed.value.value, [], 0)
      .filter(({ object }) => object.kind === 'ConfigMap')
      .filter(({ object }) => isGroupName(textAt(rawAt(object, 'metadata'), 'name') ?? ''))
      .map(({ object }) => ({ namespace: textAt(rawAt(object, 'metadata'), 'namespace'), group: readGroup(object) }));
  });
}

function isSameNamespace(one: string | undefined, other: string | undefined): boolean {
  return one === undefined || other === undefined || one === other;
}

interface Change {
  readonly kind: ManifestNote['kind'];
  readonly warnings: readonly string[];
  /** The template as it is to be; `undefined`: as it was. */
  readonly after: Raw | undefined;
}

function unchanged(kind: Change['kind'], ...warnings: readonly string[]): Change {
  return { kind, warnings, after: undefined };
}

function rewrite(
  file: string,
  text: string,
  change: (workload: Workload, document: Document) => Result<Change, string>,
): Result<Rewritten, ManifestProblem[]> {
  const notes: ManifestNote[] = [];
  const problems: ManifestProblem[] = [];
  const parts = partsOf(text).map((part): string => {
    const parsed = parsePart(part);
    if (!parsed.ok) {
      problems.push(...parsed.error.map((problem) => ({ file, ...problem })));
      return part.text;
    }
    const { document, value, lineAt } = parsed.value;
    let wanted = value;
    for (const workload of workloadsIn(value)) {
      const name = nameOf(workload.object);
      const changed = change(workload, document);
      if (changed.ok) {
        const { after, ...note } = changed.value;
        if (after !== undefined) wanted = withAt(wanted, workload.path, after);
        notes.push({ file, object: name, ...note });
      } else {
        const node = document.getIn(workload.path, true) as
          | { readonly range?: readonly [number, number, number] }
          | undefined;
        const line = node?.range === undefined ? part.firstLine : lineAt(node.range[0]);
        problems.push({ file, line, message: `${name}: ${changed.error}` });
      }
    }
    if (wanted === value) return part.text;
    const printed = printPart(part, document);
    const reread = printed === undefined ? undefined : parsePart({ ...part, text: printed });
    if (reread?.ok !== true || !isSameJson(reread.value.value, wanted))
      problems.push({ file, line: part.firstLine, message: TIED });
    return printed ?? part.text;
  });
  return problems.length > 0 ? err(problems) : ok({ text: parts.join(''), notes });
}

/** What is behind an anchor changes at each of its aliases. */
const TIED =
  'no part of this document can be changed alone, since anchors (&), aliases (*) or merge keys (<<) tie it to others: write them out';

function withAt(target: unknown, [key, ...rest]: Path, value: unknown): unknown {
  if (key === undefined) return value;
  if (Array.isArray(target)) return target.with(Number(key), withAt(target[Number(key)], rest, value));
  return { ...(target as Raw), [key]: withAt((target as Raw)[key], rest, value) };
}

function* workloadsIn(value: unknown): Generator<Workload> {
  for (const { object, path } of objectsIn(value, [], 0)) {
    const kind = plainText(object.kind);
    if (!Object.hasOwn(TEMPLATES, kind)) continue;
    const template = TEMPLATES[kind]!;
    const found = rawAt(object, ...template);
    if (isRaw(found.spec)) yield { object, template: found, path: [...path, ...template] };
  }
}

/** The object, or those of a List. */
function objectsIn(value: unknown, path: Path, depth: number): { readonly object: Raw; readonly path: Path }[] {
  if (!isRaw(value)) return [];
  if (value.kind !== 'List' || !Array.isArray(value.items)) return [{ object: value, path }];
  if (depth === LIST_DEPTH_MAX) return [];
  return value.items.flatMap((item, index) => objectsIn(item, [...path, 'items', index], depth + 1));
}

function nameOf(object: Raw): string {
  const metadata = rawAt(object, 'metadata');
  return `${plainText(object.kind)} ${textAt(metadata, 'name') ?? textAt(metadata, 'generateName') ?? 'without a name'}`;
}

/** Carries out one operation in its place. @returns why that is not possible. */
function addTo(document: Document, base: Path, { path, value }: AddOperation): string | undefined {
  const segments = [...base, ...segmentsOf(path)];
  const key = segments.at(-1)!;
  const holder = nodeAt(document, segments.slice(0, -1));
  if (typeof holder === 'string') return holder;
  const node = document.createNode(value);
  quoteAmbiguous(node);
  if (isMap(holder)) {
    holder.set(document.createNode(key), node);
    return undefined;
  }
  if (key === '-') holder.items.push(node as never);
  else holder.items.splice(Number(key), 0, node as never);
  return undefined;
}

/** Makes the nodes of the template say `after` where they say `before`, and leaves alone what both have. */
function replaceWith(document: Document, path: Path, before: unknown, after: unknown): string | undefined {
  if (before === after) return undefined;
  if (isRaw(before) && isRaw(after)) {
    const holder = nodeAt(document, path);
    if (typeof holder === 'string') return holder;
    for (const key of Object.keys(before)) {
      if (!Object.hasOwn(after, key)) document.deleteIn([...path, key]);
      else {
        const fault = replaceWith(document, [...path, key], before[key], after[key]);
        if (fault !== undefined) return fault;
      }
    }
    return undefined;
  }
  if (Array.isArray(before) && Array.isArray(after) && after.length <= before.length) {
    const holder = nodeAt(document, path);
    if (typeof holder === 'string') return holder;
    return removeItems(document, path, before, after);
  }
  document.setIn(path, document.createNode(after));
  return undefined;
}

/** Items of a list only ever go: those that are left are the same objects, or ones with less in them. */
function removeItems(
  document: Document,
  path: Path,
  before: readonly unknown[],
  after: readonly unknown[],
): string | undefined {
  const nameAt = (item: unknown) => (isRaw(item) ? item.name : item);
  let kept = 0;
  for (const item of before) {
    if (kept < after.length && nameAt(item) === nameAt(after[kept])) {
      const fault = replaceWith(document, [...path, kept], item, after[kept]);
      if (fault !== undefined) return fault;
      kept++;
    } else document.deleteIn([...path, kept]);
  }
  return undefined;
}

/** The map or list at a path. A sentence where it is not written there itself. */
function nodeAt(document: Document, path: Path) {
  let node: unknown = document.contents;
  for (const [index, segment] of path.entries()) {
    node = isCollection(node) ? node.get(segment, true) : undefined;
    if (isAlias(node))
      return `${path.slice(0, index + 1).join('.')} is an alias (*${node.source}): write it out, so that it can be changed here alone`;
    if (node === undefined) return `${path.slice(0, index + 1).join('.')} comes from a merge key (<<): write it out`;
  }
  return isCollection(node) ? node : `${path.join('.')} must be a mapping or a list`;
}

/** Text that YAML 1.1 would read as something else is quoted by the printer; JSON in an annotation is easier read in single quotes. */
function quoteAmbiguous(node: unknown): void {
  if (isScalar(node) && typeof node.value === 'string' && /^[{[]/.test(node.value)) node.type = Scalar.QUOTE_SINGLE;
  if (isCollection(node))
    for (const item of node.items as readonly { value?: unknown }[])
      quoteAmbiguous(isScalar(item) || isCollection(item) ? item : item.value);
}
