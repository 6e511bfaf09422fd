/**
 * Keeps the pins in force up to date with `sidecar.lock`: a new lock holds without a restart. One that is not right, or
 * that is gone, is refused, and the last good one stays: taking the file away ends the pinning at the next start.
 */
import { readLock } from './config/lock-file.ts';
import { formatProblems, wholeFile } from './config/problem.ts';
import type { Config } from './config/schema.ts';
import { fingerprint } from './file-fingerprint.ts';
import type { AuditEvent } from './telemetry/audit-line.ts';
import type { Log } from './telemetry/log.ts';
import type { ToolPins } from './upstream/tool-pins.ts';

/** As often as the policy is looked at. */
const POLL_MS = 1_000;

export interface LockReloadPorts {
  readonly pins: ToolPins;
  readonly record: (event: AuditEvent) => void;
  readonly log: Log;
}

export class LockReload {
  readonly #settings: Config['pins'];
  readonly #ports: LockReloadPorts;
  #seen: string;
  #timer: NodeJS.Timeout | undefined;

  private constructor(settings: Config['pins'], seen: string, ports: LockReloadPorts) {
    this.#settings = settings;
    this.#seen = seen;
    this.#ports = ports;
  }

  static async start(settings: Config['pins'], ports: LockReloadPorts): Promise<LockReload> {
    const reload = new LockReload(settings, await fingerprint([settings.file]), ports);
    reload.#schedule();
    return reload;
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #schedule(): void {
    this.#timer = setTimeout(async () => {
      await this.check();
      if (this.#timer !== undefined) this.#schedule();
    }, POLL_MS);
    this.#timer.unref();
  }

  /** Looks once, and reads the lock when it changed. */
  async check(): Promise<void> {
    const seen = await fingerprint([this.#settings.file]);
    if (seen === this.#seen) return;
    this.#seen = seen;
    const { file } = this.#settings;
    const { pins, record, log } = this.#ports;
    // Once there was a lock, its absence is no way to be without one.
    const isRequired = this.#settings.isRequired || pins.lock !== undefined;
    const read = await readLock({ ...this.#settings, isRequired }, ({ message }) => wholeFile(file, message));
    if (!read.ok) {
      const problems = formatProblems(read.error);
      log.error(`the changed pins are refused, and the last good ones stay in force:\n${problems}`);
      record({ event: 'pins.refused', reason: problems });
      return;
    }
    if (read.value === undefined) return;
    pins.replace(read.value);
    log.info('the pins were reloaded', { file });
    record({ event: 'pins.reloaded', servers: read.value.size });
  }
}
