/**
 * Reads audit files line by line, in bounded memory, while the sidecar may still write to them.
 *
 * Guarantees: a line that is torn, too long, no JSON or somebody else's is counted and passed over, and its place is
 * told; reading goes on behind it. Only a file that cannot be read is an error.
 */
import { createReadStream } from 'node:fs';
import type { Readable } from 'node:stream';
import { err, ok, type Result } from '../../policies/result.ts';
import { type AuditRecord, readAuditLine } from './audit-record.ts';

/** `torn`: the last line of a file, of which only a part was written. */
export type LineFault = 'torn' | 'notJson' | 'foreign' | 'tooLong';

export interface AuditReading {
  readonly records: number;
  /** Lines about something else than a request. */
  readonly events: number;
  readonly faults: Readonly<Record<LineFault, number>>;
  /** `audit.jsonl:17`, for the first of these lines. */
  readonly firstFault: string | undefined;
}

/** Beyond what the sidecar writes: 12 Mi characters of arguments, each of which may be six bytes as an escape. */
const LINE_BYTES_MAX = 80 * 1024 * 1024;

/**
 * @param paths Files; `-` is `stdin`.
 * @param onRecord Called for each record in the order of files and lines. `file` is as in `paths`.
 * @returns otherwise a sentence about the file that cannot be read.
 */
export async function readAudit(
  paths: readonly string[],
  onRecord: (record: AuditRecord, file: string) => void,
  stdin: Readable = process.stdin,
  lineBytesMax: number = LINE_BYTES_MAX,
): Promise<Result<AuditReading, string>> {
  const faults = { torn: 0, notJson: 0, foreign: 0, tooLong: 0 };
  let records = 0;
  let events = 0;
  let firstFault: string | undefined;
  for (const file of paths) {
    const onLine = (line: Line) => {
      const entry = line.text === undefined ? err('tooLong' as const) : readAuditLine(line.text);
      if (!entry.ok) {
        faults[entry.error === 'notJson' && !line.isEnded ? 'torn' : entry.error] += 1;
        firstFault ??= `${file}:${line.number}`;
      } else if (entry.value.kind === 'event') events += 1;
      else {
        records += 1;
        onRecord(entry.value.record, file);
      }
    };
    try {
      await readLines(file === '-' ? stdin : createReadStream(file), lineBytesMax, onLine);
    } catch (error) {
      return err(`${file} cannot be read: ${explain(error as NodeJS.ErrnoException)}`);
    }
  }
  return ok({ records, events, faults, firstFault });
}

interface Line {
  /** 1-based. */
  readonly number: number;
  /** `undefined` when it is too long. */
  readonly text: string | undefined;
  /** A line break follows. */
  readonly isEnded: boolean;
}

/** Blank lines are passed over. Throws what the stream does. */
async function readLines(stream: Readable, bytesMax: number, onLine: (line: Line) => void): Promise<void> {
  let parts: Buffer[] = [];
  let bytes = 0;
  let number = 0;
  const keep = (part: Buffer) => {
    bytes += part.length;
    if (bytes <= bytesMax) parts.push(part);
    else parts = [];
  };
  const end = (isEnded: boolean) => {
    number += 1;
    const text = bytes > bytesMax ? undefined : Buffer.concat(parts).toString('utf8');
    if (text?.trim() !== '') onLine({ number, text, isEnded });
    parts = [];
    bytes = 0;
  };
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    let start = 0;
    for (let at = chunk.indexOf(0x0a); at !== -1; at = chunk.indexOf(0x0a, start)) {
      keep(chunk.subarray(start, at));
      end(true);
      start = at + 1;
    }
    if (start < chunk.length) keep(chunk.subarray(start));
  }
  if (bytes > 0) end(false);
}

function explain({ code, message }: NodeJS.ErrnoException): string {
  const why: Readonly<Record<string, string>> = {
    ENOENT: 'it does not exist',
    EISDIR: 'it is a folder: name the audit file in it',
    EACCES: 'permission is denied (the audit is readable by the user of the sidecar alone)',
  };
  return why[code ?? ''] ?? message;
}
