/** Quantities are exact: two spellings of one amount are the same, and no two amounts are. */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { keptQuantity, parseQuantity } from '../../injector/quantity.ts';
import fc from '../support/fast-check.ts';

const NANO = 10n ** 9n;

suite('a quantity', () => {
  const amounts: readonly [text: string, billionths: bigint | undefined][] = [
    ['0', 0n],
    ['1', NANO],
    ['+1', NANO],
    ['1.', NANO],
    ['.5', NANO / 2n],
    ['0.7', 700_000_000n],
    ['700m', 700_000_000n],
    ['100u', 100_000n],
    ['100n', 100n],
    ['1.5n', 2n],
    ['0.0000000001', 1n],
    ['1e-99', 1n],
    ['1e3', 1_000n * NANO],
    ['1E3', 1_000n * NANO],
    ['1E+3', 1_000n * NANO],
    ['1e-3', NANO / 1_000n],
    ['1k', 1_000n * NANO],
    ['1M', 10n ** 6n * NANO],
    ['1G', 10n ** 9n * NANO],
    ['1T', 10n ** 12n * NANO],
    ['1P', 10n ** 15n * NANO],
    ['1E', 10n ** 18n * NANO],
    ['1Ki', 2n ** 10n * NANO],
    ['1Mi', 2n ** 20n * NANO],
    ['1Gi', 2n ** 30n * NANO],
    ['1Ti', 2n ** 40n * NANO],
    ['1Pi', 2n ** 50n * NANO],
    ['1Ei', 2n ** 60n * NANO],
    ['1.1Gi', 1_181_116_006_400_000_000n],
    ['8Ei', (2n ** 63n - 1n) * NANO],
    ['1e99', (2n ** 63n - 1n) * NANO],
    ...['', '.', 'm', '-1', '1 ', '1K', '1ki', '1e', '1e3m', '1.2.3', '0x1', 'much', '9'.repeat(21)].map(
      (text) => [text, undefined] as const,
    ),
  ].map(([text, amount]) => [text as string, amount as bigint | undefined]);
  for (const [text, amount] of amounts)
    test(`${JSON.stringify(text)} is ${amount ?? 'none'}`, () => assert.equal(parseQuantity(text), amount));
  test('is kept to a thousandth, rounded up', () => {
    const texts = ['100u', '1m', '1.0001m', '1.0000000001', '1Ki', 'much'];
    assert.deepEqual(texts.map(keptQuantity), [1n, 1n, 2n, 1_001n, 1_024_000n, undefined]);
  });
  test('is the same in thousandths and in decimals', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 10_000_000 }), (thousandths) => {
        const decimal = `${Math.trunc(thousandths / 1_000)}.${String(thousandths % 1_000).padStart(3, '0')}`;
        assert.equal(parseQuantity(decimal), parseQuantity(`${thousandths}m`));
      }),
    );
  });
});
