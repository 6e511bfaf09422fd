/** `sidecar check --connect`, as a user runs it. */
import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { connect } from '../../sidecar/commands/connect.ts';
import { loadConfig } from '../../sidecar/config/load.ts';
import { lockText } from '../support/locks.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { toolServer } from '../support/tool-server.ts';

const MAIN = fileURLToPath(new URL('../../sidecar/main.ts', import.meta.url));
const EVERYTHING = createRequire(import.meta.url).resolve('@modelcontextprotocol/server-everything/dist/index.js');
const BOTH_ERAS = fileURLToPath(new URL('../support/sdk-stdio-server.ts', import.meta.url));
/** In the arguments of every child that a test starts. */
const MARK = `mark-${randomUUID()}`;
const TOKEN = `token-${randomUUID()}`;

let folder: string;
let upstream: ScriptedUpstream;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'check-connect-'));
  upstream = await startScriptedUpstream();
});
after(async () => {
  await upstream.close();
  await rm(folder, { recursive: true, force: true });
});

interface Ended {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** `servers` and `policy` are YAML on one line each. */
async function check(servers: string, policy: string, ...args: string[]): Promise<Ended> {
  const file = join(folder, 'sidecar.yaml');
  await writeFile(file, `group: support\nservers: ${servers}\npolicy: ${policy}\n`);
  const ended = await new Promise<Ended>((resolve) => {
    const options = { cwd: folder, timeout: 30_000, env: { ...process.env, CHECK_CONNECT_TOKEN: TOKEN } };
    const child = execFile(
      process.execPath,
      [MAIN, 'check', '--connect', '-c', file, ...args],
      options,
      (_error, stdout, stderr) => resolve({ status: child.exitCode ?? -1, stdout, stderr }),
    );
  });
  assertNoChild();
  return ended;
}

function assertNoChild(): void {
  const running = execFileSync('ps', ['ax', '-o', 'args'], { encoding: 'utf8' });
  assert.ok(!running.includes(MARK), 'a child was left running');
}

const child = (script: string, ...args: string[]) =>
  `{ command: ${JSON.stringify([process.execPath, script, ...args, MARK])} }`;
const ALL = '{ version: 1, rules: [ { name: all, allow: [ { server: "*", tools: ["*"] } ] } ] }';

test('real servers of both eras, and which tools each agent will see', async () => {
  const policy = `{ version: 1,
    roles: { adder: { allow: [ { server: every, tools: [get-sum] } ] } },
    agents: { triage: { roles: [adder] } },
    rules: [ { name: greeting, allow: [ { server: both, tools: ["*"] } ], when: 'agent.name == "support"' } ] }`;
  const servers = `{ every: ${child(EVERYTHING, 'stdio')}, both: ${child(BOTH_ERAS)} }`;
  const { status, stdout, stderr } = await check(servers, policy, '--json');
  assert.equal(status, 0, stderr);
  const { ok, group, connections } = JSON.parse(stdout);
  assert.deepEqual([ok, group], [true, 'support']);
  const [every, both] = connections;
  assert.deepEqual([every.server, every.ok, every.era, every.protocolVersion], ['every', true, 'legacy', '2025-11-25']);
  assert.ok(every.tools > 5);
  assert.deepEqual(every.agents, [
    { name: 'support', sees: [] },
    { name: 'triage', sees: ['get-sum'] },
  ]);
  assert.deepEqual([both.era, both.protocolVersion, both.says], ['modern', '2026-07-28', 'both-eras 1.0.0']);
  assert.deepEqual(both.agents, [
    { name: 'support', sees: ['greet', 'grow'] },
    { name: 'triage', sees: [] },
  ]);
});

test('children are gone before the process is', async () => {
  const file = join(folder, 'sidecar.yaml');
  await writeFile(file, `servers: { both: ${child(BOTH_ERAS)} }\npolicy: ${ALL}\n`);
  const loaded = await loadConfig(file);
  assert.ok(loaded.ok);
  const connected = await connect(loaded.value, []);
  assert.ok(connected.ok && connected.value.connections[0]!.ok);
  assertNoChild();
});

test('a server that cannot be reached is a sentence, and 1', async () => {
  const servers = `{ dead: { url: "http://127.0.0.1:1/mcp" }, both: ${child(BOTH_ERAS)} }`;
  const { status, stdout } = await check(servers, ALL);
  assert.equal(status, 1);
  assert.match(stdout, /^connections\n {2}dead cannot be reached \(ECONNREFUSED\)\n {2}both: revision 2026-07-28 /m);
  assert.match(stdout, /^ {4}support sees greet, grow$/m);
  const json = await check(servers, ALL, '--json');
  assert.equal(json.status, 1);
  assert.equal(JSON.parse(json.stdout).ok, false);
  assert.deepEqual(JSON.parse(json.stdout).connections[0], {
    server: 'dead',
    ok: false,
    problem: 'dead cannot be reached (ECONNREFUSED)',
  });
});

test('a command that is not there is a sentence', async () => {
  const { status, stdout } = await check('{ gone: { command: [no-such-command-here] } }', ALL);
  assert.equal(status, 1);
  assert.match(stdout, /^ {2}gone cannot be reached \(.*no-such-command-here.*\)$/m);
});

test('goes with the server’s credential, which is nowhere to be seen', async () => {
  const modern = toolServer({ era: 'modern', tools: [{ name: 'x\u001b[2J\u202ey' }] });
  upstream.answer = (seen, response, request) => {
    if (seen.headers.authorization === `Bearer ${TOKEN}`) modern(seen, response, request);
    else response.writeHead(401).end(TOKEN);
  };
  const server = (auth: string) => `{ hub: { url: "${upstream.url}"${auth} } }`;
  const { status, stdout, stderr } = await check(
    server(', auth: { type: bearer, token: { env: CHECK_CONNECT_TOKEN } }'),
    ALL,
  );
  assert.equal(status, 0, stderr);
  assert.match(stdout, /hub: revision 2026-07-28 \(modern\), 1 tool, tool-server 1\.2\.3$/m);
  // A name that would clear the screen and turn the text around.
  assert.match(stdout, /support sees x\\u\{1b\}\[2J\\u\{202e\}y$/m);
  const without = await check(server(''), ALL);
  assert.equal(without.status, 1);
  assert.match(without.stdout, /hub wants a credential \(HTTP status 401\), and none is configured/);
  for (const text of [stdout, stderr, without.stdout, without.stderr]) assert.ok(!text.includes(TOKEN));
});

test('a configuration that is wrong is 2, and nothing is asked', async () => {
  upstream.seen.length = 0;
  const wrong = await check(`{ hub: { url: "${upstream.url}", nope: 1 } }`, ALL);
  assert.equal(wrong.status, 2);
  assert.equal(upstream.seen.length, 0);
});

test('a tool that is not as it was pinned is said to be blocked, and is seen by nobody', async (context) => {
  const pinned = [{ name: 'read' }, { name: 'push' }];
  const lock = join(folder, 'sidecar.lock');
  await writeFile(lock, lockText({ hub: pinned }));
  context.after(() => rm(lock));
  upstream.answer = toolServer({
    era: 'modern',
    tools: [{ name: 'read' }, { name: 'push', description: 'new words' }, { name: 'more' }],
  });
  const { status, stdout } = await check(`{ hub: { url: "${upstream.url}" } }`, ALL);
  assert.equal(status, 0);
  assert.match(
    stdout,
    /^ {4}blocked: push \(the tool is not as sidecar.lock has it\), more \(the tool is not in sidecar.lock\)$/m,
  );
  assert.match(stdout, /^ {4}support sees read$/m);
});

test('in audit mode, also what agents will see once the policy is enforced', async () => {
  upstream.answer = toolServer({ era: 'modern', tools: [{ name: 'read' }, { name: 'push' }] });
  const policy = '{ version: 1, mode: audit, rules: [ { name: r, allow: [ { server: "*", tools: [read] } ] } ] }';
  const server = `{ hub: { url: "${upstream.url}" } }`;
  const { stdout } = await check(server, policy);
  assert.match(stdout, /^ {4}support sees read, push; once the policy is enforced, read$/m);
  const json = JSON.parse((await check(server, policy, '--json')).stdout);
  assert.deepEqual(json.connections[0].agents, [{ name: 'support', sees: ['read', 'push'], willSee: ['read'] }]);
});

test('the store of shared quota is asked too', async () => {
  upstream.answer = toolServer({ era: 'modern', tools: [] });
  const policy = `{ version: 1, quotas: [ { name: q, key: [agent], calls: 1/h } ] }
quotaStore: { redis: "redis://127.0.0.1:1", lease: 5%, onStoreFailure: local }`;
  const server = `{ hub: { url: "${upstream.url}" } }`;
  const { status, stdout } = await check(server, policy);
  assert.equal(status, 1);
  assert.match(
    stdout,
    /^ {2}counted by redis:\/\/127\.0\.0\.1:1 for all replicas, asked for 5% of a limit at a time; while it is away, each sidecar counts by itself$/m,
  );
  assert.match(stdout, /^ {2}quota store redis:\/\/127\.0\.0\.1:1 is away \(connect ECONNREFUSED 127\.0\.0\.1:1\)$/m);
  const json = JSON.parse((await check(server, policy, '--json')).stdout);
  assert.deepEqual([json.ok, json.quotaStore.ok, json.connections[0].ok], [false, false, true]);
});
