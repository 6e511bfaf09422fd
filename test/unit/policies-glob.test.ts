import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { compileGlob, GLOB_MAX, matchGlob } from '../../policies/glob.ts';

const CASES: [pattern: string, text: string, matches: boolean][] = [
  ['*', '', true],
  ['*', 'anything/at all', true],
  ['get', 'get', true],
  ['get', 'get_x', false],
  ['get', 'GET', false],
  ['get_*', 'get_', true],
  ['get_*', 'xget_', false],
  ['*_admin', 'drop_admin', true],
  ['*_admin', 'drop_admin_', false],
  ['a*b*c', 'a-b-b-c', true],
  ['a*b*c', 'acb', false],
  ['a**b', 'ab', true],
  ['a*b*', 'a-b-', true],
  ['?*', 'a', true],
  ['?', '', false],
  ['?', 'x', true],
  ['?', '😀', true],
  ['??', '😀', false],
  ['*??', '😀', false],
  ['file:///docs/*', 'file:///docs/a/b.md', true],
  ['file:///docs/*', 'file:///docs', false],
  ['a.c', 'abc', false],
  ['[ab]', 'a', false],
  ['[ab]', '[ab]', true],
  ['(a|b)', 'a', false],
  ['a\\*', 'a\\bc', true],
];

describe('a glob', () => {
  for (const [pattern, text, matches] of CASES)
    it(`${pattern} ${matches ? 'matches' : 'does not match'} ${JSON.stringify(text)}`, () => {
      const glob = compileGlob(pattern);
      assert.equal(glob.ok && glob.value(text), matches);
      assert.equal(matchGlob(pattern, text), matches);
    });

  for (const pattern of ['', 'a\u0000b', 'a\nb', 'x'.repeat(GLOB_MAX + 1)])
    it(`refuses ${JSON.stringify(pattern.slice(0, 10))}`, () => assert.equal(compileGlob(pattern).ok, false));

  it('may be as long as the limit', () => assert.equal(compileGlob('x'.repeat(GLOB_MAX)).ok, true));

  it('takes time linear in the text, also against the patterns that make regular expressions explode', () => {
    const started = performance.now();
    assert.equal(matchGlob(`${'*a'.repeat(127)}b`, 'a'.repeat(100_000)), false);
    assert.ok(performance.now() - started < 5000);
  });
});
