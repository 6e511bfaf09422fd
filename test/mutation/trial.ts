/**
 * One mutant on trial, in a process of its own: `trial.ts <file> <number, or none> <test file> …`.
 *
 * The file is loaded with the mutant in it, and nothing on the disk changes. Exit code 0: every test passed, the mutant
 * lives. 1: a test failed. The first failure ends it.
 */

import { readFileSync } from 'node:fs';
import { registerHooks, stripTypeScriptTypes } from 'node:module';
import { run } from 'node:test';
import { fileURLToPath } from 'node:url';
import { applyMutant, findMutants } from './mutants.ts';

const [file, number, ...tests] = process.argv.slice(2) as [string, string, ...string[]];

registerHooks({
  load(url, context, next) {
    if (!url.startsWith('file:') || number === 'none' || fileURLToPath(url) !== file) return next(url, context);
    const source = stripTypeScriptTypes(readFileSync(file, 'utf8'));
    const mutant = findMutants(source)[Number(number)]!;
    return { format: 'module', source: applyMutant(source, mutant), shortCircuit: true };
  },
});

let passed = 0;
run({ files: tests, isolation: 'none' })
  .on('test:pass', () => passed++)
  .on('test:fail', () => process.exit(1))
  .on('end', () => process.exit(passed > 0 ? 0 : 2))
  .resume();
