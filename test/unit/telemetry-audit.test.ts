import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Audit, type AuditOptions } from '../../sidecar/telemetry/audit.ts';
import { formatEvent, formatExchange, lastSequence } from '../../sidecar/telemetry/audit-line.ts';
import { cutTexts } from '../../sidecar/telemetry/cut-texts.ts';
import { createLogger } from '../../sidecar/telemetry/log.ts';
import fc from '../support/fast-check.ts';
import { finishedExchange } from '../support/finished-exchange.ts';
import { until } from '../support/until.ts';

type AuditRecord = { [field: string]: unknown; sequence: number };

const parse = (text: string): AuditRecord[] =>
  text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line));

async function auditing(context: TestContext, changes: Partial<AuditOptions> = {}) {
  const folder = await mkdtemp(join(tmpdir(), 'audit-'));
  const path = join(folder, 'audit.jsonl');
  const logged: string[] = [];
  const clock = { now: Date.UTC(2026, 10, 20, 12) };
  const options: AuditOptions = {
    path,
    onFailure: 'continue',
    flushMs: 5,
    log: createLogger({ level: 'debug', json: true, write: (line) => logged.push(line), now: () => clock.now }),
    now: () => clock.now,
    ...changes,
  };
  const openOne = async (): Promise<Audit> => {
    const opened = await Audit.open(options);
    assert.ok(opened.ok, opened.ok ? '' : opened.error);
    context.after(() => opened.value.close());
    return opened.value;
  };
  context.after(() => rm(folder, { recursive: true, force: true }));
  return { folder, path, logged, clock, options, openOne, records: async () => parse(await readFile(path, 'utf8')) };
}

/** Bytes that are still in use. */
function heapAfterCollection(): number {
  setFlagsFromString('--expose-gc');
  runInNewContext('gc')();
  return process.memoryUsage().heapUsed;
}

const diskFull = () => Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });

test('a line holds what applies, and nothing else', () => {
  const line = formatExchange(finishedExchange(), 3);
  assert.deepEqual(JSON.parse(line), {
    time: '2026-11-20T12:00:00.250Z',
    sequence: 3,
    group: 'support-agents',
    agent: 'triage',
    identifiedBy: 'apiKey',
    server: 'github',
    method: 'tools/call',
    tool: 'list_issues',
    arguments: { repository: 'a/b' },
    decision: 'allow',
    rule: 'reader',
    status: 200,
    latencyMs: 14.5,
    upstreamMs: 11.25,
    attempts: 1,
    tokensIn: 12,
    tokensOut: 144,
    bytesIn: 310,
    bytesOut: 2048,
    era: 'legacy',
    protocolVersion: '2025-11-25',
    requestId: '7',
    session: '0123456789abcdef',
    traceId: '0af7651916cd43dd8448eb211c80319c',
    policy: 'sha256:4f2a',
  });
  assert.deepEqual(Object.keys(JSON.parse(line)).slice(0, 2), ['time', 'sequence']);
});

test('a refusal says why, and an aborted or failed call says so', () => {
  const record = JSON.parse(
    formatExchange(
      finishedExchange({
        decision: 'deny',
        reason: 'no "push"',
        errorId: 'e1',
        rpcCode: -31403,
        upstream: undefined,
        aborted: true,
        toolError: true,
        cached: true,
      }),
      1,
    ),
  );
  assert.equal(record.reason, 'no "push"');
  assert.equal(record.rpcCode, -31403);
  assert.equal(record.upstreamMs, undefined);
  assert.deepEqual([record.aborted, record.toolError, record.cached], [true, true, true]);
});

test('what a request is judged by again is recorded, and what is too long tells its length', () => {
  const annotations = { readOnlyHint: true, title: 'a\nb' };
  const changes = { roles: ['dba'], annotations, resources: ['file:///a', 'file:///b'], resourcesOmitted: 3 };
  const record = JSON.parse(formatExchange(finishedExchange({ ...changes, reasonKind: 'hidden' }), 1));
  assert.deepEqual(record.roles, ['dba']);
  assert.deepEqual(record.annotations, annotations);
  assert.deepEqual([record.resources, record.resourcesOmitted], [changes.resources, 3]);
  assert.equal(record.reasonKind, 'hidden');

  const long = { title: 'x'.repeat(5_000) };
  for (let time = 0; time < 2; time++) {
    const line = formatExchange(finishedExchange({ annotations: long, roles: ['y'.repeat(5_000)] }), 1);
    const { annotations: none, annotationsBytes, roles, rolesBytes } = JSON.parse(line);
    assert.deepEqual([none, annotationsBytes, roles, rolesBytes], [undefined, 5_012, undefined, 5_004]);
  }
});

test('property: whatever agents send, a record is one line of well-formed JSON with nothing that steers a terminal', () => {
  const unit = fc.integer({ min: 0, max: 0xffff }).map((code) => String.fromCharCode(code));
  const sharp = fc.constantFrom('\n', '\r', '"', '\\', '\u009b', '\u2028', '\ud800', '\udc00', '😀', '{"time":"');
  const hostile = fc.array(fc.oneof(unit, sharp), { maxLength: 12 }).map((parts) => parts.join(''));
  const property = fc.property(
    hostile,
    fc.json({ maxDepth: 2 }),
    fc.integer({ min: 0, max: 2 }),
    (text, json, indent) => {
      const argumentsJson = JSON.stringify({ json: JSON.parse(json), text }, undefined, indent);
      const exchange = finishedExchange({ tool: text, agent: text, reason: text, requestId: text, argumentsJson });
      for (const line of [formatExchange(exchange, 1), formatEvent(0, { event: text, detail: text }, 1)]) {
        const bytes = Buffer.from(line).toString('utf8');
        assert.match(bytes, /^[^\n\r\u0000-\u001f\u007f-\u009f\u2028\u2029]*\n$/);
        assert.doesNotMatch(line, /[\ud800-\udfff]/u);
        JSON.parse(bytes);
      }
      const { tool, arguments: args } = JSON.parse(formatExchange(exchange, 1));
      assert.equal(tool, text);
      assert.deepEqual(args, JSON.parse(argumentsJson));
    },
  );
  fc.assert(property, { numRuns: 500 });
});

test('a broken clock or a huge name does not keep a record from being written', () => {
  const record = JSON.parse(
    formatExchange(finishedExchange({ startedAt: Number.NaN, durationMs: Number.NaN, method: 'm'.repeat(1e6) }), 1),
  );
  assert.equal(record.time, '1970-01-01T00:00:00.000Z');
  assert.equal(record.latencyMs, null);
  assert.ok(record.method.length < 3000);
});

test('the last sequence is found in what the arguments cannot forge', () => {
  const forged = finishedExchange({
    argumentsJson: JSON.stringify({ a: '\n{"time":"2026-11-20T12:00:00.000Z","sequence":999,' }),
  });
  assert.equal(lastSequence(formatExchange(finishedExchange(), 4) + formatExchange(forged, 5)), 5);
  assert.equal(lastSequence('{"time":"2026-11-20T12:00:00.000Z","sequ'), undefined);
});

test('records are written in order without anybody asking, and the file is for its owner only', async (context) => {
  const { openOne, records, path } = await auditing(context);
  const audit = await openOne();
  audit.record({ event: 'sidecar.started', version: '1' });
  for (let id = 0; id < 100; id++) audit.finished(finishedExchange({ requestId: String(id) }));
  assert.equal((await readFile(path, 'utf8')).length, 0, 'nothing is written on the hot path');
  await until(async () => (await records()).length === 101);
  const written = await records();
  assert.equal(written[0]!.event, 'sidecar.started');
  assert.deepEqual(
    written.map(({ sequence }) => sequence),
    Array.from({ length: 101 }, (_, index) => index + 1),
  );
  assert.deepEqual(
    written.slice(1).map(({ requestId }) => requestId),
    Array.from({ length: 100 }, (_, id) => String(id)),
  );
  assert.equal((await stat(path)).mode & 0o777, 0o600);
});

test('100,000 records are flushed, none lost, none out of order', async (context) => {
  const { openOne, path } = await auditing(context, { backlogBytesMax: 256 * 1024 * 1024 });
  const audit = await openOne();
  for (let id = 0; id < 100_000; id++) audit.finished(finishedExchange({ requestId: String(id) }));
  await audit.close();
  const found = (await readFile(path, 'utf8')).matchAll(/"sequence":(\d+),.*"requestId":"(\d+)".*\n/g);
  const ids = Array.from(found, ([, sequence, requestId]) => [Number(sequence), Number(requestId)]);
  assert.equal(ids.length, 100_000);
  assert.ok(ids.every(([sequence, requestId], index) => sequence === index + 1 && requestId === index));
});

test('flush ends although records keep coming', async (context) => {
  const { openOne } = await auditing(context);
  const audit = await openOne();
  let flushed = false;
  audit.finished(finishedExchange());
  const done = audit.flush().then(() => {
    flushed = true;
  });
  for (let turn = 0; turn < 1000 && !flushed; turn++) {
    audit.finished(finishedExchange());
    await new Promise(setImmediate);
  }
  assert.ok(flushed);
  await done;
});

test('the sequence goes on after a restart, also behind a record longer than what is read at first', async (context) => {
  const { openOne, records } = await auditing(context);
  const first = await openOne();
  first.finished(finishedExchange());
  first.finished(finishedExchange({ argumentsJson: JSON.stringify({ text: 'x'.repeat(300_000) }) }));
  await first.close();
  const second = await openOne();
  second.finished(finishedExchange());
  await second.close();
  assert.deepEqual(
    (await records()).map(({ sequence }) => sequence),
    [1, 2, 3],
  );
});

test('a line torn by a crash is ended, never glued', async (context) => {
  const { openOne, path } = await auditing(context);
  await writeFile(
    path,
    `${formatExchange(finishedExchange(), 41)}${formatExchange(finishedExchange(), 42).slice(0, 90)}`,
  );
  const audit = await openOne();
  audit.finished(finishedExchange());
  await audit.close();
  const lines = (await readFile(path, 'utf8')).split('\n');
  assert.equal(lines.length, 4);
  assert.throws(() => JSON.parse(lines[1]!));
  assert.equal(JSON.parse(lines[2]!).sequence, 43);
});

test('a file that was moved away is opened anew, and what was recorded is in one of the two', async (context) => {
  const { openOne, records, path, clock } = await auditing(context);
  const audit = await openOne();
  audit.finished(finishedExchange());
  await audit.flush();
  await rename(path, `${path}.1`);
  audit.finished(finishedExchange());
  await audit.flush();
  assert.equal(existsSync(path), false, 'looked at only once a second');
  clock.now += 1_000;
  audit.finished(finishedExchange());
  await audit.flush();
  assert.deepEqual(
    parse(await readFile(`${path}.1`, 'utf8')).map(({ sequence }) => sequence),
    [1, 2],
  );
  assert.deepEqual(
    (await records()).map(({ sequence }) => sequence),
    [3],
  );
});

test('a line of which a part is in the file that was moved away is whole in the new one', async (context) => {
  const { openOne, records, path, clock } = await auditing(context, {
    // The second line is torn, and then the disk is full as long as the file is there.
    write: async (file, bytes, offset) => {
      const first = bytes.indexOf(0x0a) + 1;
      if (offset === 0 && existsSync(path)) return (await file.write(bytes, 0, first + 50)).bytesWritten;
      if ((await file.stat()).size > 0) throw diskFull();
      return (await file.write(bytes, offset)).bytesWritten;
    },
  });
  const audit = await openOne();
  audit.finished(finishedExchange());
  audit.finished(finishedExchange());
  await audit.flush();
  await rename(path, `${path}.1`);
  clock.now += 1_000;
  await until(() => !audit.figures().failing);
  const [whole, torn] = (await readFile(`${path}.1`, 'utf8')).split('\n');
  assert.deepEqual([JSON.parse(whole!).sequence, torn!.length], [1, 50]);
  assert.deepEqual(
    (await records()).map(({ sequence }) => sequence),
    [2],
  );
});

test('a folder that does not exist is an error that says so, and is not created', async (context) => {
  const { options, folder } = await auditing(context);
  for (const onFailure of ['refuse', 'continue'] as const) {
    const opened = await Audit.open({ ...options, onFailure, path: join(folder, 'none', 'audit.jsonl') });
    assert.ok(!opened.ok);
    assert.match(opened.error, /none\/audit\.jsonl: its folder does not exist: create it$/);
  }
  assert.equal(existsSync(join(folder, 'none')), false);
});

test('refuse: a full disk refuses requests with a sentence until it is written again, and nothing is lost', async (context) => {
  let full = true;
  const { openOne, records, logged } = await auditing(context, {
    onFailure: 'refuse',
    write: async (file, bytes, offset) => {
      if (!full) return (await file.write(bytes, offset)).bytesWritten;
      // As disks do: a part still fits.
      if (offset === 0) return (await file.write(bytes, 0, 700)).bytesWritten;
      throw diskFull();
    },
  });
  const audit = await openOne();
  for (let id = 0; id < 3; id++) audit.finished(finishedExchange());
  await audit.flush();
  assert.match(audit.failing() ?? '', /^cannot write the audit log .*: the disk is full$/);
  assert.equal(audit.figures().failing, true);
  audit.finished(finishedExchange());
  full = false;
  await until(() => audit.failing() === undefined);
  await audit.flush();
  assert.deepEqual(
    (await records()).map(({ sequence }) => sequence),
    [1, 2, 3, 4],
  );
  assert.equal(logged.length, 2, 'said once, and once that it is over');
});

test('continue: the backlog is bounded, what is lost is counted, recorded and said', async (context) => {
  let full = true;
  const { openOne, records, logged } = await auditing(context, {
    backlogBytesMax: 10_000,
    write: async (file, bytes, offset) => {
      if (full) throw diskFull();
      return (await file.write(bytes, offset)).bytesWritten;
    },
  });
  const audit = await openOne();
  audit.finished(finishedExchange());
  await audit.flush();
  for (let id = 0; id < 50; id++) audit.finished(finishedExchange());
  assert.equal(audit.failing(), undefined);
  const { lostTotal } = audit.figures();
  assert.ok(lostTotal > 30 && lostTotal < 45, String(lostTotal));
  full = false;
  await until(() => !audit.figures().failing);
  await audit.flush();
  audit.finished(finishedExchange());
  await audit.flush();
  const written = await records();
  const lost = written.filter(({ event }) => event === 'audit.lost');
  assert.equal(written.length - 1 + lostTotal, 52);
  assert.deepEqual(
    lost.map(({ records }) => records),
    [lostTotal],
  );
  assert.equal(logged.filter((line) => line.includes('"error"')).length, 1);
  assert.match(logged.at(-1) ?? '', /written again/);
});

/** The disk is full until `full` is false. */
function brokenDisk() {
  const disk = { full: true };
  const write: NonNullable<AuditOptions['write']> = async (file, bytes, offset) => {
    if (disk.full) throw diskFull();
    return (await file.write(bytes, offset)).bytesWritten;
  };
  return { disk, write };
}

const padded = (pad: number) => JSON.stringify({ pad: 'ü'.repeat(pad) });

test('arguments for which there is no room cost the arguments, not the record', async (context) => {
  const { disk, write } = brokenDisk();
  const { openOne, records } = await auditing(context, { backlogBytesMax: 40_000, write });
  const audit = await openOne();
  // One that never fits, one that does, and one for which that has left no room.
  for (const [requestId, pad] of [
    ['1', 50_000],
    ['2', 20_000],
    ['3', 20_000],
  ] as const)
    audit.finished(finishedExchange({ requestId, tool: `tool_${requestId}`, argumentsJson: padded(pad) }));
  audit.finished(finishedExchange({ requestId: '4' }));
  assert.ok(audit.figures().backlogBytes <= 40_000);
  disk.full = false;
  await audit.flush();
  const written = await records();
  assert.deepEqual(
    written.map(({ requestId, tool }) => [requestId, tool]),
    [
      ['1', 'tool_1'],
      ['2', 'tool_2'],
      ['3', 'tool_3'],
      ['4', 'list_issues'],
    ],
  );
  const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');
  assert.deepEqual(
    written.map(({ argumentsBytes, argumentsSha256 }) => [argumentsBytes, argumentsSha256]),
    [
      [100_010, sha256(padded(50_000))],
      [undefined, undefined],
      [40_010, sha256(padded(20_000))],
      [undefined, undefined],
    ],
  );
  assert.deepEqual(
    written.map((record) => 'arguments' in record),
    [false, true, false, true],
  );
  assert.equal(audit.figures().lostTotal, 0);
});

test('long arguments leave room for records without any', async (context) => {
  const { disk, write } = brokenDisk();
  const { openOne, records } = await auditing(context, { backlogBytesMax: 400_000, write });
  const audit = await openOne();
  // As many sizes as there may be, so that they fill whatever may be filled.
  for (let length = 200_000; length > 1; length /= 2)
    for (let time = 0; time < 2; time++) audit.finished(finishedExchange({ argumentsJson: padded(length) }));
  audit.finished(finishedExchange({ requestId: 'hidden?' }));
  assert.equal(audit.figures().lostTotal, 0);
  disk.full = false;
  await audit.flush();
  assert.equal((await records()).at(-1)?.requestId, 'hidden?');
});

test('refuse: a backlog over half refuses, also while one long write is all of it', async (context) => {
  const stuck = Promise.withResolvers<void>();
  context.after(() => stuck.resolve());
  const { openOne } = await auditing(context, {
    backlogBytesMax: 40_000,
    onFailure: 'refuse',
    write: async (file, bytes, offset) => {
      await stuck.promise;
      return (await file.write(bytes, offset)).bytesWritten;
    },
  });
  const audit = await openOne();
  audit.finished(finishedExchange({ argumentsJson: padded(19_000) }));
  assert.equal(audit.failing(), undefined);
  audit.finished(finishedExchange({ argumentsJson: padded(3_000) }));
  assert.match(audit.failing() ?? '', /is written too slowly$/);
  const flushed = audit.flush();
  await new Promise(setImmediate);
  assert.match(audit.failing() ?? '', /is written too slowly$/);
  stuck.resolve();
  await flushed;
  assert.equal(audit.failing(), undefined);
});

test('long names count, and are cut before they wait', async (context) => {
  const { disk, write } = brokenDisk();
  const { openOne, records } = await auditing(context, { backlogBytesMax: 1_000_000, write });
  const audit = await openOne();
  const long = 'z'.repeat(1_000_000);
  audit.finished(
    finishedExchange({
      method: long,
      tool: long,
      prompt: long,
      resource: long,
      reason: long,
      requestId: long,
      protocolVersion: long,
    }),
  );
  const { backlogBytes, lostTotal } = audit.figures();
  assert.equal(lostTotal, 0);
  assert.ok(backlogBytes > 7 * 2048 && backlogBytes < 20_000, String(backlogBytes));
  disk.full = false;
  await audit.flush();
  for (const field of ['method', 'tool', 'prompt', 'resource', 'reason', 'requestId', 'protocolVersion'])
    assert.equal((await records())[0]?.[field], `${'z'.repeat(2048)}…`, field);
});

test('a name that an agent made up is not kept once its record is written', () => {
  const before = heapAfterCollection();
  // In a function of its own, of which nothing is left on the stack.
  (() => {
    for (let id = 0; id < 10; id++)
      formatExchange(finishedExchange({ tool: JSON.parse(`"${id}${'z'.repeat(4_000_000)}"`) }), id);
  })();
  // The engine itself keeps the subject of the last regular expression that ran.
  assert.match('short', /short/);
  const kept = heapAfterCollection() - before;
  assert.ok(kept < 2_000_000, `${kept} bytes`);
});

test('what is cut does not keep the whole alive', () => {
  const before = heapAfterCollection();
  const kept = Array.from({ length: 50 }, (_, id) =>
    cutTexts(finishedExchange({ tool: JSON.parse(`"${id}${'z'.repeat(1_000_000)}"`) })),
  );
  const grown = heapAfterCollection() - before;
  assert.ok(grown < 5_000_000, `${grown} bytes for ${kept.length}`);
});

test('a folder that was deleted is a failure, and the log goes on when it is back', async (context) => {
  const { openOne, folder, clock, options, records } = await auditing(context, { onFailure: 'refuse' });
  const audit = await openOne();
  await rm(folder, { recursive: true });
  clock.now += 1_000;
  audit.finished(finishedExchange());
  await audit.flush();
  assert.match(audit.failing() ?? '', /its folder does not exist/);
  await mkdir(join(options.path, '..'));
  await until(() => audit.failing() === undefined);
  assert.deepEqual(
    (await records()).map(({ sequence }) => sequence),
    [1],
  );
});

test('the kernel says that the disk is full', { skip: !existsSync('/dev/full') }, async (context) => {
  const { options, logged } = await auditing(context);
  const opened = await Audit.open({ ...options, path: '/dev/full' });
  assert.ok(opened.ok);
  opened.value.finished(finishedExchange());
  await opened.value.close();
  assert.match(logged.join(''), /the disk is full/);
  assert.match(logged.at(-1) ?? '', /audit records are lost.*"records":1/);
});
