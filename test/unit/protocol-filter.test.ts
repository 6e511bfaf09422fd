import assert from 'node:assert/strict';
import { test } from 'node:test';
import { filterLists, type Keep } from '../../sidecar/protocol/filter.ts';

const keepOnly =
  (...names: readonly string[]): Keep =>
  (_kind, item) => {
    const fields = item as { name?: string; uri?: string } | null;
    return names.includes(fields?.name ?? fields?.uri ?? '');
  };
const all: Keep = () => true;

const filter = (text: string, keep: Keep) => filterLists(Buffer.from(text), keep).toString();
const tools = (items: string, rest = '') => `{"jsonrpc":"2.0","id":1,"result":{"tools":[${items}]${rest}}}`;
const A = '{"name":"a","inputSchema":{"maximum":12345678901234567890.0}}';
const B = '{ "name" : "b" }';
const C = '{"\\u006eame":"c"}';

test('items are taken out, and nothing else changes', () => {
  const cases: readonly (readonly [string, readonly string[], string])[] = [
    [`${A},${B},${C}`, ['a', 'b', 'c'], `${A},${B},${C}`],
    [`${A},${B},${C}`, ['a', 'c'], `${A},${C}`],
    [`${A},${B},${C}`, ['b', 'c'], `${B},${C}`],
    [`${A},${B},${C}`, ['a', 'b'], `${A},${B}`],
    [`${A},${B},${C}`, ['b'], B],
    [`${A},${B},${C}`, ['c'], C],
    [`${A},${B},${C}`, [], ''],
    [` ${A} , ${B} ,\n${C} `, ['a', 'c'], ` ${A} , ${C} `],
    [` ${A} , ${B} ,\n${C} `, ['b'], ` ${B} `],
    [` ${A} , ${B} `, [], '  '],
    ['', ['a'], ''],
    [' ', ['a'], ' '],
    ['5,"x",null,[],true', ['a'], ''],
  ];
  for (const [items, kept, expected] of cases) {
    const rest = ', "nextCursor" : "n", "big":1e400,"_meta":{"tools":[1]}';
    assert.equal(filter(tools(items, rest), keepOnly(...kept)), tools(expected, rest), items);
  }
});

test('the same bytes come back when nothing was removed', () => {
  const answers = [
    tools(`${A},${B}`),
    tools(''),
    '{"jsonrpc":"2.0","id":1,"result":{"content":[{"name":"a"}]}}',
    '{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"","data":{"tools":[{"name":"x"}]}}}',
    '{"jsonrpc":"2.0","id":1,"result":{"structuredContent":{"tools":[{"name":"x"}]},"cacheScope":"public"}}',
    '{"jsonrpc":"2.0","id":1,"result":[{"tools":[1]}]}',
    '{"jsonrpc":"2.0","id":1,"result":{"tools":{"name":"x"}}}',
    '{"jsonrpc":"2.0","method":"x","params":{"tools":[{"name":"x"}]}}',
    '[{"result":{"tools":[1]}}]',
    '5',
  ];
  for (const text of answers) {
    const bytes = Buffer.from(text);
    assert.equal(filterLists(bytes, keepOnly('a', 'b')), bytes, text);
  }
});

test('every kind of list is filtered, each by its own kind', () => {
  const asked: string[] = [];
  const text =
    '{"result":{"prompts":[{"name":"a"},{"name":"x"}],"resources":[{"uri":"x"},{"uri":"a"}],"resourceTemplates":[{"name":"x"}],"tools":[{"name":"a"}]},"id":1,"jsonrpc":"2.0"}';
  const filtered = filter(text, (kind, item, written) => {
    asked.push(kind);
    assert.deepEqual(JSON.parse(written), item);
    return keepOnly('a')(kind, item, written);
  });
  assert.equal(
    filtered,
    '{"result":{"prompts":[{"name":"a"}],"resources":[{"uri":"a"}],"resourceTemplates":[],"tools":[{"name":"a"}]},"id":1,"jsonrpc":"2.0"}',
  );
  assert.deepEqual(asked, ['prompts', 'prompts', 'resources', 'resources', 'resourceTemplates', 'tools']);
});

test('a list for everybody becomes one for this agent', () => {
  assert.equal(filter(tools(A, ',"cacheScope":"public"'), all), tools(A, ',"cacheScope":"private"'));
  const before = `{"jsonrpc":"2.0","id":1,"result":{"cacheScope" : "publi\\u0063","tools":[${A},${B}],"ttlMs":5}}`;
  assert.equal(
    filter(before, keepOnly('b')),
    `{"jsonrpc":"2.0","id":1,"result":{"cacheScope" : "private","tools":[${B}],"ttlMs":5}}`,
  );
  const own = Buffer.from(tools(A, ',"cacheScope":"private"'));
  assert.equal(filterLists(own, all), own);
});

test('no reading of a repeated key shows what was hidden', () => {
  const twice = `{"jsonrpc":"2.0","id":1,"result":{"tools":[${B}]},"result":{"tools":[${B}],"t\\u006fols":[${A},${B}]}}`;
  assert.equal(
    filter(twice, keepOnly('a')),
    `{"jsonrpc":"2.0","id":1,"result":{"tools":[]},"result":{"tools":[],"t\\u006fols":[${A}]}}`,
  );
});

test('an item as deep as an answer can be is no trouble', () => {
  const deep = `{"name":"b","x":${'['.repeat(200_000)}${']'.repeat(200_000)}}`;
  assert.equal(filter(tools(`${A},${deep}`), keepOnly('a')), tools(A));
  assert.equal(filter(tools(`${A},${deep}`), keepOnly('b')), tools(deep));
});
