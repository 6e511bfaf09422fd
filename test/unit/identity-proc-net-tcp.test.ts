import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Ends, ownerIn, type Row, rowsOf } from '../../sidecar/identity/proc-net-tcp.ts';

const ENDS: Ends = { callerAddress: '127.0.0.1', callerPort: 40000, ourAddress: '127.0.0.1', ourPort: 4180 };
const ROW: Row = { table: 'tcp', local: '0100007F:9C40', remote: '0100007F:1054' };
const LINE =
  '   7: 0100007F:9C40 0100007F:1054 01 00000000:00000000 00:00000000 00000000 10001        0 51234 1 0000000062226075 20 4 30 10 -1';

test('an IPv4 caller is looked for in both tables, plain and mapped', () => {
  assert.deepEqual(rowsOf(ENDS, true), [
    ROW,
    { table: 'tcp6', local: '0000000000000000FFFF00000100007F:9C40', remote: '0000000000000000FFFF00000100007F:1054' },
  ]);
});

test('a mapped address means the same as the plain one', () => {
  const mapped = { ...ENDS, callerAddress: '::ffff:127.0.0.1', ourAddress: '::ffff:127.0.0.1' };
  assert.deepEqual(rowsOf(mapped, true), rowsOf(ENDS, true));
});

test('::1 is looked for in tcp6 alone', () => {
  assert.deepEqual(rowsOf({ ...ENDS, callerAddress: '::1', ourAddress: '::1' }, true), [
    { table: 'tcp6', local: '00000000000000000000000001000000:9C40', remote: '00000000000000000000000001000000:1054' },
  ]);
});

test('a big-endian machine prints the words the other way round', () => {
  assert.equal(rowsOf(ENDS, false)?.[0]?.local, '7F000001:9C40');
  assert.equal(rowsOf(ENDS, false)?.[1]?.local, '00000000000000000000FFFF7F000001:9C40');
});

for (const [what, ends] of Object.entries({
  'a caller from another machine': { ...ENDS, callerAddress: '10.0.0.5' },
  'an address of ours that is not loopback': { ...ENDS, ourAddress: '10.0.0.5' },
  'ends of two families': { ...ENDS, ourAddress: '::1' },
  'a number that is no byte': { ...ENDS, callerAddress: '127.0.0.256' },
  'loopback inside a longer text': { ...ENDS, callerAddress: '127.0.0.1.example' },
})) {
  test(`${what} is not judged`, () => assert.equal(rowsOf(ends, true), undefined));
}

test('the owner of the row is found', () => assert.equal(ownerIn(LINE, ROW), 10001));

for (const [what, line] of Object.entries({
  'the header': '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode',
  'our own end of the same connection': LINE.replace('0100007F:9C40 0100007F:1054', '0100007F:1054 0100007F:9C40'),
  'another port': LINE.replace(':9C40', ':9C41'),
  'the same source towards another server': LINE.replace(':1054', ':1055'),
  'TIME_WAIT, which shows uid 0': LINE.replace(' 01 ', ' 06 ').replace(' 10001 ', ' 0 ').replace(' 51234 ', ' 0 '),
  FIN_WAIT2: LINE.replace(' 01 ', ' 05 '),
  'an established row that no process holds': LINE.replace(' 51234 ', ' 0 '),
  'a row that was cut off': LINE.slice(0, 70),
  nothing: '',
})) {
  test(`no owner: ${what}`, () => assert.equal(ownerIn(line, ROW), undefined));
}
