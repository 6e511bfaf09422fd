import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseBody } from '../../sidecar/protocol/parse.ts';
import { spliceTrace } from '../../sidecar/protocol/splice.ts';

/** Spliced with these, unless a case says otherwise. Not real ids, so that the table can be read. */
const TRACE = { traceparent: 'P', tracestate: 'S' };

/** Text before, text after, and after with no tracestate. `M` stands for the head of the message. */
const CASES: readonly (readonly [name: string, before: string, both: string, parentOnly: string])[] = [
  [
    'no params',
    '{M}',
    '{"params":{"_meta":{"traceparent":"P","tracestate":"S"}},M}',
    '{"params":{"_meta":{"traceparent":"P"}},M}',
  ],
  [
    'empty params',
    '{M,"params": { } }',
    '{M,"params": {"_meta":{"traceparent":"P","tracestate":"S"} } }',
    '{M,"params": {"_meta":{"traceparent":"P"} } }',
  ],
  [
    'no _meta',
    '{M,"params":{ "a":1}}',
    '{M,"params":{"_meta":{"traceparent":"P","tracestate":"S"}, "a":1}}',
    '{M,"params":{"_meta":{"traceparent":"P"}, "a":1}}',
  ],
  [
    'empty _meta',
    '{M,"params":{"_meta":{}}}',
    '{M,"params":{"_meta":{"traceparent":"P","tracestate":"S"}}}',
    '{M,"params":{"_meta":{"traceparent":"P"}}}',
  ],
  [
    '_meta of others',
    '{M,"params":{"_meta":{\n"baggage":"b"}}}',
    '{M,"params":{"_meta":{"traceparent":"P","tracestate":"S",\n"baggage":"b"}}}',
    '{M,"params":{"_meta":{"traceparent":"P",\n"baggage":"b"}}}',
  ],
  [
    'a traceparent',
    '{M,"params":{"_meta":{"baggage":"b", "traceparent" : "old" }}}',
    '{M,"params":{"_meta":{"baggage":"b", "traceparent" : "P","tracestate":"S" }}}',
    '{M,"params":{"_meta":{"baggage":"b", "traceparent" : "P" }}}',
  ],
  [
    'a traceparent that is no string',
    '{M,"params":{"_meta":{"traceparent":{"a":[1]},"b":1}}}',
    '{M,"params":{"_meta":{"traceparent":"P","tracestate":"S","b":1}}}',
    '{M,"params":{"_meta":{"traceparent":"P","b":1}}}',
  ],
  [
    'a tracestate alone',
    '{M,"params":{"_meta":{ "tracestate" : "old" ,"b":1}}}',
    '{M,"params":{"_meta":{ "tracestate" : "S","traceparent":"P" ,"b":1}}}',
    '{M,"params":{"_meta":{ "traceparent":"P" ,"b":1}}}',
  ],
  [
    'both',
    '{M,"params":{"_meta":{"traceparent":"old", "tracestate":"old","b":1}}}',
    '{M,"params":{"_meta":{"traceparent":"P", "tracestate":"S","b":1}}}',
    '{M,"params":{"_meta":{"traceparent":"P","b":1}}}',
  ],
  [
    'both, the other way round',
    '{M,"params":{"_meta":{ "tracestate":"old" , "traceparent":"old"}}}',
    '{M,"params":{"_meta":{ "tracestate":"S" , "traceparent":"P"}}}',
    '{M,"params":{"_meta":{  "traceparent":"P"}}}',
  ],
  [
    'keys with escapes',
    '{M,"p\\u0061rams":{"\\u005fmeta":{"trace\\u0073tate":"old","tr\\u0061ceparent":"old"}}}',
    '{M,"p\\u0061rams":{"\\u005fmeta":{"trace\\u0073tate":"S","tr\\u0061ceparent":"P"}}}',
    '{M,"p\\u0061rams":{"\\u005fmeta":{"tr\\u0061ceparent":"P"}}}',
  ],
  [
    'the same names elsewhere',
    '{M,"zz":{"params":{"_meta":{"traceparent":"x"}}},"params":{"arguments":{"_meta":{"traceparent":"x"}},"a":{"traceparent":"x"}}}',
    '{M,"zz":{"params":{"_meta":{"traceparent":"x"}}},"params":{"_meta":{"traceparent":"P","tracestate":"S"},"arguments":{"_meta":{"traceparent":"x"}},"a":{"traceparent":"x"}}}',
    '{M,"zz":{"params":{"_meta":{"traceparent":"x"}}},"params":{"_meta":{"traceparent":"P"},"arguments":{"_meta":{"traceparent":"x"}},"a":{"traceparent":"x"}}}',
  ],
  [
    'numbers that no double holds, and other alphabets',
    '{M,"params":{"name":"é😀","n":12345678901234567890.10}}',
    '{M,"params":{"_meta":{"traceparent":"P","tracestate":"S"},"name":"é😀","n":12345678901234567890.10}}',
    '{M,"params":{"_meta":{"traceparent":"P"},"name":"é😀","n":12345678901234567890.10}}',
  ],
];

const whole = (text: string) => text.replace('M', '"jsonrpc":"2.0","id":1,"method":"m"');

function splice(text: string, trace: { traceparent: string; tracestate: string | undefined }): string {
  const parsed = parseBody(Buffer.from(whole(text)), { depthMax: 64, batchMax: 1 });
  assert.ok(parsed.ok && parsed.value.kind === 'single', JSON.stringify(parsed));
  return spliceTrace(parsed.value.message, trace).toString();
}

for (const [name, before, both, parentOnly] of CASES) {
  test(`splice into ${name}`, () => {
    assert.equal(splice(before, TRACE), whole(both));
    assert.equal(splice(before, { ...TRACE, tracestate: undefined }), whole(parentOnly));
  });
}

test('neither value can break out of its string', () => {
  const tracestate = 'a="b\\","method":"tools/call","é\n';
  const spliced = JSON.parse(splice('{M}', { traceparent: tracestate, tracestate }));
  assert.deepEqual(spliced, {
    jsonrpc: '2.0',
    id: 1,
    method: 'm',
    params: { _meta: { traceparent: tracestate, tracestate } },
  });
});

test('an element of a batch is spliced on its own', () => {
  const parsed = parseBody(Buffer.from(`[ ${whole('{M}')} , ${whole('{M,"params":{"a":1}}')} ]`), {
    depthMax: 64,
    batchMax: 2,
  });
  assert.ok(parsed.ok && parsed.value.kind === 'batch');
  const spliced = parsed.value.messages.map((message) =>
    spliceTrace(message, { traceparent: 'P', tracestate: undefined }).toString(),
  );
  assert.deepEqual(spliced, [
    whole('{"params":{"_meta":{"traceparent":"P"}},M}'),
    whole('{M,"params":{"_meta":{"traceparent":"P"},"a":1}}'),
  ]);
});
