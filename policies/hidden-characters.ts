/**
 * Characters that a model reads and a person who reviews the text does not see, or sees elsewhere than they stand. Pure.
 *
 * The table is of Unicode 17.0: the categories Cc (controls; `\n`, `\t` and the `\r` of a line end are text), Cf
 * (format: zero width, bidirectional, tags) without the ten Arabic, Syriac and Kaithi signs that are visible, Zl, Zp,
 * Cs (halves of characters), Co (private use) and the noncharacters; and whatever else has Default_Ignorable_Code_Point
 * (variation selectors, fillers, U+034F, blocks kept for more of the same). An emoji is one visible thing with all that
 * it is made of, such as U+FE0F and U+200D, where it is one of Unicode's own sequences (RGI_Emoji).
 *
 * It does not know unusual spaces (Zs), nor letters that look like others. A joiner (U+200C, U+200D) between the letters
 * of Persian or an Indic script is told like any other: it is as good for hiding there.
 */

/** First and last code point, both included, in order. */
const HIDDEN: readonly (readonly [number, number])[] = [
  [0x00, 0x08],
  [0x0b, 0x0c],
  [0x0e, 0x1f],
  [0x7f, 0x9f],
  [0xad, 0xad],
  [0x34f, 0x34f],
  [0x61c, 0x61c],
  [0x115f, 0x1160],
  [0x17b4, 0x17b5],
  [0x180b, 0x180f],
  [0x200b, 0x200f],
  [0x2028, 0x202e],
  [0x2060, 0x206f],
  [0x3164, 0x3164],
  [0xd800, 0xf8ff],
  [0xfdd0, 0xfdef],
  [0xfe00, 0xfe0f],
  [0xfeff, 0xfeff],
  [0xffa0, 0xffa0],
  [0xfff0, 0xfffb],
  [0xfffe, 0xffff],
  [0x13430, 0x1343f],
  [0x1bca0, 0x1bca3],
  [0x1d173, 0x1d17a],
  // The last two code points of each plane, the block of tags and selectors, and the planes for private use.
  ...Array.from({ length: 13 }, (_, plane): [number, number] => [
    (plane + 1) * 0x10000 + 0xfffe,
    (plane + 2) * 0x10000 - 1,
  ]),
  [0xe0000, 0xe0fff],
  [0xefffe, 0x10ffff],
];

const hex = (codePoint: number) => codePoint.toString(16);
const CLASS = HIDDEN.map(([first, last]) => `\\u{${hex(first)}}-\\u{${hex(last)}}`).join('');
const ANY = new RegExp(`[${CLASS}]|\\r(?!\\n)`, 'v');
/** Case by case, an emoji as a whole before its parts. */
const EACH = new RegExp(`\\p{RGI_Emoji}|[${CLASS}]|\\r(?!\\n)`, 'gv');
const EACH_ALSO_IN_EMOJI = new RegExp(ANY, 'gv');

/** The hidden characters of a text as escapes (`\u{200b}`), in the order in which they stand. */
export function hiddenIn(text: string): string[] {
  // Most texts have none, and looking for emoji costs.
  if (!ANY.test(text)) return [];
  return Array.from(text.matchAll(EACH), ([found]) => found)
    .filter(isHidden)
    .map(escapeOf);
}

/** The text with its hidden characters as escapes (`\u{200b}`). */
export function showHidden(text: string): string {
  return ANY.test(text) ? text.replace(EACH, (found) => (isHidden(found) ? escapeOf(found) : found)) : text;
}

/** JSON text that means the same, with every hidden character as an escape of JSON, those of emoji too. */
export function escapeHiddenInJson(json: string): string {
  return json.replace(EACH_ALSO_IN_EMOJI, (found) =>
    Array.from({ length: found.length }, (_, unit) => `\\u${hex(found.charCodeAt(unit)).padStart(4, '0')}`).join(''),
  );
}

/** What was found is a hidden character by itself, and not an emoji: those start with something visible. */
function isHidden(found: string): boolean {
  const codePoint = found.codePointAt(0)!;
  return found === '\r' || HIDDEN.some(([first, last]) => codePoint >= first && codePoint <= last);
}

function escapeOf(character: string): string {
  return `\\u{${hex(character.codePointAt(0)!)}}`;
}
