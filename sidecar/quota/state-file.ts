/**
 * One file of the state folder: what must survive a restart. Written whole and swapped in, readable by this user only.
 *
 * A folder that cannot be written costs what it would have kept, and is told of once: the sidecar goes on. Of two
 * sidecars with one folder the later one keeps nothing and says so, since each would overwrite what the other spent.
 * They know each other by process id, hence not from one container to another.
 */
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { replaceFile } from '../replace-file.ts';

/** Ten thousand counters with all their slots take a sixth of it. */
const BYTES_MAX = 64 * 1024 * 1024;
/** Somebody else is about to take the lock: so often and so long it is waited for. */
const CLAIM_ATTEMPTS_MAX = 10;
const CLAIM_WAIT_MS = 50;

export interface StateFilePorts {
  readonly warn: (message: string) => void;
  readonly pid: number;
  readonly isAlive: (pid: number) => boolean;
}

export class StateFile {
  readonly path: string;
  readonly #lock: string;
  readonly #next: string;
  readonly #ports: StateFilePorts;
  #isTold = false;

  private constructor(path: string, ports: StateFilePorts) {
    this.path = path;
    this.#lock = `${path}.lock`;
    this.#next = `${path}.lock.next`;
    this.#ports = ports;
  }

  /** @returns `undefined`, and a warning, where the file cannot be this process's own. */
  static async open(folder: string, name: string, ports: StateFilePorts): Promise<StateFile | undefined> {
    const file = new StateFile(join(folder, name), ports);
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const holder = await file.#take();
      if (holder === undefined) return file;
      ports.warn(
        `${file.path} belongs to another sidecar (process ${holder}): what is spent here does not survive a restart. Give each its own folder (state)`,
      );
    } catch (error) {
      file.#tell(`${file.#lock} cannot be written (${codeOf(error)})`);
    }
    return undefined;
  }

  /** `undefined`: there is none. */
  async read(): Promise<string | undefined> {
    try {
      const handle = await open(this.path, 'r');
      try {
        if ((await handle.stat()).size > BYTES_MAX) return '';
        return await handle.readFile('utf8');
      } finally {
        await handle.close();
      }
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') this.#tell(`${this.path} cannot be read (${codeOf(error)})`);
      return undefined;
    }
  }

  async write(text: string): Promise<void> {
    const written = await replaceFile(this.path, text, 0o600);
    if (written.ok) this.#isTold = false;
    else this.#tell(written.error);
  }

  async close(): Promise<void> {
    await rm(this.#lock, { force: true }).catch(() => {});
  }

  /** @returns the process id of the sidecar whose it is, or `undefined` when it is ours now. */
  async #take(): Promise<string | undefined> {
    for (let attempt = 0; attempt < CLAIM_ATTEMPTS_MAX; attempt++) {
      const holder = await readText(this.#lock);
      if (this.#isHeldBy(holder)) return holder;
      if (await this.#claim(holder)) return undefined;
      await delay(CLAIM_WAIT_MS);
    }
    const claimant = await readText(this.#next);
    // Of a process that was killed in between: the next start finds the way free.
    if (!this.#isHeldBy(claimant)) await rm(this.#next, { force: true });
    return claimant ?? 'unknown';
  }

  /**
   * The lock's successor is made, which only one can, and put in its place if that is as it was: so of many who find a
   * stale lock only one takes it, and nobody sees one without its process id.
   *
   * @param holder What the lock said; `undefined`: there was none.
   */
  async #claim(holder: string | undefined): Promise<boolean> {
    try {
      const handle = await open(this.#next, 'wx', 0o600);
      await handle.writeFile(String(this.#ports.pid));
      await handle.close();
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error;
      return false;
    }
    const isAsItWas = (await readText(this.#lock)) === holder;
    if (isAsItWas) await rename(this.#next, this.#lock);
    else await rm(this.#next, { force: true });
    return isAsItWas;
  }

  /** Our own id in it is that of an earlier process: in a container each start has the same. */
  #isHeldBy(holder: string | undefined): boolean {
    const pid = Number(holder ?? '');
    return Number.isInteger(pid) && pid > 0 && pid !== this.#ports.pid && this.#ports.isAlive(pid);
  }

  #tell(problem: string): void {
    if (this.#isTold) return;
    this.#isTold = true;
    this.#ports.warn(`${problem}: what is spent does not survive a restart`);
  }
}

/** `undefined`: there is no such file. */
async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
    return undefined;
  }
}

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? 'unknown error';
}

/** Whether a process of that id runs, whoever's it is. */
export function isProcessAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return codeOf(error) === 'EPERM';
  }
}
