/**
 * The compiled command, as `npx` starts it: built into a folder of its own, started without a configuration and with a
 * `.mcp.json`, used by the real client, and ended by Ctrl-C with nothing left.
 */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { isAlive, until } from '../support/stdio-harness.ts';

const ROOT = join(import.meta.dirname, '../..');
const SCRIPTED = join(ROOT, 'test/support/stdio-server.ts');

/** Laid out like the installed package. */
let installed: string;
before(async () => {
  installed = await mkdtemp(join(tmpdir(), 'dist-'));
  const outdir = join(installed, 'dist');
  const built = spawnSync(process.execPath, ['--run', 'build', '--', `--outdir=${outdir}`], {
    cwd: ROOT,
    encoding: 'utf8',
    timeout: 60_000,
  });
  assert.equal(built.status, 0, built.stderr);
  for (const shipped of ['package.json', 'policies/library', 'examples/demo/policy.yaml']) {
    await mkdir(join(installed, shipped, '..'), { recursive: true });
    await cp(join(ROOT, shipped), join(installed, shipped), { recursive: true });
  }
  await symlink(join(ROOT, 'node_modules'), join(installed, 'node_modules'));
});
after(() => rm(installed, { recursive: true, force: true }));

/** Without a sidecar.yaml the ports are the default ones, and somebody's own sidecar may be running on them. */
async function isFree(port: number): Promise<boolean> {
  const server = createServer().listen(port, '127.0.0.1');
  const free = await new Promise<boolean>((resolve) =>
    server.once('listening', () => resolve(true)).once('error', () => resolve(false)),
  );
  await new Promise((resolve) => server.close(resolve));
  return free;
}
const skip = !((await isFree(4180)) && (await isFree(4181))) && 'port 4180 or 4181 is in use';

/** Starts the command in an empty folder, with `files` in it. */
async function start(context: TestContext, files: Readonly<Record<string, string>>, ...args: string[]) {
  const folder = await mkdtemp(join(tmpdir(), 'dist-folder-'));
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
  const command = [join(installed, 'dist/sidecar/main.js'), ...args];
  const child = spawn(process.execPath, command, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      said += chunk;
    });
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  context.after(async () => {
    child.kill('SIGKILL');
    await ended;
    await rm(folder, { recursive: true, force: true });
  });
  return { child, ended, said: () => said };
}

async function listening(sidecar: Awaited<ReturnType<typeof start>>, place: RegExp): Promise<URL> {
  const dead = sidecar.ended.then((code) => assert.fail(`ended with ${code}: ${sidecar.said()}`));
  await Promise.race([until(() => place.test(sidecar.said()), `${place}`, 20_000), dead]);
  return new URL(place.exec(sidecar.said())![1]!);
}

async function connected(url: URL): Promise<Client> {
  const client = new Client({ name: 'test', version: '1' });
  await client.connect(new StreamableHTTPClientTransport(url));
  return client;
}

test('without a configuration it serves the demo, and Ctrl-C ends it', { skip }, async (context) => {
  const sidecar = await start(context, {});
  const url = await listening(sidecar, /^endpoint (http\S+)$/m);
  assert.match(sidecar.said(), /this is the bundled demo/);
  const client = await connected(url);
  const { tools } = await client.listTools();
  assert.ok(
    tools.some(({ name }) => name === 'list_notes'),
    JSON.stringify(tools.map(({ name }) => name)),
  );
  const { isError } = await client.callTool({ name: 'list_notes', arguments: {} });
  assert.ok(!isError);
  await client.close();
  sidecar.child.kill('SIGINT');
  assert.equal(await sidecar.ended, 0, sidecar.said());
});

test('with a .mcp.json it governs its server, whose process is gone afterwards', { skip }, async (context) => {
  const servers = { scripted: { command: process.execPath, args: [SCRIPTED] } };
  const sidecar = await start(context, { '.mcp.json': JSON.stringify({ mcpServers: servers }) }, '--json');
  const url = await listening(sidecar, /"event":"listening","mcp":\["(http[^"]+)"/);
  const client = await connected(url);
  const { content } = await client.callTool({ name: 'pid', arguments: {} });
  const pid = Number((content as { text: string }[])[0]!.text);
  assert.ok(isAlive(pid));
  sidecar.child.kill('SIGINT');
  assert.equal(await sidecar.ended, 0, sidecar.said());
  await until(() => !isAlive(pid), 'the end of the child');
  await client.close();
});
