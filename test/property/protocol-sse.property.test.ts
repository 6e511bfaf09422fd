import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createFrameSplitter, encodeEvent, type Frame } from '../../sidecar/protocol/sse.ts';
import fc from '../support/fast-check.ts';

/** Pushes `stream` in pieces of these sizes, and the rest at once. */
function splitInPieces(stream: Buffer, sizes: readonly number[]): Frame[] {
  const splitter = createFrameSplitter(Number.MAX_SAFE_INTEGER);
  const frames: Frame[] = [];
  let from = 0;
  for (const size of [...sizes, stream.length]) {
    const pushed = splitter.push(Buffer.from(stream.subarray(from, from + size)));
    assert.ok(pushed.ok);
    frames.push(...pushed.value);
    from += size;
  }
  return [...frames, ...splitter.end()];
}

const line = fc.oneof(
  fc.constantFrom('', '', 'data', 'data:', 'data: a', 'id: 1', 'event: x', ': comment', 'retry: 1', 'data: é😀\u2028'),
  fc.string({ unit: 'binary', maxLength: 8 }).map((text) => text.replace(/[\r\n]/g, '')),
);
const stream = fc
  .tuple(
    fc.constantFrom('', '\ufeff'),
    fc.array(fc.tuple(line, fc.constantFrom('\n', '\r', '\r\n')), { maxLength: 12 }),
  )
  .map(([mark, lines]) => Buffer.from(mark + lines.map((one) => one.join('')).join('')));
const sizes = fc.array(fc.nat({ max: 6 }), { maxLength: 60 });
const bytesOf = (frames: readonly Frame[]) => Buffer.concat(frames.map(({ bytes }) => bytes));
const fieldsOf = (frames: readonly Frame[]) =>
  frames
    .map(({ data, event, id }) => ({ data, event, id }))
    .filter(({ data, event, id }) => (data ?? event ?? id) !== undefined);

test('the frames put together are the stream', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        stream,
        fc.uint8Array({ maxLength: 80 }).map((bytes) => Buffer.from(bytes)),
      ),
      sizes,
      (bytes, pieces) => {
        assert.deepEqual(bytesOf(splitInPieces(bytes, pieces)), bytes);
      },
    ),
    { numRuns: 2000 },
  );
});

test('the events are the same however the stream is cut', () => {
  fc.assert(
    fc.property(stream, sizes, (bytes, pieces) => {
      assert.deepEqual(fieldsOf(splitInPieces(bytes, pieces)), fieldsOf(splitInPieces(bytes, [])));
    }),
    { numRuns: 2000 },
  );
});

test('each frame ends with its blank line, and holds no other', () => {
  fc.assert(
    fc.property(stream, sizes, (bytes, pieces) => {
      const frames = splitInPieces(bytes, pieces);
      for (const [index, frame] of frames.entries()) {
        // A frame may begin with the LF of the one before.
        const isSplit = index > 0 && frames[index - 1]!.bytes.at(-1) === 0x0d && frame.bytes[0] === 0x0a;
        const lines = frame.bytes
          .subarray(isSplit ? 1 : 0)
          .toString('latin1')
          .split(/\r\n|\n|\r/);
        const blank = lines.indexOf('');
        if (index < frames.length - 1) assert.equal(blank, lines.length - 2);
        else assert.ok(blank === -1 || blank >= lines.length - 2);
      }
    }),
    { numRuns: 2000 },
  );
});

test('what was written is what is read', () => {
  const text = fc.string({ unit: 'grapheme', maxLength: 20 });
  const word = text.map((value) => value.replace(/[\r\n\0]/g, ''));
  fc.assert(
    fc.property(
      fc.array(fc.record({ id: word, event: word, data: text }), { maxLength: 5 }),
      sizes,
      (events, pieces) => {
        const bytes = Buffer.concat(events.map(encodeEvent));
        const expected = events.map((event) => ({ ...event, data: event.data.replace(/\r\n|\r/g, '\n') }));
        assert.deepEqual(fieldsOf(splitInPieces(bytes, pieces)), expected);
      },
    ),
  );
});
