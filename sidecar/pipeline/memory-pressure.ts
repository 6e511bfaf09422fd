/** Whether memory is short, looked at once a second. */

/** Above this share of the memory that the process may use, requests are shed. */
const MEMORY_SHARE_MAX = 0.9;
const MEMORY_LOOK_MS = 1_000;

/** @returns in words why it is, or `undefined`. Always `undefined` where no control group bounds the process. */
export function createMemoryPressure(now: () => number): () => string | undefined {
  let lookedAt = Number.NEGATIVE_INFINITY;
  let pressure: string | undefined;
  return () => {
    if (now() - lookedAt < MEMORY_LOOK_MS) return pressure;
    lookedAt = now();
    // 0 where there is no limit.
    const limit = process.constrainedMemory();
    const used = process.memoryUsage.rss();
    pressure = limit > 0 && used > limit * MEMORY_SHARE_MAX ? `memory is short: ${used} of ${limit} bytes` : undefined;
    return pressure;
  };
}
