import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LineSplitter, toLine } from '../../sidecar/upstream/stdio-line.ts';
import fc from '../support/fast-check.ts';

const text = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.constantFrom('\u2028', '\u2029', '\u0085', 'a\u2028{"b":1}\u2029'),
);
const value = fc.letrec((tie) => ({
  any: fc.oneof(
    { maxDepth: 4 },
    text,
    fc.integer(),
    fc.boolean(),
    fc.array(tie('any')),
    fc.dictionary(text, tie('any')),
  ),
})).any;

test('any JSON becomes one line of the same meaning, for every reader of lines', () => {
  fc.assert(
    fc.property(value, fc.constantFrom(undefined, 2, '\t'), (json, indent) => {
      const line = toLine(Buffer.from(JSON.stringify(json, undefined, indent))).toString();
      assert.deepEqual(JSON.parse(line), JSON.parse(JSON.stringify(json)));
      assert.equal(line.split(/[\n\r\u0085\u2028\u2029]/).length, 2);
    }),
    { verbose: true },
  );
});

test('lines are the same in whatever pieces they arrive', () => {
  const lines = fc.array(
    fc
      .string()
      .map((line) => line.replaceAll('\n', ''))
      .filter((line) => line !== ''),
  );
  fc.assert(
    fc.property(lines, fc.array(fc.nat({ max: 20 }), { minLength: 1 }), (expected, sizes) => {
      const bytes = Buffer.from(expected.map((line) => `${line}\n`).join(''));
      const seen: string[] = [];
      const splitter = new LineSplitter(
        1000,
        (line) => seen.push(line.toString()),
        () => assert.fail('too long'),
      );
      for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
        const size = (sizes[turn % sizes.length] ?? 0) + 1;
        splitter.push(bytes.subarray(at, at + size));
        at += size;
      }
      assert.deepEqual(seen, expected);
    }),
    { verbose: true },
  );
});
