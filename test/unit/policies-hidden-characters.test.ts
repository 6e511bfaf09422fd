import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { escapeHiddenInJson, hiddenIn, showHidden } from '../../policies/hidden-characters.ts';

/** What is hidden by Unicode's own words; the visible ones of Cf are those that enclose the digits behind them. */
const BY_UNICODE = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}\p{DI}\p{NChar}]/v;
const VISIBLE = /[\t\n\r\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\u{110bd}\u{110cd}]/v;

test('the table is what Unicode says', () => {
  const wrong: string[] = [];
  for (let codePoint = 0; codePoint <= 0x10ffff; codePoint++) {
    const character = String.fromCodePoint(codePoint);
    const isHidden = BY_UNICODE.test(character) && !VISIBLE.test(character);
    // A newer Unicode may come with more of them, an older one with fewer: those that this Node does not know are left out.
    if (/\p{Cn}/v.test(character) && !isHidden) continue;
    if (hiddenIn(`a${character}\n`).length > 0 !== isHidden) wrong.push(codePoint.toString(16));
  }
  assert.deepEqual(wrong, []);
});

describe('shown', () => {
  for (const [what, text, shown] of [
    ['zero width', 'a\u200bb\u2060c\ufeff', 'a\\u{200b}b\\u{2060}c\\u{feff}'],
    ['text turned round', '\u202eevil\u2069', '\\u{202e}evil\\u{2069}'],
    ['letters in tags', 'x\u{e0041}\u{e007f}', 'x\\u{e0041}\\u{e007f}'],
    ['bytes in variation selectors', '😀\u{e0101}\ufe03', '😀\\u{e0101}\\u{fe03}'],
    ['an escape sequence', '\u001b[2Jx\u009b', '\\u{1b}[2Jx\\u{9b}'],
    ['a soft hyphen and private use', '\u00ad\ue000\u{100000}', '\\u{ad}\\u{e000}\\u{100000}'],
    ['half a character', 'a\ud800b', 'a\\u{d800}b'],
    ['a return that overwrites', 'good\rbad', 'good\\u{d}bad'],
    ['a joiner outside of emoji', 'a\u200d😀', 'a\\u{200d}😀'],
  ] as const)
    test(what, () => {
      assert.equal(showHidden(text), shown);
      assert.deepEqual(hiddenIn(text).join(''), shown.match(/\\u\{[0-9a-f]+\}/g)!.join(''));
    });

  for (const [what, text] of [
    ['lines and tabs', 'a\n\tb\r\nc'],
    ['emoji with all their parts', '👨‍👩‍👧 ☺️ 1️⃣ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🏳️‍🌈'],
    ['other scripts', 'Größe 説明 описание شرح ١٢٣'],
    ['an escape that is text', '\\u{200b}'],
  ] as const)
    test(`as it is: ${what}`, () => {
      assert.equal(showHidden(text), text);
      assert.deepEqual(hiddenIn(text), []);
    });
});

test('as JSON that means the same, and emoji taken apart', () => {
  const value = { 'a\u200b': ['\u{e0041}\ud800', '☺️', 'ü'] };
  const json = escapeHiddenInJson(JSON.stringify(value));
  assert.equal(json, '{"a\\u200b":["\\udb40\\udc41\\ud800","☺\\ufe0f","ü"]}');
  assert.deepEqual(JSON.parse(json), value);
});
