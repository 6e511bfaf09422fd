import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MalformedReason } from '../../sidecar/protocol/message.ts';
import { parseBody } from '../../sidecar/protocol/parse.ts';
import { MEMBERS_MAX } from '../../sidecar/protocol/scan.ts';

const LIMITS = { depthMax: 64, batchMax: 3 };

/** The valid fixture: every case below changes one thing of it. */
const VALID = {
  jsonrpc: '2.0',
  id: 7,
  method: 'tools/call',
  params: { name: 'search', arguments: { query: 'cats', perPage: 5 }, _meta: { progressToken: 1 } },
};

const parse = (body: unknown) => parseBody(Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)), LIMITS);

function refused(body: unknown): MalformedReason {
  const parsed = parse(body);
  assert.ok(!parsed.ok, 'the body was accepted');
  return parsed.error;
}

function accepted(body: unknown) {
  const parsed = parse(body);
  assert.ok(parsed.ok, JSON.stringify(parsed));
  return parsed.value;
}

test('the fixture is a request, with its bytes as they came', () => {
  const bytes = Buffer.from(JSON.stringify(VALID));
  const parsed = parseBody(bytes, LIMITS);
  assert.ok(parsed.ok && parsed.value.kind === 'single');
  const { message } = parsed.value;
  assert.deepEqual(
    { ...message, bytes: undefined, layout: undefined },
    {
      kind: 'request',
      method: 'tools/call',
      id: 7,
      params: VALID.params,
      meta: VALID.params._meta,
      body: VALID,
      bytes: undefined,
      layout: undefined,
    },
  );
  assert.equal(message.bytes, bytes);
});

test('what is not JSON is refused', () => {
  for (const text of [
    '',
    ' ',
    '{',
    '{"jsonrpc":"2.0",}',
    "{'a':1}",
    '{"a":1}{"b":2}',
    '{"a":1}}',
    ']',
    '"',
    '{"a":"\\u00zz"}',
    '\ufeff{}',
    'NaN',
  ]) {
    assert.equal(refused(text).kind, 'notJson', text);
  }
  const truncated = Buffer.from('{"jsonrpc":"2.0","id":"\u00e9"}').filter((byte) => byte !== 0xa9);
  const parsed = parseBody(Buffer.from(truncated), LIMITS);
  assert.deepEqual(parsed, { ok: false, error: { kind: 'notJson', detail: 'the body is not UTF-8' } });
});

test('the text of a refusal does not quote the body', () => {
  assert.doesNotMatch(JSON.stringify(refused('{"jsonrpc":"2.0","id":1,"secret":hunter2}')), /hunter2/);
});

test('what is not a message of JSON-RPC 2.0 as MCP narrows it is refused', () => {
  const { method, id, params, ...rest } = VALID;
  const cases: Record<string, unknown> = {
    'a string': '"tools/call"',
    null: null,
    'no version': { ...VALID, jsonrpc: undefined },
    'version 1.0': { ...VALID, jsonrpc: '1.0' },
    'version as a number': { ...VALID, jsonrpc: 2 },
    'id null': { ...VALID, id: null },
    'id a fraction': { ...VALID, id: 1.5 },
    'id an object': { ...VALID, id: {} },
    'id true': { ...VALID, id: true },
    'id that would be rounded': JSON.stringify(VALID).replace('"id":7', '"id":9007199254740993'),
    'id beyond every number': JSON.stringify(VALID).replace('"id":7', '"id":1e400'),
    'method a number': { ...VALID, method: 5 },
    'method empty': { ...VALID, method: '' },
    'method null': { ...VALID, method: null },
    'method and result': { ...VALID, result: {} },
    'method and error': { ...VALID, error: { code: 1, message: '' } },
    'result and error': { ...rest, id, result: {}, error: { code: 1, message: '' } },
    'none of the three': { ...rest, id },
    'a result without id': { ...rest, result: {} },
    'a response with params': { ...rest, id, result: {}, params },
    'params an array': { ...VALID, params: [1] },
    'params null': { ...VALID, params: null },
    'params a string': { ...VALID, params: 'x' },
    '_meta an array': { ...VALID, params: { ...params, _meta: [] } },
    '_meta null': { ...VALID, params: { ...params, _meta: null } },
    '__proto__ in the message': JSON.stringify(VALID).replace('{', '{"__proto__":{"method":"tools/list"},'),
    '__proto__ in params': JSON.stringify(VALID).replace('"params":{', '"params":{"__proto__":{},'),
    '__proto__ in _meta': JSON.stringify(VALID).replace('"_meta":{', '"_meta":{"\\u005f_proto__":{},'),
    'constructor in the message': { ...VALID, constructor: {} },
    'prototype in params': { ...VALID, params: { ...params, prototype: {} } },
  };
  for (const [name, body] of Object.entries(cases)) assert.equal(refused(body).kind, 'notJsonRpc', name);
});

test('a refusal carries the id, once it is one', () => {
  assert.deepEqual(refused({ ...VALID, jsonrpc: '1.0' }), {
    kind: 'notJsonRpc',
    detail: 'jsonrpc must be "2.0"',
    id: 7,
  });
  const reason = refused({ ...VALID, id: null });
  assert.equal(reason.kind === 'notJsonRpc' && reason.id, undefined);
});

test('every kind of message is recognised', () => {
  const { id, ...notification } = VALID;
  const kinds = [
    [VALID, 'request'],
    [{ ...VALID, id: 'a' }, 'request'],
    [{ ...VALID, id: '' }, 'request'],
    [{ ...VALID, id: -1 }, 'request'],
    [{ ...VALID, params: undefined }, 'request'],
    [{ ...VALID, params: {} }, 'request'],
    [notification, 'notification'],
    [{ jsonrpc: '2.0', id, result: {} }, 'response'],
    [{ jsonrpc: '2.0', id, error: { code: 1, message: '' } }, 'response'],
    [{ jsonrpc: '2.0', error: { code: 1, message: '' } }, 'response'],
  ] as const;
  for (const [body, kind] of kinds) {
    const parsed = accepted(body);
    assert.equal(parsed.kind === 'single' && parsed.message.kind, kind, JSON.stringify(body));
  }
});

test('a repeated key is refused at any depth, and named', () => {
  const text = JSON.stringify(VALID);
  const cases = {
    id: text.replace('"id":7', '"id":7,"id":8'),
    method: text.replace('"id":7', '"id":7,"m\\u0065thod":"tools/list"'),
    params: text.replace('"id":7', '"id":7,"params":{}'),
    'params.name': text.replace('"name":', '"name":"other","name":'),
    'params.arguments.query': text.replace('"query":', '"query":"x","query":'),
    'params.arguments.deep.1.a': text.replace('"query":', '"deep":[{"a":1},{"a":1,"\\u0061":[{}]}],"query":'),
    'params._meta.progressToken': text.replace('"_meta":{', '"_meta":{"progressToken":1,'),
    'params.arguments.__proto__': text.replace('"query":', '"__proto__":1,"__proto__":2,"query":'),
  };
  for (const [path, body] of Object.entries(cases)) assert.deepEqual(refused(body), { kind: 'duplicateKey', path });
});

test('keys that another parser could take for one of ours are refused', () => {
  const text = JSON.stringify(VALID);
  const cases: Record<string, [string, string]> = {
    'upper case in the message': [text.replace('"method"', '"Method"'), 'method'],
    'a second spelling beside the first': [text.replace('"id"', '"METHOD":"tools/list","id"'), 'method'],
    'long s': [text.replace('"params"', '"param\u017f"'), 'params'],
    'long s, escaped': [text.replace('"params"', '"param\\u017f"'), 'params'],
    'Kelvin sign': [text.replace('"progressToken"', '"progressTo\u212aen"'), 'progressToken'],
    'full width': [text.replace('"method"', '"\uff4dethod"'), 'method'],
    'dotless i': [text.replace('"id"', '"\u0131d"'), 'id'],
    'dotted capital I': [text.replace('"id"', '"\u0130d"'), 'id'],
    'zero width space': [text.replace('"method"', '"meth\u200bod"'), 'method'],
    'soft hyphen': [text.replace('"method"', '"meth\u00adod"'), 'method'],
    'variation selector': [text.replace('"method"', '"method\ufe0f"'), 'method'],
    'trailing space': [text.replace('"method"', '"method "'), 'method'],
    'leading tab': [text.replace('"method"', '"\\tmethod"'), 'method'],
    NUL: [text.replace('"method"', '"method\\u0000x"'), 'method'],
    'PARAMS._meta': [text.replace('"_meta"', '"_Meta"'), '_meta'],
    'Arguments in params': [text.replace('"arguments"', '"Arguments"'), 'arguments'],
    'Name in params': [text.replace('"name"', '"Name"'), 'name'],
    'Traceparent in _meta': [text.replace('"progressToken"', '"TraceParent"'), 'traceparent'],
    'the version key in _meta': [
      text.replace('"progressToken"', '"io.modelcontextprotocol/ProtocolVersion"'),
      'io.modelcontextprotocol/protocolVersion',
    ],
    'Uri in params.ref': [text.replace('"name":"search"', '"ref":{"type":"ref/resource","Uri":"x"}'), 'uri'],
    'ResourceSubscriptions in params.notifications': [
      text.replace('"name":"search"', '"notifications":{"ResourceSubscriptions":[]}'),
      'resourceSubscriptions',
    ],
  };
  for (const [name, [body, looksLike]] of Object.entries(cases)) {
    const reason = refused(body);
    assert.ok(reason.kind === 'lookalikeKey', `${name}: ${JSON.stringify(reason)}`);
    assert.equal(reason.looksLike, looksLike, name);
  }
});

test('two arguments that look alike are refused', () => {
  for (const twin of ['Query', 'QUERY', 'que\u200bry', 'query ', '\uff51uery', 'query\\u0000']) {
    const reason = refused(JSON.stringify(VALID).replace('"query"', `"${twin}":"dogs","query"`));
    assert.equal(reason.kind, 'lookalikeKey', twin);
    assert.equal(
      refused(JSON.stringify(VALID).replace('"query":"cats"', `"query":"cats","${twin}":"dogs"`)).kind,
      'lookalikeKey',
      twin,
    );
  }
  assert.equal(refused(JSON.stringify(VALID).replace('"query"', '"perpage":1,"query"')).kind, 'lookalikeKey');
  // Halves of a surrogate pair: written as UTF-8 again, each becomes U+FFFD.
  for (const twins of ['"\\ud800":1,"\\ud801":2', '"\\ud800":1,"\ufffd":2']) {
    assert.equal(refused(JSON.stringify(VALID).replace('"query"', `${twins},"query"`)).kind, 'lookalikeKey', twins);
  }
});

test('two keys that look alike are refused at every depth of the arguments', () => {
  for (const args of ['{"options":{"force":false,"Force":true}}', '{"list":[1,[{"a":{"\u017ft":1,"ST":2}}]]}']) {
    assert.equal(
      refused(JSON.stringify(VALID).replace('{"query":"cats","perPage":5}', args)).kind,
      'lookalikeKey',
      args,
    );
  }
  accepted({ ...VALID, params: { ...VALID.params, arguments: { rows: [{ Id: 1 }, { id: 2 }], id: { ID: null } } } });
});

test('keys of combining marks cost no more than others', () => {
  const marks = (count: number) => '\u0301\u0316'.repeat(count / 2);
  const among = (keys: string) => JSON.stringify(VALID).replace('"name"', `${keys},"name"`);
  const inside = (keys: string) => JSON.stringify(VALID).replace('"query"', `${keys},"query"`);
  const many = Array.from({ length: 30_000 }, (_, index) => `"${index}${marks(60)}":1`).join();
  const shapes: Record<string, [body: string, passes: boolean]> = {
    'one long key in params': [among(`"${marks(60_000)}":1`), false],
    'one long key in arguments': [inside(`"${marks(60_000)}":1`), false],
    'a key of half the bound': [inside(`"${marks(16_000)}":1`), true],
    'marks with something invisible between': [inside(`"${'\u0301\u200b\u0316\u200b'.repeat(8000)}":1`), true],
    'many keys in params': [among(many), false],
    'many keys in arguments': [inside(many), false],
  };
  for (const [name, [body, passes]] of Object.entries(shapes)) {
    const before = process.cpuUsage();
    assert.equal(parse(body).ok, passes, name);
    const millis = process.cpuUsage(before).user / 1000;
    // Without a bound the long keys took seconds; with it, some milliseconds on a machine that does nothing else.
    assert.ok(millis < 1000, `${name}: ${millis} ms`);
  }
});

test('the same keys in many rows are folded once', () => {
  const rows = Array.from({ length: 5000 }, (_, index) => ({ название: index, цена: 1, Город: 2 }));
  accepted({ ...VALID, params: { ...VALID.params, arguments: { rows } } });
});

test('a key is compared by what can be seen of it, however long the rest', () => {
  for (const invisible of ['\u200b'.repeat(1000), ' '.repeat(1000), `\\u0000${'x'.repeat(1000)}`]) {
    assert.equal(refused(JSON.stringify(VALID).replace('"method"', `"method${invisible}"`)).kind, 'lookalikeKey');
  }
});

test('keys of others pass, whatever they look like', () => {
  const params = {
    ...VALID.params,
    level: 'info',
    X: 1,
    arguments: {
      Method: 1,
      params: { Name: 1, method: 2 },
      user_id: 1,
      userId: 2,
      constructor: 1,
      résumé: 1,
      resume: 2,
    },
    _meta: { 'com.example/Key': 1, 'com.example/other': 2, Progress: 3, ключ: 4 },
  };
  accepted({ ...VALID, extra: 1, params });
  // PHP writes slashes with a backslash.
  accepted(JSON.stringify(VALID).replace('"progressToken"', '"io.modelcontextprotocol\\/protocolVersion"'));
});

test('depth is bounded, and a hundred thousand levels cost nothing', () => {
  const nested = (levels: number) => JSON.stringify(VALID).replace('"cats"', '['.repeat(levels) + ']'.repeat(levels));
  accepted(nested(LIMITS.depthMax - 3));
  assert.deepEqual(refused(nested(LIMITS.depthMax - 2)), { kind: 'tooDeep', depthMax: 64 });
  for (const deep of [nested(100_000), '['.repeat(1_000_000), '{"a":'.repeat(100_000)]) {
    assert.deepEqual(refused(deep), { kind: 'tooDeep', depthMax: 64 });
  }
  // Brackets inside strings are text.
  accepted(JSON.stringify({ ...VALID, params: { ...VALID.params, arguments: { query: `${'[{"'.repeat(1000)}\\` } } }));
});

test('the members of all objects together are bounded, before anything is built of them', () => {
  const withMembers = (count: number) =>
    JSON.stringify(VALID).replace('"cats"', `[${Array.from({ length: count }, () => '{"a":1}').join()}]`);
  const own = 4 + 3 + 2 + 1; // Of the message, params, arguments and _meta.
  accepted(withMembers(MEMBERS_MAX - own));
  assert.deepEqual(refused(withMembers(MEMBERS_MAX - own + 1)), { kind: 'tooManyMembers', membersMax: MEMBERS_MAX });
  assert.equal(refused(`[${'{"a":1},'.repeat(200_000)}`).kind, 'batchRefused');
  assert.equal(refused('{"a":'.repeat(40) + '{"a":1,'.repeat(20) + '"b":1,'.repeat(100_000)).kind, 'tooManyMembers');
});

test('a batch is cut into messages that own their bytes', () => {
  const [one, two] = [JSON.stringify(VALID), JSON.stringify({ ...VALID, id: 'two', params: undefined })];
  const parsed = accepted(` [ ${one} ,\n${two}\t] `);
  assert.ok(parsed.kind === 'batch');
  assert.deepEqual(
    parsed.messages.map(({ bytes }) => bytes.toString()),
    [one, two],
  );
  assert.deepEqual(
    parsed.messages.map(({ id }) => id),
    [7, 'two'],
  );
  const { layout, bytes } = parsed.messages[0]!;
  assert.equal(bytes.toString('utf8', layout.id?.start, layout.id?.end), '7');
});

test('batches that are empty, too long, nested, or hold an initialize are refused', () => {
  const cases = [[], [[VALID]], [VALID, VALID, VALID, VALID], [{ ...VALID, method: 'initialize' }]];
  for (const body of cases) assert.equal(refused(body).kind, 'batchRefused', JSON.stringify(body).slice(0, 80));
  accepted([VALID, VALID, VALID]);
  assert.equal(refused([VALID, 5]).kind, 'notJsonRpc');
  assert.equal(refused([VALID, { ...VALID, Method: 'x' }]).kind, 'lookalikeKey');
  assert.deepEqual(refused(`[${JSON.stringify(VALID)},{"a":1,"a":2}]`), { kind: 'duplicateKey', path: '1.a' });
  assert.equal(refused(`[${'1,'.repeat(2_000_000)}1]`).kind, 'batchRefused');
});

test('time is linear in the body, whatever it holds', () => {
  const KIB = 1024;
  const shapes: Record<string, (size: number) => string> = {
    'one long string': (size) => JSON.stringify('x'.repeat(size)),
    'escaped quotes': (size) => JSON.stringify('"'.repeat(size / 2)),
    backslashes: (size) => JSON.stringify('\\'.repeat(size / 2)),
    'white space': (size) => `[1,${' '.repeat(size)}2]`,
    'many objects': (size) => `[${'{},'.repeat(size / 3)}{}]`,
    'many keys': (size) => `{${Array.from({ length: size / 16 }, (_, index) => `"Key${index}":1`).join(',')}}`,
  };
  const millis = (text: string) => {
    const body = Buffer.from(JSON.stringify(VALID).replace('{"query":"cats","perPage":5}', () => text));
    const start = performance.now();
    const parsed = parseBody(body, LIMITS);
    assert.ok(parsed.ok, JSON.stringify(parsed));
    return performance.now() - start;
  };
  const least = (text: string) => Math.min(...Array.from({ length: 3 }, () => millis(text)));
  for (const [name, make] of Object.entries(shapes)) {
    const [small, large] = [least(make(64 * KIB)), least(make(512 * KIB))];
    // 8 times the bytes: what is quadratic takes 64 times as long.
    assert.ok(large < 30 * small + 50, `${name}: 64 KiB took ${small} ms, 512 KiB ${large} ms`);
  }
});

test('a body of 4 MiB is read', () => {
  accepted(JSON.stringify({ ...VALID, params: { ...VALID.params, arguments: { query: 'é"\\'.repeat(1024 * 600) } } }));
});
