/**
 * `sidecar run`: starts the sidecar, says where it is and what it allows, and runs until it is told to stop.
 */
import { startSidecar } from '../app.ts';
import type { Loaded } from '../config/assemble.ts';
import { discoverConfig } from '../config/discover.ts';
import { isInLibrary } from '../config/policy-source.ts';
import { showFile } from '../config/problem.ts';
import { createLogger, type LogLevel } from '../telemetry/log.ts';
import { summarize } from './configuration-summary.ts';
import { tellLines, tellProblems, tellSentence } from './output.ts';

export interface RunOptions {
  readonly config?: string;
  readonly logLevel?: LogLevel;
  readonly json: boolean;
}

export async function run(options: RunOptions): Promise<number> {
  const loaded = await discoverConfig(options.config);
  // stdout is for what reads that it listens.
  if (!loaded.ok) return tellProblems(loaded.error, false);
  const log = createLogger({
    level: options.logLevel ?? loaded.value.config.log.level,
    json: options.json || !process.stderr.isTTY,
    write: (line) => process.stderr.write(line),
    now: Date.now,
  });
  // People read them in the greeting.
  if (options.json) for (const note of loaded.value.notes) log.warn(note);
  const started = await startSidecar(loaded.value, { log });
  if (!started.ok) return tellSentence(started.error, false);
  const sidecar = started.value;
  // Before anybody is told that it runs: whoever reads that may end it at once.
  const told = untilTold();
  if (options.json)
    process.stdout.write(`${JSON.stringify({ event: 'listening', mcp: sidecar.mcp, admin: sidecar.admin })}\n`);
  else tellLines(greeting(loaded.value, sidecar.mcp, sidecar.admin));

  await told;
  if (!options.json) process.stderr.write('\nstopping: finishing what is under way (once more to stop at once)\n');
  // A second signal means: now.
  const atOnce = untilTold().then(() => 'atOnce' as const);
  const closed = await Promise.race([sidecar.close().then(() => 'closed' as const), atOnce]);
  return closed === 'closed' ? 0 : 130;
}

function untilTold(): Promise<void> {
  return new Promise((resolve) => {
    const told = () => {
      process.off('SIGINT', told);
      process.off('SIGTERM', told);
      process.off('SIGHUP', told);
      resolve();
    };
    process.on('SIGINT', told);
    process.on('SIGTERM', told);
    process.on('SIGHUP', told);
  });
}

/** What a person wants to know at this moment: where, how to use it, what is allowed, where it is recorded. */
export function greeting(loaded: Loaded, mcp: readonly string[], admin: string): string[] {
  const { agents, rules, policy, pins, warnings } = summarize(loaded);
  return [
    '',
    ...howToConnect(loaded, mcp),
    '',
    `policy   ${policy.file}, mode ${policy.mode}${policy.mode === 'audit' ? ': EVERYTHING IS LET THROUGH, and what enforcing would refuse is recorded' : ''}`,
    ...agents.map(({ name, may }) => `         ${name}: ${may.join(' | ') || 'no role; only what the rules say'}`),
    ...rules.map((rule) => `         rule ${rule}`),
    ...policy.quotas.map((quota) => `         quota ${quota}`),
    ...(policy.mode === 'audit' ? [`         to enforce: ${howToEnforce(loaded, policy.file)}`] : []),
    ...pins.map((pin, index) => `${index === 0 ? 'pins    ' : '        '} ${pin}`),
    `audit    ${showFile(loaded.config.audit.path)}`,
    `metrics  ${admin}/metrics`,
    ...warnings.map((warning) => `mind     ${warning}`),
    '',
    'Ctrl-C ends it.',
    '',
  ];
}

function howToEnforce({ config, origin, policySource }: Loaded, file: string): string {
  const when = 'when the audit shows what you expect';
  if (origin.kind !== 'sidecarYaml') return `npx sidecar init writes a policy.yaml; set mode: enforce in it ${when}`;
  if (policySource.kind === 'inline') return `set mode: enforce in ${showFile(origin.file!)} (policy) ${when}`;
  if (policySource.kind === 'bundle') return `set mode: enforce in the policy that is signed for ${file} ${when}`;
  // A file of this package is not for editing.
  if (isInLibrary(policySource.path))
    return `sidecar policy suggest --audit ${showFile(config.audit.path)} --out . writes suggested.yaml from it: name that in ${showFile(origin.file!)} (policy: ./suggested.yaml) ${when}`;
  return `set mode: enforce in ${file} ${when}`;
}

function howToConnect({ config, origin }: Loaded, mcp: readonly string[]): string[] {
  const servers = Object.keys(config.servers);
  const web = mcp.find((url) => /^https?:/.test(url));
  const paths = servers.map((name) => (servers.length === 1 ? '/mcp' : `/servers/${name}/mcp`));
  const showAll = (urls: readonly string[]) =>
    urls.map((url, index) => `${index === 0 ? 'endpoint ' : '         '}${url}`);
  if (web === undefined) {
    const socket = mcp[0]!.replace(/^unix:/, '');
    return [
      ...showAll(mcp),
      '',
      'HTTP over this socket, for example:',
      ...paths.map((path) => `  curl --unix-socket ${socket} http://localhost${path}`),
      'a client that takes only a URL needs an address as well (listen.mcp: 127.0.0.1:4180)',
    ];
  }
  const urls = paths.map((path) => web.replace(/\/mcp$/, path));
  const byKey = config.identify.some(({ type }) => type === 'apiKey');
  const headers = byKey ? { headers: { Authorization: 'Bearer <key>' } } : {};
  const entries = servers.map((name, index) => [
    servers.length === 1 ? 'sidecar' : name,
    { type: 'http', url: urls[index], ...headers },
  ]);
  const first =
    origin.kind === 'mcpJson'
      ? ` (first npx sidecar init, since pasting it into ${showFile(origin.file!)} would replace the servers that are read from there)`
      : '';
  return [
    ...showAll(urls),
    '',
    `paste into an MCP client${first}:`,
    `  ${JSON.stringify({ mcpServers: Object.fromEntries(entries) })}`,
  ];
}
