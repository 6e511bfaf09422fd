/**
 * Every place of a source where one comparison or one boolean can be turned round. Pure.
 *
 * Works on JavaScript whose types were stripped with white space (`stripTypeScriptTypes`), so that each `<` is a
 * comparison and positions are those of the TypeScript file. Strings, templates, regular expressions and comments are
 * passed over.
 */
export interface Mutant {
  /** Index of the first character that is replaced. */
  readonly start: number;
  readonly end: number;
  readonly original: string;
  readonly replacement: string;
  /** Starting at 1. */
  readonly line: number;
}

/** What each token becomes. A relation is turned round, and its boundary is moved. */
const REPLACEMENTS: ReadonlyMap<string, readonly string[]> = new Map([
  ['===', ['!==']],
  ['!==', ['===']],
  ['<', ['>=', '<=']],
  ['<=', ['>', '<']],
  ['>', ['<=', '>=']],
  ['>=', ['<', '>']],
  ['&&', ['||']],
  ['||', ['&&']],
  ['true', ['false']],
  ['false', ['true']],
  ['!', ['']],
]);

/** Longest first; those that only look like ours come with them, so that they are taken whole. */
const PUNCTUATION =
  /===|!==|&&=|\|\|=|\?\?=|>>>=|>>=|<<=|>>>|<=|>=|=>|&&|\|\||\?\?|\?\.|<<|>>|\+\+|--|[<>!+\-*/%&|^~=?:;,.(){}[\]@#]/y;
const WORD = /[\p{ID_Start}$_][\p{ID_Continue}$]*/uy;
const NUMBER = /\d[\w.]*/y;
const SKIPPED = /\s+|\/\/[^\n]*|\/\*[\s\S]*?\*\//y;
const STRING = /'(?:[^'\\\n]|\\[\s\S])*'|"(?:[^"\\\n]|\\[\s\S])*"/y;
const REGEX = /\/(?:[^/\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/[a-z]*/y;
/** Words behind which a `/` begins a regular expression. */
const BEFORE_EXPRESSION = new Set(['return', 'typeof', 'case', 'in', 'of', 'else', 'void', 'delete', 'throw', 'new']);

export function findMutants(source: string): Mutant[] {
  const mutants: Mutant[] = [];
  const take = (pattern: RegExp, at: number): string | undefined => {
    pattern.lastIndex = at;
    return pattern.exec(source)?.[0];
  };
  /** Of each template that is open: how many braces are open inside its present `${`. */
  const templates: number[] = [];
  let line = 1;
  let at = 0;
  let previous = '';
  const advance = (text: string): void => {
    for (const character of text) if (character === '\n') line++;
    at += text.length;
  };
  const readTemplate = (): void => {
    const text = take(/(?:[^`\\$]|\\[\s\S]|\$(?!\{))*(?:`|\$\{)/y, at);
    if (text === undefined) throw new Error(`line ${line}: a template that does not end`);
    advance(text);
    if (text.endsWith('${')) templates.push(0);
    previous = text.endsWith('${') ? '(' : 'value';
  };

  while (at < source.length) {
    const skipped = take(SKIPPED, at);
    if (skipped !== undefined) {
      advance(skipped);
      continue;
    }
    const character = source[at]!;
    if (character === '`') {
      advance(character);
      readTemplate();
      continue;
    }
    if (templates.length > 0) {
      const open = templates.at(-1)!;
      if (character === '}' && open === 0) {
        templates.pop();
        advance(character);
        readTemplate();
        continue;
      }
      if (character === '{') templates[templates.length - 1] = open + 1;
      if (character === '}') templates[templates.length - 1] = open - 1;
    }
    const value = take(STRING, at) ?? take(NUMBER, at) ?? (endsValue(previous) ? undefined : take(REGEX, at));
    if (value !== undefined) {
      advance(value);
      previous = 'value';
      continue;
    }
    const token = take(WORD, at) ?? take(PUNCTUATION, at);
    if (token === undefined) throw new Error(`line ${line}: ${JSON.stringify(character)} is not known to this lexer`);
    if (previous !== '.' && previous !== '?.')
      for (const replacement of REPLACEMENTS.get(token) ?? [])
        mutants.push({ start: at, end: at + token.length, original: token, replacement, line });
    advance(token);
    previous = token;
  }
  return mutants;
}

/** Whether a `/` behind this token divides. */
function endsValue(token: string): boolean {
  if (token === 'value' || token === ')' || token === ']' || token === '}') return true;
  return /^[\p{ID_Start}$_]/u.test(token) && !BEFORE_EXPRESSION.has(token);
}

export function applyMutant(source: string, { start, end, replacement }: Mutant): string {
  return source.slice(0, start) + replacement + source.slice(end);
}
