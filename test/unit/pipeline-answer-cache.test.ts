import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AnswerCache } from '../../sidecar/pipeline/answer-cache.ts';

const ANSWER = Buffer.from('{"jsonrpc":"2.0","id":1,"result":{"tools":[],"ttlMs":60000}}');

/** Keeps {@link ANSWER} and asks for it with another id. */
function keepAndFind(limits: { entries: number; bytes: number }): string | undefined {
  const cache = new AnswerCache(limits, () => 0);
  const key = cache.keyOf('hub', 'tools/list');
  cache.keep(key, ANSWER);
  return cache.find(key, 2)?.toString();
}

test('an answer with a ttlMs is found again, under the id that asks', () => {
  assert.equal(keepAndFind({ entries: 1, bytes: 1000 }), ANSWER.toString().replace('"id":1', '"id":2'));
});

for (const limits of [
  { entries: 0, bytes: 1000 },
  { entries: 1, bytes: 0 },
  { entries: 0, bytes: 0 },
])
  test(`off: ${JSON.stringify(limits)} keeps nothing`, () => {
    assert.equal(keepAndFind(limits), undefined);
  });
