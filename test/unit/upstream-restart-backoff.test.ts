import assert from 'node:assert/strict';
import { test } from 'node:test';
import { afterCrash, noBackoff, waitMs } from '../../sidecar/upstream/restart-backoff.ts';

/** The pauses of a child that crashes as soon as it may start. */
function pausesOf(crashes: number, livedMs: number): number[] {
  const pauses: number[] = [];
  let backoff = noBackoff;
  for (let now = 1000, at = 0; at < crashes; at += 1) {
    now += livedMs;
    backoff = afterCrash(backoff, livedMs, now);
    pauses.push(waitMs(backoff, now));
    now += waitMs(backoff, now);
  }
  return pauses;
}

test('nothing has crashed: no pause', () => assert.equal(waitMs(noBackoff, 1000), 0));

test('the pause doubles from half a second to half a minute', () => {
  assert.deepEqual(pausesOf(8, 100), [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
});

test('a child that lived for a minute starts anew', () => assert.deepEqual(pausesOf(3, 60_000), [500, 500, 500]));

test('a minute without a crash starts anew, however short the next life is', () => {
  const twice = afterCrash(afterCrash(noBackoff, 10, 0), 10, 500);
  assert.equal(waitMs(twice, 500), 1000);
  assert.equal(waitMs(afterCrash(twice, 10, 61_500), 61_500), 500);
  assert.equal(waitMs(afterCrash(twice, 10, 61_499), 61_499), 2000);
});

test('many that die at once are one crash', () => {
  let backoff = noBackoff;
  for (let at = 0; at < 50; at += 1) backoff = afterCrash(backoff, 100, 1000 + at);
  assert.equal(waitMs(backoff, 1000), 500);
});

test('the pause passes', () => {
  const backoff = afterCrash(noBackoff, 100, 1000);
  assert.equal(waitMs(backoff, 1400), 100);
  assert.equal(waitMs(backoff, 1500), 0);
});
