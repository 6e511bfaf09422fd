/**
 * `sidecar init`: a commented sidecar.yaml and policy.yaml to start from, with the servers of a .mcp.json where there
 * is one. Never overwrites, and never writes a secret: those become `{ env: NAME }`.
 */
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { stringify } from 'yaml';
import { err, ok, type Result } from '../../policies/result.ts';
import { type Imported, readMcpJson } from '../config/mcp-json.ts';
import type { Environment } from '../config/policy-source.ts';
import { formatProblems, type Problem } from '../config/problem.ts';
import { readYaml } from '../config/yaml-document.ts';
import { problemOf, tellLines, tellProblems, writeJson } from './output.ts';
import { jsonSchema } from './schema.ts';

const WRITTEN = ['sidecar.yaml', 'policy.yaml'];
const SCHEMA_FOLDER = '.sidecar';

const EXAMPLE: Imported = {
  servers: [
    {
      name: 'files',
      path: [],
      server: { command: ['npx', '-y', '@modelcontextprotocol/server-filesystem', '.'] },
      notWritable: undefined,
    },
  ],
  references: [],
  notes: [],
  problems: [],
};

export interface InitOptions {
  /** The .mcp.json or mcp.json to take servers from. Default: the one in the working folder, if any. */
  readonly from?: string;
}

/** What was written, and one sentence for each thing that the person should know. */
export interface InitReport {
  readonly files: readonly string[];
  readonly notes: readonly string[];
  /** For people: all of it, and what to do next. */
  readonly lines: readonly string[];
}

/** `exists`: files are there already. `wrong`: what to start from cannot be used, or the folder cannot be written. */
export interface InitFailure {
  readonly kind: 'exists' | 'wrong';
  readonly problems: readonly Problem[];
}

export async function init({ json, ...options }: InitOptions & { readonly json: boolean }): Promise<number> {
  const done = await writeStart(options, process.cwd(), process.env);
  if (!done.ok) {
    tellProblems(done.error.problems, json);
    return done.error.kind === 'exists' ? 1 : 2;
  }
  const { lines, ...data } = done.value;
  if (json) writeJson({ ok: true, ...data });
  else tellLines(lines);
  return 0;
}

/** Writes the files into `folder`. */
export async function writeStart(
  { from }: InitOptions,
  folder: string,
  environment: Environment,
): Promise<Result<InitReport, InitFailure>> {
  const existing = WRITTEN.filter((name) => existsSync(join(folder, name)));
  if (existing.length > 0)
    return fail(
      'exists',
      `${existing.join(' and ')} ${existing.length > 1 ? 'are' : 'is'} there already, and nothing was written. sidecar check explains it.`,
    );

  const source = from === undefined ? findMcpJson(folder) : resolve(folder, from);
  const imported = source === undefined ? ok(EXAMPLE) : await importFrom(source, environment);
  if (!imported.ok) return err({ kind: 'wrong', problems: imported.error });

  const schemas = await Promise.all([jsonSchema({ policy: false }), jsonSchema({ policy: true })]);
  try {
    // `wx`: whoever was faster than we were keeps the file.
    await writeFile(join(folder, 'policy.yaml'), policyText(), { flag: 'wx' });
    await writeFile(join(folder, 'sidecar.yaml'), sidecarText(imported.value, source), { flag: 'wx' });
    await mkdir(join(folder, SCHEMA_FOLDER), { recursive: true });
    for (const [index, name] of ['sidecar', 'policy'].entries())
      await writeFile(
        join(folder, SCHEMA_FOLDER, `${name}.schema.json`),
        `${JSON.stringify(schemas[index], undefined, 2)}\n`,
      );
  } catch (error) {
    const { code, path } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return fail('exists', `${path} is there already: somebody was faster`);
    return fail('wrong', `${folder} cannot be written (${code})`);
  }
  return ok(report(imported.value, source));
}

function fail(kind: InitFailure['kind'], sentence: string): Result<never, InitFailure> {
  return err({ kind, problems: [problemOf(sentence)] });
}

function findMcpJson(folder: string): string | undefined {
  return ['.mcp.json', 'mcp.json'].map((name) => join(folder, name)).find((file) => existsSync(file));
}

async function importFrom(file: string, environment: Environment): Promise<Result<Imported, readonly Problem[]>> {
  const document = await readYaml(file);
  if (!document.ok) return document;
  const read = readMcpJson(document.value, environment);
  if (!read.ok) return read;
  if (read.value.servers.every(({ notWritable }) => notWritable !== undefined))
    return err(['no server could be taken over; nothing was written.', ...complaints(read.value)].map(problemOf));
  return read;
}

function complaints({ servers, notes, problems }: Imported): string[] {
  return [
    ...notes,
    ...servers.flatMap(({ name, notWritable }) =>
      notWritable === undefined ? [] : [`left out: server ${name}: ${notWritable}`],
    ),
    ...problems.map((problem) => `left out: ${formatProblems([problem])}`),
  ];
}

function writable({ servers }: Imported): Imported['servers'] {
  return servers.filter(({ notWritable }) => notWritable === undefined);
}

function report(imported: Imported, source: string | undefined): InitReport {
  const names = new Set(writable(imported).map(({ name }) => name));
  const file = source === undefined ? '' : basename(source);
  const moved = imported.references
    .filter(({ server }) => names.has(server))
    .map(({ server, place, variable, inline }) =>
      inline
        ? `server ${server}: ${place} held a secret: it is { env: ${variable} } now. Set ${variable} to that value, and delete it from ${file}.`
        : `server ${server}: ${place} is { env: ${variable} } now.`,
    );
  const notes = [...complaints(imported), ...moved];
  const lines = [
    `wrote ${WRITTEN.join(', ')}${source === undefined ? '' : ` from ${file}`} (and ${SCHEMA_FOLDER}/ for your editor)`,
    ...notes,
    'next: npx sidecar check, then npx sidecar',
  ];
  return { files: WRITTEN, notes, lines };
}

function sidecarText(imported: Imported, source: string | undefined): string {
  const servers = Object.fromEntries(writable(imported).map(({ name, server }) => [name, server]));
  const from = source === undefined ? 'an example to replace' : `taken from ${basename(source)}`;
  return `# yaml-language-server: $schema=${SCHEMA_FOLDER}/sidecar.schema.json
# What the sidecar holds and where it leads. "sidecar check" explains this file.

# The name of these agents in policy, audit and traces.
group: default

# Where agents connect. These are the defaults; beyond loopback, TLS and identify are needed.
# listen:
#   mcp: ["127.0.0.1:4180", "[::1]:4180"]
#   admin: 127.0.0.1:4181

# Who is calling, tried in order. Without it, everyone on this machine is the group.
# identify:
#   - { type: uid, agents: { 1000: me } }
#   - { type: apiKey, agents: { writer: { file: ./writer-key } } }

# The MCP servers (${from}): a url or a command each. Agents reach one at /servers/<name>/mcp.
# Secrets are { file: path } or { env: NAME }. Credentials go into auth, for example:
#   auth: { type: client_credentials, clientId: me, clientSecret: { file: ./client-secret } }
#   auth: { type: bearer, token: { env: SOME_TOKEN } }
${stringify({ servers }, { flowCollectionPadding: true }).trimEnd()}

# Who may do what.
policy: ./policy.yaml

# One JSON line for each request. onFailure: refuse stops serving when the log cannot be written.
audit: { path: ./audit.jsonl, onFailure: continue }

# Traces, by OTLP over gRPC.
# telemetry: { otlp: http://127.0.0.1:4317 }
`;
}

function policyText(): string {
  return `# yaml-language-server: $schema=${SCHEMA_FOLDER}/policy.schema.json
# Who may do what. Deny beats allow; the order of rules never matters; what nothing allows is denied.
version: 1

# audit lets everything through and records what would have been refused. Look at the audit log for a while,
# write down below what your agents need, then delete this line (or write enforce): from then on it is refused.
mode: audit

default: deny

rules:
  - name: reading
    allow: [{ server: "*", tools: ["list_*", "get_*", "read_*", "search_*"] }]
  # - name: small queries only
  #   allow: [{ server: db, tools: [run_sql_query] }]
  #   when: size(args.query) < 4000

quotas:
  - { name: calls, key: [agent], calls: 120/min }
`;
}
