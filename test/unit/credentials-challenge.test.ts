import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseChallenges, readBearerChallenge } from '../../sidecar/credentials/challenge.ts';

function plain(header: string) {
  return parseChallenges(header).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]);
}

const readable: readonly [header: string, expected: unknown][] = [
  ['', []],
  ['Bearer', [['bearer', {}]]],
  ['Bearer realm="a"', [['bearer', { realm: 'a' }]]],
  ['bEaReR Realm = token , ERROR="b"', [['bearer', { realm: 'token', error: 'b' }]]],
  ['Bearer realm="a, b=\\"c\\" \\\\", scope="x y"', [['bearer', { realm: 'a, b="c" \\', scope: 'x y' }]]],
  ['Bearer realm=""', [['bearer', { realm: '' }]]],
  [
    'Basic realm="x", Bearer error="y", Negotiate',
    [
      ['basic', { realm: 'x' }],
      ['bearer', { error: 'y' }],
      ['negotiate', {}],
    ],
  ],
  [
    'Negotiate YWJj==, Bearer scope="a"',
    [
      ['negotiate', {}],
      ['bearer', { scope: 'a' }],
    ],
  ],
  [', ,Bearer a="1",, b="2",', [['bearer', { a: '1', b: '2' }]]],
];

for (const [header, expected] of readable) test(`reads ${header}`, () => assert.deepEqual(plain(header), expected));

const hostile: readonly [why: string, header: string, expected: unknown][] = [
  ['a quote that never ends', 'Bearer realm="abc', [['bearer', {}]]],
  ['a backslash at the end', 'Bearer realm="abc\\', [['bearer', {}]]],
  ['a line break in a quote', 'Bearer realm="a\r\nb"', [['bearer', {}]]],
  ['junk behind a value', 'Bearer realm="a"junk, scope="s"', [['bearer', {}]]],
  ['a parameter twice', 'Bearer scope="a", scope="b", Basic realm="x"', [['basic', { realm: 'x' }]]],
  ['a parameter twice, in other letters', 'Bearer scope="a", SCOPE="b"', []],
  ['no scheme', '="a"', []],
  ['a quote as scheme', '"Bearer" realm="a"', []],
  ['prototype names', 'Bearer __proto__="a", constructor="b"', [['bearer', { ['__proto__']: 'a', constructor: 'b' }]]],
  ['too long', `Bearer realm="${'a'.repeat(9000)}"`, []],
];

for (const [why, header, expected] of hostile)
  test(`stays safe with ${why}`, () => {
    const found = parseChallenges(header).map(({ scheme, parameters }) => [scheme, [...parameters]]);
    assert.deepEqual(
      found,
      (expected as [string, object][]).map(([scheme, parameters]) => [scheme, Object.entries(parameters)]),
    );
  });

test('takes time in proportion to the length, whatever the input', () => {
  for (const piece of ['a=', '"', '\\', ' ', 'a ', 'a="', '=', ',', 'a\t=\t'])
    for (const start of ['Bearer ', 'Bearer a="', 'Bearer a']) {
      const before = process.cpuUsage();
      parseChallenges((start + piece.repeat(8192)).slice(0, 8192));
      assert.ok(process.cpuUsage(before).user < 250_000, `${start}${piece}…`);
    }
});

test('finds what OAuth needs in the Bearer challenge that has it', () => {
  const header = 'Basic realm="x", Bearer error="invalid_token", Bearer resource_metadata="https://a/b", scope="r w"';
  assert.deepEqual(readBearerChallenge(header), { resourceMetadata: 'https://a/b', scope: 'r w' });
  assert.equal(readBearerChallenge('Basic realm="x"'), undefined);
});

test('a scope that is not well formed is none', () => {
  for (const scope of ['', ' a', 'a ', 'a  b', 'a\\"b', 'a\tb', 'ä', 'a'.repeat(3000)])
    assert.equal(readBearerChallenge(`Bearer scope="${scope}"`)?.scope, undefined, scope);
});
