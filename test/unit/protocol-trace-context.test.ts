import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import {
  boundTracestate,
  formatTraceparent,
  makeSpanId,
  makeTraceId,
  parseTraceparent,
} from '../../sidecar/protocol/trace-context.ts';

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const SPAN = '00f067aa0ba902b7';

test('a traceparent is read', () => {
  assert.deepEqual(parseTraceparent(`00-${TRACE}-${SPAN}-01`), { traceId: TRACE, spanId: SPAN, sampled: true });
  assert.equal(parseTraceparent(`00-${TRACE}-${SPAN}-00`)?.sampled, false);
  assert.equal(parseTraceparent(`00-${TRACE}-${SPAN}-03`)?.sampled, true);
  assert.equal(parseTraceparent(`00-${TRACE}-${SPAN}-fe`)?.sampled, false);
});

test('a later version is read as far as it is known', () => {
  assert.equal(parseTraceparent(`01-${TRACE}-${SPAN}-01`)?.traceId, TRACE);
  assert.equal(parseTraceparent(`cc-${TRACE}-${SPAN}-01-what-the-future-brings`)?.spanId, SPAN);
});

test('anything else is no traceparent', () => {
  const wrong = [
    '',
    `ff-${TRACE}-${SPAN}-01`,
    `00-${'0'.repeat(32)}-${SPAN}-01`,
    `00-${TRACE}-${'0'.repeat(16)}-01`,
    `00-${TRACE.toUpperCase()}-${SPAN}-01`,
    `00-${TRACE}-${SPAN}-01-`,
    `00-${TRACE}-${SPAN}-01-x`,
    `01-${TRACE}-${SPAN}-01x`,
    `00-${TRACE}-${SPAN}-1`,
    `00-${TRACE}-${SPAN}`,
    `00-${TRACE.slice(1)}-${SPAN}-01`,
    `0-${TRACE}-${SPAN}-01`,
    ` 00-${TRACE}-${SPAN}-01`,
    `00-${TRACE}-${SPAN}-01\n`,
    `00_${TRACE}_${SPAN}_01`,
  ];
  for (const text of wrong) assert.equal(parseTraceparent(text), undefined, text);
});

test('what was written is what is read', () => {
  for (const sampled of [true, false]) {
    const context = { traceId: makeTraceId(randomBytes), spanId: makeSpanId(randomBytes), sampled };
    assert.deepEqual(parseTraceparent(formatTraceparent(context)), context);
  }
});

test('an id is never all zero', () => {
  const zeros = (count: number) => Buffer.alloc(count);
  assert.equal(makeTraceId(zeros), `${'0'.repeat(31)}1`);
  assert.equal(makeSpanId(zeros), `${'0'.repeat(15)}1`);
});

test('a tracestate is passed on or dropped, whole', () => {
  for (const text of ['a=b', 'a=b,c="d"', 'x'.repeat(512)]) assert.equal(boundTracestate(text), text);
  for (const text of [undefined, '', ' ', 'x'.repeat(513), 'a=é', 'a=b\r\nx: y', 'a\0'])
    assert.equal(boundTracestate(text), undefined, String(text));
});
