/**
 * Whether a key is repeated was once told by counting the keys of what `JSON.parse` had built. In one run out of many
 * the count did not differ for `{"\u00e9":1,"\u00e9":[]}`; now the bytes alone decide, and these are their edges.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseBody } from '../../sidecar/protocol/parse.ts';

const pathOf = (value: string): string | undefined => {
  const text = `{"jsonrpc":"2.0","id":1,"method":"x","params":{"zz":${value}}}`;
  const parsed = parseBody(Buffer.from(text), { depthMax: 64, batchMax: 10 });
  if (parsed.ok) return undefined;
  assert.equal(parsed.error.kind, 'duplicateKey');
  return parsed.error.kind === 'duplicateKey' ? parsed.error.path : undefined;
};
const objectOf = (keys: readonly string[]): string => `{${keys.map((key) => `"${key}":1`).join()}}`;
const many = Array.from({ length: 40 }, (_, index) => `k${index}`);

const repeated: Record<string, [value: string, path: string]> = {
  'both with the same escape': ['{"\\u00e9":1,"\\u00e9":[]}', 'params.zz.é'],
  'one with an escape': ['{"é":1,"\\u00e9":[]}', 'params.zz.é'],
  'behind an object that had the key': ['{"a":{"b":1},"b":1,"b":2}', 'params.zz.b'],
  'the last of 33': [objectOf([...many.slice(0, 32), 'k0']), 'params.zz.k0'],
  'the last of 41, with the key before it': [objectOf([...many, 'k39']), 'params.zz.k39'],
  'behind an object of many keys': [`{"a":${objectOf(many)},"b":1,"b":2}`, 'params.zz.b'],
  'in an array behind another object': ['[{"a":1},[{"a":1,"a":2}]]', 'params.zz.1.0.a'],
  'the empty key': ['{"":1,"":2}', 'params.zz.'],
};
for (const [name, [value, path]] of Object.entries(repeated)) {
  test(`repeated: ${name}`, () => assert.equal(pathOf(value), path));
}

const different: Record<string, string> = {
  'escapes of two letters': '{"\\u00e9":1,"\\u00e8":2}',
  'one key at three depths': '{"a":{"a":{"a":1}}}',
  'siblings with the same keys': '[{"a":1},{"a":1},{"b":{"a":1},"a":2}]',
  '40 keys': objectOf(many),
  '40 keys twice, side by side': `[${objectOf(many)},${objectOf(many)}]`,
  'two keys of one hash': '{"Aa":1,"BB":2}',
  'a value that looks like the key': '{"a":"b","b":"a"}',
};
for (const [name, value] of Object.entries(different)) {
  test(`not repeated: ${name}`, () => assert.equal(pathOf(value), undefined));
}
