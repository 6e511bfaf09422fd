import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { decide } from '../../policies/decide.ts';
import { targetsOf } from '../../policies/methods.ts';
import { normaliseUri } from '../../policies/uri.ts';
import { agent, callOf, policyOf } from '../support/policies.ts';

/** The message of each method that names a resource. */
const ASKING = {
  'resources/read': (uri: string) => ({ uri }),
  'resources/subscribe': (uri: string) => ({ uri }),
  'resources/unsubscribe': (uri: string) => ({ uri }),
  'completion/complete': (uri: string) => ({ ref: { type: 'ref/resource', uri } }),
  'subscriptions/listen': (uri: string) => ({ notifications: { resourceSubscriptions: ['file:///docs/a', uri] } }),
};

/** Whether a message that names the resource goes to the server. */
function passes(rules: object[], uri: string, method: keyof typeof ASKING = 'resources/read'): boolean {
  const policy = policyOf({ rules: rules.map((rule, index) => ({ name: `${index}`, ...rule })) });
  const targets = targetsOf('files', { kind: 'request', method, params: ASKING[method](uri) }, () => undefined);
  const call = callOf('', {}, { method });
  return targets.ok && targets.value.every((target) => decide(policy, agent('a'), target, call).effect === 'allow');
}

const only = (...resources: string[]) => [{ allow: [{ resources }] }];
const allBut = (...resources: string[]) => [{ allow: [{ resources: ['*'] }] }, { deny: [{ resources }] }];

describe('a URI that leads elsewhere than it says', () => {
  const ESCAPES = [
    'file:///docs/../etc/shadow',
    'file:///docs/..',
    'file:///docs/./a',
    'file:///docs/%2e%2e/etc/shadow',
    'file:///docs/.%2E/etc/shadow',
    'file:///docs/%2e./etc/shadow',
    'file:///docs/%252e%252e/etc/shadow',
    'file:///docs/..%2fetc/shadow',
    'file:///docs/..%252Fetc/shadow',
    'file:///docs/..%5cetc/shadow',
    'file:///docs/..\\etc\\shadow',
    'file:///docs/..;x=1/etc/shadow',
    'file:///docs/a?path=../../etc/shadow',
    'file:///docs/.\t./etc/shadow',
    'file:///docs/a%00.txt',
    'file:///docs/a%0d%0ab',
    'file:///docs/a\u007f',
    'file:..',
    '../etc/shadow',
  ];
  for (const uri of ESCAPES)
    it(`${JSON.stringify(uri)} is refused, whatever is allowed`, () => {
      for (const method of Object.keys(ASKING) as (keyof typeof ASKING)[])
        assert.equal(passes(only('*'), uri, method), false, method);
    });

  const PLAIN = [
    'file:///docs/a',
    'file:///docs/a.b/..c/...',
    'file:///docs/.git/config',
    'file:///docs/a%20b?x=.&y=1.2#.',
    'file:///docs/ä',
    'file:///docs/{path}',
    'urn:isbn:0451450523',
    'demo://resource/static/1',
    'demo://Name',
    'notes',
    'data:text/plain,a..b',
    'screen:://localhost',
  ];
  for (const uri of PLAIN)
    it(`${uri} is not`, () => {
      for (const method of Object.keys(ASKING) as (keyof typeof ASKING)[])
        assert.equal(passes(only('*'), uri, method), true, method);
      assert.equal(passes(only(uri), uri), true, 'allowed by its own text');
    });
});

describe('a URI in another spelling', () => {
  const SPELLINGS: [denied: string, uri: string][] = [
    ['file:///secret/*', 'FILE:///secret/a'],
    ['file:///secret/*', 'file:///%73ecret/a'],
    ['file:///secret/*', 'file:///%73%65%63%72%65%74/a'],
    ['file:///secret/*', 'file:/secret/a'],
    ['file:///secret/*', 'file:////secret/a'],
    ['file:///secret/*', 'file://localhost/secret/a'],
    ['file:///secret/*', 'file:///secret//a'],
    ['file:///secret/*', ' file:///secret/a'],
    ['FILE:///secret/*', 'file:///secret/a'],
    ['file:///%73ecret/*', 'file:///secret/a'],
    ['file:///ä/*', 'file:///%c3%a4/a'],
    ['file:///%C3%A4/*', 'file:///ä/a'],
    ['file:///%C3%A4/*', 'file:///%c3%a4/a'],
    ['https://example.com/secret', 'https://EXAMPLE.com/secret'],
    ['https://example.com/secret', 'https://ex%61mple.com/secret'],
    ['https://example.com/a%20b', 'https://example.com/%61%20b'],
  ];
  for (const [denied, uri] of SPELLINGS)
    it(`${uri} is denied with ${denied}`, () => assert.equal(passes(allBut(denied), uri), false));

  it('is allowed only where it is allowed as it came, too', () => {
    assert.equal(passes(only('file:///docs/*'), 'FILE:///docs/a'), false);
    assert.equal(passes(only('FILE:///docs/*'), 'FILE:///docs/a'), true);
    assert.equal(passes(only('file:///docs/*'), 'file:///docs/%61'), true);
    assert.equal(passes(only('file:///docs/a*'), 'file:///docs/%61'), false);
  });

  it('keeps what has another meaning apart', () => {
    for (const uri of ['demo://Name/x', 'demo://name//x', 'file:///a%3Fb', 'urn:a:B', 'https://x/%E4', 'file:///a b'])
      assert.equal(normaliseUri(uri), uri);
    for (const [, uri] of SPELLINGS) assert.equal(normaliseUri(normaliseUri(uri)), normaliseUri(uri), uri);
  });
});
