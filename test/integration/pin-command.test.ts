/** `sidecar pin`, as a user runs it. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { access, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { lockText } from '../support/locks.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { toolServer } from '../support/tool-server.ts';

const MAIN = fileURLToPath(new URL('../../sidecar/main.ts', import.meta.url));
const EVERYTHING = createRequire(import.meta.url).resolve('@modelcontextprotocol/server-everything/dist/index.js');

const READ = { name: 'read', description: 'Reads a file.', annotations: { destructiveHint: false } };
const PUSH = { name: 'push', inputSchema: { type: 'object', properties: { branch: { type: 'string' } } } };
const FORCED = {
  ...PUSH,
  inputSchema: {
    ...PUSH.inputSchema,
    properties: { branch: { type: 'string' }, force: { type: 'boolean' } },
    required: ['force'],
  },
};
const SENDS = { name: 'read', description: 'Reads and sends\u200b a file.', annotations: { destructiveHint: true } };

let folder: string;
let upstream: ScriptedUpstream;
before(async () => {
  upstream = await startScriptedUpstream();
});
after(() => upstream.close());
beforeEach(async (context) => {
  folder = await mkdtemp(join(tmpdir(), 'pin-'));
  (context as import('node:test').TestContext).after(() => rm(folder, { recursive: true, force: true }));
  serve([READ, PUSH]);
  await configure({});
});

function serve(tools: readonly object[]): void {
  upstream.answer = toolServer({ era: 'modern', tools, pageSize: 1 });
}

const DEAD = { dead: { url: 'http://127.0.0.1:1/mcp' } };
function configure(others: object, pins = ''): Promise<void> {
  const servers = JSON.stringify({ hub: { url: upstream.url }, ...others });
  return writeFile(join(folder, 'sidecar.yaml'), `servers: ${servers}\npolicy: library/observe\n${pins}\n`);
}

function sidecar(...args: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [MAIN, ...args],
      { cwd: folder, timeout: 30_000 },
      (_error, stdout, stderr) => resolve({ status: child.exitCode ?? -1, stdout, stderr }),
    );
  });
}

const lock = () => readFile(join(folder, 'sidecar.lock'), 'utf8');
const pinned = (servers: Record<string, readonly object[]>) =>
  writeFile(join(folder, 'sidecar.lock'), lockText(servers));

test('a real server is pinned, and is as it was pinned', async () => {
  await configure({ every: { command: [process.execPath, EVERYTHING, 'stdio'] } });
  const { status, stdout, stderr } = await sidecar('pin');
  assert.equal(status, 0, stderr);
  assert.match(
    stdout,
    /^hub: 2 tools, pinned for the first time\nevery: \d+ tools, pinned for the first time\nwrote sidecar\.lock: /,
  );
  const text = await lock();
  assert.match(text, /^ {4}"every": \{\n(?:.*\n)*? {6}"echo": \{$/m);
  assert.deepEqual((await readdir(folder)).sort(), ['sidecar.lock', 'sidecar.yaml']);

  const again = await sidecar('pin');
  assert.deepEqual([again.status, await lock()], [0, text]);
  assert.match(again.stdout, /^sidecar\.lock is as it was: \d+ tools of 2 servers\n$/);
  const diff = await sidecar('pin', '--diff');
  assert.deepEqual([diff.status, diff.stderr], [0, '']);
  assert.match(diff.stdout, /^nothing that is listed differs from sidecar\.lock: /);
});

test('where there is no configuration, the demo is not pinned', async () => {
  await rm(join(folder, 'sidecar.yaml'), { force: true });
  const { status, stdout, stderr } = await sidecar('pin');
  assert.deepEqual([status, stdout], [2, '']);
  assert.match(stderr, /^no sidecar\.yaml and no \.mcp\.json here: nothing to pin/);
  assert.deepEqual(await readdir(folder), []);
});

describe('what differs', () => {
  const WORDS = [
    'hub.more: new',
    'hub.push: argument `force` (boolean) is new and required',
    'hub.read: description changed: "Reads a file." became "Reads and sends\\u{200b} a file."; destructiveHint went from false to true',
    'hub.stop: gone',
    'mind hub.read, which has hidden characters: description has \\u{200b}',
  ];
  beforeEach(async () => {
    await pinned({ hub: [READ, PUSH, { name: 'stop' }] });
    serve([FORCED, SENDS, { name: 'more' }]);
  });

  test('is shown in words, and nothing is written', async () => {
    const text = await lock();
    const { status, stdout } = await sidecar('pin', '--diff');
    assert.deepEqual([status, stdout], [1, `${WORDS.join('\n')}\n`]);
    assert.equal(await lock(), text);
  });

  test('is shown as JSON', async () => {
    const { status, stdout } = await sidecar('pin', '--diff', '--json');
    const { ok, same, servers, dropped } = JSON.parse(stdout);
    assert.deepEqual([status, ok, same, dropped], [1, false, false, []]);
    assert.deepEqual(servers[0].changes.slice(0, 2), [
      { tool: 'more', kind: 'new', changes: [] },
      { tool: 'push', kind: 'changed', changes: ['argument `force` (boolean) is new and required'] },
    ]);
    assert.deepEqual(servers[0].hidden, [{ tool: 'read', places: ['description has \\u{200b}'] }]);
  });

  test('is pinned, and then it no longer differs', async () => {
    const { status, stdout } = await sidecar('pin');
    assert.equal(status, 0);
    assert.equal(stdout, `${WORDS.join('\n')}\nwrote sidecar.lock: 3 tools of 1 server; review it like code\n`);
    assert.equal(await lock(), lockText({ hub: [FORCED, SENDS, { name: 'more' }] }));
    assert.equal((await sidecar('pin', '--diff')).status, 0);
  });
});

describe('servers', () => {
  test('that cannot be reached keep their pins, and that is 1', async () => {
    await configure(DEAD);
    await pinned({ hub: [READ], dead: [PUSH], gone: [READ] });
    const diff = await sidecar('pin', '--diff');
    assert.equal(diff.status, 1);
    assert.equal(
      diff.stdout,
      'hub.push: new\ndead cannot be reached (ECONNREFUSED); nothing to compare its 1 pin with\ngone is pinned and no longer configured\n',
    );
    const { status, stdout } = await sidecar('pin');
    assert.equal(status, 1);
    assert.match(stdout, /^dead cannot be reached \(ECONNREFUSED\); kept its 1 pin$/m);
    assert.match(stdout, /^gone is pinned and no longer configured: its pins are gone$/m);
    assert.equal(await lock(), lockText({ hub: [READ, PUSH], dead: [PUSH] }));
  });

  test('are chosen by name, and the others stay as they are', async () => {
    await configure(DEAD);
    await pinned({ dead: [PUSH], gone: [READ] });
    const { status, stdout } = await sidecar('pin', '--server', 'hub');
    assert.deepEqual([status, stdout.split('\n')[0]], [0, 'hub: 2 tools, pinned for the first time']);
    assert.equal(await lock(), lockText({ hub: [READ, PUSH], dead: [PUSH], gone: [READ] }));
    const strange = await sidecar('pin', '--server', 'hub', '--server', 'hob');
    assert.equal(strange.status, 2);
    assert.match(strange.stderr, /^server hob is not configured; there are: hub, dead$/m);
  });

  test('that are not pinned are a difference', async () => {
    await pinned({});
    const { status, stdout } = await sidecar('pin', '--diff');
    assert.deepEqual([status, stdout], [1, 'hub is not pinned (2 tools)\n']);
  });

  test('with tools that cannot be pinned are 1', async () => {
    serve([READ, { name: 7 }, { ...READ, title: 'x' }]);
    const { status, stdout } = await sidecar('pin');
    assert.equal(status, 1);
    assert.match(stdout, /^hub: tool 2 of its list has no name, and cannot be pinned$/m);
    assert.match(
      stdout,
      /^hub: tool 3 of its list has the name of an earlier one and is another: the first is pinned$/m,
    );
    assert.equal(await lock(), lockText({ hub: [READ] }));
  });
});

describe('the lock', () => {
  test('that is not there cannot be compared with, and is written also where pins asks for it', async () => {
    await configure({}, 'pins: { file: other.lock }');
    const diff = await sidecar('pin', '--diff', '--json');
    assert.equal(diff.status, 2);
    assert.match(JSON.parse(diff.stdout).problems[0].message, /does not exist: sidecar pin writes it/);
    assert.equal((await sidecar('pin')).status, 0);
    await access(join(folder, 'other.lock'));
  });

  test('that is not right is not written over', async () => {
    await writeFile(join(folder, 'sidecar.lock'), '{');
    const { status, stderr } = await sidecar('pin');
    assert.equal(status, 2);
    assert.match(stderr, /^sidecar\.lock {2}is not JSON/);
    assert.equal(await lock(), '{');
  });
});

test('check says what is pinned and what is not', async () => {
  await configure(DEAD);
  assert.match((await sidecar('check')).stdout, /^pins\n {2}none: sidecar pin writes sidecar\.lock$/m);
  await pinned({ hub: [READ, PUSH], gone: [] });
  const { stdout } = await sidecar('check');
  assert.match(
    stdout,
    /^pins\n {2}sidecar\.lock: 2 tools of 2 servers; a tool that is new or changed is blocked, hidden characters are told\n {2}dead is not pinned\n {2}gone is pinned and not configured$/m,
  );
  await writeFile(join(folder, 'sidecar.lock'), '{');
  const broken = await sidecar('check');
  assert.equal(broken.status, 2);
  assert.match(broken.stderr, /^sidecar\.lock {2}is not JSON/);
});
