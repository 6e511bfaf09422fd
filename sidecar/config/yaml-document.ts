/**
 * A YAML (or JSON) file as plain data plus the place of each of its parts.
 *
 * Refuses what would be read in two ways or grow without bound: duplicate keys, several documents, unknown tags,
 * anything but UTF-8, files beyond 1 MiB, anchors that multiply. The work grows with the text and no faster, whatever the
 * text. Reading and parsing only: what the data means is the schema's business.
 */
import {
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  type Pair,
  parseDocument,
  visit,
  type YAMLError,
} from 'yaml';
import { err, ok, type Result } from '../../policies/result.ts';
import { type DocumentProblem, type Problem, showPath, wholeFile } from './problem.ts';
import { readText } from './text-file.ts';

/** Of one anchor, and of those that it holds, multiplied. */
const ALIASES_MAX = 100;
/** Each one is looked for among all anchors. */
const ALIASES_IN_ALL_MAX = 1_000;

export interface YamlDocument {
  /** Absolute path. */
  readonly file: string;
  readonly value: unknown;
  /** Gives a problem its place; a part that does not exist gets the place of what would hold it. */
  locate(problem: DocumentProblem): Problem;
}

export async function readYaml(file: string): Promise<Result<YamlDocument, Problem[]>> {
  const text = await readText(file);
  return text.ok ? parseYaml(text.value, file) : err([wholeFile(file, text.error)]);
}

export function parseYaml(text: string, file: string): Result<YamlDocument, Problem[]> {
  if (text.trim() === '') return err([wholeFile(file, 'is empty')]);
  const lines = new LineCounter();
  // The parser compares each key with all before it: seconds for a file of a few hundred KiB. See findSurprises.
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: false });
  const place = (offset: number, message: string): Problem => {
    const { line, col } = lines.linePos(offset);
    return { file, line, column: col, path: '', message };
  };
  const faults = firstFaults([...document.errors, ...document.warnings]);
  const problems = faults.map(({ code, pos }) => {
    const open = MAY_BE_UNCLOSED.has(code) ? findUnclosed(text, pos[0]) : undefined;
    if (open !== undefined) return place(open.offset, `this ${open.sign} is not closed`);
    return place(pos[0], FAULTS[code] ?? `not valid YAML (${code})`);
  });
  if (faults.every(({ code }) => HARMLESS.has(code)))
    for (const { offset, message } of findSurprises(document)) problems.push(place(offset, message));
  if (problems.length > 0) return err(problems);
  try {
    const value: unknown = document.toJS({ maxAliasCount: ALIASES_MAX });
    if (value === null) return err([wholeFile(file, 'is empty')]);
    return ok({ file, value, locate: (problem) => locate(problem, document, file, lines) });
  } catch (error) {
    // How the parser refuses to expand aliases beyond the bound.
    if (error instanceof ReferenceError) return err([wholeFile(file, 'uses anchors that multiply beyond measure')]);
    throw error;
  }
}

/** Faults that leave no doubt about what follows. */
const HARMLESS: ReadonlySet<YAMLError['code']> = new Set(['TAG_RESOLVE_FAILED', 'MULTIPLE_DOCS']);

/** One slip in the syntax makes the parser stumble over all that follows: only the first such is told. */
function firstFaults(faults: readonly YAMLError[]): readonly YAMLError[] {
  const [syntax] = faults.filter(({ code }) => !HARMLESS.has(code)).sort((left, right) => left.pos[0] - right.pos[0]);
  return faults.filter((fault) => fault === syntax || HARMLESS.has(fault.code));
}

const MAY_BE_UNCLOSED: ReadonlySet<YAMLError['code']> = new Set(['BAD_INDENT', 'MISSING_CHAR']);

/** The innermost bracket or quote before `end` that nothing closes: the parser only tells where it gave up. */
function findUnclosed(text: string, end: number): { readonly offset: number; readonly sign: string } | undefined {
  const open: { offset: number; sign: string }[] = [];
  visit(parseDocument(text, { prettyErrors: false, keepSourceTokens: true, uniqueKeys: false }), {
    Node: (_, { srcToken }) => {
      if (srcToken?.type === 'flow-collection') {
        const sign = srcToken.start.type === 'flow-seq-start' ? 'flow-seq-end' : 'flow-map-end';
        const isClosed = srcToken.end.some(({ type }) => type === sign);
        if (!isClosed) open.push({ offset: srcToken.start.offset, sign: srcToken.start.source });
      } else if (srcToken?.type === 'double-quoted-scalar' || srcToken?.type === 'single-quoted-scalar') {
        const { offset, source } = srcToken;
        if (source.length === 1 || !source.endsWith(source[0]!)) open.push({ offset, sign: source[0]! });
      }
    },
  });
  return open.filter(({ offset }) => offset < end).at(-1);
}

interface Surprise {
  readonly offset: number;
  readonly message: string;
}

/** What has two meanings or none as plain data: keys that are not text or stand twice, aliases to nothing or to themselves. */
function findSurprises(document: Document): Surprise[] {
  const found: Surprise[] = [];
  const anchors = new Map<string, readonly [start: number, valueEnd: number, end: number]>();
  let aliases = 0;
  visit(document, {
    Pair: (_, { key }) => {
      if (!isScalar(key)) found.push({ offset: startOf(key) ?? 0, message: 'a key must be text' });
    },
    Value: (_, node) => {
      if (node.anchor !== undefined && node.range) anchors.set(node.anchor, node.range);
      if (isMap(node))
        for (const offset of repeatedKeys(node.items)) found.push({ offset, message: 'this key stands here twice' });
    },
    Alias: (_, alias) => {
      const offset = startOf(alias) ?? 0;
      aliases += 1;
      if (aliases > ALIASES_IN_ALL_MAX) {
        found.push({ offset, message: `there are more than ${ALIASES_IN_ALL_MAX} aliases (*name)` });
        return visit.BREAK;
      }
      const target = anchors.get(alias.source);
      if (target === undefined) found.push({ offset, message: 'this alias (*name) has no anchor (&name) before it' });
      else if (offset < target[2]) found.push({ offset, message: 'this alias contains itself' });
      return undefined;
    },
  });
  return found;
}

/** @returns where they stand. */
function repeatedKeys(pairs: readonly Pair[]): number[] {
  const seen = new Set<string>();
  const repeated: number[] = [];
  for (const { key } of pairs) {
    if (!isScalar(key)) continue;
    const name = String(key.value);
    if (seen.has(name)) repeated.push(startOf(key) ?? 0);
    seen.add(name);
  }
  return repeated;
}

/** The parser's own texts may quote the file; these do not. */
const FAULTS: Readonly<Partial<Record<YAMLError['code'], string>>> = {
  TAB_AS_INDENT: 'a tab cannot indent YAML: use spaces',
  MULTIPLE_DOCS: 'a second document starts here: one file holds one',
  TAG_RESOLVE_FAILED: 'tags (!name) are not used here',
  BAD_INDENT: 'the indentation does not fit, or a bracket is not closed',
  MISSING_CHAR: 'a character is missing, such as a closing quote, a bracket or a colon',
  BLOCK_AS_IMPLICIT_KEY: 'a mapping cannot start here: a colon too many, or a wrong indentation',
  MULTILINE_IMPLICIT_KEY: 'a key must stand on one line and be followed by a colon',
  BAD_DQ_ESCAPE: 'this escape sequence does not exist: use single quotes',
  BAD_SCALAR_START: 'text cannot start with this character: put it in quotes',
  NON_STRING_KEY: 'a key must be text',
  RESOURCE_EXHAUSTION: 'is nested too deeply',
  UNEXPECTED_TOKEN: 'this does not belong here',
};

function locate({ path, at, message }: DocumentProblem, document: Document, file: string, lines: LineCounter): Problem {
  let node: unknown = document.contents;
  let offset = startOf(node) ?? 0;
  for (const [index, segment] of path.entries()) {
    const step = stepInto(isAlias(node) ? node.resolve(document) : node, segment);
    if (step === undefined) break;
    node = step.value;
    const wanted = index === path.length - 1 && at === 'value' ? startOf(node) : step.keyOffset;
    offset = wanted ?? step.keyOffset ?? offset;
  }
  const { line, col } = lines.linePos(offset);
  return { file, line, column: col, path: showPath(path), message };
}

function stepInto(
  node: unknown,
  segment: string | number,
): { keyOffset: number | undefined; value: unknown } | undefined {
  if (isSeq(node)) {
    const item = node.items[Number(segment)];
    return item === undefined ? undefined : { keyOffset: startOf(item), value: item };
  }
  // One thing where a list may stand is read as a list of one.
  if (segment === 0) return { keyOffset: undefined, value: node };
  if (!isMap(node)) return undefined;
  const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === String(segment));
  return pair === undefined ? undefined : { keyOffset: startOf(pair.key), value: pair.value };
}

function startOf(node: unknown): number | undefined {
  return (node as Node | null | undefined)?.range?.[0];
}
