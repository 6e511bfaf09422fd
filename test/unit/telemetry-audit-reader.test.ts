import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { formatEvent, formatExchange } from '../../sidecar/telemetry/audit-line.ts';
import { readAudit } from '../../sidecar/telemetry/audit-reader.ts';
import { type AuditRecord, readAuditLine } from '../../sidecar/telemetry/audit-record.ts';
import type { FinishedExchange } from '../../sidecar/telemetry/finished.ts';
import { recordedRequest } from '../../sidecar/telemetry/recorded-request.ts';
import fc from '../support/fast-check.ts';
import { finishedExchange } from '../support/finished-exchange.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'audit-reader-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const LINE = formatExchange(finishedExchange(), 1);
const EVENT = formatEvent(0, { event: 'policy.reloaded' }, 2);
const FAULTLESS = { torn: 0, notJson: 0, foreign: 0, tooLong: 0 };

function write(name: string, content: string | Buffer): string {
  writeFileSync(join(folder, name), content);
  return join(folder, name);
}

async function read(paths: string[], stdin?: Readable, lineBytesMax?: number) {
  const seen: [string, number][] = [];
  const done = await readAudit(paths, ({ sequence }, file) => seen.push([file, sequence]), stdin, lineBytesMax);
  return { done, seen };
}

async function reading(content: string | Buffer, lineBytesMax?: number) {
  const { done } = await read([write('audit.jsonl', content)], undefined, lineBytesMax);
  assert.ok(done.ok, done.ok ? '' : done.error);
  const { firstFault, ...figures } = done.value;
  return { ...figures, firstFault: firstFault?.slice(folder.length + 1) };
}

describe('reading an audit', () => {
  it('takes several files and stdin, in their order', async () => {
    const one = write('one', LINE + EVENT);
    const { done, seen } = await read([one, '-'], Readable.from([Buffer.from(formatExchange(finishedExchange(), 7))]));
    assert.deepEqual(done, { ok: true, value: { records: 2, events: 1, faults: FAULTLESS, firstFault: undefined } });
    assert.deepEqual(seen, [
      [one, 1],
      ['-', 7],
    ]);
  });

  const files: [string, string | Buffer, Record<string, number>, string][] = [
    ['a torn last line', LINE + LINE.slice(0, 40), { records: 1, torn: 1 }, 'audit.jsonl:2'],
    [
      'a line torn by a crash and ended later',
      `${LINE.slice(0, 40)}\n${LINE}`,
      { records: 1, notJson: 1 },
      'audit.jsonl:1',
    ],
    ['what is no JSON', `${LINE}hello\n${LINE}`, { records: 2, notJson: 1 }, 'audit.jsonl:2'],
    ['somebody else’s JSON', `{"level":30}\n[]\nnull\n1\n"x"\n${LINE}`, { records: 1, foreign: 5 }, 'audit.jsonl:1'],
    ['a time that is none', LINE.replace('2026', 'next'), { foreign: 1 }, 'audit.jsonl:1'],
    ['a field of another type', LINE.replace('"tool":"list_issues"', '"tool":{}'), { foreign: 1 }, 'audit.jsonl:1'],
    ['binary', Buffer.from([0, 255, 10, 254, 13, 10, 137, 80, 10]), { notJson: 3 }, 'audit.jsonl:1'],
    [
      'deep nesting',
      `${'['.repeat(200_000)}\n${'['.repeat(200_000)}${']'.repeat(200_000)}\n`,
      { notJson: 1, foreign: 1 },
      'audit.jsonl:1',
    ],
  ];
  for (const [name, content, expected, place] of files)
    it(`passes over ${name}, and says where`, async () => {
      const { records, events, faults, firstFault } = await reading(content);
      const { records: wanted = 0, ...wantedFaults } = expected;
      assert.deepEqual(
        { records, events, faults },
        { records: wanted, events: 0, faults: { ...FAULTLESS, ...wantedFaults } },
      );
      assert.equal(firstFault, place);
    });

  it('takes a last line without its line break, lines that end as on Windows, and blank ones', async () => {
    const { records, faults } = await reading(`\n${LINE.replace('\n', '\r\n')}\n  \n${LINE.trimEnd()}`);
    assert.deepEqual([records, faults], [2, FAULTLESS]);
  });

  it('passes over a giant line without keeping it', async () => {
    const { records, faults, firstFault } = await reading(
      `${LINE}${'x'.repeat(300_000)}\n${LINE}${'y'.repeat(300_000)}`,
      1_000,
    );
    assert.deepEqual([records, faults, firstFault], [2, { ...FAULTLESS, tooLong: 2 }, 'audit.jsonl:2']);
  });

  it('a line may come in pieces of any size', async () => {
    const text = LINE + EVENT + formatExchange(finishedExchange({ tool: 'schön 😀' }), 3);
    for (const size of [1, 7, 64]) {
      const bytes = Buffer.from(text);
      const pieces = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
        bytes.subarray(index * size, (index + 1) * size),
      );
      const { seen } = await read(['-'], Readable.from(pieces));
      assert.deepEqual(seen, [
        ['-', 1],
        ['-', 3],
      ]);
    }
  });

  it('says which file cannot be read', async () => {
    const missing = (await read([join(folder, 'none.jsonl')])).done;
    assert.match(missing.ok ? '' : missing.error, /none\.jsonl cannot be read: it does not exist/);
    const isFolder = (await read([folder])).done;
    assert.match(isFolder.ok ? '' : isFolder.error, /it is a folder/);
  });

  it('property: no line makes it throw', () => {
    const property = fc.property(
      fc.oneof(
        fc.string(),
        fc.json(),
        fc.json().map((json) => LINE.replace('"a/b"', json)),
      ),
      (line) => {
        readAuditLine(line);
      },
    );
    fc.assert(property, { numRuns: 500 });
  });
});

describe('the request in a record', () => {
  const REFUSED = { decision: 'deny', upstream: undefined } as const;

  it('is what was judged', () => {
    const annotations = { readOnlyHint: true };
    const found = requestOf({ roles: ['dba'], user: 'kim', annotations });
    assert.deepEqual(found, {
      sequence: 5,
      time: Date.UTC(2026, 10, 20, 12, 0, 0, 250),
      group: 'support-agents',
      agent: 'triage',
      roles: ['dba'],
      isWithoutClaims: true,
      user: 'kim',
      server: 'github',
      virtual: undefined,
      method: 'tools/call',
      isNotification: false,
      tool: 'list_issues',
      prompt: undefined,
      resources: [],
      resourcesOmitted: 0,
      args: { repository: 'a/b' },
      annotations,
      sessionId: '0123456789abcdef',
      cut: undefined,
      wasLetThrough: true,
      policy: 'sha256:4f2a',
      rule: 'reader',
      wasRefusedByArguments: false,
      hasChangedArguments: false,
      wasLimited: false,
      hasReached: true,
      tokensIn: 12,
      tokensOut: 144,
      hasFailed: false,
    });
  });

  const verdicts: [string, Partial<FinishedExchange>, boolean][] = [
    ['served', {}, true],
    ['served in audit mode', { decision: 'audit' }, true],
    ['stopped by a quota', { decision: 'limit', reasonKind: 'quota', upstream: undefined }, true],
    ['failed', { decision: 'error', reasonKind: 'upstreamTimeout' }, true],
    ['never sent', { decision: 'error', reasonKind: 'unavailable', upstream: undefined }, true],
    ['a tool that the server does not have', { decision: 'deny', reasonKind: 'hidden' }, true],
    ['hidden', { ...REFUSED, reasonKind: 'hidden' }, false],
    ['refused', { ...REFUSED, reasonKind: 'forbidden' }, false],
    ['refused by an entry of arguments', { ...REFUSED, reasonKind: 'argumentsRefused' }, false],
    ['a method of that name', { ...REFUSED, reasonKind: 'hidden', method: 'GET', tool: undefined }, false],
  ];
  for (const [name, changes, expected] of verdicts)
    it(`was ${expected ? 'let through' : 'refused'}: ${name}`, () =>
      assert.equal(requestOf(changes)?.wasLetThrough, expected));

  const none: [string, Partial<FinishedExchange>][] = [
    ['nobody is known to have asked', { agent: undefined }],
    ['it has no server', { server: undefined }],
    ['the policy was not asked', { policyVersion: undefined }],
    ['it was malformed', { ...REFUSED, reasonKind: 'malformed' }],
    ['a stream was opened', { method: 'GET' }],
    ['it was a response', { method: 'response' }],
    ['the tool was not as it was pinned', { ...REFUSED, reasonKind: 'drifted', rule: 'pin' }],
    [
      'the revision has no such method',
      { ...REFUSED, reasonKind: 'hidden', era: 'modern', method: 'resources/subscribe' },
    ],
  ];
  for (const [name, changes] of none) it(`is none: ${name}`, () => assert.equal(requestOf(changes), undefined));

  it('says what policy did to its arguments', () => {
    const did = (changes: Partial<FinishedExchange>) => {
      const found = requestOf(changes);
      return [found?.hasChangedArguments, found?.wasRefusedByArguments];
    };
    assert.deepEqual(did({ argumentsChanged: true }), [true, false]);
    assert.deepEqual(did({ ...REFUSED, reasonKind: 'argumentsRefused', rule: 'ours' }), [false, true]);
    assert.deepEqual(did({ ...REFUSED, reasonKind: 'forbidden' }), [false, false]);
  });

  it('says whether a quota stopped it, and whether it was counted', () => {
    const spent = (changes: Partial<FinishedExchange>) => {
      const found = requestOf(changes);
      return [found?.wasLimited, found?.hasReached];
    };
    assert.deepEqual(spent({ decision: 'limit', reasonKind: 'quota', upstream: undefined }), [true, false]);
    assert.deepEqual(spent({ decision: 'error', reasonKind: 'unavailable', upstream: undefined }), [false, false]);
    assert.deepEqual(spent({ upstream: undefined, cached: true }), [false, true]);
  });

  it('says what was left out or cut', () => {
    const found = requestOf({
      roles: ['x'.repeat(3_000)],
      annotations: { title: 'x'.repeat(3_000) },
      tool: 'x'.repeat(3_000),
    });
    assert.deepEqual([found?.roles, found?.annotations, found?.cut], ['omitted', 'omitted', 'tool']);
    const omitted = formatExchange(finishedExchange({ argumentsJson: undefined }), 1, { bytes: 9, sha256: 'ab' });
    assert.equal(recordedRequest(recordOf(omitted))?.args, 'omitted');
    const listen = requestOf({ resource: 'file:///a', resources: ['file:///a', 'file:///b'], resourcesOmitted: 2 });
    assert.deepEqual([listen?.resources, listen?.resourcesOmitted], [['file:///a', 'file:///b'], 2]);
    assert.equal(requestOf({ requestId: undefined })?.isNotification, true);
    assert.equal(requestOf({ identifiedBy: 'jwt' })?.isWithoutClaims, false);
  });

  function requestOf(changes: Partial<FinishedExchange>) {
    return recordedRequest(recordOf(formatExchange(finishedExchange(changes), 5)));
  }

  function recordOf(line: string): AuditRecord {
    const entry = readAuditLine(line);
    assert.ok(entry.ok && entry.value.kind === 'record');
    return entry.value.record;
  }
});
