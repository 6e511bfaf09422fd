import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogger, type LogLevel } from '../../sidecar/telemetry/log.ts';

function logging(options: { level?: LogLevel; json?: boolean } = {}) {
  const lines: string[] = [];
  const log = createLogger({
    level: options.level ?? 'info',
    json: options.json ?? false,
    write: (line) => lines.push(line),
    now: () => Date.UTC(2026, 10, 20, 12, 0, 0, 5),
  });
  return { log, lines };
}

test('a line for people has time, level, message and the named values', () => {
  const { log, lines } = logging();
  log.warn('upstream is slow', { server: 'github', afterMs: 1200, detail: 'first byte late', none: undefined });
  assert.deepEqual(lines, [
    '12:00:00.005Z warn  upstream is slow server=github afterMs=1200 detail="first byte late"\n',
  ]);
});

test('a line for machines is one JSON object', () => {
  const { log, lines } = logging({ json: true });
  log.error('failed', { error: new TypeError('no'), list: ['a'], big: 10n, message: 'forged' });
  assert.deepEqual(JSON.parse(lines[0]!), {
    time: '2026-11-20T12:00:00.005Z',
    level: 'error',
    message: 'failed',
    error: 'TypeError: no',
    list: '["a"]',
    big: '10',
  });
});

test('only what is important enough is written', () => {
  const { log, lines } = logging({ level: 'warn' });
  log.info('no');
  log.debug('no');
  log.warn('yes');
  log.error('yes');
  assert.equal(lines.length, 2);
});

for (const json of [false, true]) {
  test(`hostile values stay on their line and do not steer a terminal (json: ${json})`, () => {
    const { log, lines } = logging({ json });
    const hostile = 'a\r\n12:00 error forged\u001b[2J\u009b1m\u2028\u202etxt.exe\ud800';
    log.info(hostile, { [`key\n${hostile}`]: hostile, error: new Error(hostile) });
    assert.equal(lines.length, 1);
    assert.match(lines[0]!, /^[^\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]*\n$/);
    assert.ok(lines[0]!.isWellFormed());
  });
}

test('a huge value is cut', () => {
  const { log, lines } = logging();
  log.info('x', { value: 'a'.repeat(1_000_000) });
  assert.ok(lines[0]!.length < 5_000);
});

test('a log that cannot be written or a value that cannot be shown does not throw', () => {
  const log = createLogger({
    level: 'info',
    json: true,
    write: () => {
      throw new Error('EPIPE');
    },
    now: Date.now,
  });
  log.info('x');
  const cyclic: { self?: unknown } = {};
  cyclic.self = cyclic;
  const { log: other, lines } = logging();
  other.info('x', { cyclic });
  assert.match(lines[0]!, /x cyclic="not representable"/);
});
