/**
 * `npm test [-- <part of a path> …]`: every *.test.ts of the folders below, each file in a process of its own.
 *
 * Ends with what was skipped and why, and with `N passed, N failed, N skipped`. Exit code 1 when anything failed, or
 * when no test ran at all. The conformance suite and the benchmark are commands of their own.
 */
import { once } from 'node:events';
import { chmodSync, globSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';

const FOLDERS = ['unit', 'property', 'golden', 'integration', 'chaos'];
const CONCURRENCY = 2;
/** A test that takes longer than this hangs, and is named. */
const TEST_MS = 60_000;
/** A file that keeps its process alive after its tests is only ended with the whole run. */
const RUN_MS = 15 * 60_000;

const projectFolder = join(import.meta.dirname, '..');

function findTestFiles(filters: readonly string[]): string[] {
  const found: string[] = [];
  for (const folder of FOLDERS) {
    found.push(...globSync(`test/${folder}/**/*.test.ts`, { cwd: projectFolder }).sort());
  }
  const wanted = filters.map((filter) => filter.replace(/^\.\//, ''));
  return wanted.length === 0 ? found : found.filter((path) => wanted.some((part) => path.includes(part)));
}

const files = findTestFiles(process.argv.slice(2));
const skipped: string[] = [];
let counts = { passed: 0, failed: 0, cancelled: 0 };

if (files.length > 0) {
  // What a test that is ended leaves behind goes with the run. Short: paths of sockets have 108 characters. Other users
  // may pass through: some tests run a process as one.
  const folder = mkdtempSync(join(tmpdir(), 'tests-'));
  chmodSync(folder, 0o711);
  process.once('exit', () => rmSync(folder, { recursive: true, force: true, maxRetries: 3 }));
  process.env.TMPDIR = folder;
  const events = run({
    files: files.map((path) => join(projectFolder, path)),
    concurrency: CONCURRENCY,
    isolation: 'process',
    timeout: TEST_MS,
    signal: AbortSignal.timeout(RUN_MS),
  });
  events.on('test:pass', ({ name, file, skip }) => {
    if (skip === undefined || skip === false) return;
    const where = file === undefined ? '' : ` (${relative(projectFolder, file)})`;
    skipped.push(`${name}${where}: ${typeof skip === 'string' ? skip : 'no reason given'}`);
  });
  // One summary for each file, and one without a file for all of them. `failed` is there; only the types miss it.
  events.on('test:summary', (summary) => {
    if (summary.file === undefined) counts = { failed: 0, ...summary.counts };
  });
  const report = events.compose(new spec());
  report.pipe(process.stdout, { end: false });
  await once(report, 'end');
}

const failed = counts.failed + counts.cancelled;
if (skipped.length > 0) console.log(`\nSkipped:\n${skipped.map((line) => `  ${line}`).join('\n')}`);
// Groups too, which the runner does not count.
console.log(`\n${counts.passed} passed, ${failed} failed, ${skipped.length} skipped`);
process.exitCode = failed > 0 || counts.passed === 0 ? 1 : 0;
