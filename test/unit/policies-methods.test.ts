import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { listedTarget, listKindOf, targetsOf } from '../../policies/methods.ts';

const HINTS = { readOnlyHint: true };
type Kind = 'request' | 'notification' | 'response';
const kindOf = (method: string): Kind => (method.startsWith('notifications/') ? 'notification' : 'request');
const ask = (method: string, params?: Record<string, unknown>, kind: Kind = kindOf(method)) =>
  targetsOf('s', { kind, method, params }, (name) => (name === 'known' ? HINTS : undefined));

describe('what a message asks for', () => {
  const OWN = [
    'initialize',
    'ping',
    'server/discover',
    'logging/setLevel',
    'tools/list',
    'prompts/list',
    'resources/list',
    'resources/templates/list',
    'notifications/initialized',
    'notifications/cancelled',
    'notifications/progress',
    'notifications/roots/list_changed',
    '',
  ];
  for (const method of OWN)
    it(`${method || 'a response'}: nothing`, () => assert.deepEqual(ask(method), { ok: true, value: [] }));

  const NAMED: [method: string, params: Record<string, unknown>, targets: object[]][] = [
    ['tools/call', { name: 'known' }, [{ kind: 'tool', server: 's', name: 'known', annotations: HINTS }]],
    ['tools/call', { name: 'other' }, [{ kind: 'tool', server: 's', name: 'other', annotations: undefined }]],
    ['prompts/get', { name: 'p' }, [{ kind: 'prompt', server: 's', name: 'p' }]],
    ['resources/read', { uri: 'u:1' }, [{ kind: 'resource', server: 's', uri: 'u:1' }]],
    ['resources/subscribe', { uri: 'u:1' }, [{ kind: 'resource', server: 's', uri: 'u:1' }]],
    ['resources/unsubscribe', { uri: 'u:1' }, [{ kind: 'resource', server: 's', uri: 'u:1' }]],
    ['completion/complete', { ref: { type: 'ref/prompt', name: 'p' } }, [{ kind: 'prompt', server: 's', name: 'p' }]],
    [
      'completion/complete',
      { ref: { type: 'ref/resource', uri: 'f:///{x}' } },
      [{ kind: 'resource', server: 's', uri: 'f:///{x}' }],
    ],
    [
      'subscriptions/listen',
      { notifications: { toolsListChanged: true, resourceSubscriptions: ['u:1', 'u:2'] } },
      [
        { kind: 'resource', server: 's', uri: 'u:1' },
        { kind: 'resource', server: 's', uri: 'u:2' },
      ],
    ],
    ['subscriptions/listen', { notifications: { toolsListChanged: true } }, []],
    ...['get', 'result', 'list', 'cancel', 'update'].map((name): [string, Record<string, unknown>, object[]] => [
      `tasks/${name}`,
      { taskId: '1' },
      [{ kind: 'method', server: 's', name: `tasks/${name}` }],
    ]),
    ['notifications/vendor', {}, [{ kind: 'method', server: 's', name: 'notifications/vendor' }]],
    ['notifications/', {}, [{ kind: 'method', server: 's', name: 'notifications/' }]],
    ['vendor/thing', {}, [{ kind: 'method', server: 's', name: 'vendor/thing' }]],
    ['Tools/Call', { name: 'known' }, [{ kind: 'method', server: 's', name: 'Tools/Call' }]],
    ['sampling/createMessage', {}, [{ kind: 'method', server: 's', name: 'sampling/createMessage' }]],
    ['constructor', {}, [{ kind: 'method', server: 's', name: 'constructor' }]],
  ];
  for (const [method, params, value] of NAMED)
    it(`${method} ${JSON.stringify(params)}`, () => assert.deepEqual(ask(method, params), { ok: true, value }));

  const MALFORMED: [method: string, params?: Record<string, unknown>][] = [
    ['tools/call'],
    ['tools/call', { name: 5 }],
    ['tools/call', { name: ['known'] }],
    ['prompts/get', {}],
    ['resources/read', { uri: null }],
    ['completion/complete', {}],
    ['completion/complete', { ref: 'x' }],
    ['completion/complete', { ref: { type: 'ref/tool', name: 'x' } }],
    ['completion/complete', { ref: { type: 'ref/prompt', uri: 'x' } }],
    ['subscriptions/listen', { notifications: { resourceSubscriptions: 'u:1' } }],
    ['subscriptions/listen', { notifications: { resourceSubscriptions: ['u:1', 2] } }],
  ];
  for (const [method, params] of MALFORMED)
    it(`${method} ${JSON.stringify(params)} is malformed`, () => assert.equal(ask(method, params).ok, false));
});

describe('a notification of the protocol', () => {
  it('is none when it has an id', () =>
    assert.deepEqual(ask('notifications/cancelled', {}, 'request'), {
      ok: true,
      value: [{ kind: 'method', server: 's', name: 'notifications/cancelled' }],
    }));
});

describe('a list of subscriptions', () => {
  const listen = (count: number) =>
    ask('subscriptions/listen', { notifications: { resourceSubscriptions: Array(count).fill('u:1') } });
  it('has at most 1000', () => {
    assert.equal(listen(1000).ok, true);
    assert.equal(listen(1001).ok, false);
  });
});

describe('what an item of a list stands for', () => {
  const LISTED: [method: string, item: unknown, target: object | undefined][] = [
    ['tools/list', { name: 't', annotations: HINTS }, { kind: 'tool', server: 's', name: 't', annotations: HINTS }],
    ['tools/list', { name: 't', annotations: 'x' }, { kind: 'tool', server: 's', name: 't', annotations: undefined }],
    ['prompts/list', { name: 'p' }, { kind: 'prompt', server: 's', name: 'p' }],
    ['resources/list', { uri: 'u', name: 'n' }, { kind: 'resource', server: 's', uri: 'u' }],
    ['resources/templates/list', { uriTemplate: 'f:///{x}' }, { kind: 'resource', server: 's', uri: 'f:///{x}' }],
    ['resources/list', { uri: 'file:///a/../b' }, undefined],
    ['resources/list', { name: 'n' }, undefined],
    ['tools/list', null, undefined],
    ['tools/list', 'x', undefined],
  ];
  for (const [method, item, target] of LISTED)
    it(`${method} ${JSON.stringify(item)}`, () =>
      assert.deepEqual(listedTarget('s', listKindOf(method)!, item), target));

  it('other methods list nothing', () => assert.equal(listKindOf('tools/call'), undefined));
});
