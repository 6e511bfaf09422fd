import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { loadConfig } from '../../sidecar/config/load.ts';
import { parseLock, renderLock } from '../../sidecar/config/lock-file.ts';
import { formatProblems } from '../../sidecar/config/problem.ts';
import { lockOf } from '../support/locks.ts';

const LOCK = lockOf({
  search: [{ name: 'find', description: 'Finds\nthings.' }],
  github: [
    { name: 'push', inputSchema: { type: 'object', properties: { 10: {}, 9: {} } }, description: 'Push\u200bes ☺️ ü' },
    { annotations: { readOnlyHint: true }, name: '__proto__' },
  ],
});
const TEXT = renderLock(LOCK);

describe('sidecar.lock', () => {
  test('is the same bytes for the same tools, in whatever order', () => {
    const turned = new Map([...LOCK].reverse().map(([server, tools]) => [server, new Map([...tools].reverse())]));
    assert.equal(renderLock(turned), TEXT);
    assert.match(TEXT, /^# Made by `sidecar pin`.*\n\{\n {2}"servers": \{\n {4}"github": \{\n {6}"__proto__": \{\n/);
  });

  test('shows what is hidden, and is read back as it was', () => {
    assert.ok(TEXT.includes('"Push\\u200bes ☺\\ufe0f ü"'));
    const read = parseLock(TEXT, 'sidecar.lock');
    assert.ok(read.ok);
    assert.deepEqual(JSON.stringify([...read.value].length), '2');
    assert.equal(renderLock(read.value), TEXT);
    assert.equal(read.value.get('github')!.get('push')!.sha256, LOCK.get('github')!.get('push')!.sha256);
  });

  test('of a checkout that ends its lines as Windows does is read', () => {
    assert.ok(parseLock(TEXT.replaceAll('\n', '\r\n'), 'sidecar.lock').ok);
  });

  for (const [what, text, problem] of [
    ['is half a file', TEXT.slice(0, 300), 'sidecar.lock  is not JSON below its first line: '],
    ['has marks of a merge', `<<<<<<< HEAD\n${TEXT}`, 'sidecar.lock  is not JSON below its first line: '],
    [
      'is of tomorrow',
      TEXT.replace('"version": 1', '"version": 2'),
      'sidecar.lock  is of version 2, and this sidecar reads version 1',
    ],
    ['has another description', TEXT.replace('Finds', 'Sends'), 'sidecar.lock:35:1  from here on it is not as '],
    ['has a member of its own', TEXT.replace('"search": {', '"search": { "x": 1,'), ':29:1  from here on'],
    ['has a key twice', TEXT.replace('"find": {', '"find": {}, "find": {'), ':30:1  from here on'],
    ['is something else', '[1]\n', 'sidecar.lock:1:1  from here on'],
    ['is nested without end', `${'['.repeat(100_000)}${']'.repeat(100_000)}\n`, 'sidecar.lock:1:1  from here on'],
    ['lacks its end', TEXT.trimEnd(), 'from here on'],
  ] as const)
    test(`that ${what} is refused`, () => {
      const read = parseLock(text, join(process.cwd(), 'sidecar.lock'));
      assert.ok(!read.ok);
      assert.ok(formatProblems(read.error).includes(problem), formatProblems(read.error));
    });
});

describe('a configuration', () => {
  async function loaded(context: TestContext, pins: string, files: Record<string, string>) {
    const folder = await mkdtemp(join(tmpdir(), 'lock-file-'));
    context.after(() => rm(folder, { recursive: true, force: true }));
    const yaml = `servers: { main: { url: "http://127.0.0.1:1/mcp" } }\npolicy: library/observe\n${pins}`;
    for (const [name, text] of Object.entries({ 'sidecar.yaml': yaml, ...files }))
      await writeFile(join(folder, name), text);
    const result = await loadConfig(join(folder, 'sidecar.yaml'));
    return { result, folder };
  }

  for (const [what, pins, files, servers] of [
    ['without a word and a lock', '', {}, undefined],
    ['without a word, and a lock beside it', '', { 'sidecar.lock': TEXT }, ['github', 'search']],
    ['that names a file', 'pins: { file: other.lock }', { 'other.lock': TEXT }, ['github', 'search']],
    ['with settings only', 'pins: { onDrift: flag }', { 'sidecar.lock': TEXT }, ['github', 'search']],
  ] as const)
    test(what, async (context) => {
      const { result } = await loaded(context, pins, files);
      assert.ok(result.ok && result.value.lock.ok);
      assert.deepEqual(result.value.lock.value && [...result.value.lock.value.keys()], servers);
    });

  for (const [what, pins, files, problem] of [
    ['that speaks of pins without a lock', 'pins: {}', {}, /sidecar\.yaml:3:7 {2}pins: .*sidecar\.lock does not exist/],
    ['with a broken lock beside it', '', { 'sidecar.lock': '{' }, /sidecar\.lock {2}is not JSON/],
    ['with a lock that is no text', '', { 'sidecar.lock': '\ud800' }, /sidecar\.lock {2}is not JSON/],
  ] as const)
    test(`${what} has a problem of its lock`, async (context) => {
      const { result } = await loaded(context, pins, files);
      assert.ok(result.ok && !result.value.lock.ok);
      assert.match(formatProblems(result.value.lock.error), problem);
    });

  test('with a word that is not known is refused', async (context) => {
    const { result } = await loaded(context, 'pins: { onDrift: warn, onDrif: block }', {});
    assert.ok(!result.ok);
    const problems = formatProblems(result.error);
    assert.match(problems, /pins\.onDrift: must be one of block, flag/);
    assert.match(problems, /pins\.onDrif: is not a known key; did you mean onDrift\?/);
  });
});
