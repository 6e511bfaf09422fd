/**
 * A stream of YAML documents (or JSON) as kubectl reads it, and back to text in the manner of what it was. PURE.
 *
 * YAML 1.1, as the library behind kubectl has it (sigs.k8s.io/yaml): `yes` is a boolean; but `22:22` and `2026-01-01` are
 * text, of which 1.1 would make a number and a date.
 */
import { type Document, isAlias, isNode, LineCounter, parseDocument, visit } from 'yaml';
import { err, ok, type Result } from '../policies/result.ts';

/** One document of a stream: its text from its `---` on. */
export interface Part {
  readonly text: string;
  readonly firstLine: number;
}

export interface ParsedPart {
  readonly document: Document;
  /** As JSON would have it. */
  readonly value: unknown;
  /** Line in the stream. */
  readonly lineAt: (offset: number) => number;
}

export interface PartProblem {
  readonly line: number;
  readonly message: string;
}

const ALIASES_MAX = 1000;

/** A line `---` begins a document wherever it stands, in block scalars too (YAML 1.2, section 9.1.2, c-forbidden). */
export function partsOf(text: string): readonly Part[] {
  const markers = Array.from(text.matchAll(/(?<![^\n])---(?![^ \t\r\n])/g), ({ index }) => index);
  const starts = [0, ...markers.filter((at) => at > 0)];
  let firstLine = 1;
  return starts.map((start, index) => {
    const part = { text: text.slice(start, starts[index + 1] ?? text.length), firstLine };
    firstLine += part.text.split('\n').length - 1;
    return part;
  });
}

export function parsePart({ text, firstLine }: Part): Result<ParsedPart, PartProblem[]> {
  const lines = new LineCounter();
  const lineAt = (offset: number) => firstLine + lines.linePos(offset).line - 1;
  const document = parseDocument(text, {
    version: '1.1',
    customTags: (tags) =>
      tags.filter((tag) => typeof tag === 'string' || (tag.format !== 'TIME' && !tag.tag.endsWith(':timestamp'))),
    lineCounter: lines,
    prettyErrors: false,
    uniqueKeys: true,
  });
  const problems = document.errors.map(({ message, pos }) => ({ line: lineAt(pos[0]), message }));
  const anchors = new Set<string>();
  visit(document, (_, node, path) => {
    if (!isAlias(node)) {
      if (isNode(node) && node.anchor !== undefined) anchors.add(node.anchor);
      return;
    }
    const { source, range } = node;
    const isInItself = path.some((one) => isNode(one) && !isAlias(one) && one.anchor === source);
    if (isInItself || !anchors.has(source))
      problems.push({
        line: lineAt(range?.[0] ?? 0),
        message: `*${source} has no anchor &${source} that ends before it`,
      });
  });
  if (problems.length > 0) return err(problems);
  try {
    return ok({ document, value: document.toJS({ maxAliasCount: ALIASES_MAX }) as unknown, lineAt });
  } catch {
    return err([{ line: firstLine, message: `its aliases (*) stand for more than ${ALIASES_MAX} nodes` }]);
  }
}

/** The document as text, in the manner of what it was; `undefined` where that cannot be: an alias has lost its anchor. */
export function printPart({ text: before }: Part, document: Document): string | undefined {
  let text: string;
  try {
    text = isJson(before)
      ? `${JSON.stringify(document.toJS(), undefined, 2)}\n`
      : document.toString({ lineWidth: 0, directives: /(?<![^\n\uFEFF])---/.test(before), ...mannerOf(before) });
  } catch {
    return undefined;
  }
  const byteOrderMark = before.startsWith('\uFEFF') ? '\uFEFF' : '';
  return byteOrderMark + (before.includes('\r\n') ? text.replaceAll(/\r?\n/g, '\r\n') : text);
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text.replace(/^\uFEFF/, ''));
    return true;
  } catch {
    return false;
  }
}

/** How deep, lists below their key indented or not, braces with room inside or not: as most of the text does it. */
function mannerOf(text: string): { indent: number; indentSeq: boolean; flowCollectionPadding: boolean } {
  const bare = text.replaceAll(/'[^'\n]*'|"[^"\n]*"/g, '');
  const count = (pattern: RegExp) => bare.match(pattern)?.length ?? 0;
  return {
    indent: /^[^\s#][^\n]*:[ \t]*\r?\n( {1,8})(?=[^\s#-])/m.exec(bare)?.[1]?.length ?? 2,
    indentSeq: count(/^( *)[\w-]+:\r?\n\1- /gm) <= count(/^( *)[\w-]+:\r?\n\1 +- /gm),
    flowCollectionPadding: count(/[{[][^\s\]}]/g) <= count(/[{[] \S/g),
  };
}
