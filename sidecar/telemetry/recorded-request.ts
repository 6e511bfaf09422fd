/**
 * From an audit record to the request that policy judged then. PURE.
 *
 * What was let through, precisely: a record has `policy` when the policy was asked at all. Then the request was refused
 * when its `reasonKind` is `hidden`, `forbidden` or `argumentsRefused` and no server was asked (no `upstreamMs`: a tool
 * that the server says it does not have is `hidden` too, so as not to tell it from others). With every other outcome it
 * was let through: served (`allow`, or `audit` where enforcing would have refused), stopped by a spent quota (`limit`), or
 * failed (`error`). Not taken for requests, since no policy can change what became of them: whatever was refused before
 * the policy was asked, malformed messages, tools that are not as they were pinned (`drifted`), methods that the revision
 * does not have, streams that are opened or closed (GET, DELETE), and responses.
 */
import type { Recorded, RecordedRequest } from '../../policies/recorded.ts';
import type { AuditRecord } from './audit-record.ts';
import { TEXT_LENGTH_MAX } from './cut-texts.ts';

export function recordedRequest(record: AuditRecord): RecordedRequest | undefined {
  const { agent, server, method, policy, reasonKind } = record;
  if (agent === undefined || server === undefined || method === undefined || policy === undefined) return undefined;
  const isRefused = REFUSALS.has(reasonKind) && typeof record.upstreamMs !== 'number';
  // A record of these names has no target, hence was not refused by the policy either.
  if (reasonKind === 'malformed' || (NOT_METHODS.has(method) && !isRefused)) return undefined;
  // Refused whatever the policy says.
  if (reasonKind === 'drifted') return undefined;
  if (isRefused && record.era === 'modern' && REMOVED.has(method)) return undefined;
  return {
    sequence: record.sequence,
    time: record.time,
    group: record.group,
    agent,
    roles: orOmitted(record.roles, record.rolesBytes),
    isWithoutClaims: WITHOUT_CLAIMS.has(record.identifiedBy ?? ''),
    user: record.user,
    server,
    virtual: record.virtual,
    method,
    isNotification: record.requestId === undefined,
    tool: record.tool,
    prompt: record.prompt,
    resources: record.resources ?? (record.resource === undefined ? [] : [record.resource]),
    resourcesOmitted: (record.resourcesOmitted ?? 0) + (record.resourcesBytes ?? 0),
    args: orOmitted(record.arguments, record.argumentsBytes),
    annotations: orOmitted(record.annotations, record.annotationsBytes),
    sessionId: record.session,
    cut: TEXTS.find((name) => isCut(record[name])),
    wasLetThrough: !isRefused,
    policy,
    rule: record.rule,
    wasRefusedByArguments: reasonKind === 'argumentsRefused',
    hasChangedArguments: record.argumentsChanged === true,
    wasLimited: record.decision === 'limit',
    hasReached: typeof record.upstreamMs === 'number' || record.cached === true,
    tokensIn: record.tokensIn ?? 0,
    tokensOut: record.tokensOut ?? 0,
    hasFailed: record.decision === 'error' || record.rpcCode !== undefined || record.toolError === true,
  };
}

/** Of policy. */
const REFUSALS: ReadonlySet<string | undefined> = new Set(['hidden', 'forbidden', 'argumentsRefused']);
/** What the record says where there is no method. */
const NOT_METHODS = new Set(['GET', 'DELETE', 'response']);
/** Refused in 2026-07-28 whatever the policy says. */
const REMOVED = new Set(['resources/subscribe', 'resources/unsubscribe']);
/** Ways to know an agent that bring no claims. */
const WITHOUT_CLAIMS = new Set(['group', 'uid', 'socket', 'apiKey']);
const TEXTS = ['agent', 'user', 'method', 'tool', 'prompt', 'resource'] as const;

function isCut(text: string | undefined): boolean {
  return text !== undefined && text.length > TEXT_LENGTH_MAX;
}

function orOmitted<T>(value: T | undefined, bytes: number | null | undefined): Recorded<T> {
  return value === undefined && typeof bytes === 'number' ? 'omitted' : value;
}
