/**
 * What is wrong with a configuration: every problem at once, each with its place and one sentence. No problem ever
 * quotes a value: it could be a secret that somebody wrote into the wrong place.
 */
import { relative } from 'node:path';

/** What is wrong with the shape of a document is told in the same words as of a policy. */
export { type DocumentProblem, problemsOfIssues } from '../../policies/shape-problems.ts';

export interface Problem {
  /** Absolute path; `undefined` when no file is to blame. */
  readonly file: string | undefined;
  /** 1-based; `undefined` when the problem is the file as a whole. */
  readonly line: number | undefined;
  readonly column: number | undefined;
  /** `servers.github.auth`; empty for the document as a whole. */
  readonly path: string;
  readonly message: string;
}

/** A problem of a file as such. */
export function wholeFile(file: string, message: string): Problem {
  return { file, line: undefined, column: undefined, path: '', message };
}

/** One line each: `file:line:column  path: sentence`. Files inside `folder` are shown relative to it. */
export function formatProblems(problems: readonly Problem[], folder: string = process.cwd()): string {
  return problems.map((problem) => formatProblem(problem, folder)).join('\n');
}

function formatProblem({ file, line, column, path, message }: Problem, folder: string): string {
  const shown = file === undefined ? undefined : showFile(file, folder);
  const place = [shown, line, column].filter((part) => part !== undefined).join(':');
  const sentence = path === '' ? message : `${path}: ${message}`;
  return place === '' ? sentence : `${place}  ${sentence}`;
}

export function showFile(file: string, folder: string = process.cwd()): string {
  const shown = relative(folder, file);
  return shown === '' || shown.startsWith('..') ? file : shown;
}

/** `['servers', 'a', 'command', 0]` → `servers.a.command[0]`. */
export function showPath(path: readonly (string | number)[]): string {
  return path.reduce<string>(
    (text, segment) =>
      typeof segment === 'number' ? `${text}[${segment}]` : text === '' ? segment : `${text}.${segment}`,
    '',
  );
}
