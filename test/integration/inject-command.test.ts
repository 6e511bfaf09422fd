/** `sidecar inject` and `sidecar uninject`, as a user runs them. */
import assert from 'node:assert/strict';
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { closeSync, existsSync, openSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parseAllDocuments } from 'yaml';
import { isRaw, type Raw, rawAt, rawList } from '../../injector/raw-object.ts';

const MAIN = fileURLToPath(new URL('../../sidecar/main.ts', import.meta.url));

const GROUP = `apiVersion: v1
kind: ConfigMap
metadata:
  name: mcp-sidecar-support
  annotations: { mcp-sidecar.io/service-accounts: agent }
data:
  sidecar.yaml: "servers: { github: { url: https://mcp.example/mcp } }"
`;
const workload = (kind: string) => `apiVersion: apps/v1
kind: ${kind}
metadata:
  name: triage # the agent
spec:
  template:
    metadata:
      annotations:
        mcp-sidecar.io/inject: "true"
    spec:
      serviceAccountName: agent
      containers:
        - name: agent
          image: registry.example/agent:1
          args: [22:22, 2026-01-01]
`;
const SERVICE = 'kind:   Service # as it was\nmetadata: { name: triage }\n';

suite('sidecar inject', () => {
  let folder: string;
  const file = (name: string) => join(folder, name);
  const run = (args: readonly string[], input: string | Buffer = ''): SpawnSyncReturns<string> =>
    spawnSync(process.execPath, [MAIN, ...args], { encoding: 'utf8', input, cwd: folder, maxBuffer: 64 * 1024 * 1024 });
  const ok = (args: readonly string[], input?: string): SpawnSyncReturns<string> => {
    const done = run(args, input);
    assert.equal(done.status, 0, done.stderr);
    return done;
  };

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'inject-command-'));
    await mkdir(file('manifests/more'), { recursive: true });
    await writeFile(file('manifests/a.yaml'), workload('Deployment'));
    await writeFile(file('manifests/b.yml'), SERVICE);
    await writeFile(file('manifests/more/group.yaml'), GROUP);
    await writeFile(file('manifests/README.md'), 'kind: [');
    await writeFile(file('group.yaml'), GROUP);
    await writeFile(file('broken.yaml'), `${workload('Deployment')}---\nkind: Pod\nkind: Pod\n`);
    await writeFile(file('job.yaml'), workload('Job'));
  });
  after(() => rm(folder, { recursive: true, force: true }));

  test('from stdin to stdout, and what was done to stderr', () => {
    const { stdout, stderr } = ok(['inject', '-f', '-', '--groups', 'group.yaml'], workload('Deployment'));
    assert.deepEqual(sidecarsIn(stdout), [1]);
    assert.equal(stderr, 'stdin: Deployment triage: injected\n');
    assert.match(stdout, /# the agent/);
  });
  test('a misspelt wish is left as it is, with a warning', () => {
    const { stderr } = ok(
      ['inject', '-f', '-', '--groups', 'group.yaml'],
      workload('Deployment').replace('/inject:', '/injct:'),
    );
    assert.equal(
      stderr,
      'stdin: Deployment triage: left as it is\n  the annotation mcp-sidecar.io/injct is not known; did you mean mcp-sidecar.io/inject?\n',
    );
  });
  test('a folder, and those below it, as one stream; the rest as it was', () => {
    const { stdout, stderr } = ok(['inject', '-f', 'manifests']);
    assert.deepEqual(sidecarsIn(stdout), [1, 0, 0]);
    assert.ok(stdout.endsWith(`---\n${SERVICE}---\n${GROUP}`));
    assert.equal(stderr, 'manifests/a.yaml: Deployment triage: injected\n');
    const back = ok(['uninject', '-f', '-'], stdout);
    assert.equal(back.stdout, `${workload('Deployment')}---\n${SERVICE}---\n${GROUP}`);
    assert.equal(back.stderr, 'stdin: Deployment triage: sidecar removed\n');
    assert.equal(JSON.parse(ok(['uninject', '-f', '-', '--json'], stdout).stdout).kind, 'List');
  });
  test('--diff prints what would change', () => {
    const { stdout } = ok(['inject', '-f', 'manifests', '--diff']);
    assert.match(stdout, /^--- manifests\/a.yaml/m);
    assert.match(stdout, /^\+ +- name: mcp-sidecar$/m);
    assert.equal(stdout.includes('b.yml'), false);
    assert.equal(/^-(?!--)/m.test(stdout), false, 'nothing is taken away');
    const injected = ok(['inject', '-f', 'manifests']).stdout;
    assert.match(ok(['uninject', '-f', '-', '--diff'], injected).stdout, /^- +- name: mcp-sidecar$/m);
  });
  test('--diff shows what would steer a terminal, and is not steered', () => {
    const { stdout } = ok(
      ['inject', '-f', '-', '--groups', 'group.yaml', '--diff'],
      workload('Deployment').replace('serviceAccountName: agent', 'serviceAccountName: agent # \u001b]0;owned\u0007'),
    );
    assert.match(stdout, /serviceAccountName: agent # \\u\{1b\}\]0;owned\\u\{7\}/);
  });
  test('--check prints no manifest, says what would be done, and tells by its exit code', () => {
    const { status, stdout, stderr } = run(['inject', '-f', 'manifests', '--check']);
    assert.deepEqual([status, stdout], [1, '']);
    assert.match(stderr, /: would be injected$/m);
    const injected = ok(['inject', '-f', 'manifests']).stdout;
    assert.equal(ok(['inject', '-f', '-', '--check'], injected).stdout, '');
    assert.equal(run(['uninject', '-f', '-', '--check'], injected).status, 1);
    assert.equal(run(['uninject', '-f', 'manifests', '--check']).status, 0);
  });
  test('-o json: one object, or a List', () => {
    const one = JSON.parse(ok(['inject', '-f', 'manifests/a.yaml', '--groups', 'group.yaml', '-o', 'json']).stdout);
    assert.equal(one.kind, 'Deployment');
    assert.deepEqual(one.spec.template.spec.containers[0].args, ['22:22', '2026-01-01'], 'text to kubectl');
    const again = JSON.parse(ok(['inject', '-f', 'manifests/a.yaml', '--groups', 'group.yaml', '--json']).stdout);
    assert.deepEqual(again, one);
    const list = JSON.parse(ok(['inject', '-f', 'manifests', '-o', 'json']).stdout);
    assert.deepEqual(
      list.items.map(({ kind }: { kind: string }) => kind),
      ['Deployment', 'Service', 'ConfigMap'],
    );
  });
  test('an input with a problem is not printed, not even its good half', () => {
    const { status, stdout, stderr } = run(['inject', '-f', 'broken.yaml', '--groups', 'group.yaml']);
    assert.deepEqual([status, stdout], [1, '']);
    assert.match(stderr, /^broken.yaml:18: Map keys must be unique$/m);
    const both = run(['inject', '-f', 'broken.yaml', '-f', 'manifests']);
    assert.equal(both.status, 1);
    assert.deepEqual(sidecarsIn(both.stdout), [1, 0, 0]);
    assert.deepEqual(run(['uninject', '-f', 'broken.yaml']).stdout, '');
  });
  test('what the webhook would refuse is refused in the same words', () => {
    const { status, stdout, stderr } = run(['inject', '-f', 'job.yaml', '--groups', 'group.yaml', '--mode', 'classic']);
    assert.deepEqual([status, stdout], [1, '']);
    assert.match(stderr, /^job.yaml:7: Job triage: a Job would never complete beside a classic sidecar/);
    assert.match(
      run(['inject', '-f', 'job.yaml']).stderr,
      /^no group is in these manifests: name those with the ConfigMaps by --groups\n.*no group of this namespace names the service account agent/,
    );
  });
  test('--config is the webhook’s injector.yaml', async () => {
    await writeFile(file('injector.yaml'), 'sidecar: { image: "registry.example/own:2" }\n');
    const args = ['inject', '-f', 'manifests', '--config'];
    assert.match(ok([...args, 'injector.yaml']).stdout, /image: registry.example\/own:2/);
    await writeFile(file('injector.yaml'), 'sidecars: {}\n');
    const { status, stdout, stderr } = run([...args, 'injector.yaml']);
    assert.deepEqual([status, stdout], [2, '']);
    assert.match(stderr, /injector.yaml:1:1.*sidecars/s);
  });

  const unreadable: Record<string, [path: string, input: string | Buffer, words: RegExp]> = {
    'a file that is not there': ['nowhere.yaml', '', /nowhere.yaml does not exist/],
    'what is not UTF-8': ['-', Buffer.from([0x61, 0xff]), /stdin is not UTF-8 text/],
    'too much': ['-', Buffer.alloc(16 * 1024 * 1024 + 1, '#'), /stdin is larger than 16 MiB/],
  };
  for (const [name, [path, input, words]] of Object.entries(unreadable))
    test(`${name} is said, and nothing is printed`, () => {
      const { status, stdout, stderr } = run(['inject', '-f', path], input);
      assert.deepEqual([status, stdout], [2, '']);
      assert.match(stderr, words);
    });

  /** More than a pipe takes at once. */
  const LONG = `${GROUP}---\n${workload('Deployment')}---\n${`# ${'-'.repeat(98)}\n`.repeat(4_000)}`;
  test('a long stream comes whole, into a pipe and out of one', async () => {
    await writeFile(file('long.yaml'), LONG);
    const script = 'mkfifo "$2"; cat "$3" > "$2" & "$0" "$1" inject -f "$2" | (sleep 0.2; cat)';
    const { stdout, stderr } = spawnSync(
      'sh',
      ['-c', script, process.execPath, MAIN, file('fifo'), file('long.yaml')],
      {
        encoding: 'utf8',
        maxBuffer: 64 * 1024 * 1024,
      },
    );
    assert.match(stderr, /Deployment triage: injected/);
    assert.ok(stdout.endsWith(LONG.slice(-400_000)), `${stdout.length} characters`);
    assert.equal(ok(['uninject', '-f', '-'], stdout).stdout, LONG);
  });
  test('a reader that has had enough is no fault', async () => {
    await writeFile(file('long.yaml'), LONG);
    const script = '("$0" "$1" inject -f "$2"; echo "exit $?" >&2) | head -n 1';
    const { stdout, stderr } = spawnSync('sh', ['-c', script, process.execPath, MAIN, file('long.yaml')], {
      encoding: 'utf8',
    });
    assert.equal(stdout, 'apiVersion: v1\n');
    assert.equal(stderr, `${file('long.yaml')}: Deployment triage: injected\nexit 0\n`);
  });
  test('a full disk is', { skip: existsSync('/dev/full') ? false : 'there is no /dev/full' }, () => {
    const full = openSync('/dev/full', 'w');
    const { status, stderr } = spawnSync(process.execPath, [MAIN, 'inject', '-f', file('manifests')], {
      encoding: 'utf8',
      stdio: ['ignore', full, 'pipe'],
    });
    closeSync(full);
    assert.equal(status, 1);
    assert.match(stderr, /the output cannot be written \(ENOSPC\)$/m);
  });
  test('files are never written', async () => {
    assert.equal(await readFile(file('manifests/a.yaml'), 'utf8'), workload('Deployment'));
  });
});

/** Of each object of the stream, as a reader of its own sees it. */
function sidecarsIn(stream: string): number[] {
  return parseAllDocuments(stream)
    .map((document) => document.toJS() as unknown)
    .filter(isRaw)
    .map((object: Raw) => rawList(rawAt(object, 'spec', 'template', 'spec').initContainers).length);
}
