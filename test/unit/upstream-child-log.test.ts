import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Log } from '../../sidecar/telemetry/log.ts';
import { createChildLog, createLineBudget } from '../../sidecar/upstream/child-log.ts';

function listen(env: Record<string, string> = {}, now: () => number = () => 0) {
  const entries: string[] = [];
  const take = (message: string) => void entries.push(message);
  const log: Log = { error: take, warn: take, info: take, debug: take };
  return { entries, childLog: createChildLog('files', env, createLineBudget(now), log) };
}

test('a value of the environment is shown as the name of its variable', () => {
  const { entries, childLog } = listen({
    API_TOKEN: 's3cr3t-value',
    LONG: 's3cr3t-value-and-more',
    PATH: '/usr/bin',
    PORT: '8080',
  });
  childLog.write(Buffer.from('s3cr3t-value-and-more s3cr3t-value /usr/bin 8080\n'));
  assert.deepEqual(entries, ['stderr: [LONG] [API_TOKEN] /usr/bin 8080']);
});

test('a secret is not betrayed by the cut of a long line, nor by the lines of a value', () => {
  const { entries, childLog } = listen({ KEY: 'first-line-of-the-key\nsecond-line-of-the-key' });
  childLog.write(Buffer.from(`${'x'.repeat(990)}first-line-of-the-key\nsecond-line-of-the-key\n`));
  assert.equal(entries[0], `stderr: ${'x'.repeat(990)}[KEY]`);
  assert.equal(entries[1], 'stderr: [KEY]');
});

test('colours and empty lines are left out, an endless line is not kept', () => {
  const { entries, childLog } = listen();
  childLog.write(Buffer.from('\n \n\u001b[31mred\u001b[0m\n'));
  childLog.write(Buffer.from('x'.repeat(20_000)));
  childLog.write(Buffer.from('y'.repeat(20_000)));
  assert.deepEqual(entries, ['stderr: red', 'stderr: (a line of more than 16384 bytes)']);
});

test('a chatty child gets its share, and a new one after a while', () => {
  let now = 0;
  const { entries, childLog } = listen({}, () => now);
  for (let at = 0; at < 1000; at += 1) childLog.write(Buffer.from('noise\n'));
  assert.equal(entries.length, 201);
  assert.match(entries.at(-1) ?? '', /too much/);
  now = 10_000;
  childLog.strayOutput(Buffer.from('banner'));
  assert.equal(entries.at(-1), 'not a JSON-RPC message on stdout: banner');
});
