/**
 * The public suite, run as the command that it is, with its verdicts read back from the files that it leaves.
 *
 * Knows how the suite names its folders and which scenarios a requirement set holds; judges nothing itself. Results
 * go to a temporary folder that is removed.
 */
import { spawn } from 'node:child_process';
import { glob, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';

export type Revision = '2025-11-25' | '2026-07-28';

export interface Check {
  readonly id: string;
  /** SUCCESS, FAILURE, WARNING or SKIPPED. INFO is not a verdict and is left out. */
  readonly status: string;
}

/** The checks of each scenario that ran, in the suite's order. A scenario that crashed has none. */
export type ScenarioChecks = ReadonlyMap<string, readonly Check[]>;

export interface Requirements {
  /** Scenarios that a conforming server must pass. */
  readonly scored: readonly string[];
  /** Scenarios that are run for information, and why they do not count. */
  readonly unscored: ReadonlyMap<string, string>;
}

/** What one run of the command may take at most; the suite's own timeouts lie below it. */
const COMMAND_MS = 180_000;
const OUTPUT_CHARACTERS_MAX = 4_000;

const packageFolder = fileURLToPath(new URL('../../node_modules/@modelcontextprotocol/conformance/', import.meta.url));

/** What the suite asks of a server for `revision`, from the file that comes with the suite. */
export async function readServerRequirements(revision: Revision): Promise<Requirements> {
  const set: { server: string[]; not_scored: { scenario: string; leg: string; reason: string }[] } = parse(
    await readFile(join(packageFolder, 'requirements', `${revision}.yaml`), 'utf8'),
  );
  const unscored = set.not_scored.filter((entry) => entry.leg === 'server');
  return { scored: set.server, unscored: new Map(unscored.map(({ scenario, reason }) => [scenario, reason])) };
}

/** Runs the whole requirement set against the server at `url`. */
export function checkServer(url: string, revision: Revision): Promise<ScenarioChecks> {
  return collectChecks((folder) => runSuite(['server', '--url', url, '--requirements', revision, '-o', folder]));
}

/** Runs some scenarios of the suite against the server at `url`, on the wire of `revision`. */
export function checkServerScenarios(
  url: string,
  revision: Revision,
  scenarios: readonly string[],
): Promise<ScenarioChecks> {
  return collectChecks(async (folder) => {
    for (const scenario of scenarios) {
      await runSuite([
        ...['server', '--url', url, '--scenario', scenario],
        ...['--spec-version', revision, '--force', '-o', folder],
      ]);
    }
  });
}

/**
 * Runs one client scenario: the suite plays the server, and `command` (words without spaces) is the client. The
 * suite's verdict as a whole, which counts a client that failed, is the last check.
 */
export async function checkClient(command: readonly string[], scenario: string): Promise<readonly Check[]> {
  let exitCode = 1;
  const found = await collectChecks(async (folder) => {
    exitCode = await runSuite(['client', '--command', command.join(' '), '--scenario', scenario, '-o', folder]);
  });
  return [...(found.get(scenario) ?? []), { id: 'suite-verdict', status: exitCode === 0 ? 'SUCCESS' : 'FAILURE' }];
}

async function collectChecks(run: (folder: string) => Promise<unknown>): Promise<ScenarioChecks> {
  const folder = await mkdtemp(join(tmpdir(), 'conformance-'));
  try {
    await run(folder);
    return await readChecks(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function readChecks(folder: string): Promise<ScenarioChecks> {
  const found = new Map<string, readonly Check[]>();
  for await (const path of glob('**/checks.json', { cwd: folder })) {
    // [server-]<scenario>-<time>, where a scenario's name may hold slashes.
    const scenario = dirname(path)
      .replace(/^server-/, '')
      .replace(/-\d{4}-\d\d-\d\dT[\d-]+Z$/, '');
    const checks: Check[] = JSON.parse(await readFile(join(folder, path), 'utf8'));
    found.set(
      scenario,
      checks.filter(({ status }) => status !== 'INFO').map(({ id, status }) => ({ id, status })),
    );
  }
  return found;
}

/** The suite's exit code: 0, or 1 when a check failed. A suite that cannot run or does not end is an error. */
async function runSuite(parameters: readonly string[]): Promise<number> {
  const child = spawn(process.execPath, [join(packageFolder, 'dist', 'index.js'), ...parameters], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      said = (said + chunk).slice(-OUTPUT_CHARACTERS_MAX);
    });
  }
  const timer = setTimeout(() => child.kill('SIGKILL'), COMMAND_MS);
  const code = await new Promise<number | null>((resolve, reject) =>
    child.once('close', resolve).once('error', reject),
  );
  clearTimeout(timer);
  if (code !== 0 && code !== 1) {
    throw new Error(`conformance ${parameters.join(' ')} did not end properly (exit code ${code}): ${said}`);
  }
  return code;
}
