/**
 * Names that agents and servers have chosen, on a terminal: on one line, and nothing in them steers it.
 */

/** Long names say nothing more at their end. */
const LENGTH_MAX = 200;

/** C0, DEL, C1, separators of lines, what has no width, what reorders text, and halves of characters. */
const HIDDEN =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]|[\u{e0000}-\u{e0fff}]/gu;

/** Hidden characters become escapes (`\u{1b}`). */
export function printable(text: string, lengthMax = LENGTH_MAX): string {
  const cut = text.length > lengthMax ? `${text.slice(0, lengthMax)}…` : text;
  return cut.replace(HIDDEN, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);
}
