import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseChallenges } from '../../sidecar/credentials/challenge.ts';
import fc from '../support/fast-check.ts';

const token = fc.stringMatching(/^[A-Za-z][A-Za-z0-9_-]{0,11}$/);
const value = fc.string({
  unit: fc.integer({ min: 0x20, max: 0x7e }).map((code) => String.fromCharCode(code)),
  maxLength: 40,
});
const challenge = fc.record({
  scheme: token,
  parameters: fc.uniqueArray(fc.tuple(token, value), { maxLength: 5, selector: ([name]) => name.toLowerCase() }),
});

test('what was written is what is read', () => {
  fc.assert(
    fc.property(fc.array(challenge, { maxLength: 5 }), fc.constantFrom(', ', ',', ' ,\t'), (challenges, separator) => {
      const header = challenges
        .map(({ scheme, parameters }) => {
          const pairs = parameters.map(([name, text]) => `${name}="${text.replace(/["\\]/g, '\\$&')}"`);
          return [scheme, pairs.join(separator)].filter(Boolean).join(' ');
        })
        .join(separator);
      const expected = challenges.map(({ scheme, parameters }) => [
        scheme.toLowerCase(),
        parameters.map(([name, text]) => [name.toLowerCase(), text]),
      ]);
      const read = parseChallenges(header).map(({ scheme, parameters }) => [scheme, [...parameters]]);
      assert.deepEqual(read, expected);
    }),
  );
});

test('any text is read without a throw, and no value can end a header', () => {
  const noisy = fc.string({ unit: fc.oneof(fc.constantFrom(...'",=\\ \t\r\nBearer'), fc.string({ maxLength: 1 })) });
  fc.assert(
    fc.property(noisy, (header) => {
      for (const { parameters } of parseChallenges(header))
        for (const text of parameters.values()) assert.doesNotMatch(text, /[\r\n\0]/);
    }),
  );
});
