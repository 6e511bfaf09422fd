/**
 * Bodies of any content in any spelling: what the scan finds, what the splice changes, what a repeated key is.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fold } from '../../sidecar/protocol/lookalike.ts';
import type { Message } from '../../sidecar/protocol/message.ts';
import { parseBody } from '../../sidecar/protocol/parse.ts';
import { spliceTrace } from '../../sidecar/protocol/splice.ts';
import fc from '../support/fast-check.ts';

const LIMITS = { depthMax: 64, batchMax: 10 };
const TRACEPARENT = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';

/** JSON as text: white space anywhere, characters as themselves or escaped, numbers that no double holds. */
const space = fc.string({ unit: fc.constantFrom(' ', '\n', '\r', '\t'), maxLength: 2 });
const tricky = fc.constantFrom(
  '"',
  '\\',
  '{',
  '}',
  '[',
  ']',
  ':',
  ',',
  '\u0000',
  'é',
  '\u2028',
  '😀',
  'a',
  'id',
  'params',
);
const string = fc.oneof(fc.string({ unit: tricky, maxLength: 8 }), fc.string({ unit: 'grapheme', maxLength: 80 }));

/** A string literal, each UTF-16 unit escaped or not. */
const literal = (text: string) =>
  fc.infiniteStream(fc.boolean()).map((escapes) => {
    const units = Array.from({ length: text.length }, (_, index) => text[index]!);
    const isWhole = text.isWellFormed();
    return `"${units
      .map((unit) => {
        const mustEscape = /["\\\u0000-\u001f]/.test(unit);
        const maySplit = /[\ud800-\udfff]/.test(unit) && isWhole;
        return mustEscape || (!maySplit && escapes.next().value)
          ? `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`
          : unit;
      })
      .join('')}"`;
  });

const scalar = fc.oneof(
  string.chain(literal),
  fc.constantFrom('null', 'true', 'false', '0', '-0', '1e400', '9007199254740993', '0.1e-7', '12'),
);
const { json } = fc.letrec<{ json: string; array: string; object: string }>((tie) => ({
  json: fc.oneof({ maxDepth: 4, withCrossShrink: true }, scalar, tie('array'), tie('object')),
  array: fc
    .tuple(space, fc.array(fc.tuple(space, tie('json'), space), { maxLength: 3 }))
    .map(([gap, items]) => `[${gap}${items.map((item) => item.join('')).join(',')}]`),
  // Keys that look alike are refused in arguments: that is tested elsewhere.
  object: fc
    .uniqueArray(fc.tuple(string, tie('json')), { maxLength: 3, selector: ([key]) => fold(key) })
    .chain((members) => objectOf(members.map(([key, value]) => [key, fc.constant(value)]))),
}));

type Member = readonly [key: string, value: fc.Arbitrary<string>];

/** An object with these members in any order and spelling. */
function objectOf(members: readonly Member[]): fc.Arbitrary<string> {
  const spelled = members.map(([key, value]) =>
    fc
      .tuple(space, literal(key), space, space, value, space)
      .map(([a, name, b, c, text, d]) => `${a}${name}${b}:${c}${text}${d}`),
  );
  return fc
    .tuple(
      space,
      fc.tuple(...spelled).chain((all) => fc.shuffledSubarray(all, { minLength: all.length })),
    )
    .map(([gap, all]) => `{${all.length === 0 ? gap : all.join(',')}}`);
}

const maybe = (member: Member) => fc.option(fc.constant(member), { nil: undefined });
const some = (...members: fc.Arbitrary<Member | undefined>[]) =>
  fc.tuple(...members).chain((all) => objectOf(all.filter((member) => member !== undefined)));

/** Members whose keys look like nothing of ours. */
const others: fc.Arbitrary<Member | undefined> = maybe(['zz', json]);

const meta = some(
  maybe(['traceparent', json]),
  maybe(['tracestate', json]),
  maybe(['baggage', json]),
  maybe(['progressToken', json]),
  others,
);
const params = some(
  maybe(['_meta', meta]),
  maybe([
    'arguments',
    objectOf([
      ['a', json],
      ['b', json],
    ]),
  ]),
  maybe(['name', json]),
  others,
);
const message = some(
  fc.constant<Member>(['jsonrpc', literal('2.0')]),
  maybe(['id', fc.oneof(fc.constantFrom('7', '-1', '0'), string.chain(literal))]),
  fc.constant<Member>(['method', literal('tools/call')]),
  maybe(['params', params]),
  others,
);
const body = fc.tuple(space, message, space).map((parts) => parts.join(''));

function read(text: string): Message {
  const parsed = parseBody(Buffer.from(text), LIMITS);
  assert.ok(parsed.ok && parsed.value.kind === 'single', `${JSON.stringify(parsed)} ${text}`);
  return parsed.value.message;
}

test('the layout points at what the parser read', () => {
  fc.assert(
    fc.property(body, (text) => {
      const { layout, bytes, params, meta, id } = read(text);
      const at = (range: { start: number; end: number }) => JSON.parse(bytes.toString('utf8', range.start, range.end));
      const opens = (place: { inside: number }) => bytes.toString('latin1', place.inside - 1, place.inside);

      assert.equal(opens(layout.root), '{');
      assert.equal(layout.id === undefined ? undefined : at(layout.id), id);
      for (const [place, value] of [
        [layout.params, params],
        [layout.meta, meta],
      ] as const) {
        assert.equal(place === undefined, value === undefined);
        if (place === undefined || value === undefined) continue;
        assert.equal(opens(place), '{');
        assert.equal(place.empty, Object.keys(value).length === 0);
      }
      for (const [range, value] of [
        [layout.traceparent, meta?.traceparent],
        [layout.tracestate, meta?.tracestate],
        [layout.arguments, params?.arguments],
      ] as const) {
        assert.equal(range === undefined, value === undefined);
        if (range !== undefined) assert.deepEqual(at(range), value);
      }
    }),
    { numRuns: 400 },
  );
});

test('a splice changes the trace keys and nothing else', () => {
  const state = fc.option(fc.oneof(fc.constant('vendor=1,b=2'), string), { nil: undefined });
  fc.assert(
    fc.property(body, state, (text, tracestate) => {
      const before = read(text);
      const spliced = spliceTrace(before, { traceparent: TRACEPARENT, tracestate });
      const after = read(spliced.toString());

      // The same value but for the trace keys …
      const expected = structuredClone(before.body) as { params?: { _meta?: Record<string, unknown> } };
      expected.params ??= {};
      expected.params._meta ??= {};
      expected.params._meta.traceparent = TRACEPARENT;
      if (tracestate === undefined) delete expected.params._meta.tracestate;
      else
        expected.params._meta.tracestate =
          tracestate.toWellFormed() === tracestate ? tracestate : JSON.parse(JSON.stringify(tracestate));
      assert.deepEqual(after.body, expected);

      // … and the same bytes in the same order: all but white space and commas, which the last line looks at.
      const [left, kept] = [withoutTrace(after), withoutTrace(before)];
      assert.equal(left.replace(/[\s,]/g, ''), kept.replace(/[\s,]/g, ''));
      const isTakenOut = tracestate === undefined && before.layout.tracestate !== undefined;
      if (!isTakenOut) assert.equal(left.replace(/[^\s]/g, ''), kept.replace(/[^\s]/g, ''));
    }),
    { numRuns: 400 },
  );
});

/** The text without the trace members, and without the empty objects that are left where a splice made some for them. */
function withoutTrace({ bytes, layout }: Message): string {
  let text = bytes.toString('latin1');
  const ranges = [layout.traceparent, layout.tracestate].filter((range) => range !== undefined);
  for (const { start, end } of ranges.sort((one, other) => other.start - one.start)) {
    const keyEnd = text.lastIndexOf('"', text.lastIndexOf(':', start - 1));
    text = `${text.slice(0, text.lastIndexOf('"', keyEnd - 1))}${text.slice(end)}`;
  }
  const { params, meta } = layout;
  // Written by a splice: no white space, and nothing in it.
  if (meta !== undefined) text = text.replace(/"_meta":\{,?\},?/, '');
  if (params !== undefined) text = text.replace(/"params":\{\},?/, '');
  return text;
}

/** The slow and obvious reader: recursive descent that notes whether any object repeats a key. */
function hasDuplicate(text: string): boolean {
  let at = 0;
  let found = false;
  const gap = () => {
    while (/\s/.test(text[at] ?? '')) at++;
  };
  const readString = (): string => {
    const start = at++;
    while (text[at] !== '"') at += text[at] === '\\' ? 2 : 1;
    return JSON.parse(text.slice(start, ++at));
  };
  const readValue = (): void => {
    gap();
    if (text[at] === '"') readString();
    else if (text[at] === '{' || text[at] === '[') {
      const isObject = text[at++] === '{';
      const keys = new Set<string>();
      for (gap(); text[at] !== '}' && text[at] !== ']'; gap()) {
        if (isObject) {
          const key = readString();
          found ||= keys.has(key);
          keys.add(key);
          gap();
          at++;
        }
        readValue();
        gap();
        if (text[at] === ',') at++;
      }
      at++;
    } else while (at < text.length && !/[\s,\]}]/.test(text[at]!)) at++;
  };
  readValue();
  return found;
}

test('a repeated key is found at any depth, in any spelling, and nowhere else', () => {
  const fewKeys = fc.constantFrom('a', 'b', '__proto__', '0', '1', 'é');
  const { nested } = fc.letrec<{ nested: string }>((tie) => ({
    nested: fc.oneof(
      { maxDepth: 4 },
      fc.constantFrom('1', '"x"', 'null', '{}', '[]'),
      fc.array(tie('nested'), { maxLength: 3 }).map((items) => `[${items.join()}]`),
      fc
        .array(fc.tuple(fewKeys, tie('nested')), { maxLength: 3 })
        .chain((members) => objectOf(members.map(([key, value]) => [key, fc.constant(value)]))),
    ),
  }));
  let seen = 0;
  fc.assert(
    fc.property(nested, (value) => {
      const text = `{"jsonrpc":"2.0","id":1,"method":"x","params":{"zz":${value}}}`;
      const expected = hasDuplicate(text);
      if (expected) seen++;
      const parsed = parseBody(Buffer.from(text), LIMITS);
      assert.equal(!parsed.ok && parsed.error.kind === 'duplicateKey', expected, text);
      if (!parsed.ok && parsed.error.kind === 'duplicateKey') assert.match(parsed.error.path, /^params\.zz\./);
    }),
    { numRuns: 1000 },
  );
  assert.ok(seen > 50, `only ${seen} of the bodies had a repeated key`);
});

test('any bytes are read or refused, without a throw', () => {
  const noise = fc.oneof(
    fc.uint8Array({ maxLength: 64 }).map((bytes) => Buffer.from(bytes)),
    fc
      .string({ unit: fc.constantFrom(...'{}[]",:\\ \t1a', '"id"', '"params"', '"_meta"', '\\u0069'), maxLength: 40 })
      .map((text) => Buffer.from(text)),
    fc
      .tuple(body, fc.nat(), fc.nat())
      .map(([text, from, to]) => Buffer.from(text).subarray(from % (text.length + 1), to % (text.length + 1))),
  );
  fc.assert(
    fc.property(noise, (bytes) => {
      const parsed = parseBody(bytes, LIMITS);
      if (parsed.ok) JSON.parse(bytes.toString());
    }),
    { numRuns: 3000 },
  );
});
