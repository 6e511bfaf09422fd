/** The count of a text's tokens, and the time that it may take. */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { estimateTokens, TokenCounter } from '../../sidecar/quota/tokens.ts';

/** Six tokens of o200k_base, and not what four bytes a token make of it. */
const TEXT = Buffer.from('to be or not to be');
const COUNTED = { tokens: 6, by: 'tokenizer' };
const ESTIMATED = { tokens: estimateTokens(TEXT.length), by: 'estimate' };

let now = 0;
/** Milliseconds that each reading of the clock takes: what a count costs. */
let costMs = 0;
let counter: TokenCounter;
before(async () => {
  counter = new TokenCounter(() => (now += costMs));
  assert.deepEqual(counter.count(TEXT), ESTIMATED, 'before the tokenizer is there');
  await counter.load();
});

test('a text is counted by the tokenizer, and what looks like a special token is text', () => {
  assert.deepEqual(counter.count(TEXT), COUNTED);
  assert.ok(counter.count(Buffer.from('<|endoftext|>')).tokens > 1);
});

test('what would take long is estimated: a large text, and one without a break', () => {
  for (const text of ['to be '.repeat(2000), `to be${'x'.repeat(256)}`, `to${' '.repeat(256)}be`]) {
    const bytes = Buffer.from(text);
    assert.deepEqual(counter.count(bytes), { tokens: estimateTokens(bytes.length), by: 'estimate' });
  }
});

test('a twentieth of the time is for the tokenizer, 10 ms of it at once; the rest is estimated', () => {
  const isCounted = () => counter.count(TEXT).by === 'tokenizer';
  now += 60_000;
  costMs = 1;
  const atOnce = Array.from({ length: 100 }, isCounted).indexOf(false);
  assert.ok(atOnce >= 10 && atOnce <= 12, `${atOnce} at once`);
  const startedAt = now;
  let counted = 0;
  while (now < startedAt + 10_000) if (isCounted()) counted += 1;
  assert.ok(counted > 450 && counted < 550, `${counted} of 10,000 ms`);
  costMs = 0;
});
