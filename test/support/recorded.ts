/** A request as the audit recorded it: one valid one, to spread a change over. */
import type { RecordedRequest } from '../../policies/recorded.ts';

/** triage called github.list_issues on a Wednesday noon, and was let through. */
export function recorded(change: Partial<RecordedRequest> = {}): RecordedRequest {
  return {
    sequence: 1,
    time: Date.UTC(2026, 0, 7, 12),
    group: 'support',
    agent: 'triage',
    roles: undefined,
    isWithoutClaims: true,
    user: undefined,
    server: 'github',
    virtual: undefined,
    method: 'tools/call',
    isNotification: false,
    tool: 'list_issues',
    prompt: undefined,
    resources: [],
    resourcesOmitted: 0,
    args: { repository: 'a/b', limit: 3 },
    annotations: { readOnlyHint: true },
    sessionId: 's1',
    cut: undefined,
    wasLetThrough: true,
    policy: 'sha256:1',
    rule: undefined,
    wasRefusedByArguments: false,
    hasChangedArguments: false,
    wasLimited: false,
    hasReached: true,
    tokensIn: 0,
    tokensOut: 0,
    hasFailed: false,
    ...change,
  };
}
