/**
 * Ends a child process together with everything it has started: the child leads a process group of its own (it was
 * spawned `detached`), and signals go to the group.
 *
 * Guarantee: when this process exits, in whatever way JavaScript still runs for, the groups are killed. A sidecar that
 * is itself killed by SIGKILL leaves only what a child does when its stdin closes.
 */

const living = new Set<number>();
let watchingExit = false;

/** Remembers a group to kill it at exit. */
export function trackGroup(leader: number): void {
  living.add(leader);
  if (watchingExit) return;
  watchingExit = true;
  process.once('exit', () => {
    for (const one of living) signalGroup(one, 'SIGKILL');
  });
}

/** How often a group that was asked to end is looked at. */
const LOOK_MS = 20;

/** SIGTERM to the group, SIGKILL after `graceMs` to what is left of it. Resolves when it is gone, or was killed. */
export async function endGroup(leader: number, graceMs: number): Promise<void> {
  const deadline = performance.now() + graceMs;
  let alive = signalGroup(leader, 'SIGTERM');
  while (alive && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, Math.min(LOOK_MS, graceMs)));
    alive = signalGroup(leader, 0);
  }
  if (alive) signalGroup(leader, 'SIGKILL');
  living.delete(leader);
}

/** False when nothing of the group is left. */
function signalGroup(leader: number, signal: NodeJS.Signals | 0): boolean {
  try {
    // Windows has no groups: there the child alone is ended.
    return process.kill(process.platform === 'win32' ? leader : -leader, signal);
  } catch (error) {
    // EPERM: it runs as another user by now (sudo), and is alive.
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
