/**
 * Where a policy comes from (a file, a folder, the library of this package, or sidecar.yaml itself), and loading it
 * from there, as often as it changes.
 *
 * A folder is one policy written in several files: roles, agents and other mappings are united, rules and other lists
 * joined, and what stands in two files under one name is refused.
 */
import { readdir, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { type CompiledPolicy, compilePolicy } from '../../policies/compile.ts';
import { err, ok, type Result } from '../../policies/result.ts';
import { packageFolder } from './package-folder.ts';
import { type DocumentProblem, type Problem, showFile, wholeFile } from './problem.ts';
import { readYaml, sentenceOfReadError, type YamlDocument } from './yaml-document.ts';

/** Where `{ env: NAME }` is looked up, and what `env` is in conditions. */
export type Environment = Readonly<Record<string, string | undefined>>;

export type PolicySource =
  /** A file, or a folder of *.yaml. */
  | { readonly kind: 'path'; readonly path: string }
  | { readonly kind: 'inline'; readonly value: unknown; locate(problem: DocumentProblem): Problem };

export interface LoadedPolicy {
  readonly policy: CompiledPolicy;
  /** The document as written (merged, where it was a folder): for explaining it. */
  readonly document: unknown;
  /** What to watch for changes; empty for an inline policy. */
  readonly watch: readonly string[];
}

/** `library/<name>` is this package's; any other text is a path relative to `folder`. */
export function policyPath(text: string, folder: string): string {
  const [, name] = /^library\/([a-z0-9-]+)$/.exec(text) ?? [];
  return name === undefined ? resolve(folder, text) : join(libraryFolder(), `${name}.yaml`);
}

function libraryFolder(): string {
  return join(packageFolder(), 'policies', 'library');
}

/** Reads and compiles. A broken policy is a list of problems with their places, and changes nothing. */
export async function loadPolicy(
  source: PolicySource,
  environment: Environment = process.env,
): Promise<Result<LoadedPolicy, Problem[]>> {
  const read = await readPolicy(source);
  if (!read.ok) return read;
  const { value, watch, locate } = read.value;
  const compiled = compilePolicy(value, { env: environment });
  if (!compiled.ok) return err(compiled.error.map(({ path, message }) => locate({ path, at: 'value', message })));
  return ok({ policy: compiled.value, document: value, watch });
}

interface ReadPolicy {
  readonly value: unknown;
  readonly watch: readonly string[];
  locate(problem: DocumentProblem): Problem;
}

async function readPolicy(source: PolicySource): Promise<Result<ReadPolicy, Problem[]>> {
  if (source.kind === 'inline') return ok({ value: source.value, watch: [], locate: source.locate });
  const status = await stat(source.path).catch(() => undefined);
  if (status?.isDirectory()) return readFolder(source.path);
  if (status === undefined && dirname(source.path) === libraryFolder())
    return err([wholeFile(source.path, `is not in the library of this package: ${(await libraryNames()).join(', ')}`)]);
  const document = await readYaml(source.path);
  return document.ok ? ok({ ...document.value, watch: [source.path] }) : document;
}

async function readFolder(folder: string): Promise<Result<ReadPolicy, Problem[]>> {
  const listed = await listPolicies(folder);
  if (!listed.ok) return err([wholeFile(folder, listed.error)]);
  const names = listed.value;
  if (names.length === 0) return err([wholeFile(folder, 'holds no *.yaml file')]);
  const read = await Promise.all(names.map((name) => readYaml(join(folder, name))));
  const problems = read.flatMap((one) => (one.ok ? [] : one.error));
  if (problems.length > 0) return err(problems);
  const merged = mergeDocuments(read.flatMap((one) => (one.ok ? [one.value] : [])));
  return merged.ok ? ok({ ...merged.value, watch: [folder] }) : merged;
}

/** Files of cases (`*.cases.yaml`) belong to the tests of a policy. */
async function listPolicies(folder: string): Promise<Result<string[], string>> {
  try {
    const names = await readdir(folder);
    return ok(names.filter((name) => /\.ya?ml$/.test(name) && !/\.cases\.ya?ml$/.test(name)).sort());
  } catch (error) {
    return err(sentenceOfReadError(error as NodeJS.ErrnoException));
  }
}

async function libraryNames(): Promise<string[]> {
  const names = await listPolicies(libraryFolder());
  return names.ok ? names.value.map((name) => `library/${name.replace(/\.ya?ml$/, '')}`) : [];
}

interface Origin {
  readonly document: YamlDocument;
  readonly path: readonly (string | number)[];
}

function mergeDocuments(documents: readonly YamlDocument[]): Result<Omit<ReadPolicy, 'watch'>, Problem[]> {
  const merged = new Map<string, unknown>();
  const origins = new Map<string, Origin>();
  const problems: Problem[] = [];

  /** Remembers where a part came from; false (and a problem) when another file has it already. */
  const claim = (mergedPath: readonly (string | number)[], origin: Origin): boolean => {
    const earlier = origins.get(JSON.stringify(mergedPath));
    if (earlier === undefined) origins.set(JSON.stringify(mergedPath), origin);
    else {
      const message = `stands in ${showFile(earlier.document.file)} too`;
      problems.push(origin.document.locate({ path: origin.path, at: 'key', message }));
    }
    return earlier === undefined;
  };

  for (const document of documents) {
    if (!isMapping(document.value)) {
      problems.push(document.locate({ path: [], at: 'value', message: 'must be a mapping' }));
      continue;
    }
    for (const [section, value] of Object.entries(document.value)) {
      const held = merged.get(section);
      const origin = { document, path: [section] };
      if (Array.isArray(value) && (held === undefined || Array.isArray(held))) {
        const items: unknown[] = held ?? [];
        for (const [index, item] of value.entries()) {
          const name = isMapping(item) && typeof item.name === 'string' ? item.name : undefined;
          const from = { document, path: [section, index] };
          if (name !== undefined && !claim([section, 'named', name], from)) continue;
          origins.set(JSON.stringify([section, items.length]), from);
          items.push(item);
        }
        merged.set(section, items);
      } else if (isMapping(value) && (held === undefined || isMapping(held))) {
        const entries = Object.entries(value).filter(([name]) =>
          claim([section, name], { document, path: [section, name] }),
        );
        merged.set(section, { ...held, ...Object.fromEntries(entries) });
      } else if (held === undefined) {
        merged.set(section, value);
        origins.set(JSON.stringify([section]), origin);
      } else if (held !== value) {
        problems.push(document.locate({ path: [section], at: 'key', message: 'differs from what another file says' }));
      }
    }
  }
  if (problems.length > 0) return err(problems);

  const locate = ({ path, at, message }: DocumentProblem): Problem => {
    for (const depth of [2, 1]) {
      const origin = origins.get(JSON.stringify(path.slice(0, depth)));
      if (origin !== undefined)
        return origin.document.locate({ path: [...origin.path, ...path.slice(depth)], at, message });
    }
    return documents[0]!.locate({ path, at, message });
  };
  return ok({ value: Object.fromEntries(merged), locate });
}

function isMapping(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
