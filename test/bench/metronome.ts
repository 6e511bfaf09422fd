/**
 * Ticks at a fixed rate from a thread of its own, to a fraction of a millisecond: timers on the main thread have a
 * grain of a millisecond, and spinning would take a whole core from the targets. Never ticks early.
 */
import { parentPort, workerData } from 'node:worker_threads';

const { ticks, intervalMs } = workerData as { ticks: number; intervalMs: number };
const never = new Int32Array(new SharedArrayBuffer(4));
const startAt = performance.timeOrigin + performance.now() + 20;

for (let tick = 0; tick < ticks; tick++) {
  const dueAt = startAt + tick * intervalMs;
  for (;;) {
    const waitMs = dueAt - (performance.timeOrigin + performance.now());
    if (waitMs <= 0) break;
    Atomics.wait(never, 0, 0, waitMs);
  }
  parentPort?.postMessage(dueAt);
}
