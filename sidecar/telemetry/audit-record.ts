/**
 * One line of the audit read back: the counterpart of audit-line.ts. PURE.
 *
 * Guarantee: never throws, whatever the line is. Fields that are not named here are passed over, so that a later
 * sidecar's audit can be read too; a known field of another type makes the line foreign.
 */
import * as z from 'zod';
import { err, ok, type Result } from '../../policies/result.ts';

const mapping = z.record(z.string(), z.unknown());
const text = z.string().optional();
const count = z.number().nonnegative().nullish();

const recordSchema = z.object({
  time: z.string(),
  sequence: z.int().nonnegative(),
  group: z.string(),
  agent: text,
  identifiedBy: text,
  roles: z.array(z.string()).optional(),
  rolesBytes: count,
  user: text,
  server: text,
  virtual: text,
  method: text,
  tool: text,
  prompt: text,
  resource: text,
  resources: z.array(z.string()).optional(),
  resourcesOmitted: count,
  resourcesBytes: count,
  annotations: mapping.optional(),
  annotationsBytes: count,
  arguments: z.unknown().optional(),
  argumentsBytes: count,
  argumentsChanged: z.boolean().optional(),
  decision: z.enum(['allow', 'deny', 'limit', 'audit', 'error']),
  rule: text,
  reasonKind: text,
  status: z.number(),
  rpcCode: z.number().optional(),
  toolError: z.boolean().optional(),
  latencyMs: count,
  upstreamMs: count,
  tokensIn: count,
  tokensOut: count,
  cost: count,
  aborted: z.boolean().optional(),
  cached: z.boolean().optional(),
  era: z.enum(['legacy', 'modern']).optional(),
  requestId: text,
  session: text,
  policy: text,
});

export type AuditRecord = Omit<z.output<typeof recordSchema>, 'time'> & {
  /** Milliseconds since the epoch. */
  readonly time: number;
};

const eventSchema = z.object({ time: z.string(), sequence: z.int().nonnegative(), event: z.string() });

export type AuditEntry =
  | { readonly kind: 'record'; readonly record: AuditRecord }
  /** What is no request, such as `policy.reloaded`. */
  | { readonly kind: 'event'; readonly event: string };

/** `notJson`: also a line that a crash has torn. `foreign`: JSON, and not of an audit of ours. */
export function readAuditLine(line: string): Result<AuditEntry, 'notJson' | 'foreign'> {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return err('notJson');
  }
  const record = recordSchema.safeParse(value);
  const time = Date.parse(record.data?.time ?? '');
  if (record.success && !Number.isNaN(time)) return ok({ kind: 'record', record: { ...record.data, time } });
  const event = eventSchema.safeParse(value);
  return event.success ? ok({ kind: 'event', event: event.data.event }) : err('foreign');
}
