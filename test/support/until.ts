/** Waiting for what another process or a timer does: looks again every few milliseconds, and fails when it takes too long. */
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';

const LOOK_MS = 10;

/** @param what Of the failure: what did not come; a function is asked then. */
export async function until(
  isSo: () => boolean | Promise<boolean>,
  what: string | (() => string) = 'what was to come',
  waitMs = 15_000,
): Promise<void> {
  for (const deadline = performance.now() + waitMs; !(await isSo()); ) {
    if (performance.now() >= deadline)
      assert.fail(`not within ${waitMs / 1000} s: ${typeof what === 'string' ? what : what()}`);
    await delay(LOOK_MS);
  }
}
