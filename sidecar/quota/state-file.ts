/**
 * One file of the state folder: what must survive a restart. Written whole and swapped in, readable by this user only.
 *
 * A folder that cannot be written costs what it would have kept, and is told of once: the sidecar goes on. Of two
 * sidecars with one folder the later one keeps nothing and says so, since each would overwrite what the other spent.
 */
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';

/** Ten thousand counters with all their slots. */
const BYTES_MAX = 64 * 1024 * 1024;

export interface StateFilePorts {
  readonly warn: (message: string) => void;
  readonly pid: number;
  readonly isAlive: (pid: number) => boolean;
}

export class StateFile {
  readonly path: string;
  readonly #lock: string;
  readonly #ports: StateFilePorts;
  #isTold = false;

  private constructor(path: string, ports: StateFilePorts) {
    this.path = path;
    this.#lock = `${path}.lock`;
    this.#ports = ports;
  }

  /** @returns `undefined`, and a warning, where the file cannot be this process's own. */
  static async open(folder: string, name: string, ports: StateFilePorts): Promise<StateFile | undefined> {
    const file = new StateFile(join(folder, name), ports);
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      return (await file.#take()) ? file : undefined;
    } catch (error) {
      file.#tell(error);
      return undefined;
    }
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
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') this.#tell(error);
      return undefined;
    }
  }

  async write(text: string): Promise<void> {
    const next = `${this.path}.${this.#ports.pid}`;
    try {
      const handle = await open(next, 'w', 0o600);
      try {
        await handle.writeFile(text);
      } finally {
        await handle.close();
      }
      await rename(next, this.path);
      this.#isTold = false;
    } catch (error) {
      this.#tell(error);
    }
  }

  async close(): Promise<void> {
    await rm(this.#lock, { force: true }).catch(() => {});
  }

  /** Whether the lock is ours now: one of a process that is no more is taken over. */
  async #take(): Promise<boolean> {
    for (let attempt = 0; attempt < 3; attempt++) {
      try {
        const handle = await open(this.#lock, 'wx', 0o600);
        await handle.writeFile(String(this.#ports.pid));
        await handle.close();
        return true;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      }
      const holder = Number(await readFile(this.#lock, 'utf8').catch(() => ''));
      if (holder > 0 && holder !== this.#ports.pid && this.#ports.isAlive(holder)) {
        this.#ports.warn(
          `${this.path} belongs to another sidecar (process ${holder}): what is spent here does not survive a restart. Give each its own folder (state)`,
        );
        return false;
      }
      await rm(this.#lock, { force: true });
    }
    return false;
  }

  #tell(error: unknown): void {
    if (this.#isTold) return;
    this.#isTold = true;
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown';
    this.#ports.warn(`${this.path} cannot be written or read (${code}): what it holds does not survive a restart`);
  }
}

/** Whether a process of that id runs, whoever's it is. */
export function isProcessAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
