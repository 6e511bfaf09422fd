import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createFrameSplitter, encodeEvent, type Frame } from '../../sidecar/protocol/sse.ts';

function split(text: string | Buffer, eventBytesMax = 1024): Frame[] {
  const splitter = createFrameSplitter(eventBytesMax);
  const pushed = splitter.push(Buffer.from(text));
  assert.ok(pushed.ok);
  return [...pushed.value, ...splitter.end()];
}

const read = ({ data, event, id }: Frame) => ({ data, event, id });

test('fields are read as the specification says', () => {
  const cases: readonly (readonly [string, Partial<ReturnType<typeof read>>])[] = [
    ['data: a\n\n', { data: 'a' }],
    ['data:a\n\n', { data: 'a' }],
    ['data:  a \n\n', { data: ' a ' }],
    ['data: a\ndata:b\ndata\n\n', { data: 'a\nb\n' }],
    ['data\n\n', { data: '' }],
    ['event: message\nid: 7\ndata: {}\n\n', { event: 'message', id: '7', data: '{}' }],
    ['id: 1\r\ndata: a\r\n\r\n', { id: '1', data: 'a' }],
    ['id: 1\rdata: a\r\r', { id: '1', data: 'a' }],
    ['id\ndata:\n\n', { id: '', data: '' }],
    ['id: a\0b\n\n', {}],
    [': keep-alive\n\n', {}],
    ['retry: 500\n\n', {}],
    ['Data: a\n\n', {}],
    [' data: a\n\n', {}],
    ['data: a: b\n\n', { data: 'a: b' }],
    ['\ufeffdata: a\n\n', { data: 'a' }],
    ['data: é😀\n\n', { data: 'é😀' }],
    ['\n', {}],
  ];
  for (const [text, expected] of cases) {
    const frames = split(text);
    assert.equal(frames.length, 1, JSON.stringify(text));
    assert.deepEqual(
      read(frames[0]!),
      { data: undefined, event: undefined, id: undefined, ...expected },
      JSON.stringify(text),
    );
  }
});

test('a frame is out as soon as its blank line is there, whatever ends the line', () => {
  for (const end of ['\n', '\r', '\r\n']) {
    const splitter = createFrameSplitter(1024);
    const first = `data: a${end}${end}`;
    // Byte by byte, the last of which may be the LF of a CRLF: it must not be waited for.
    const bytes = Buffer.from(first);
    const cut = end === '\r\n' ? bytes.length - 1 : bytes.length;
    let frames: Frame[] = [];
    for (let index = 0; index < cut; index++) {
      assert.deepEqual(frames, []);
      const pushed = splitter.push(bytes.subarray(index, index + 1));
      assert.ok(pushed.ok);
      frames = pushed.value;
    }
    assert.deepEqual(frames.map(read), [{ data: 'a', event: undefined, id: undefined }]);
    const rest = splitter.push(Buffer.concat([bytes.subarray(cut), Buffer.from(`data: b${end}${end}`)]));
    assert.ok(rest.ok);
    assert.deepEqual(
      rest.value.map(({ data }) => data),
      ['b'],
    );
  }
});

test('a frame that came in one chunk is not copied', () => {
  const chunk = Buffer.from('data: a\n\ndata: b\n\n');
  const pushed = createFrameSplitter(1024).push(chunk);
  assert.ok(pushed.ok);
  assert.ok(pushed.value.every(({ bytes }) => bytes.buffer === chunk.buffer));
});

test('frames of one splitter do not share the bytes they are built in', () => {
  const splitter = createFrameSplitter(1024);
  const frames = ['data: a', '\n\ndata: b', '\n\ndata: c', '\n\n'].flatMap((chunk) => {
    const pushed = splitter.push(Buffer.from(chunk));
    assert.ok(pushed.ok);
    return pushed.value;
  });
  assert.deepEqual(
    frames.map(({ bytes }) => bytes.toString()),
    ['data: a\n\n', 'data: b\n\n', 'data: c\n\n'],
  );
});

test('what has no blank line at the end is told apart', () => {
  const splitter = createFrameSplitter(1024);
  const pushed = splitter.push(Buffer.from('data: a\n\ndata: half'));
  assert.ok(pushed.ok && pushed.value.length === 1);
  assert.deepEqual(
    splitter.end().map(({ bytes }) => bytes.toString()),
    ['data: half'],
  );
  assert.deepEqual(splitter.end(), []);
});

test('an event that is too large is an error, at once and for good', () => {
  const tooLarge = { ok: false, error: { kind: 'eventTooLarge', bytesMax: 16 } };
  assert.ok(createFrameSplitter(16).push(Buffer.from(`data: ${'x'.repeat(8)}\n\n`)).ok);
  assert.deepEqual(createFrameSplitter(16).push(Buffer.from(`data: ${'x'.repeat(9)}\n\n`)), tooLarge);

  const endless = createFrameSplitter(16);
  for (let index = 0; index < 16; index++) assert.ok(endless.push(Buffer.from('x')).ok);
  assert.deepEqual(endless.push(Buffer.from('x')), tooLarge);
  assert.deepEqual(endless.push(Buffer.from('\n\n')), tooLarge);

  // Many small events are not one large one.
  assert.ok(createFrameSplitter(16).push(Buffer.from('data: a\n\n'.repeat(1000))).ok);
});

test('memory is bound to the bytes, not to the chunks', () => {
  const splitter = createFrameSplitter(8 * 1024 * 1024);
  const before = process.memoryUsage();
  const chunk = Buffer.from('x');
  for (let index = 0; index < 1_000_000; index++) splitter.push(chunk);
  const after = process.memoryUsage();
  const grown = after.heapUsed + after.external - before.heapUsed - before.external;
  assert.ok(splitter.end()[0]!.bytes.length === 1_000_000);
  assert.ok(grown < 64 * 1024 * 1024, `1 MB in chunks of one byte holds ${grown} bytes`);
});

test('an event that was written is read', () => {
  assert.equal(
    encodeEvent({ id: '3', event: 'message', data: '{"a":1}' }).toString(),
    'event: message\nid: 3\ndata: {"a":1}\n\n',
  );
  assert.equal(encodeEvent({ data: '' }).toString(), 'data: \n\n');
  const [frame] = split(encodeEvent({ data: 'a\nb\r\nc\rd' }));
  assert.equal(frame?.data, 'a\nb\nc\nd');
});
