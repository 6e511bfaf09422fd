/**
 * A document in the shape of sidecar.yaml → a frozen configuration with its policy, or every problem at once with its place.
 *
 * Guarantees: what comes out is whole: all referenced files and variables are there. Secrets are looked at only to
 * see that they exist; their values stay where they are.
 */
import { access, constants, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { CompiledPolicy } from '../../policies/compile.ts';
import { err, ok, type Result } from '../../policies/result.ts';
import { type Environment, loadPolicy, type PolicySource, policyPath } from './policy-source.ts';
import { type DocumentProblem, type Problem, problemsOfIssues } from './problem.ts';
import { type Config, findConflicts, sidecarYaml } from './schema.ts';
import type { YamlDocument } from './yaml-document.ts';

export interface Loaded {
  readonly config: Config;
  readonly policy: CompiledPolicy;
  /** For loading the policy again: `loadPolicy(policySource, environment)`. */
  readonly policySource: PolicySource;
  /** The policy as written: for explaining it. */
  readonly policyDocument: unknown;
  /** Files and folders whose change asks for that. */
  readonly watch: readonly string[];
  /** Where `{ env: NAME }` is looked up: the process's own variables, and what an import brought along. */
  readonly environment: Environment;
  readonly origin: { readonly kind: 'sidecarYaml' | 'mcpJson' | 'demo'; readonly file: string | undefined };
  /** What people should hear at each start: dangerous switches, what an import changed or left out. */
  readonly notes: readonly string[];
}

/** Judges a document in the shape of sidecar.yaml, wherever it came from. Relative paths start at its file's folder. */
export async function assemble(
  document: YamlDocument,
  { environment, origin, notes }: Pick<Loaded, 'environment' | 'origin' | 'notes'>,
): Promise<Result<Loaded, Problem[]>> {
  const folder = dirname(document.file);
  const judged = judge(document, folder);
  if (!judged.ok) return judged;
  const config = judged.value;
  const policySource = sourceOfPolicy(config.policy, folder, document);
  const [missing, loaded] = await Promise.all([
    findMissing(config, environment),
    loadPolicy(policySource, environment),
  ]);
  const problems = missing.map(document.locate).sort(byPlace);
  if (!loaded.ok) return err([...problems, ...loaded.error]);
  if (problems.length > 0) return err(problems);
  return ok({
    config,
    policy: loaded.value.policy,
    policySource,
    policyDocument: loaded.value.document,
    watch: loaded.value.watch,
    environment,
    origin,
    notes: [...notes, ...dangers(config)],
  });
}

/** The schema, and what only shows between sections: also where another section has a problem of its own. */
function judge(document: YamlDocument, folder: string): Result<Config, Problem[]> {
  const schema = sidecarYaml(folder);
  const parsed = schema.safeParse(document.value);
  const listening = schema.pick({ listen: true, identify: true }).strip().safeParse(document.value);
  const problems = [
    ...(parsed.success ? [] : problemsOfIssues(parsed.error.issues, document.value, schema)),
    ...(listening.success ? findConflicts(listening.data) : []),
  ].map(document.locate);
  if (!parsed.success || problems.length > 0) return err(problems.sort(byPlace));
  return ok(freeze(parsed.data));
}

function byPlace(left: Problem, right: Problem): number {
  return (left.line ?? 0) - (right.line ?? 0) || (left.column ?? 0) - (right.column ?? 0);
}

function sourceOfPolicy(policy: Config['policy'], folder: string, document: YamlDocument): PolicySource {
  if (typeof policy === 'string') return { kind: 'path', path: policyPath(policy, folder) };
  const locate = (problem: DocumentProblem) => document.locate({ ...problem, path: ['policy', ...problem.path] });
  return { kind: 'inline', value: policy, locate };
}

function dangers(config: Config): string[] {
  return Object.entries(config.servers).flatMap(([name, server]) =>
    server.kind === 'http' && server.dangerouslyAllowHttp
      ? [`dangerouslyAllowHttp: the credential of server ${name} may travel over plain http, where others can read it`]
      : [],
  );
}

/** Everything that the configuration refers to and that is not there. */
async function findMissing(config: Config, environment: Environment): Promise<DocumentProblem[]> {
  const checks: Promise<DocumentProblem | undefined>[] = [];
  const check = (path: readonly (string | number)[], found: Promise<string | undefined>) =>
    checks.push(found.then((message) => (message === undefined ? undefined : { path, at: 'value', message })));

  const walk = (value: unknown, path: readonly (string | number)[]): void => {
    if (typeof value !== 'object' || value === null) return;
    const { file, env } = value as { file?: unknown; env?: unknown };
    if (typeof file === 'string') check([...path, 'file'], faultOfFile(file));
    else if (typeof env === 'string') check([...path, 'env'], Promise.resolve(faultOfVariable(environment[env])));
    else if (Array.isArray(value)) for (const [index, inner] of value.entries()) walk(inner, [...path, index]);
    else for (const [key, inner] of Object.entries(value)) walk(inner, [...path, key]);
  };
  walk(config.identify, ['identify']);
  walk(config.servers, ['servers']);

  for (const [name, server] of Object.entries(config.servers)) {
    if (server.kind === 'stdio') check(['servers', name, 'cwd'], faultOfFolder(server.cwd));
    else checkFiles(server.tls, ['servers', name, 'tls']);
  }
  for (const [index, listener] of config.listen.mcp.entries())
    if (listener.kind === 'tcp') checkFiles(listener.tls, ['listen', 'mcp', index, 'tls']);

  function checkFiles(
    files: Readonly<Record<string, string | undefined>> | undefined,
    path: readonly (string | number)[],
  ) {
    for (const [key, file] of Object.entries(files ?? {}))
      if (file !== undefined) check([...path, key], faultOfFile(file));
  }
  return (await Promise.all(checks)).filter((problem) => problem !== undefined);
}

function faultOfVariable(value: string | undefined): string | undefined {
  if (value === undefined) return 'this environment variable is not set';
  return value.trim() === '' ? 'this environment variable is empty' : undefined;
}

async function faultOfFile(file: string): Promise<string | undefined> {
  const status = await stat(file).catch(() => undefined);
  if (status === undefined) return 'this file does not exist';
  if (status.isDirectory()) return 'this is a folder, not a file';
  if (status.isFile() && status.size === 0) return 'this file is empty';
  return access(file, constants.R_OK).then(
    () => undefined,
    () => 'this file may not be read by this user',
  );
}

async function faultOfFolder(folder: string): Promise<string | undefined> {
  const status = await stat(folder).catch(() => undefined);
  return status?.isDirectory() ? undefined : 'this folder does not exist';
}

function freeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const inner of Object.values(value)) freeze(inner);
  }
  return value;
}
