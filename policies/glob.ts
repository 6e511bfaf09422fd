/**
 * Globs of the policy language: `*` is any run of characters (also none, also `/`), `?` is exactly one character, all
 * else is literal. Anchored at both ends, case-sensitive, no escapes.
 *
 * Guarantee: a match takes at most pattern length × text length steps, and the pattern is at most {@link GLOB_MAX}
 * characters, so the cost is linear in the text. There is no regular expression behind it, hence nothing that an
 * adversary's URI could drive into backtracking (CVE-2026-0621 was a URI template turned into a regular expression).
 */
import { err, ok, type Result } from './result.ts';

/** Longest pattern, in UTF-16 units. */
export const GLOB_MAX = 256;

export type Glob = (text: string) => boolean;

export function compileGlob(pattern: string): Result<Glob, string> {
  const problem = globProblem(pattern);
  return problem === undefined ? ok(globOf(pattern)) : err(problem);
}

/** @param pattern One that has been checked, or the normal form of one. */
export function globOf(pattern: string): Glob {
  const wildcard = pattern.search(/[*?]/);
  if (wildcard === -1) return (text) => text === pattern;
  if (pattern === '*') return () => true;
  if (wildcard === pattern.length - 1 && pattern.endsWith('*')) {
    const prefix = pattern.slice(0, -1);
    return (text) => text.startsWith(prefix);
  }
  return (text) => matchGlob(pattern, text);
}

/** What is wrong with a pattern, as a sentence; `undefined` when nothing is. */
export function globProblem(pattern: string): string | undefined {
  if (pattern === '') return 'an empty glob matches nothing: write * for everything';
  if (pattern.length > GLOB_MAX) return `a glob must not be longer than ${GLOB_MAX} characters`;
  if (/[\u0000-\u001f\u007f]/.test(pattern)) return 'a glob must not hold control characters';
  return undefined;
}

/**
 * Walks both strings once. On a mismatch it returns to the last `*` only and gives it one character more: an earlier
 * `*` never needs to grow, because the last one can take whatever it could have taken.
 */
export function matchGlob(pattern: string, text: string): boolean {
  let at = 0;
  let inPattern = 0;
  let afterStar = -1;
  let starEnd = 0;
  while (at < text.length) {
    const expected = pattern[inPattern];
    if (expected === '*') {
      afterStar = ++inPattern;
      starEnd = at;
    } else if (expected === '?') {
      inPattern += 1;
      at += characterWidth(text, at);
    } else if (expected === text[at]) {
      inPattern += 1;
      at += 1;
    } else if (afterStar === -1) {
      return false;
    } else {
      starEnd += characterWidth(text, starEnd);
      at = starEnd;
      inPattern = afterStar;
    }
  }
  while (pattern[inPattern] === '*') inPattern += 1;
  return inPattern === pattern.length;
}

/** UTF-16 units of the character at `index`: an emoji is one character. */
function characterWidth(text: string, index: number): number {
  return text.codePointAt(index)! > 0xffff ? 2 : 1;
}
