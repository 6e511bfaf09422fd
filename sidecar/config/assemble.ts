/**
 * A document in the shape of sidecar.yaml → a frozen configuration with its policy, or every problem at once with its place.
 *
 * Guarantees: what comes out is whole: all referenced files and variables are there. Secrets are looked at only to
 * see that they exist; their values stay where they are.
 */
import { access, constants, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { CompiledPolicy } from '../../policies/policy.ts';
import { err, ok, type Result } from '../../policies/result.ts';
import type { OpenedBundle } from '../bundle/open.ts';
import { type Lock, readLock } from './lock-file.ts';
import { type Environment, loadPolicy, type PolicySource, policyPath } from './policy-source.ts';
import { type DocumentProblem, type Problem, problemsOfIssues } from './problem.ts';
import {
  type Config,
  findBundleConflicts,
  findConflicts,
  type IdentifyConfig,
  isUrl,
  KEYS_OF_LATER,
  sidecarYaml,
} from './schema.ts';
import { showUrl } from './secret-shapes.ts';
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
  /** What the policy came in, when it came from a URL. */
  readonly bundle: OpenedBundle | undefined;
  /** Not a problem of the configuration: `sidecar pin` writes what is missing or broken here. */
  readonly lock: Result<Lock | undefined, Problem[]>;
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
  const { config, problems, usable } = judge(document, folder);
  const policySource =
    usable.policy === undefined ? undefined : sourceOfPolicy(usable.policy, usable.delivery, folder, document);
  const [missing, loaded] = await Promise.all([
    findMissing(usable, environment),
    policySource === undefined ? undefined : loadPolicy(policySource, environment),
  ]);
  const found = [...problems, ...missing].map(document.locate).sort(byPlace);
  if (loaded?.ok === false) return err([...found, ...loaded.error]);
  // Without a configuration or a policy there was a problem, which is among those found.
  if (config === undefined || policySource === undefined || loaded === undefined || found.length > 0) return err(found);
  return ok({
    config,
    policy: loaded.value.policy,
    policySource,
    policyDocument: loaded.value.document,
    watch: loaded.value.watch,
    bundle: loaded.value.bundle,
    lock: await readLock(config.pins, document.locate),
    environment,
    origin,
    notes: [...notes, ...dangers(config)],
  });
}

interface Judged {
  /** Absent when the document has not the shape. */
  readonly config: Config | undefined;
  readonly problems: readonly DocumentProblem[];
  readonly usable: Usable;
}

/** What is well-formed by itself, also in a document that as a whole is not: what it refers to is looked at in any case. */
interface Usable {
  readonly listen: Config['listen'] | undefined;
  /** `undefined` in the place of each entry that is not usable. */
  readonly identify: readonly (IdentifyConfig | undefined)[];
  readonly servers: Config['servers'];
  readonly policy: Config['policy'] | undefined;
  readonly delivery: Delivery | undefined;
  readonly quotaStore: Config['quotaStore'] | undefined;
}

/** What a policy by URL needs beside the URL. */
type Delivery = Pick<Config, 'bundle' | 'group' | 'state'>;

/** The schema, and what only shows between sections: also where another section has a problem of its own. */
function judge(document: YamlDocument, folder: string): Judged {
  const schema = sidecarYaml(folder);
  const parsed = schema.safeParse(document.value);
  const listening = schema.pick({ listen: true, identify: true }).strip().safeParse(document.value);
  const fetching = schema.pick({ policy: true, bundle: true }).strip().safeParse(document.value);
  const problems = [
    ...(parsed.success ? [] : problemsOfIssues(parsed.error.issues, document.value, schema, KEYS_OF_LATER)),
    ...(listening.success ? findConflicts(listening.data) : []),
    ...(fetching.success ? findBundleConflicts(fetching.data) : []),
  ];
  if (parsed.success)
    return { config: freeze(parsed.data), problems, usable: { ...parsed.data, delivery: parsed.data } };
  return { config: undefined, problems, usable: findUsable(schema, document.value) };
}

function findUsable(schema: ReturnType<typeof sidecarYaml>, value: unknown): Usable {
  const { listen, identify, servers, quotaStore, policy } = Object(value) as Record<string, unknown>;
  const parseListen = schema.pick({ listen: true }).safeParse({ listen });
  const parsePolicy = schema.pick({ policy: true }).safeParse({ policy });
  const entries = Array.isArray(identify) ? identify : [];
  const named = typeof servers === 'object' && servers !== null ? Object.entries(servers) : [];
  return {
    quotaStore: schema.pick({ quotaStore: true }).safeParse({ quotaStore }).data?.quotaStore,
    listen: parseListen.data?.listen,
    identify: entries.map((one) => schema.pick({ identify: true }).safeParse({ identify: [one] }).data?.identify[0]),
    servers: Object.assign(
      {},
      ...named.map(
        ([name, one]) => schema.pick({ servers: true }).safeParse({ servers: { [name]: one } }).data?.servers,
      ),
    ),
    policy: parsePolicy.data?.policy,
    // With another problem there is no start, and no need to ask anybody for a bundle.
    delivery: undefined,
  };
}

function byPlace(left: Problem, right: Problem): number {
  return (left.line ?? 0) - (right.line ?? 0) || (left.column ?? 0) - (right.column ?? 0);
}

/** `undefined` for a URL without what it needs beside it. */
export function sourceOfPolicy(
  policy: Config['policy'],
  delivery: Delivery | undefined,
  folder: string,
  document: YamlDocument,
): PolicySource | undefined {
  if (typeof policy !== 'string') {
    const locate = (problem: DocumentProblem) => document.locate({ ...problem, path: ['policy', ...problem.path] });
    return { kind: 'inline', value: policy, folder, locate };
  }
  if (!isUrl(policy)) return { kind: 'path', path: policyPath(policy, folder), locate: document.locate };
  if (delivery?.bundle === undefined) return undefined;
  const { bundle, group, state } = delivery;
  return {
    kind: 'bundle',
    url: policy,
    shownUrl: showUrl(policy),
    keys: bundle.keys,
    ca: bundle.ca,
    pollMs: bundle.poll,
    group,
    kept: join(state, 'policy-bundle.jws'),
    locate: document.locate,
  };
}

/** Of a configuration that need not be whole otherwise. */
export function deliveryOf({ file, value }: YamlDocument): Delivery | undefined {
  return sidecarYaml(dirname(file)).pick({ bundle: true, group: true, state: true }).strip().safeParse(value).data;
}

function dangers({ servers, quotaStore }: Config): string[] {
  const overHttp = Object.entries(servers).flatMap(([name, server]) =>
    server.kind === 'http' && server.dangerouslyAllowHttp
      ? [`dangerouslyAllowHttp: the credential of server ${name} may travel over plain http, where others can read it`]
      : [],
  );
  const isPlaintext = quotaStore !== 'memory' && quotaStore.dangerouslyAllowPlaintext;
  return isPlaintext
    ? [
        ...overHttp,
        'dangerouslyAllowPlaintext: the password of quotaStore may travel without TLS, where others can read it',
      ]
    : overHttp;
}

/** Everything that the configuration refers to and that is not there. */
async function findMissing(usable: Usable, environment: Environment): Promise<DocumentProblem[]> {
  const checks: Promise<DocumentProblem | undefined>[] = [];
  const check = (path: readonly (string | number)[], found: Promise<string | undefined>) =>
    checks.push(found.then((message) => (message === undefined ? undefined : { path, at: 'value', message })));

  const walk = (value: unknown, path: readonly (string | number)[]): void => {
    if (typeof value !== 'object' || value === null) return;
    const { file, env } = value as { file?: unknown; env?: unknown };
    if (typeof file === 'string') check([...path, 'file'], faultOfFile(file));
    else if (typeof env === 'string') check([...path, 'env'], Promise.resolve(faultOfVariable(env, environment[env])));
    else if (Array.isArray(value)) for (const [index, inner] of value.entries()) walk(inner, [...path, index]);
    else for (const [key, inner] of Object.entries(value)) walk(inner, [...path, key]);
  };
  walk(usable.identify, ['identify']);
  walk(usable.servers, ['servers']);
  walk(usable.quotaStore, ['quotaStore']);

  for (const [name, server] of Object.entries(usable.servers)) {
    if (server.kind === 'stdio') check(['servers', name, 'cwd'], faultOfFolder(server.cwd));
    else checkFiles(server.tls, ['servers', name, 'tls']);
  }
  for (const [index, listener] of (usable.listen?.mcp ?? []).entries())
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

/** Named where it looks like a name: it could be the secret itself, in the wrong place. */
function faultOfVariable(name: string, value: string | undefined): string | undefined {
  const which = /^[A-Z][A-Z0-9_]{0,63}$/.test(name) ? `the environment variable ${name}` : 'this environment variable';
  if (value === undefined) return `${which} is not set`;
  return value.trim() === '' ? `${which} is empty` : undefined;
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
