/** The audit files that a command is given: reading them, and what is said about that. */
import { err, ok, type Result } from '../../policies/result.ts';
import { type AuditReading, type LineFault, readAudit } from '../telemetry/audit-reader.ts';
import type { AuditRecord } from '../telemetry/audit-record.ts';
import { plural } from './output.ts';
import { printable } from './printable.ts';

/** @returns otherwise a sentence: a file cannot be read, or holds no audit at all. */
export async function readAuditFiles(
  paths: readonly string[],
  onRecord: (record: AuditRecord, file: string) => void,
): Promise<Result<AuditReading, string>> {
  const read = await readAudit(paths, onRecord);
  if (!read.ok) return read;
  const { records, events, faults, firstFault } = read.value;
  const faulty = Object.values(faults).reduce((sum, count) => sum + count, 0);
  if (records === 0 && events === 0 && faulty > 0)
    return err(`${paths.join(', ')} holds no audit of a sidecar: no line of it is a record (the first: ${firstFault})`);
  return ok(read.value);
}

const FAULTS: Readonly<Record<LineFault, string>> = {
  torn: 'is torn at the end of its file',
  notJson: 'is no JSON',
  foreign: 'is no record of an audit',
  tooLong: 'is too long',
};

/** A line for the figures, and one for each sort of line that was passed over. */
export function describeReading({ records, events, faults, firstFault }: AuditReading): string {
  const passed = (Object.keys(faults) as LineFault[])
    .filter((fault) => faults[fault] > 0)
    .map((fault) => `${plural(faults[fault], 'line')} passed over that ${FAULTS[fault]}`);
  const place = firstFault === undefined ? [] : [`the first such line: ${printable(firstFault)}`];
  return [`read ${plural(records, 'record')} and ${plural(events, 'event')}`, ...passed, ...place].join('; ');
}
