import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { printable } from '../../sidecar/commands/printable.ts';
import { csvText, tableText } from '../../sidecar/commands/rows-text.ts';

it('a table is aligned, numbers to the right, and nothing in it steers a terminal', () => {
  const text = tableText(
    ['agent', 'calls', 'cost'],
    [
      ['triage', 12, undefined],
      ['w\u001b[31m', 3, undefined],
      ['schön 😀\n', 100, undefined],
    ],
  );
  assert.equal(
    text,
    [
      'agent        calls  cost',
      'triage          12     -',
      'w\\u{1b}[31m      3     -',
      'schön 😀\\n      100     -',
      '',
    ].join('\n'),
  );
});

describe('CSV', () => {
  const cells: [string | number | undefined, string][] = [
    ['plain', '"plain"'],
    ['', '""'],
    [undefined, ''],
    [1.5, '1.5'],
    [-1, '-1'],
    ['a,b', '"a,b"'],
    ['say "hi"', '"say ""hi"""'],
    ['two\nlines', '"two\nlines"'],
    ['two\rlines', '"two\\u{d}lines"'],
    [' led', '" led"'],
    ['a=1', '"a=1"'],
    ['=1+1', `"'=1+1"`],
    ['+1', `"'+1"`],
    ['-1', `"'-1"`],
    ['@sum', `"'@sum"`],
    [' =1', `"' =1"`],
    ['\uff1d1', `"'\uff1d1"`],
    ['\uff0b1', `"'\uff0b1"`],
    ['\uff0d1', `"'\uff0d1"`],
    ['\uff20sum', `"'\uff20sum"`],
    ['\t=1', `"'\t=1"`],
    ['\n=1', `"'\n=1"`],
    ['\r\n=1', `"'\r\n=1"`],
    ['\r=1', '"\\u{d}=1"'],
    ['x;=1', '"x;=1"'],
    ['=HYPERLINK("x","y")', `"'=HYPERLINK(""x"",""y"")"`],
    ['\u001b[2J', '"\\u{1b}[2J"'],
  ];
  for (const [cell, expected] of cells)
    it(`${JSON.stringify(cell)}`, () => assert.equal(csvText(['h'], [[cell]]), `"h"\r\n${expected}\r\n`));
});

it('a long name is cut, and hidden characters show', () => {
  assert.equal(printable('x'.repeat(300)), `${'x'.repeat(200)}…`);
  assert.equal(printable('a\u200bb\u202ec\td'), 'a\\u{200b}b\\u{202e}c\\td');
});
