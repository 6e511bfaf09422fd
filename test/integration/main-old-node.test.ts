/** The compiled command under an old Node: it hands over to the bundled runtime, or says in one sentence why not. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { isNodeSupported } from '../../sidecar/node-version.ts';

const ROOT = join(import.meta.dirname, '../..');
const OLD_NODE = ['/usr/bin/node', '/usr/local/bin/node'].find((path) => {
  const version = existsSync(path) ? spawnSync(path, ['-p', 'process.versions.node'], { encoding: 'utf8' }).stdout : '';
  return version !== '' && !isNodeSupported(version.trim());
});

describe('main.js under an old Node', { skip: OLD_NODE === undefined && 'no old Node on this machine' }, () => {
  let folder: string;
  let main: string;

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'main-old-node-'));
    main = join(folder, 'dist', 'sidecar', 'main.js');
    cpSync(join(ROOT, 'package.json'), join(folder, 'package.json'));
    // Only this file is read by the old Node, compiled as for publishing; a stand-in is the program behind it.
    const build = spawnSync(
      'npm',
      ['run', '--silent', 'build', '--', `--outdir=${join(folder, 'dist')}`, '--external:./commands/program.ts'],
      {
        cwd: ROOT,
        encoding: 'utf8',
      },
    );
    assert.ok(existsSync(main), build.stderr);
    mkdirSync(join(folder, 'dist', 'sidecar', 'commands'));
    writeFileSync(
      join(folder, 'dist', 'sidecar', 'commands', 'program.ts'),
      `export async function runProgram(args) {
        const told = new Promise((resolve) => process.on('SIGTERM', () => resolve(7)));
        process.stdout.write(JSON.stringify({ version: process.versions.node, args, environment: Object.keys(process.env) }) + '\\n');
        if (args[0] !== 'wait') return Number(args[0]);
        setTimeout(() => process.exit(9), 20_000);
        return told;
      }`,
    );
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  function bundle(runtime: string): void {
    rmSync(join(folder, 'node_modules'), { recursive: true, force: true });
    mkdirSync(join(folder, 'node_modules', 'node', 'bin'), { recursive: true });
    symlinkSync(runtime, join(folder, 'node_modules', 'node', 'bin', 'node'));
  }

  it('keeps the line that makes it a command', () => {
    assert.match(readFileSync(main, 'utf8'), /^#!\/usr\/bin\/env node\n/);
  });

  it('hands over with the same arguments, and passes the exit code on', () => {
    bundle(process.execPath);
    const { status, stdout, stderr } = spawnSync(OLD_NODE!, [main, '3', '--flag', 'a b'], { encoding: 'utf8' });
    assert.equal(status, 3, stderr);
    const seen = JSON.parse(stdout);
    assert.equal(seen.version, process.versions.node);
    assert.deepEqual(seen.args, ['3', '--flag', 'a b']);
    assert.ok(!seen.environment.some((name: string) => name.startsWith('MCP_SIDECAR')));
  });

  it('passes signals on', async () => {
    bundle(process.execPath);
    const child = spawn(OLD_NODE!, [main, 'wait'], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(child.stdout, 'data');
    child.kill('SIGTERM');
    assert.deepEqual(await once(child, 'exit'), [7, null]);
  });

  it('without a bundled runtime: one sentence, exit code 2', () => {
    rmSync(join(folder, 'node_modules'), { recursive: true, force: true });
    const { status, stdout, stderr } = spawnSync(OLD_NODE!, [main, '0'], { encoding: 'utf8' });
    assert.equal(status, 2);
    assert.equal(stdout, '');
    assert.match(stderr, /^sidecar: this is Node [\d.]+, and at least 22\.19\.0 is needed: .*\n$/);
  });

  it('a bundled runtime that is too old as well: no second try', () => {
    bundle(OLD_NODE!);
    const { status, stderr } = spawnSync(OLD_NODE!, [main, '0'], { encoding: 'utf8', timeout: 10_000 });
    assert.equal(status, 2);
    assert.match(stderr, /at least 22\.19\.0 is needed/);
  });
});
