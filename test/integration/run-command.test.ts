/** What `sidecar run` says at its start where nobody reads a greeting, and `sidecar check` as well. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startSidecar } from '../support/sidecar-process.ts';

const MAIN = fileURLToPath(new URL('../../sidecar/main.ts', import.meta.url));

const CONFIG = `listen: { mcp: "127.0.0.1:0", admin: "127.0.0.1:0" }
servers:
  away: { url: "http://mcp.invalid/mcp", auth: { type: bearer, token: { env: AWAY } }, dangerouslyAllowHttp: true }
policy: library/read-only
`;
const DANGER =
  'dangerouslyAllowHttp: the credential of server away may travel over plain http, where others can read it';

test('a command that is not there is said to be none, with the one that was meant', () => {
  for (const [word, sentence] of [
    ['polcy', 'error: there is no command polcy; did you mean policy?'],
    ['frobnicate', 'error: there is no command frobnicate'],
  ] as const) {
    const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, word], { encoding: 'utf8', timeout: 60_000 });
    assert.deepEqual([status, stdout, stderr.split('\n')[0]], [2, '', sentence]);
  }
});

test('a dangerous switch is logged at each start, and told by check', async (context) => {
  const folder = await mkdtemp(join(tmpdir(), 'run-command-'));
  context.after(() => rm(folder, { recursive: true, force: true }));
  const sidecar = await startSidecar(CONFIG, { cwd: folder, env: { AWAY: 'x' } });
  assert.equal(await sidecar.stop(), 0);
  const entries = sidecar
    .stderr()
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    entries.filter(({ message }) => message.startsWith('dangerously')).map(({ level, message }) => [level, message]),
    [['warn', DANGER]],
  );
  const check = spawnSync(process.execPath, [MAIN, 'check', '--json'], {
    cwd: folder,
    encoding: 'utf8',
    env: { ...process.env, AWAY: 'x' },
    timeout: 60_000,
  });
  assert.ok(JSON.parse(check.stdout).warnings.includes(DANGER));
});
