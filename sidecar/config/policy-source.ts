/**
 * Where a policy comes from (a file, a folder, the library of this package, sidecar.yaml itself, or a signed bundle at a
 * URL), and loading it from there, as often as it changes.
 *
 * A folder is one policy written in several files. A policy takes over all of what it `extends`. Both are merged by
 * policy-merge.ts, so that a compiled policy knows nothing of files.
 */
import { readdir, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { compilePolicy } from '../../policies/compile.ts';
import type { CompiledPolicy } from '../../policies/policy.ts';
import { err, ok, type Result } from '../../policies/result.ts';
import { EXTENDS_PROBLEM, extendsSchema } from '../../policies/schema.ts';
import type { OpenedBundle } from '../bundle/open.ts';
import { packageFolder } from './package-folder.ts';
import { type Layer, mergeLayers, type PolicyText } from './policy-merge.ts';
import { type DocumentProblem, type Problem, showFile, wholeFile } from './problem.ts';
import { NOT_THERE, sentenceOfReadError } from './text-file.ts';
import { readYaml } from './yaml-document.ts';

/** Where `{ env: NAME }` is looked up, and what `env` is in conditions. */
export type Environment = Readonly<Record<string, string | undefined>>;

export type PolicySource =
  /** A file, or a folder of *.yaml. */
  | {
      readonly kind: 'path';
      readonly path: string;
      /** Places a problem in the file that names it, if one does. */
      readonly locate?: (problem: DocumentProblem) => Problem;
    }
  | {
      readonly kind: 'inline';
      readonly value: unknown;
      /** Where relative paths in it start. */
      readonly folder: string;
      locate(problem: DocumentProblem): Problem;
    }
  | BundleSource;

export interface BundleSource {
  readonly kind: 'bundle';
  readonly url: string;
  /** Fit for people: without its query, which may hold what must not be shown. */
  readonly shownUrl: string;
  /** Files of the pinned public keys. */
  readonly keys: readonly string[];
  readonly ca: string | undefined;
  readonly pollMs: number;
  readonly group: string;
  /** The file of the last good bundle. */
  readonly kept: string;
  /** Places a problem in sidecar.yaml. */
  locate(problem: DocumentProblem): Problem;
}

export interface LoadedPolicy {
  readonly policy: CompiledPolicy;
  /** The document as written, merged with the other files of its folder and with what it extends: for explaining it. */
  readonly document: unknown;
  /** Tells where a part of the document was written. */
  readonly locate: (problem: DocumentProblem) => Problem;
  /** Files and folders to watch for changes; none for an inline policy that extends nothing. */
  readonly watch: readonly string[];
  /** What it came in. */
  readonly bundle?: OpenedBundle;
}

/** `library/<name>` is this package's; any other text is a path relative to `folder`. */
export function policyPath(text: string, folder: string): string {
  const [, name] = /^library\/([a-z0-9-]+)$/.exec(text) ?? [];
  return name === undefined ? resolve(folder, text) : join(libraryFolder(), `${name}.yaml`);
}

/** Whether it is there or not. */
export function isInLibrary(path: string): boolean {
  return dirname(path) === libraryFolder();
}

/** About a file that is not there. */
export async function notInLibrary(): Promise<string> {
  return `is not in the library of this package: ${(await libraryNames()).join(', ')}`;
}

export function libraryFolder(): string {
  return join(packageFolder(), 'policies', 'library');
}

/**
 * Reads and compiles. A broken policy is a list of problems with their places, and changes nothing.
 *
 * @param tried Each file and folder that was looked at is added, also when the policy is refused: one that was missing is
 * to be watched too.
 */
export async function loadPolicy(
  source: PolicySource,
  environment: Environment = process.env,
  tried: Set<string> = new Set(),
): Promise<Result<LoadedPolicy, Problem[]>> {
  // Loaded for this alone: few policies come from afar.
  if (source.kind === 'bundle') return (await import('../bundle/open.ts')).openBundle(source, environment);
  const layers = await readLayers(source, tried);
  if (!layers.ok) return layers;
  const merged = mergeLayers(layers.value);
  if (!merged.ok) return merged;
  const { value, locate } = merged.value;
  const compiled = compilePolicy(value, { env: environment });
  if (!compiled.ok) return err(compiled.error.map(locate));
  return ok({ policy: compiled.value, document: value, locate, watch: [...tried] });
}

/** The policy, which comes last, and all that it extends. */
async function readLayers(
  source: Exclude<PolicySource, BundleSource>,
  tried: Set<string>,
): Promise<Result<Layer[], Problem[]>> {
  const reading: Reading = { layers: [], byPath: new Map(), tried, problems: [] };
  if (source.kind === 'inline') await readLayer([{ file: undefined, ...source }], [], reading);
  else {
    tried.add(source.path);
    const texts = await readTexts(source.path);
    if (!texts.ok) return err(texts.error.map((problem) => whereNamed(problem, source)));
    await readLayer(texts.value, [source.path], reading);
  }
  return reading.problems.length > 0 ? err(reading.problems) : ok(reading.layers);
}

/** What is wrong with the file as such (it is not there) is best shown where it is named. */
function whereNamed(problem: Problem, { path, locate }: PolicySource & { readonly kind: 'path' }): Problem {
  if (locate === undefined || problem.line !== undefined || problem.file !== path) return problem;
  const place = locate({ path: ['policy'], at: 'value', message: '' });
  const folder = place.file === undefined ? undefined : dirname(place.file);
  return { ...place, message: `${nameFor(path, problem, folder)} ${problem.message}` };
}

/** What is neither there nor named like a policy could be anything that was written in the wrong place: a secret, say. */
function nameFor(path: string, { message }: Problem, folder?: string): string {
  return message !== NOT_THERE || /\.ya?ml$/.test(path) ? showFile(path, folder) : 'this file or folder';
}

/** So many policies that extend one another in a row. */
const EXTENDS_DEPTH_MAX = 8;

interface Reading {
  /** Each after what it extends. */
  readonly layers: Layer[];
  readonly byPath: Map<string, Layer>;
  readonly tried: Set<string>;
  readonly problems: Problem[];
}

/** @param trail The paths that led here, each of which extends the next. */
async function readLayer(texts: readonly PolicyText[], trail: readonly string[], reading: Reading): Promise<Layer> {
  const bases: Layer[] = [];
  for (const text of texts)
    for (const base of extendedBy(text, reading.problems)) {
      const layer = await readBase(base, trail, reading);
      if (layer !== undefined && !bases.includes(layer)) bases.push(layer);
    }
  const layer = { texts, bases };
  reading.layers.push(layer);
  return layer;
}

/** A policy that another one extends; `problemAt` gives a problem the place where it does. */
interface Base {
  readonly path: string;
  problemAt(message: string): Problem;
}

async function readBase({ path, problemAt }: Base, trail: readonly string[], reading: Reading) {
  const { byPath, tried, problems } = reading;
  const show = (paths: readonly string[]) => paths.map((one) => showFile(one)).join(' → ');
  const known = byPath.get(path);
  if (known !== undefined) return known;
  if (trail.includes(path)) problems.push(problemAt(`extends itself: ${show([...trail, path])}`));
  else if (trail.length > EXTENDS_DEPTH_MAX)
    problems.push(problemAt(`extends more than ${EXTENDS_DEPTH_MAX} policies in a row: ${show([...trail, path])}`));
  else {
    tried.add(path);
    const texts = await readTexts(path);
    if (texts.ok) {
      const layer = await readLayer(texts.value, [...trail, path], reading);
      byPath.set(path, layer);
      return layer;
    }
    // What is wrong with the file as such (it is not there) is best shown where it is named.
    for (const problem of texts.error)
      problems.push(problem.line === undefined ? problemAt(`${nameFor(path, problem)} ${problem.message}`) : problem);
  }
  return undefined;
}

function extendedBy({ value, folder, locate }: PolicyText, problems: Problem[]): Base[] {
  const written = Object(value).extends as unknown;
  if (written === undefined) return [];
  const parsed = extendsSchema.safeParse(written);
  if (!parsed.success) {
    problems.push(locate({ path: ['extends'], at: 'value', message: EXTENDS_PROBLEM }));
    return [];
  }
  return [parsed.data].flat().map((one, index) => ({
    path: policyPath(one, folder),
    problemAt: (message) => locate({ path: ['extends', index], at: 'value', message }),
  }));
}

/** The error of a file or folder that cannot be read has no line. */
async function readTexts(path: string): Promise<Result<readonly PolicyText[], Problem[]>> {
  const status = await stat(path).catch(() => undefined);
  if (status?.isDirectory()) return readFolder(path);
  if (status === undefined && isInLibrary(path)) return err([wholeFile(path, await notInLibrary())]);
  const text = await readText(path);
  return text.ok ? ok([text.value]) : text;
}

async function readText(file: string): Promise<Result<PolicyText, Problem[]>> {
  const document = await readYaml(file);
  return document.ok ? ok({ ...document.value, folder: dirname(file) }) : document;
}

async function readFolder(folder: string): Promise<Result<readonly PolicyText[], Problem[]>> {
  const listed = await listPolicies(folder);
  if (!listed.ok) return err([wholeFile(folder, listed.error)]);
  if (listed.value.length === 0) return err([wholeFile(folder, 'holds no *.yaml file')]);
  const read = await Promise.all(listed.value.map((name) => readText(join(folder, name))));
  const problems = read.flatMap((one) => (one.ok ? [] : one.error));
  return problems.length > 0 ? err(problems) : ok(read.flatMap((one) => (one.ok ? [one.value] : [])));
}

/**
 * Files of cases (`*.cases.yaml`) belong to the tests of a policy. Hidden names are not people's: in the folder of a
 * ConfigMap they are where the files really lie, and what is on its way to be swapped in.
 */
async function listPolicies(folder: string): Promise<Result<string[], string>> {
  try {
    const names = await readdir(folder);
    return ok(names.filter((name) => /^[^.].*\.ya?ml$/.test(name) && !/\.cases\.ya?ml$/.test(name)).sort());
  } catch (error) {
    return err(sentenceOfReadError(error as NodeJS.ErrnoException));
  }
}

async function libraryNames(): Promise<string[]> {
  const names = await listPolicies(libraryFolder());
  return names.ok ? names.value.map((name) => `library/${name.replace(/\.ya?ml$/, '')}`) : [];
}
