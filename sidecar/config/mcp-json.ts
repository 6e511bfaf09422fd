/**
 * Import of the files that MCP clients share: `mcpServers` of Claude and Cursor, `servers` of VS Code.
 *
 * An entry becomes a server of sidecar.yaml. Secrets become references: the same document serves the start in memory
 * (the references are filled from what the file says) and `sidecar init` (the person sets the variables). No note and
 * no problem ever quotes a value.
 *
 * Does not know the deprecated HTTP+SSE transport, and does not ask for VS Code's `inputs`.
 */
import { homedir } from 'node:os';
import { basename, dirname } from 'node:path';
import { err, ok, type Result } from '../../policies/result.ts';
import { assemble, type Loaded } from './assemble.ts';
import type { Environment } from './policy-source.ts';
import { formatProblems, type Problem, problemsOfIssues, showPath } from './problem.ts';
import { isLoopback, parseAddress } from './quantity.ts';
import { DEFAULT_MCP_ADDRESSES, sidecarYaml } from './schema.ts';
import { holdsSecret, looksLikeToken, looksSecret } from './secret-shapes.ts';
import type { YamlDocument } from './yaml-document.ts';

/** A value of `auth` or `env` that became `{ env: variable }`. */
export interface Reference {
  readonly server: string;
  /** Where it stood: `header Authorization`, `env GITHUB_TOKEN`. */
  readonly place: string;
  readonly variable: string;
  /** What stood there. Not for people's eyes: it may be the secret itself. */
  readonly template: string;
  /** Whether the secret itself stood there, rather than a reference to a variable. */
  readonly inline: boolean;
}

/** One entry as a server in the shape of sidecar.yaml. */
export interface ImportedServer {
  readonly name: string;
  /** Where its entry is: `['mcpServers', 'My Server']`. */
  readonly path: readonly string[];
  readonly server: Readonly<Record<string, unknown>>;
  /** Why this server must not be written to a file as it is; fine in memory. */
  readonly notWritable: string | undefined;
}

export interface Imported {
  readonly servers: readonly ImportedServer[];
  readonly references: readonly Reference[];
  readonly notes: readonly string[];
  /** Entries that could not be taken over. */
  readonly problems: readonly Problem[];
}

/** Imports in memory, under `library/observe`: everything allowed and everything recorded. */
export async function importMcpJson(
  document: YamlDocument,
  environment: Environment,
): Promise<Result<Loaded, Problem[]>> {
  const read = readMcpJson(document, environment);
  if (!read.ok) return read;
  const { servers, references, notes } = read.value;
  const values: Record<string, string> = {};
  const sound: ImportedServer[] = [];
  const problems = [...read.value.problems];
  for (const server of servers) {
    const faults = [
      ...fillReferences(
        references.filter((reference) => reference.server === server.name),
        lookUpIn(dirname(document.file), environment),
        values,
      ),
      ...faultsOfServer(server, dirname(document.file)),
    ];
    if (faults.length === 0) sound.push(server);
    else problems.push(...faults.map((message) => document.locate({ path: server.path, at: 'key', message })));
  }
  if (sound.length === 0) return err([...problems, document.locate({ path: [], at: 'value', message: noneOf(notes) })]);

  const paths = new Map(sound.map(({ name, path }) => [name, path]));
  const inMemory: YamlDocument = {
    file: document.file,
    value: {
      servers: Object.fromEntries(sound.map(({ name, server }) => [name, server])),
      policy: 'library/observe',
    },
    locate: (problem) => {
      const path = paths.get(String(problem.path[1])) ?? [];
      return { ...document.locate({ ...problem, path }), path: showPath(problem.path) };
    },
  };
  const inline = references
    .filter((reference) => reference.inline && paths.has(reference.server))
    .map(
      ({ server, place }) =>
        `server ${server}: ${place} holds a secret in ${basename(document.file)} (npx sidecar init writes a reference for it)`,
    );
  return assemble(inMemory, {
    environment: { ...environment, ...values },
    origin: { kind: 'mcpJson', file: document.file },
    notes: [
      'no policy of your own yet: library/observe allows EVERYTHING and records what happens (npx sidecar init writes a policy)',
      ...problems.map((problem) => `left out: ${formatProblems([problem])}`),
      ...notes,
      ...inline,
    ],
  });
}

/** Says why nothing is left: what was left out on purpose is in the notes. */
function noneOf(notes: readonly string[]): string {
  const reasons = notes.length === 0 ? '' : `: ${notes.join('; ')}`;
  const isPasted = notes.some((note) => note.endsWith(IS_SIDECAR));
  return `names no server that can be used${reasons}${isPasted ? ' (put the servers back, and run npx sidecar init before pasting the address of the sidecar here: it keeps them in sidecar.yaml)' : ''}`;
}

/** Looks up what the references stand for, into `values`; gives what is missing. */
function fillReferences(references: readonly Reference[], lookUp: LookUp, values: Record<string, string>): string[] {
  return references.flatMap(({ variable, template }) => {
    const value = expand(template, lookUp);
    if (!value.ok) return [value.error];
    values[variable] = value.value;
    return [];
  });
}

/** What the rules of sidecar.yaml say against a server: one bad entry must not keep the others from working. */
function faultsOfServer({ name, server }: ImportedServer, folder: string): string[] {
  const schema = sidecarYaml(folder);
  const document = { servers: { [name]: server }, policy: 'library/observe' };
  const parsed = schema.safeParse(document);
  if (parsed.success) return [];
  return problemsOfIssues(parsed.error.issues, document, schema).map(
    ({ path, message }) => `${showPath(path.slice(2))} ${message}`,
  );
}

/** Reads the entries one by one: a bad one is a problem of its own, and the others still count. */
export function readMcpJson(document: YamlDocument, environment: Environment): Result<Imported, Problem[]> {
  const { value } = document;
  const section = isMapping(value) ? ['mcpServers', 'servers'].find((key) => isMapping(value[key])) : undefined;
  if (!isMapping(value) || section === undefined)
    return err([document.locate({ path: [], at: 'value', message: 'has neither mcpServers nor servers' })]);

  const reader = new EntryReader(dirname(document.file), environment, variablesIn(value));
  const servers: ImportedServer[] = [];
  const problems: Problem[] = [];
  const names = new Set<string>();
  for (const [written, entry] of Object.entries(value[section] as Record<string, unknown>)) {
    const name = freeName(written, names);
    names.add(name);
    const path = [section, written];
    const read = reader.read(name, entry);
    if (!read.ok) {
      problems.push(document.locate({ path, at: 'key', message: read.error }));
      continue;
    }
    if (read.value === undefined) continue;
    if (name !== written) reader.notes.push(`server "${written}" is called ${name} here`);
    servers.push({ name, path, ...read.value });
  }
  return ok({ servers, references: reader.references, notes: reader.notes, problems });
}

/** Lower-case letters, digits and single dashes, and not in use yet. */
function freeName(written: string, taken: ReadonlySet<string>): string {
  const plain =
    written
      .toLowerCase()
      .replace(/[^a-z0-9]+/g, '-')
      .replace(/^-|-$/g, '')
      .slice(0, 56) || 'server';
  let name = plain;
  for (let number = 2; taken.has(name); number++) name = `${plain}-${number}`;
  return name;
}

const KNOWN_KEYS = new Set('type command args env cwd url headers disabled'.split(' '));
const SIDECAR_NAMES = new Set(['sidecar', 'mcp-sidecar']);

const IS_SIDECAR = 'is this sidecar itself, and left out: it would call itself';

class EntryReader {
  readonly references: Reference[] = [];
  readonly notes: string[] = [];
  readonly #lookUp: LookUp;
  /** Names that mean something already: a new one must not stand in for them. */
  readonly #taken: Set<string>;

  constructor(folder: string, environment: Environment, mentioned: Iterable<string>) {
    this.#lookUp = lookUpIn(folder, environment);
    this.#taken = new Set([...Object.keys(environment), ...mentioned]);
  }

  /** `undefined`: skipped on purpose, with a note. */
  read(name: string, entry: unknown): Result<Pick<ImportedServer, 'server' | 'notWritable'> | undefined, string> {
    if (!isMapping(entry)) return err('must be a mapping with command or url');
    if (entry.disabled === true) {
      this.notes.push(`server ${name} is disabled in the file, and left out`);
      return ok(undefined);
    }
    const type = entry.type ?? (entry.url === undefined ? 'stdio' : 'http');
    if (type === 'sse')
      return err('speaks HTTP+SSE (type: sse), which is not supported yet; ask its maker for a Streamable HTTP URL');
    const ignored = Object.keys(entry).filter((key) => !KNOWN_KEYS.has(key));
    if (ignored.length > 0) this.notes.push(`server ${name}: ignored here: ${ignored.join(', ')}`);
    if (type === 'stdio') return this.#readStdio(name, entry);
    if (type === 'http' || type === 'streamable-http' || type === 'streamableHttp') return this.#readHttp(name, entry);
    return err('has a type that is not known here: stdio, http and streamable-http are');
  }

  #readStdio(name: string, entry: Mapping): ReturnType<EntryReader['read']> {
    const { command, args = [], env = {}, cwd } = entry;
    if (typeof command !== 'string' || command === '') return err('needs a command');
    if (!isTextList(args)) return err('args must be a list of texts');
    if (!isTextMapping(env)) return err('env must be a mapping of texts');
    if (cwd !== undefined && typeof cwd !== 'string') return err('cwd must be text');
    if (startsSidecar([command, ...args])) return this.#skipLoop(name);

    const words = expandAll([command, ...args, ...(cwd === undefined ? [] : [cwd])], this.#lookUp);
    if (!words.ok) return words;
    const program = words.value.slice(0, args.length + 1);
    const variables = Object.entries(env).map(([variable, template]) => [
      variable,
      this.#textOrReference(name, variable, template),
    ]);
    const telling = holdsSecret([command, ...args]);
    if (telling)
      this.notes.push(
        `server ${name}: its arguments seem to hold a secret, which every user of this machine can read in the list of processes`,
      );
    const fluid = [command, ...args].some((word) => /\$\{(?!workspaceFolder\}|userHome\})/.test(word));
    return ok({
      server: {
        command: program,
        ...(variables.length > 0 && { env: Object.fromEntries(variables) }),
        ...(cwd !== undefined && { cwd: words.value.at(-1) }),
      },
      notWritable: telling
        ? 'its arguments seem to hold a secret: pass it by env instead'
        : fluid
          ? 'its arguments use variables, which sidecar.yaml does not expand'
          : undefined,
    });
  }

  #readHttp(name: string, entry: Mapping): ReturnType<EntryReader['read']> {
    const { url, headers = {} } = entry;
    if (typeof url !== 'string') return err('needs a url');
    if (!isTextMapping(headers)) return err('headers must be a mapping of texts');
    const expanded = expand(url, this.#lookUp);
    if (!expanded.ok) return expanded;
    const address = URL.parse(expanded.value);
    if (address !== null && isOwnAddress(address)) return this.#skipLoop(name);

    const auth = this.#authOfHeaders(name, headers);
    const telling = [...(address?.searchParams ?? [])].some(
      ([key, value]) => looksSecret(key) || looksLikeToken(value),
    );
    if (telling) this.notes.push(`server ${name}: its url seems to hold a secret; ask its maker for a header`);
    return ok({
      server: { url: expanded.value, ...(auth !== undefined && { auth }) },
      notWritable: telling
        ? 'its url seems to hold a secret: use auth instead'
        : url.includes('${')
          ? 'its url uses variables, which sidecar.yaml does not expand'
          : undefined,
    });
  }

  #authOfHeaders(name: string, headers: Readonly<Record<string, string>>): unknown {
    const [only, ...others] = Object.entries(headers);
    if (only === undefined) return undefined;
    const bearer = others.length === 0 && /^authorization$/i.test(only[0]) ? /^bearer\s+(.+)$/is.exec(only[1]) : null;
    if (bearer !== null)
      return { type: 'bearer', token: this.#reference(name, `header ${only[0]}`, 'TOKEN', bearer[1]!) };
    const references = Object.entries(headers).map(([header, template]) => [
      header,
      this.#reference(name, `header ${header}`, header, template),
    ]);
    return { type: 'headers', headers: Object.fromEntries(references) };
  }

  /** A value of `env`: text where it is nobody's secret. */
  #textOrReference(server: string, variable: string, template: string): unknown {
    const plain = template === '' || !(looksSecret(variable) || looksLikeToken(template) || template.includes('${'));
    return plain ? template : this.#reference(server, `env ${variable}`, variable, template);
  }

  /** `${VAR}` stays VAR; anything else gets a variable of its own. */
  #reference(server: string, place: string, suffix: string, template: string): { env: string } {
    const [, whole] = /^\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)\}$/.exec(template) ?? [];
    const variable = whole ?? this.#freeVariable(server, suffix);
    this.references.push({ server, place, variable, template, inline: !template.includes('${') });
    return { env: variable };
  }

  #freeVariable(server: string, suffix: string): string {
    const shape = (text: string) => text.toUpperCase().replace(/[^A-Z0-9]+/g, '_');
    const plain = shape(suffix).startsWith(`${shape(server)}_`) ? shape(suffix) : shape(`${server}_${suffix}`);
    const start = plain.replace(/^(?=\d)/, '_');
    let variable = start;
    for (let number = 2; this.#taken.has(variable); number++) variable = `${start}_${number}`;
    this.#taken.add(variable);
    return variable;
  }

  #skipLoop(name: string): Result<undefined, never> {
    this.notes.push(`server ${name} ${IS_SIDECAR}`);
    return ok(undefined);
  }
}

type LookUp = (variable: string) => string | undefined;

/** VS Code and Cursor know two names beside the variables of the environment. */
function lookUpIn(folder: string, environment: Environment): LookUp {
  return (variable) => {
    if (variable === 'workspaceFolder') return folder;
    if (variable === 'userHome') return homedir();
    return environment[variable];
  };
}

/** `${VAR}`, `${VAR:-default}`, `${env:VAR}`. The error names the variable, never the text around it. */
export function expand(template: string, lookUp: LookUp): Result<string, string> {
  let fault: string | undefined;
  const text = template.replace(/\$\{([^}]*)\}/g, (_, inside: string) => {
    const [, variable, fallback] = /^(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?$/s.exec(inside) ?? [];
    if (variable === undefined) {
      fault ??= /^input:/.test(inside)
        ? 'asks a person for an input: use an environment variable instead'
        : `uses a variable in a form that is not known here: \${NAME}, \${NAME:-default} and \${env:NAME} are`;
      return '';
    }
    const value = lookUp(variable) || fallback;
    if (value === undefined) fault ??= `needs the environment variable ${variable}, which is not set`;
    return value ?? '';
  });
  return fault === undefined ? ok(text) : err(fault);
}

function expandAll(templates: readonly string[], lookUp: LookUp): Result<string[], string> {
  const texts: string[] = [];
  for (const template of templates) {
    const text = expand(template, lookUp);
    if (!text.ok) return text;
    texts.push(text.value);
  }
  return ok(texts);
}

function startsSidecar([command, ...args]: readonly string[]): boolean {
  if (SIDECAR_NAMES.has(basename(command!))) return true;
  const started = /^(?:npx|bunx|pnpx)$/.test(basename(command!))
    ? args.find((word) => !word.startsWith('-'))
    : undefined;
  return started !== undefined && SIDECAR_NAMES.has(started.replace(/@[^/]*$/, ''));
}

/** The import listens on the default addresses. */
function isOwnAddress({ hostname, port }: URL): boolean {
  return isLoopback(hostname) && DEFAULT_MCP_ADDRESSES.some((own) => String(parseAddress(own)!.port) === port);
}

type Mapping = Readonly<Record<string, unknown>>;

function isMapping(value: unknown): value is Mapping {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The names in every `${NAME…}` of the file. */
function variablesIn(value: unknown): string[] {
  return [...JSON.stringify(value).matchAll(/\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)/g)].map((match) => match[1]!);
}

function isTextList(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}

function isTextMapping(value: unknown): value is Readonly<Record<string, string>> {
  return isMapping(value) && Object.values(value).every((item) => typeof item === 'string');
}
