import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LineSplitter, toLine } from '../../sidecar/upstream/stdio-line.ts';

for (const [what, json, line] of [
  ['one line stays as it is', '{"a":1}', '{"a":1}\n'],
  ['line breaks between tokens become spaces', '{\r\n"a":\n1\r}', '{  "a": 1 }\n'],
  ['a number beyond 2^53 keeps its digits', '{"n":9007199254740993,\n"x":1.0}', '{"n":9007199254740993, "x":1.0}\n'],
  ['an escaped line break is not touched', '{"a":"x\\ny"}', '{"a":"x\\ny"}\n'],
  ['other text stays', '{"a":"ä €\u{1f600}"}', '{"a":"ä €\u{1f600}"}\n'],
  ['U+2028 and U+2029 are escaped', '{"a":"x\u2028{}\u2029y\u2027"}', '{"a":"x\\u2028{}\\u2029y\u2027"}\n'],
  ['U+0085 is escaped', '{"a":"x\u0085y\u0084"}', '{"a":"x\\u0085y\u0084"}\n'],
] as const) {
  test(`a message on one line: ${what}`, () => assert.equal(toLine(Buffer.from(json)).toString(), line));
}

function split(bytesMax: number, ...chunks: string[]): string[] {
  const seen: string[] = [];
  const splitter = new LineSplitter(
    bytesMax,
    (line) => seen.push(line.toString()),
    () => seen.push('(too long)'),
  );
  for (const chunk of chunks) splitter.push(Buffer.from(chunk));
  return seen;
}

test('lines are cut however the bytes arrive', () => {
  assert.deepEqual(split(10, 'one\ntwo\n', 'th', 're', 'e\n\nfo', 'ur'), ['one', 'two', 'three']);
});

test('a line over the bound is told once and skipped, before its end has come', () => {
  assert.deepEqual(split(4, '12345', '6789', '0\nok\n'), ['(too long)', 'ok']);
  assert.deepEqual(split(4, '1234\n12345\n'), ['1234', '(too long)']);
});
