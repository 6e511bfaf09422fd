/**
 * Runs a piece of a test as a user who is not root, whoever runs the tests.
 *
 * Root may read every file, so that a test about permissions would see nothing. The child loads its modules first and
 * becomes another user then: the checkout need not be readable by that user.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';

/** Owns nothing and is in no group of ours. */
export const OTHER_UID = 10001;

const BECOME_OTHER = `if (process.getuid() === 0) { process.setgroups([]); process.setgid(${OTHER_UID}); process.setuid(${OTHER_UID}); }\n`;

/**
 * `imports`: name → the module's URL; `body`: statements of a module that uses the names. Resolves to what it printed;
 * fails the test when it does not end with 0.
 */
export async function runAsOtherUser(imports: Readonly<Record<string, URL>>, body: string): Promise<string> {
  const importLines = Object.entries(imports).map(([name, url]) => `import { ${name} } from '${url.href}';\n`);
  const script = `${importLines.join('')}${BECOME_OTHER}${body}`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 20_000,
  });
  const ended = new Promise<number | null>((resolve, reject) => child.once('close', resolve).once('error', reject));
  const [out, said, code] = await Promise.all([text(child.stdout), text(child.stderr), ended]);
  assert.equal(code, 0, said);
  return out;
}
