/** How soon the sidecar is ready, and what it weighs when it has nothing to do. */
import { setTimeout as delay } from 'node:timers/promises';
import { request } from 'undici';
import type { Startup } from './report.ts';
import { residentMiB, type SidecarSettings, startSidecar } from './sidecar.ts';

async function untilReady(admin: string): Promise<void> {
  for (let attempt = 0; attempt < 5000; attempt++) {
    const { statusCode, body } = await request(`${admin}/readyz`);
    await body.dump();
    if (statusCode === 200) return;
    await delay(1);
  }
  throw new Error('the sidecar listens but does not become ready');
}

/** Starts the sidecar `starts` times, one after the other; weighs the last, `idleMs` after it was ready. */
export async function measureStartup(
  temporary: string,
  settings: SidecarSettings,
  starts: number,
  idleMs: number,
): Promise<Startup> {
  const readyMs: number[] = [];
  let idleMiB = Number.NaN;
  for (let start = 0; start < starts; start++) {
    const startedAt = performance.now();
    const sidecar = await startSidecar(temporary, settings);
    try {
      await untilReady(sidecar.admin);
      readyMs.push(performance.now() - startedAt);
      if (start < starts - 1) continue;
      await delay(idleMs);
      idleMiB = residentMiB(sidecar.pid);
    } finally {
      await sidecar.stop();
    }
  }
  return { readyMs, idleMiB };
}
