/**
 * `npm run test:mutation [-- <part of a path> …]`: each comparison and each boolean of `policies/` is turned round in
 * its turn, and some test has to notice.
 *
 * Prints every mutant that lives, the score for each file and in all. Exit code 1 when less than 90 % were killed.
 * A mutant that never ends is killed by the clock. Only tests that import the file are run, those named after it first.
 */
import { fork } from 'node:child_process';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { readImports } from '../support/source-tree.ts';
import { findMutants, type Mutant } from './mutants.ts';

const GOAL = 0.9;
const projectFolder = join(import.meta.dirname, '..', '..');
const TESTS = ['test/unit/**/*.test.ts', 'test/property/**/*.test.ts', 'test/golden/**/*.test.ts'];

interface Job {
  readonly file: string;
  readonly number: number;
  readonly mutant: Mutant;
}
type Verdict = 'killed' | 'timeout' | 'lives';

/** Everything that a file imports, itself included. What is not there stands in a test's own text. */
function reachOf(path: string, known = new Set<string>()): Set<string> {
  if (known.has(path) || !existsSync(join(projectFolder, path))) return known;
  known.add(path);
  for (const { target, isRelative, isTypeOnly } of readImports(path, readFileSync(join(projectFolder, path), 'utf8')))
    if (isRelative && !isTypeOnly && target.endsWith('.ts')) reachOf(target, known);
  return known;
}

/**
 * Tests of one file, in two goes: those of its own name or what that begins with (`cel` for `cel-shape.ts`), which notice
 * most of what is wrong in a second, and then all others that import it. Unit tests before properties.
 */
function testsOf(file: string, reach: ReadonlyMap<string, ReadonlySet<string>>): readonly (readonly string[])[] {
  const words = basename(file, '.ts').split('-');
  const names = words.map((_, index) => `-${words.slice(0, index + 1).join('-')}.`);
  const isOwn = (path: string) => names.some((name) => basename(path).includes(name));
  const rank = (path: string) => (path.startsWith('test/unit/') ? 0 : 1);
  const all = [...reach]
    .filter(
      ([path, files]) => files.has(file) && /^(?:policies|policy-library|regress-policy)[-.]/.test(basename(path)),
    )
    .map(([path]) => path)
    .sort((one, other) => rank(one) - rank(other) || one.localeCompare(other));
  return [all.filter(isOwn), all.filter((path) => !isOwn(path))].filter((tests) => tests.length > 0);
}

function tryMutant(file: string, number: number | 'none', tests: readonly string[], timeoutMs: number) {
  return new Promise<{ verdict: Verdict; elapsedMs: number }>((resolve, reject) => {
    const started = performance.now();
    const child = fork(
      join(import.meta.dirname, 'trial.ts'),
      [join(projectFolder, file), String(number), ...tests.map((path) => join(projectFolder, path))],
      { stdio: 'ignore' },
    );
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
    }, timeoutMs);
    child.on('error', reject);
    child.on('exit', (code) => {
      clearTimeout(timer);
      if (code === 2) reject(new Error(`no test ran for ${file}`));
      else
        resolve({
          verdict: timedOut ? 'timeout' : code === 0 ? 'lives' : 'killed',
          elapsedMs: performance.now() - started,
        });
    });
  });
}

async function main(filters: readonly string[]): Promise<number> {
  const tests = globSync(TESTS, { cwd: projectFolder }).sort();
  const reach = new Map(tests.map((path) => [path, reachOf(path)]));
  const files = globSync('policies/*.ts', { cwd: projectFolder }).filter(
    (path) => filters.length === 0 || filters.some((part) => path.includes(part)),
  );

  const jobs: Job[] = [];
  const plans = new Map<string, readonly { readonly tests: readonly string[]; readonly timeoutMs: number }[]>();
  for (const file of files.sort()) {
    const source = stripTypeScriptTypes(readFileSync(join(projectFolder, file), 'utf8'));
    const mutants = findMutants(source);
    if (mutants.length === 0) continue;
    const goes = testsOf(file, reach);
    const plan: { readonly tests: readonly string[]; readonly timeoutMs: number }[] = [];
    for (const tests of goes) {
      const healthy = await tryMutant(file, 'none', tests, 5 * 60_000);
      if (healthy.verdict !== 'lives') throw new Error(`${file}: its tests do not pass as it is: ${tests.join(', ')}`);
      plan.push({ tests, timeoutMs: 10_000 + 5 * healthy.elapsedMs });
    }
    if (plan.length === 0) throw new Error(`${file}: no test imports it`);
    plans.set(file, plan);
    jobs.push(...mutants.map((mutant, number) => ({ file, number, mutant })));
    console.error(`${file}: ${mutants.length} mutants, ${goes.flat().length} test files`);
  }

  const score = new Map<string, { killed: number; all: number }>();
  const living: string[] = [];
  const queue = jobs.values();
  const work = async (): Promise<void> => {
    for (const { file, number, mutant } of queue) {
      let verdict: Verdict = 'lives';
      for (const { tests, timeoutMs } of plans.get(file)!)
        if (verdict === 'lives') verdict = (await tryMutant(file, number, tests, timeoutMs)).verdict;
      const sum = score.get(file) ?? { killed: 0, all: 0 };
      score.set(file, { killed: sum.killed + (verdict === 'lives' ? 0 : 1), all: sum.all + 1 });
      if (verdict === 'lives') {
        const text = `${file}:${mutant.line}: ${mutant.original} → ${mutant.replacement || 'nothing'}`;
        living.push(text);
        console.error(`lives: ${text}`);
      }
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, work));

  const total = { killed: jobs.length - living.length, all: jobs.length };
  for (const [file, { killed, all }] of [...score].sort()) console.log(`${file}: ${killed} of ${all} killed`);
  const share = total.all === 0 ? 0 : total.killed / total.all;
  console.log(`\n${total.killed} of ${total.all} mutants killed: ${(share * 100).toFixed(1)} % (goal ${GOAL * 100} %)`);
  return share >= GOAL ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
