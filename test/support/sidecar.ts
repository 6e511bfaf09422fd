/**
 * A sidecar inside the test's own process, on port 0 of loopback, from the text of a sidecar.yaml.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type RunningSidecar, startSidecar } from '../../sidecar/app.ts';
import { loadConfig } from '../../sidecar/config/load.ts';
import { formatProblems } from '../../sidecar/config/problem.ts';
import { createLogger } from '../../sidecar/telemetry/log.ts';
import { type ScriptedUpstream, startScriptedUpstream } from './scripted-upstream.ts';

export interface TestSidecar extends RunningSidecar {
  /** Base URL of the MCP listener, without a path. */
  readonly base: string;
  readonly folder: string;
  /** Every line of the log so far, debug included. */
  readonly logged: readonly string[];
  /** Every audit line written so far. Flushes first. */
  // biome-ignore lint/suspicious/noExplicitAny: a test reads records by field
  auditLines(): Promise<any[]>;
}

/** An allow-everything policy, for tests that are about something else. */
export const ALLOW_ALL = `
policy:
  version: 1
  default: deny
  rules:
    - { name: everything, allow: [ { server: "*", tools: ["*"], prompts: ["*"], resources: ["*"], methods: ["*"] } ] }
`;

/** `yaml` needs `servers` and `policy`; addresses and the audit path are added. */
export async function startTestSidecar(
  yaml: string,
  files: Readonly<Record<string, string>> = {},
): Promise<TestSidecar> {
  const folder = await mkdtemp(join(tmpdir(), 'sidecar-test-'));
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
  const listen = /^listen:/m.test(yaml) ? '' : 'listen: { mcp: 127.0.0.1:0, admin: 127.0.0.1:0 }\n';
  const file = join(folder, 'sidecar.yaml');
  await writeFile(file, `${listen}${yaml}`);
  const loaded = await loadConfig(file);
  if (!loaded.ok) throw new Error(formatProblems(loaded.error));
  const logged: string[] = [];
  const started = await startSidecar(loaded.value, {
    log: createLogger({ level: 'debug', json: true, write: (line) => logged.push(line), now: Date.now }),
  });
  if (!started.ok) throw new Error(started.error);
  const running = started.value;
  return {
    ...running,
    base: running.mcp.find((url) => url.startsWith('http'))?.replace(/\/mcp$/, '') ?? '',
    folder,
    logged,
    async auditLines() {
      await running.flushAudit();
      const text = await readFile(join(folder, 'audit.jsonl'), 'utf8');
      return text
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line));
    },
    async close() {
      await running.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** A sidecar in front of a scripted upstream, both ended with the test. `settings` makes the configuration from the upstream's URL. */
export async function startBehind(
  context: TestContext,
  settings: (url: string) => string,
): Promise<{ upstream: ScriptedUpstream; sidecar: TestSidecar }> {
  const upstream = await startScriptedUpstream();
  const sidecar = await startTestSidecar(settings(upstream.url));
  context.after(async () => {
    await sidecar.close();
    await upstream.close();
  });
  return { upstream, sidecar };
}
