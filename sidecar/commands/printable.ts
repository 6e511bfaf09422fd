/**
 * Names that agents and servers have chosen, on a terminal: on one line, and nothing in them steers it.
 */
import { showHidden } from '../../policies/hidden-characters.ts';

/** Long names say nothing more at their end. */
const LENGTH_MAX = 200;

const LINE_CHARACTERS: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };

/** Hidden characters become escapes (`\u{1b}`). */
export function printable(text: string, lengthMax = LENGTH_MAX): string {
  const cut = text.length > lengthMax ? `${text.slice(0, lengthMax)}…` : text;
  return showHidden(cut).replace(/[\n\r\t]/g, (found) => LINE_CHARACTERS[found]!);
}
