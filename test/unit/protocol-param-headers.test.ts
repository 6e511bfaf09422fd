import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkParamHeaders, paramHeadersOf } from '../../sidecar/protocol/param-headers.ts';
import fc from '../support/fast-check.ts';

const SCHEMA = {
  type: 'object',
  properties: {
    region: { type: 'string', 'x-mcp-header': 'Region' },
    count: { type: 'integer', 'x-mcp-header': 'Count' },
    dry: { type: 'boolean', 'x-mcp-header': 'Dry' },
    where: { type: 'object', properties: { city: { type: 'string', 'x-mcp-header': 'City' } } },
    free: { type: 'string' },
  },
};
const ARGS = { region: 'eu', count: 42, dry: true, where: { city: 'Zürich' }, free: 'text' };
const HEADERS = {
  'mcp-param-region': 'eu',
  'mcp-param-count': '42',
  'mcp-param-dry': 'true',
  'mcp-param-city': `=?base64?${Buffer.from('Zürich').toString('base64')}?=`,
};

const passes = (
  schema: unknown,
  args: Record<string, unknown> | undefined,
  headers: Record<string, string | string[] | undefined>,
) => checkParamHeaders(schema, args, headers).ok;

test('headers that repeat the arguments pass', () => {
  assert.ok(passes(SCHEMA, ARGS, HEADERS));
  assert.ok(passes(SCHEMA, ARGS, { ...HEADERS, 'mcp-param-count': '42.0' }));
  assert.ok(passes(SCHEMA, ARGS, { ...HEADERS, 'mcp-param-region': ' eu\t' }));
  assert.ok(passes(SCHEMA, ARGS, { ...HEADERS, 'mcp-param-other': 'forwarded, not judged' }));
  assert.ok(passes(SCHEMA, { ...ARGS, count: 1e-7 }, { ...HEADERS, 'mcp-param-count': '0.0000001' }));
});

test('arguments that are absent, null or no primitive need no header', () => {
  assert.ok(passes(SCHEMA, {}, {}));
  assert.ok(passes(SCHEMA, undefined, {}));
  assert.ok(passes(SCHEMA, { region: null, count: [1], where: 'x' }, {}));
  // Named as something that every object inherits.
  assert.ok(passes({ properties: { toString: { type: 'string', 'x-mcp-header': 'A' } } }, {}, {}));
});

test('headers that do not are refused', () => {
  const cases: Record<string, Record<string, string | string[] | undefined>> = {
    missing: { 'mcp-param-region': undefined },
    repeated: { 'mcp-param-region': ['eu', 'us'] },
    different: { 'mcp-param-region': 'us' },
    'another case': { 'mcp-param-region': 'EU' },
    'another number': { 'mcp-param-count': '43' },
    'a number in hexadecimal': { 'mcp-param-count': '0x2a' },
    'a number with an exponent': { 'mcp-param-count': '4.2e1' },
    'another truth': { 'mcp-param-dry': 'false' },
    'truth in upper case': { 'mcp-param-dry': 'True' },
    'base64 without padding': { 'mcp-param-region': '=?base64?ZXU?=' },
    'base64 with other characters': { 'mcp-param-region': '=?base64?ZX!U=?=' },
    'base64 of something else': { 'mcp-param-city': '=?base64?ZXU=?=' },
    'the text without base64': { 'mcp-param-city': 'Zurich' },
  };
  for (const [name, headers] of Object.entries(cases)) {
    const checked = checkParamHeaders(SCHEMA, ARGS, { ...HEADERS, ...headers });
    assert.ok(!checked.ok && checked.error.kind === 'headerMismatch', name);
  }
});

test('a header of an argument that needs none is refused', () => {
  for (const args of [undefined, {}, { region: null }, { region: { eu: true } }])
    assert.deepEqual(checkParamHeaders(SCHEMA, args, { 'mcp-param-region': 'eu' }), {
      ok: false,
      error: {
        kind: 'headerMismatch',
        detail: 'Mcp-Param-Region is not what params.arguments.region says',
        id: undefined,
      },
    });
});

test('integers beyond those that are exact need no header, and one that is there is compared', () => {
  assert.ok(passes(SCHEMA, { count: 1e20 }, {}));
  assert.ok(passes(SCHEMA, { count: 1e20 }, { 'mcp-param-count': '100000000000000000000' }));
  assert.ok(!passes(SCHEMA, { count: 1e20 }, { 'mcp-param-count': '1' }));
});

test('a schema whose declarations are wrong, or that is unknown, is not enforced', () => {
  const region = (declared: object) => ({
    properties: { region: { type: 'string', 'x-mcp-header': 'Region', ...declared } },
  });
  assert.ok(!passes(region({}), ARGS, {}));
  for (const schema of [
    undefined,
    null,
    5,
    [],
    {},
    region({ 'x-mcp-header': '' }),
    region({ 'x-mcp-header': 'a b' }),
    region({ 'x-mcp-header': 'a\r\nb' }),
    region({ 'x-mcp-header': 5 }),
    region({ type: 'array' }),
    region({ type: undefined }),
    { ...region({}), 'x-mcp-header': 'Root' },
    { properties: { region: { type: 'string', 'x-mcp-header': 'A' }, free: { type: 'string', 'x-mcp-header': 'a' } } },
  ]) {
    assert.ok(passes(schema, ARGS, {}), JSON.stringify(schema));
  }
});

test('a schema of any depth is walked without overflow', () => {
  let schema: Record<string, unknown> = { type: 'string', 'x-mcp-header': 'Deep' };
  for (let level = 0; level < 100_000; level++) schema = { properties: { a: schema } };
  assert.ok(passes(schema, { a: 1 }, {}));
});

test('the headers for arguments are those that the check wants, and no others', () => {
  assert.deepEqual(paramHeadersOf(SCHEMA, ARGS), HEADERS);
  assert.deepEqual(paramHeadersOf(SCHEMA, { region: null, count: [1], free: 'x' }), {});
  assert.deepEqual(paramHeadersOf(SCHEMA, undefined), {});
  assert.deepEqual(paramHeadersOf(undefined, ARGS), {});
});

test('whatever text an argument has, its header can be sent and says the same', () => {
  const text = fc.oneof(
    fc.string(),
    fc.string({ unit: 'binary' }),
    fc.constantFrom('', ' ', '\t', 'a b', '=?base64?YQ==?='),
  );
  fc.assert(
    fc.property(text, (region) => {
      const headers = paramHeadersOf(SCHEMA, { region });
      assert.match(headers['mcp-param-region']!, /^(?:[!-~]([\t -~]*[!-~])?)?$/);
      // Text that is no Unicode is written as JSON would send it.
      assert.deepEqual(checkParamHeaders(SCHEMA, { region: region.toWellFormed() }, headers), {
        ok: true,
        value: undefined,
      });
    }),
  );
});
