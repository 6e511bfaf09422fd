import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, it } from 'node:test';
import { loadPolicy, policyPath } from '../../sidecar/config/policy-source.ts';
import { formatProblems } from '../../sidecar/config/problem.ts';
import { runAsOtherUser } from '../support/other-user.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'config-policy-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

async function load(files: Record<string, string>) {
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  return loadPolicy({ kind: 'path', path: folder }, {});
}

const A = `version: 1
default: deny
roles: { reader: { allow: [ { server: a, tools: [read_*] } ] } }
rules: [ { name: first, allow: [ { server: a, tools: [x] } ] } ]
`;
const B = `version: 1
roles: { writer: { allow: [ { server: a, tools: [write_*] } ] } }
rules: [ { name: second, deny: [ { server: a, tools: [y] } ] } ]
`;

it('a folder is one policy: mappings united, lists joined', async () => {
  const loaded = await load({ 'a.yaml': A, 'b.yaml': B, 'a.cases.yaml': 'not: a policy', 'README.md': '#' });
  assert.ok(loaded.ok, loaded.ok ? '' : formatProblems(loaded.error));
  const document = loaded.value.document as { roles: object; rules: { name: string }[] };
  assert.deepEqual(Object.keys(document.roles), ['reader', 'writer']);
  assert.deepEqual(
    document.rules.map(({ name }) => name),
    ['first', 'second'],
  );
  assert.deepEqual(loaded.value.watch, [folder]);
});

it('one name in two files is refused, with both', async () => {
  const loaded = await load({
    'a.yaml': A,
    'b.yaml': `version: 2\nroles: { reader: { allow: [] } }\nrules: [ { name: first, allow: [] } ]\n`,
  });
  assert.ok(!loaded.ok);
  assert.deepEqual(formatProblems(loaded.error, folder).split('\n'), [
    'b.yaml:1:1  version: differs from what another file says',
    `b.yaml:2:10  roles.reader: stands in ${join(folder, 'a.yaml')} too`,
    `b.yaml:3:10  rules[0]: stands in ${join(folder, 'a.yaml')} too`,
  ]);
});

it('a fault is found in the file that it stands in', async () => {
  const loaded = await load({ 'a.yaml': A, 'b.yaml': `${B}\nquotas: [ { name: q, calls: many } ]\n` });
  assert.ok(!loaded.ok);
  assert.match(formatProblems(loaded.error, folder), /^b\.yaml:5:\d+ {2}quotas\[0\]/m);
});

it('a folder without policies is an error', async () => {
  const loaded = await load({ 'README.md': '#' });
  assert.ok(!loaded.ok);
  assert.match(formatProblems(loaded.error), /holds no \*\.yaml file/);
});

it('library/<name> is the library of this package', async () => {
  assert.match(policyPath('library/observe', folder), /policies\/library\/observe\.yaml$/);
  assert.equal(policyPath('./library/observe', folder), join(folder, 'library/observe'));
  assert.ok((await loadPolicy({ kind: 'path', path: policyPath('library/observe', folder) }, {})).ok);
  const unknown = await loadPolicy({ kind: 'path', path: policyPath('library/nope', folder) }, {});
  assert.ok(!unknown.ok);
  assert.match(formatProblems(unknown.error), /is not in the library of this package: .*observe/);
});

it('a folder that this user may not read is a problem, not a throw', async () => {
  chmodSync(folder, 0o755);
  const locked = join(folder, 'locked');
  mkdirSync(locked, { mode: 0 });
  const printed = await runAsOtherUser(
    { loadPolicy: new URL('../../sidecar/config/policy-source.ts', import.meta.url) },
    `console.log(JSON.stringify(await loadPolicy({ kind: 'path', path: ${JSON.stringify(locked)} }, {})));`,
  );
  const loaded = JSON.parse(printed);
  assert.equal(loaded.ok, false);
  assert.equal(formatProblems(loaded.error, folder), 'locked  may not be read by this user');
});
