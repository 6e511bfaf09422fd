/**
 * `npm run test:conformance [-- --json]`: the public suite against the conformance server, direct and through the
 * sidecar, for both requirement sets, compared check by check; then the suite's client scenarios for machine
 * credentials with the sidecar as the one who holds them.
 *
 * A table for people goes to stdout, or to stderr with `--json`, which prints every comparison to stdout. Exit code 1
 * when anything differs or fails.
 */
import { fileURLToPath } from 'node:url';
import { type SidecarProcess, startSidecar } from '../support/sidecar-process.ts';
import { type Comparison, compareRuns } from './compare.ts';
import { startConformanceServer } from './server.ts';
import { type Check, checkClient, checkServer, type Revision, readServerRequirements } from './suite.ts';

const REVISIONS: readonly Revision[] = ['2025-11-25', '2026-07-28'];
const CLIENT_SCENARIOS = ['auth/client-credentials-basic', 'auth/client-credentials-jwt'];
const CLIENT_COMMAND = [process.execPath, fileURLToPath(new URL('./client.ts', import.meta.url))];

const asJson = process.argv.includes('--json');
const say = asJson ? console.error : console.log;

const configuration = (url: string): string =>
  JSON.stringify({
    group: 'conformance',
    listen: { mcp: '127.0.0.1:0', admin: '127.0.0.1:0' },
    servers: { conformance: { url } },
    policy: {
      version: 1,
      default: 'deny',
      rules: [
        {
          name: 'everything',
          allow: [{ server: '*', tools: ['*'], prompts: ['*'], resources: ['*'], methods: ['*'] }],
        },
      ],
    },
    audit: { path: './audit.jsonl' },
  });

async function compareRevision(revision: Revision, url: string, sidecar: SidecarProcess): Promise<Comparison[]> {
  const requirements = await readServerRequirements(revision);
  // One after the other: a change that one run announces would reach the listeners of the other.
  const direct = await checkServer(url, revision);
  const through = await checkServer(new URL('/servers/conformance/mcp', sidecar.mcp[0]).href, revision);
  return compareRuns(requirements, direct, through);
}

function printRevision(revision: Revision, comparisons: readonly Comparison[]): void {
  say(`\n${revision.padEnd(52)}    checks    direct  through`);
  for (const [scenario, checks] of Map.groupBy(comparisons, (comparison) => comparison.scenario)) {
    const succeeded = (side: 'direct' | 'through') => checks.filter((check) => check[side] === 'SUCCESS').length;
    const differ = checks.filter((check) => check.verdict === 'different').length;
    const numbers = [checks.length, succeeded('direct'), succeeded('through')].map((count) =>
      String(count).padStart(8),
    );
    const remarks = [differ > 0 ? `${differ} DIFFER` : '', checks[0]?.scored ? '' : 'not scored'].filter(Boolean);
    say(`  ${scenario.padEnd(50)}  ${numbers.join('  ')}  ${remarks.join(', ')}`.trimEnd());
  }
  for (const { scenario, check, direct, through, verdict } of comparisons) {
    if (verdict !== 'same')
      say(`  ${verdict.toUpperCase()} ${scenario}: ${check}: direct ${direct}, through ${through}`);
  }
}

function printClient(scenario: string, checks: readonly Check[]): void {
  const succeeded = checks.filter(({ status }) => status === 'SUCCESS').length;
  say(`  ${scenario.padEnd(50)}  ${String(checks.length).padStart(8)}  ${String(succeeded).padStart(8)}`);
  for (const { id, status } of checks) if (status !== 'SUCCESS') say(`  ${status} ${scenario}: ${id}`);
}

async function compareServers(): Promise<Partial<Record<Revision, Comparison[]>>> {
  const server = await startConformanceServer();
  try {
    const sidecar = await startSidecar(configuration(server.url));
    try {
      const compared: Partial<Record<Revision, Comparison[]>> = {};
      for (const revision of REVISIONS) {
        const comparisons = await compareRevision(revision, server.url, sidecar);
        printRevision(revision, comparisons);
        compared[revision] = comparisons;
      }
      return compared;
    } finally {
      await sidecar.stop();
    }
  } finally {
    await server.close();
  }
}

async function checkClients(): Promise<Record<string, readonly Check[]>> {
  say(`\n${'client behind the sidecar'.padEnd(52)}    checks    passed`);
  const checked: Record<string, readonly Check[]> = {};
  for (const scenario of CLIENT_SCENARIOS) {
    const checks = await checkClient(CLIENT_COMMAND, scenario);
    printClient(scenario, checks);
    checked[scenario] = checks;
  }
  return checked;
}

const servers = await compareServers();
const clients = await checkClients();
const passes = [
  ...Object.values(servers).flatMap((comparisons) => comparisons.map(({ verdict }) => verdict === 'same')),
  ...Object.values(clients).flatMap((checks) => checks.map(({ status }) => status === 'SUCCESS')),
];
const passed = passes.filter(Boolean).length;
const failed = passes.length - passed;
if (asJson) console.log(JSON.stringify({ passed, failed, servers, clients }));
say(`\n${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
