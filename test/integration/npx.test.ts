/**
 * `sidecar` as somebody runs it for the first time: without a configuration, with the .mcp.json that other clients use,
 * and ended by Ctrl-C. From source, and as the compiled command that the package ships.
 */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { askLegacy, toolCall } from '../support/raw-http.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { isAlive } from '../support/stdio-harness.ts';
import { until } from '../support/until.ts';

const PROJECT = fileURLToPath(new URL('../..', import.meta.url));
const MAIN = join(PROJECT, 'sidecar', 'main.ts');
const SCRIPTED = fileURLToPath(new URL('../support/stdio-server.ts', import.meta.url));
/** Where a sidecar listens that was not told anything else. */
const ENDPOINT = 'http://127.0.0.1:4180/mcp';

let portIsTaken: string | false = false;
before(async () => {
  for (const port of [4180, 4181]) {
    await new Promise<void>((resolve) => {
      const probe = createServer();
      probe.once('error', () => {
        portIsTaken = `127.0.0.1:${port}, where the sidecar listens by default, is in use on this machine`;
        resolve();
      });
      probe.listen(port, '127.0.0.1', () => probe.close(() => resolve()));
    });
  }
});

/** A fresh build, laid out like the installed package. */
let installed: string;
before(async () => {
  installed = await mkdtemp(join(tmpdir(), 'installed-'));
  const build = ['--run', 'build', '--', `--outdir=${join(installed, 'dist')}`];
  const built = spawnSync(process.execPath, build, { cwd: PROJECT, encoding: 'utf8', timeout: 60_000 });
  assert.equal(built.status, 0, built.stderr);
  for (const shipped of ['package.json', 'policies/library', 'examples/demo/policy.yaml']) {
    await mkdir(join(installed, shipped, '..'), { recursive: true });
    await cp(join(PROJECT, shipped), join(installed, shipped), { recursive: true });
  }
  await symlink(join(PROJECT, 'node_modules'), join(installed, 'node_modules'));
});
after(() => rm(installed, { recursive: true, force: true }));

/** Both ways in which the command exists. */
const WAYS = [
  { how: 'from source', main: () => MAIN, demo: join('examples', 'demo', 'server.ts') },
  {
    how: 'compiled',
    main: () => join(installed, 'dist', 'sidecar', 'main.js'),
    demo: join('dist', 'examples', 'demo', 'server.js'),
  },
];

async function folderWith(context: TestContext, files: Readonly<Record<string, string>> = {}): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'first-run-'));
  context.after(() => rm(folder, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
  return folder;
}

interface Started {
  readonly pid: number;
  readonly exited: Promise<number | null>;
  stdout(): string;
  stderr(): string;
}

/** Starts the command and waits until it says that it listens. */
async function start(
  context: TestContext,
  folder: string,
  command: readonly string[],
  env: NodeJS.ProcessEnv = process.env,
): Promise<Started> {
  // A group of its own, as a shell gives to what it starts: Ctrl-C reaches all of it.
  const child = spawn(command[0]!, command.slice(1), {
    cwd: folder,
    env,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  let over = false;
  const exited = new Promise<number | null>((resolve, reject) => {
    child.once('close', resolve).once('error', reject);
  }).finally(() => {
    over = true;
  });
  context.after(async () => {
    if (!over) process.kill(-child.pid!, 'SIGKILL');
    await exited;
  });
  await until(() => over || /"event":"listening"|Ctrl-C ends it/.test(stdout + stderr), 'the endpoint', 20_000);
  assert.equal(over, false, stderr);
  return { pid: child.pid!, exited, stdout: () => stdout, stderr: () => stderr };
}

async function connect(mode: 'legacy' | 'auto'): Promise<Client> {
  const client = new Client({ name: 'test', version: '1.0.0' }, { versionNegotiation: { mode } });
  await client.connect(new StreamableHTTPClientTransport(new URL(ENDPOINT)));
  return client;
}

const textOf = (result: unknown): string =>
  (result as { content: { text?: string }[] }).content.map(({ text }) => text ?? '').join('');

async function auditOf(folder: string) {
  const text = await readFile(join(folder, 'audit.jsonl'), 'utf8');
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
}

/** Processes whose command line names the file. */
async function processesOf(file: string): Promise<number[]> {
  const found: number[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const line = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
    if (line.includes(file) && Number(name) !== process.pid) found.push(Number(name));
  }
  return found;
}

const hasProc = existsSync('/proc/self/cmdline');

for (const { how, main, demo } of WAYS)
  describe(`in an empty folder, ${how}`, () => {
    test('the demo runs: a notebook under a policy in audit mode', async (context) => {
      if (portIsTaken !== false) return context.skip(portIsTaken);
      const folder = await folderWith(context);
      const sidecar = await start(context, folder, [process.execPath, main(), '--json']);
      const [said, ...more] = sidecar.stdout().trimEnd().split('\n');
      assert.equal(more.length, 0);
      const listening = JSON.parse(said!);
      assert.equal(listening.event, 'listening');
      assert.equal(listening.mcp[0], ENDPOINT);
      assert.equal((await fetch(`${listening.admin}/readyz`)).status, 200);

      for (const mode of ['legacy', 'auto'] as const) {
        const client = await connect(mode);
        const { tools } = await client.listTools();
        assert.deepEqual(tools.map(({ name }) => name).sort(), [
          'add_note',
          'delete_note',
          'list_notes',
          'read_note',
          'search_notes',
        ]);
        assert.match(
          textOf(await client.callTool({ name: 'read_note', arguments: { title: 'groceries' } })),
          /olive oil/,
        );
        assert.match(
          textOf(await client.callTool({ name: 'delete_note', arguments: { title: 'meeting' } })),
          /meeting/,
        );
        await client.close();
      }

      const demos = hasProc ? await processesOf(demo) : [];
      if (hasProc) assert.ok(demos.length > 0);
      process.kill(-sidecar.pid, 'SIGINT');
      assert.equal(await sidecar.exited, 0);
      await until(() => demos.every((pid) => !isAlive(pid)), 'the end of the notebook');

      const lines = await auditOf(folder);
      assert.deepEqual(
        lines.filter((line) => line.tool !== undefined).map((line) => `${line.tool} ${line.decision}`),
        ['read_note allow', 'delete_note audit', 'read_note allow', 'delete_note audit'],
      );
      assert.deepEqual(
        new Set(lines.filter((line) => line.group !== undefined).map((line) => line.group)),
        new Set(['demo']),
      );
      assert.equal(lines.at(-1).event, 'sidecar.stopped');
      assert.deepEqual((await readdir(folder)).sort(), ['.mcp-sidecar', 'audit.jsonl']);
    });

    test('it says to a person what there is, and to stdout nothing', async (context) => {
      if (portIsTaken !== false) return context.skip(portIsTaken);
      const folder = await folderWith(context);
      const sidecar = await start(context, folder, [process.execPath, main()]);
      const said = sidecar.stderr();
      assert.match(said, new RegExp(`endpoint +${ENDPOINT}`));
      const pasted = said.split('\n').find((line) => line.includes('mcpServers'))!;
      assert.deepEqual(JSON.parse(pasted), { mcpServers: { sidecar: { type: 'http', url: ENDPOINT } } });
      assert.match(said, /audit +.*audit\.jsonl/);
      assert.match(said, /EVERYTHING IS LET THROUGH/);
      assert.match(said, /nothing is deleted/);
      assert.match(said, /bundled demo/);
      // Colour is for terminals.
      assert.ok(!said.includes('\u001b'));
      assert.equal(sidecar.stdout(), '');
      process.kill(-sidecar.pid, 'SIGINT');
      assert.equal(await sidecar.exited, 0);
    });
  });

for (const { how, main } of WAYS)
  test(`with a .mcp.json its servers are governed, everything let through and recorded, ${how}`, async (context) => {
    if (portIsTaken !== false) return context.skip(portIsTaken);
    const canary = `canary-${process.pid}`;
    const folder = await folderWith(context, {
      '.mcp.json': JSON.stringify({
        mcpServers: { mine: { command: process.execPath, args: [SCRIPTED], env: { SCRIPT_TOKEN: canary } } },
      }),
    });
    const sidecar = await start(context, folder, [process.execPath, main(), '--json']);
    const client = await connect('legacy');
    const env = JSON.parse(textOf(await client.callTool({ name: 'env', arguments: {} })));
    assert.equal(env.SCRIPT_TOKEN, canary);
    const pid = Number(textOf(await client.callTool({ name: 'pid', arguments: {} })));
    assert.ok(isAlive(pid));
    await client.close();

    process.kill(-sidecar.pid, 'SIGINT');
    assert.equal(await sidecar.exited, 0);
    await until(() => !isAlive(pid), 'the end of the child');
    const lines = (await auditOf(folder)).filter((line) => line.tool !== undefined);
    assert.deepEqual(
      lines.map((line) => `${line.server} ${line.tool} ${line.decision}`),
      ['mine env audit', 'mine pid audit'],
    );
    assert.ok(!(sidecar.stderr() + sidecar.stdout() + JSON.stringify(lines)).includes(canary));
  });

test('compiled, nothing is loaded later that has no names: a CommonJS package that is bundled has none', async () => {
  const folder = join(installed, 'dist');
  const files = (await readdir(folder, { recursive: true })).filter((name) => name.endsWith('.js'));
  const texts = new Map<string, string>();
  for (const name of files) texts.set(name, await readFile(join(folder, name), 'utf8'));
  const later = new Set(
    [...texts.values()].flatMap((text) =>
      Array.from(text.matchAll(/\bimport\("\.{1,2}\/([^"]+\.js)"\)/g), ([, to]) => to!),
    ),
  );
  assert.ok(later.size > 10, 'parts are loaded later');
  const nameless = [...later].filter((name) => !/^export \{/m.test(texts.get(name)!));
  assert.deepEqual(nameless, []);
});

test('compiled, a quota store that is away is told, and counted without', async (context) => {
  const upstream = await startScriptedUpstream();
  context.after(() => upstream.close());
  const folder = await folderWith(context, {
    'sidecar.yaml': `listen: { mcp: 127.0.0.1:0, admin: 127.0.0.1:0 }
servers: { main: { url: "${upstream.url}" } }
policy: { version: 1, default: allow, quotas: [ { name: one, key: [agent], calls: 1/h } ] }
quotaStore: { redis: "redis://127.0.0.1:1", onStoreFailure: local }
`,
  });
  const sidecar = await start(context, folder, [
    process.execPath,
    join(installed, 'dist', 'sidecar', 'main.js'),
    '--json',
  ]);
  await until(
    () => /the quota store redis:\/\/127\.0\.0\.1:1 is away \(connect ECONNREFUSED/.test(sidecar.stderr()),
    sidecar.stderr,
  );
  const { mcp } = JSON.parse(sidecar.stdout().split('\n')[0]!) as { mcp: string[] };
  const ask = () => askLegacy(mcp[0]!.replace(/\/mcp$/, ''), toolCall('any', {}));
  assert.deepEqual([(await ask()).status, (await ask()).status], [200, 429]);
});

test('a port that is taken is said in a sentence, with what to do', async (context) => {
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
  context.after(() => taken.close());
  const { port } = taken.address() as { port: number };
  const folder = await folderWith(context, {
    'sidecar.yaml': `listen: { mcp: "127.0.0.1:${port}", admin: 127.0.0.1:0 }\nservers: { mine: { command: [${process.execPath}, ${SCRIPTED}] } }\npolicy: library/observe\n`,
  });
  await assert.rejects(start(context, folder, [process.execPath, MAIN]), (error: Error) =>
    /in use by another process: stop it, or choose another address/.test(error.message),
  );
});

test('npx sidecar in a checkout, ended by Ctrl-C in its terminal', async (context) => {
  if (portIsTaken !== false) return context.skip(portIsTaken);
  if (!existsSync(join(PROJECT, 'dist', 'sidecar', 'main.js'))) return context.skip('not built: npm run build');
  const cache = await folderWith(context);
  const audit = join(PROJECT, 'audit.jsonl');
  if (!existsSync(audit)) context.after(() => rm(audit, { force: true }));
  const sidecar = await start(context, PROJECT, ['npx', '--offline', 'sidecar', '--json'], {
    ...process.env,
    npm_config_cache: cache,
  });
  const client = await connect('auto');
  assert.match(textOf(await client.callTool({ name: 'list_notes', arguments: {} })), /welcome/);
  await client.close();
  process.kill(-sidecar.pid, 'SIGINT');
  await sidecar.exited;
  const isGone = () =>
    fetch(ENDPOINT).then(
      () => false,
      () => true,
    );
  await until(isGone, 'the end of the sidecar');
});
