/**
 * The audit log: one line for each finished exchange, whatever became of it, and for the events that change what is
 * allowed (see audit-line.ts for the line).
 *
 * Guarantees: `finished` and `record` only put a record into a queue; lines are made and written in batches, in order,
 * by one writer. A record is lost only when the file cannot be written for so long that the backlog is full, or when the
 * process is killed within `flushMs`; how many were lost is itself recorded. Arguments for which there is no room cost
 * the arguments, never the record: it has their length and SHA-256 then, and a quarter of the backlog is kept for such
 * records, so that no call can hide behind its own padding or another's. `sequence` goes on where the file ends. A line torn by a crash gets
 * its line break, so that the next record is not glued to it. A file that was moved away or deleted (logrotate) is
 * opened anew within a second. It never creates folders and never changes what is written.
 */
import { createHash } from 'node:crypto';
import { constants, fstat, type Stats, write } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { promisify } from 'node:util';
import { err, ok, type Result } from '../../policies/result.ts';
import { type AuditEvent, formatEvent, formatExchange, lastSequence, type OmittedArguments } from './audit-line.ts';
import { cutTexts, textLengths } from './cut-texts.ts';
import type { ExchangeObserver, FinishedExchange } from './finished.ts';
import type { Log } from './log.ts';

export interface AuditOptions {
  readonly path: string;
  /** While the file cannot be written: `refuse` requests, or `continue` with a bounded backlog. */
  readonly onFailure: 'refuse' | 'continue';
  /** How long a record may wait to be written, milliseconds. */
  readonly flushMs: number;
  /** Records that wait to be written, bytes (estimated). What comes beyond is counted and lost. Default 16 MiB. */
  readonly backlogBytesMax?: number;
  readonly log: Log;
  /** Wall clock, milliseconds since the epoch. */
  readonly now: () => number;
  /** For tests: the write to the file. */
  readonly write?: (file: LogFile, bytes: Buffer, offset: number) => Promise<number>;
}

export interface AuditFigures {
  readonly lostTotal: number;
  readonly backlogBytes: number;
  readonly failing: boolean;
}

const BACKLOG_BYTES_MAX = 16 * 1024 * 1024;
/** A batch that is this big is written at once. */
const BATCH_BYTES = 64 * 1024;
/** One write takes at most about this much, so that making its lines does not hold up the event loop. */
const WRITE_BYTES_MAX = 256 * 1024;
/** A record without its arguments and the texts that agents choose, about. */
const RECORD_BYTES = 640;
/** Of the backlog: records with arguments may fill this much; the rest is for those without. */
const ARGUMENTS_SHARE = 0.75;
const ROTATION_CHECK_MS = 1_000;
const RETRY_MIN_MS = 100;
const RETRY_MAX_MS = 10_000;
const TAIL_BYTES = 64 * 1024;
const TAIL_BYTES_MAX = 64 * 1024 * 1024;

type Waiting = { readonly bytes: number } & (
  | { readonly exchange: FinishedExchange; readonly omitted: OmittedArguments | undefined }
  | { readonly time: number; readonly event: AuditEvent }
);

export class Audit implements ExchangeObserver {
  readonly #options: AuditOptions;
  readonly #backlogBytesMax: number;

  #queue: Waiting[] = [];
  #queueBytes = 0;
  /** Lines that are on their way, and how many bytes and records of them are in the file already. */
  #pending: Buffer | undefined;
  #pendingRecords = 0;
  #pendingOffset = 0;

  #file: LogFile | undefined;
  #identity: { readonly dev: number; readonly ino: number } | undefined;
  #checkedAt = 0;
  #sequence = 0;
  #accepted = 0;
  #written = 0;
  #lost = 0;
  #lostUnreported = 0;

  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> | undefined;
  #failure: string | undefined;
  #retryMs = 0;
  #closed = false;

  private constructor(options: AuditOptions) {
    this.#options = options;
    this.#backlogBytesMax = options.backlogBytesMax ?? BACKLOG_BYTES_MAX;
  }

  /**
   * Opens the log. A path that cannot be right (no such folder, a folder itself) is an error; so is any other failure
   * with `onFailure: refuse`, while with `continue` it is opened later.
   */
  static async open(options: AuditOptions): Promise<Result<Audit, string>> {
    const audit = new Audit(options);
    try {
      await audit.#open();
    } catch (error) {
      const failure = error as NodeJS.ErrnoException;
      const wrong = ['ENOENT', 'ENOTDIR', 'EISDIR'].includes(failure.code ?? '');
      if (wrong || options.onFailure === 'refuse') return err(`audit.path: ${explain(options.path, failure)}`);
      audit.#fail(failure);
      audit.#schedule(audit.#retryMs);
    }
    return ok(audit);
  }

  finished(exchange: FinishedExchange): void {
    const whole = cutTexts(exchange);
    const bytes = RECORD_BYTES + textLengths(whole);
    const { argumentsJson } = whole;
    const roomForArguments = this.#backlogBytesMax * ARGUMENTS_SHARE - this.#backlogBytes() - bytes;
    if (argumentsJson === undefined || argumentsJson.length <= roomForArguments) {
      this.#enqueue({ exchange: whole, omitted: undefined, bytes: bytes + (argumentsJson?.length ?? 0) });
    } else {
      this.#enqueue({ exchange: { ...whole, argumentsJson: undefined }, omitted: digestOf(argumentsJson), bytes });
    }
  }

  /** Records an event that is not an exchange, with the time of now. */
  record(event: AuditEvent): void {
    this.#enqueue({ time: this.#options.now(), event, bytes: RECORD_BYTES });
  }

  /** With `onFailure: refuse`, a sentence while records cannot be written. With `continue` always `undefined`. */
  failing(): string | undefined {
    if (this.#options.onFailure === 'continue') return undefined;
    if (this.#failure !== undefined) return this.#failure;
    // The disk is so slow that the backlog would overflow: as good as a failure.
    if (this.#backlogBytes() > this.#backlogBytesMax / 2)
      return `the audit log ${this.#options.path} is written too slowly`;
    return undefined;
  }

  figures(): AuditFigures {
    return {
      lostTotal: this.#lost,
      backlogBytes: this.#backlogBytes(),
      failing: this.#failure !== undefined,
    };
  }

  /** Resolves when everything recorded before the call is in the file, or could not be written. */
  async flush(): Promise<void> {
    if (this.#closed) return;
    const until = this.#accepted;
    do await this.#startWriting();
    while (this.#failure === undefined && this.#written < until);
  }

  /** Writes what there is, tries once more where that fails, and closes the file. What is recorded later is lost. */
  async close(): Promise<void> {
    if (this.#closed) return;
    await this.flush();
    if (this.#failure !== undefined) await this.flush();
    this.#closed = true;
    clearTimeout(this.#timer);
    const left = this.#accepted - this.#written;
    if (left > 0) this.#options.log.error('audit records are lost', { records: left, reason: this.#failure });
    await this.#closeFile();
  }

  #backlogBytes(): number {
    return this.#queueBytes + (this.#pending?.length ?? 0) - this.#pendingOffset;
  }

  #enqueue(waiting: Waiting): void {
    if (this.#closed || this.#backlogBytes() + waiting.bytes > this.#backlogBytesMax) {
      this.#lost += 1;
      this.#lostUnreported += 1;
      return;
    }
    this.#queue.push(waiting);
    this.#queueBytes += waiting.bytes;
    this.#accepted += 1;
    if (this.#writing !== undefined || this.#failure !== undefined) return;
    if (this.#queueBytes >= BATCH_BYTES) this.#schedule(0);
    else if (this.#timer === undefined) this.#schedule(this.#options.flushMs);
  }

  #schedule(delayMs: number): void {
    if (this.#closed) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#startWriting(), delayMs);
  }

  /** One writer: whoever calls while it writes waits for that write. */
  #startWriting(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#writing ??= this.#writeBatch().finally(() => {
      this.#writing = undefined;
      if (this.#failure !== undefined) this.#schedule(this.#retryMs);
      else if (this.#queue.length > 0) this.#schedule(this.#queueBytes >= BATCH_BYTES ? 0 : this.#options.flushMs);
    });
    return this.#writing;
  }

  async #writeBatch(): Promise<void> {
    const write = this.#options.write ?? writeBytes;
    try {
      if (!(await this.#isCurrent())) {
        await this.#closeFile();
        await this.#open();
      }
      this.#pending ??= this.#nextBatch();
      if (this.#pending !== undefined) {
        while (this.#pendingOffset < this.#pending.length) {
          const bytes = await write(this.#file!, this.#pending, this.#pendingOffset);
          if (bytes === 0) throw new Error('nothing was written');
          this.#pendingOffset += bytes;
        }
        this.#written += this.#pendingRecords;
        this.#pending = undefined;
        this.#pendingOffset = 0;
      }
      this.#recover();
    } catch (error) {
      this.#fail(error as NodeJS.ErrnoException);
    }
  }

  /** Makes the lines of one write. */
  #nextBatch(): Buffer | undefined {
    let lines = '';
    let count = 0;
    while (count < this.#queue.length && lines.length < WRITE_BYTES_MAX) {
      const waiting = this.#queue[count]!;
      count += 1;
      this.#sequence += 1;
      this.#queueBytes -= waiting.bytes;
      if ('event' in waiting) lines += formatEvent(waiting.time, waiting.event, this.#sequence);
      else lines += formatExchange(waiting.exchange, this.#sequence, waiting.omitted);
    }
    this.#queue = count === this.#queue.length ? [] : this.#queue.slice(count);
    this.#pendingRecords = count;
    // What was lost came after everything in the queue.
    if (this.#queue.length === 0 && this.#lostUnreported > 0) {
      this.#sequence += 1;
      lines += formatEvent(this.#options.now(), { event: 'audit.lost', records: this.#lostUnreported }, this.#sequence);
      this.#lostUnreported = 0;
    }
    return lines === '' ? undefined : Buffer.from(lines);
  }

  /** Whether the path still names the file that is open: asked once a second, and after a failure. */
  async #isCurrent(): Promise<boolean> {
    if (this.#file === undefined) return false;
    const now = this.#options.now();
    if (this.#failure === undefined && Math.abs(now - this.#checkedAt) < ROTATION_CHECK_MS) return true;
    this.#checkedAt = now;
    const status = await stat(this.#options.path).catch(() => undefined);
    return status?.ino === this.#identity?.ino && status?.dev === this.#identity?.dev;
  }

  /** Opens the file for appending and finds where it ends. Throws what went wrong. */
  async #open(): Promise<void> {
    const { path } = this.#options;
    const file = path === STANDARD_OUTPUT ? standardOutput : await openToAppend(path);
    try {
      const status = await file.stat();
      if (file !== standardOutput && status.isFile() && status.size > 0) await this.#continueFrom(file, status.size);
      this.#identity = status;
      this.#checkedAt = this.#options.now();
      this.#file = file;
    } catch (error) {
      await file.close().catch(() => {});
      throw error;
    }
    // A line of which a part went into the file before this one is written as a whole.
    if (this.#pendingOffset > 0) this.#pendingOffset = this.#pending!.lastIndexOf(0x0a, this.#pendingOffset - 1) + 1;
  }

  async #closeFile(): Promise<void> {
    await this.#file?.close().catch(() => {});
    this.#file = undefined;
  }

  /** Takes up the sequence of the last record, and ends a line that a crash or a full disk has torn. */
  async #continueFrom(file: LogFile, size: number): Promise<void> {
    const reading = await open(this.#options.path, constants.O_RDONLY);
    try {
      for (let bytes = Math.min(size, TAIL_BYTES); ; bytes = Math.min(size, bytes * 4)) {
        const tail = Buffer.alloc(bytes);
        const { bytesRead } = await reading.read(tail, 0, bytes, size - bytes);
        const text = tail.toString('latin1', 0, bytesRead);
        const sequence = lastSequence(bytes < size ? text.slice(text.indexOf('\n')) : text);
        if (sequence === undefined && bytes < size && bytes < TAIL_BYTES_MAX) continue;
        this.#sequence = Math.max(this.#sequence, sequence ?? 0);
        if (!text.endsWith('\n')) await file.write(Buffer.from('\n'), 0);
        return;
      }
    } finally {
      await reading.close();
    }
  }

  #fail(error: NodeJS.ErrnoException): void {
    this.#retryMs = Math.min(Math.max(this.#retryMs * 2, RETRY_MIN_MS), RETRY_MAX_MS);
    const first = this.#failure === undefined;
    this.#failure = explain(this.#options.path, error);
    if (!first) return;
    this.#options.log.error(this.#failure, {
      consequence:
        this.#options.onFailure === 'refuse'
          ? 'requests are refused until it can be written (audit.onFailure: refuse)'
          : `records are kept up to ${this.#backlogBytesMax} bytes, and lost beyond (audit.onFailure: continue)`,
    });
  }

  #recover(): void {
    this.#retryMs = 0;
    if (this.#failure === undefined) return;
    this.#failure = undefined;
    this.#options.log.warn('the audit log is written again', { path: this.#options.path, lostRecords: this.#lost });
  }
}

function digestOf(argumentsJson: string): OmittedArguments {
  const bytes = Buffer.from(argumentsJson);
  return { bytes: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') };
}

/** A file, or standard output. */
interface LogFile {
  stat(): Promise<Stats>;
  write(bytes: Buffer, offset: number, length?: number): Promise<{ readonly bytesWritten: number }>;
  close(): Promise<void>;
}

/** For containers. Not opened by its path, which is refused where it is a socket, and to another user where it is a pipe. */
const STANDARD_OUTPUT = '/dev/stdout';
const standardOutput: LogFile = {
  stat: () => promisify(fstat)(1),
  write: (bytes, offset, length) => promisify(write)(1, bytes, offset, length ?? bytes.length - offset),
  close: async () => {},
};

function openToAppend(path: string): Promise<LogFile> {
  return open(path, constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT, 0o600);
}

async function writeBytes(file: LogFile, bytes: Buffer, offset: number): Promise<number> {
  return (await file.write(bytes, offset)).bytesWritten;
}

function explain(path: string, error: NodeJS.ErrnoException): string {
  const why: Readonly<Record<string, string>> = {
    ENOENT: 'its folder does not exist: create it',
    ENOTDIR: 'a part of the path is a file, not a folder',
    EISDIR: 'it is a folder: name a file in it',
    EACCES: 'permission is denied for the user that the sidecar runs as',
    EROFS: 'the file system is read-only',
    ENOSPC: 'the disk is full',
    EDQUOT: 'the disk quota is used up',
  };
  return `cannot write the audit log ${path}: ${why[error.code ?? ''] ?? error.message}`;
}
