/**
 * What commands print: data as JSON, lines for people, and what is wrong.
 *
 * Guarantees: nothing that an agent, a server or a file wrote steers the terminal or makes a line of its own.
 */
import { escapeHiddenInJson } from '../../policies/hidden-characters.ts';
import { formatProblems, type Problem, wholeFile } from '../config/problem.ts';
import { printable } from './printable.ts';

export function writeJson(value: unknown): void {
  process.stdout.write(`${escapeHiddenInJson(JSON.stringify(value, undefined, 2))}\n`);
}

/** Data for people. */
export function writeLines(lines: readonly string[]): void {
  process.stdout.write(textOf(lines));
}

/** What people should know beside the data. */
export function tellLines(lines: readonly string[]): void {
  process.stderr.write(textOf(lines));
}

/** A line each on stderr, or `{ ok: false, problems }` on stdout. @returns the exit code. */
export function tellProblems(problems: readonly Problem[], json: boolean): 2 {
  if (json) writeJson({ ok: false, problems });
  else tellLines(problems.map((problem) => formatProblems([problem])));
  return 2;
}

/** The same for what no file is to blame for. */
export function tellSentence(sentence: string, json: boolean): 2 {
  return tellProblems([problemOf(sentence)], json);
}

export function problemOf(sentence: string): Problem {
  return { ...wholeFile('', sentence), file: undefined };
}

/** `1 tool`, `2 tools`. */
export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

function textOf(lines: readonly string[]): string {
  return lines.map((line) => `${printable(line, Number.POSITIVE_INFINITY)}\n`).join('');
}
