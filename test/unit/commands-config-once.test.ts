/** `--config` of which the last would win: whoever can add to a command line would choose what is enforced. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, it } from 'node:test';

const MAIN = join(import.meta.dirname, '../../sidecar/main.ts');

function sidecar(...args: readonly string[]) {
  return spawnSync(process.execPath, [MAIN, ...args], {
    cwd: import.meta.dirname,
    encoding: 'utf8',
    timeout: 60_000,
  });
}

describe('a second --config is an error', () => {
  const commands: readonly (readonly [args: readonly string[], option: '-c' | '--config'])[] = [
    [['run'], '-c'],
    [[], '-c'],
    [['check'], '-c'],
    [['pin'], '-c'],
    [['policy', 'test'], '-c'],
    [['policy', 'explain', '--tool', 'a.b'], '-c'],
    [['injector'], '-c'],
    [['inject', '-f', 'missing.yaml'], '--config'],
  ];
  for (const [args, option] of commands)
    it(args.join(' ') || 'the default command', () => {
      const twice = sidecar(...args, option, 'missing-1.yaml', '--config=missing-2.yaml');
      assert.equal(twice.status, 2, twice.stderr);
      assert.match(
        twice.stderr,
        /argument 'missing-2\.yaml' is invalid\. It is given twice, and there can only be one\./,
      );
      // One is taken, also where there is a default: whatever comes of it.
      const once = sidecar(...args, option, 'missing-1.yaml');
      assert.equal(once.status, 2, once.stderr);
      assert.match(once.stderr, /missing(?:-1)?\.yaml/);
      assert.doesNotMatch(once.stderr, /is given twice/);
    });
});
