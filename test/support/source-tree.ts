/**
 * The project's own text files as data, for tests that check the structure of the house.
 *
 * Reads imports by pattern, not by a parser: comments are taken out first, strings are kept. That is enough for code
 * that the formatter has normalised; it is not a parser for TypeScript in general.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join, posix } from 'node:path';

/** Text by path, relative to the project, with forward slashes. */
export type SourceTree = ReadonlyMap<string, string>;

export interface Import {
  /** A path of the tree for a relative import, otherwise the specifier as written. */
  readonly target: string;
  readonly isRelative: boolean;
  /** Erased at compile time: `import type`, `export type`. */
  readonly isTypeOnly: boolean;
}

const BINARY = /\.(?:png|jpe?g|gif|ico|wav|tgz|gz|woff2?)$/;

/** Every text file below `folder`, except what .gitignore names and Git's own. */
export function readSourceTree(folder: string): SourceTree {
  const ignored = readFileSync(join(folder, '.gitignore'), 'utf8').split('\n');
  const skipped = new Set(['.git', ...ignored.map((line) => line.replaceAll('/', '')).filter(Boolean)]);
  const tree = new Map<string, string>();
  const visit = (relative: string): void => {
    for (const entry of readdirSync(join(folder, relative), { withFileTypes: true })) {
      if (skipped.has(entry.name)) continue;
      const path = posix.join(relative, entry.name);
      if (entry.isDirectory()) visit(path);
      else if (entry.isFile() && !BINARY.test(path)) tree.set(path, readFileSync(join(folder, path), 'utf8'));
    }
  };
  visit('');
  return tree;
}

/** Strings and templates (kept: group 1) or comments. A quote inside a comment, or the reverse, is read as it should be. */
const STRING_OR_COMMENT =
  /('(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\[\s\S])*`)|\/\*[\s\S]*?\*\/|\/\/[^\n]*/g;

/** `source` without its comments. */
export function withoutComments(source: string): string {
  return source.replace(STRING_OR_COMMENT, (_whole, text: string | undefined) => text ?? ' ');
}

/** `source` without its comments and with quoted strings emptied. Templates stay: they hold code. */
export function codeOnly(source: string): string {
  return withoutComments(source).replace(/'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"/g, "''");
}

const STATIC_IMPORT = /^\s*(?:import|export)\b(?:\s+(type)\s)?[^;'"]*?\bfrom\s*['"]([^'"]+)['"]/gm;
const BARE_IMPORT = /^\s*import\s*['"]([^'"]+)['"]/gm;
const DYNAMIC_IMPORT = /\bimport\(\s*['"]([^'"]+)['"]/g;

/** What the file at `path` imports, in any of the ways there are. */
export function readImports(path: string, source: string): Import[] {
  const code = withoutComments(source);
  const resolve = (specifier: string, isTypeOnly: boolean): Import => {
    const isRelative = specifier.startsWith('.');
    return { target: isRelative ? posix.join(posix.dirname(path), specifier) : specifier, isRelative, isTypeOnly };
  };
  return [
    ...Array.from(code.matchAll(STATIC_IMPORT), ([, type, specifier]) => resolve(specifier!, type !== undefined)),
    ...Array.from(code.matchAll(BARE_IMPORT), ([, specifier]) => resolve(specifier!, false)),
    ...Array.from(code.matchAll(DYNAMIC_IMPORT), ([, specifier]) => resolve(specifier!, false)),
  ];
}

/** The first cycle of runtime imports that is found, as the paths along it; empty when there is none. */
export function findImportCycle(tree: SourceTree): string[] {
  const finished = new Set<string>();
  const trail: string[] = [];
  const follow = (path: string): string[] => {
    if (finished.has(path)) return [];
    const start = trail.indexOf(path);
    if (start >= 0) return [...trail.slice(start), path];
    trail.push(path);
    for (const { target, isRelative, isTypeOnly } of readImports(path, tree.get(path) ?? '')) {
      const cycle = isRelative && !isTypeOnly && tree.has(target) ? follow(target) : [];
      if (cycle.length > 0) return cycle;
    }
    trail.pop();
    finished.add(path);
    return [];
  };
  for (const path of tree.keys()) {
    const cycle = path.endsWith('.ts') ? follow(path) : [];
    if (cycle.length > 0) return cycle;
  }
  return [];
}
