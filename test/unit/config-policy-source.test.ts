import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
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
    `b.yaml:2:10  roles.reader: stands in ${join(folder, 'a.yaml')}:3 too`,
    `b.yaml:3:10  rules[0]: stands in ${join(folder, 'a.yaml')}:4 too`,
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

describe('extends', () => {
  const BASE = `version: 1
default: allow
mode: audit
roles: { reader: { allow: [ { server: a, tools: [read_*] } ] } }
rules: [ { name: no drops, deny: [ { tools: [drop_*] } ] } ]
`;

  /** Writes the files, loads policy.yaml. */
  async function loadFile(files: Record<string, string>) {
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
    return loadPolicy({ kind: 'path', path: join(folder, 'policy.yaml') }, {});
  }
  async function problemsOf(files: Record<string, string>) {
    const loaded = await loadFile(files);
    assert.ok(!loaded.ok, 'there is a problem');
    return formatProblems(loaded.error, folder).split('\n');
  }
  async function documentOf(files: Record<string, string>) {
    const loaded = await loadFile(files);
    assert.ok(loaded.ok, loaded.ok ? '' : formatProblems(loaded.error));
    return loaded.value.document as Record<string, unknown>;
  }

  it('takes over roles and rules, and is told of both files', async () => {
    const policy = 'version: 1\nextends: ./base.yaml\nrules: [ { name: mine, allow: [ { tools: [x] } ] } ]\n';
    const loaded = await loadFile({ 'base.yaml': BASE, 'policy.yaml': policy });
    assert.ok(loaded.ok, loaded.ok ? '' : formatProblems(loaded.error));
    const document = loaded.value.document as { rules: { name: string }[]; roles: object };
    assert.deepEqual(
      document.rules.map(({ name }) => name),
      ['no drops', 'mine'],
    );
    assert.deepEqual(Object.keys(document.roles), ['reader']);
    assert.equal('extends' in document, false);
    assert.deepEqual(loaded.value.watch, [join(folder, 'policy.yaml'), join(folder, 'base.yaml')]);
    const placeOf = (path: (string | number)[]) => {
      const { file, line } = loaded.value.locate({ path, at: 'key', message: '' });
      return [file, line];
    };
    assert.deepEqual(placeOf(['rules', 0]), [join(folder, 'base.yaml'), 5]);
    assert.deepEqual(placeOf(['rules', 1]), [join(folder, 'policy.yaml'), 3]);
    assert.deepEqual(placeOf(['roles', 'reader']), [join(folder, 'base.yaml'), 4]);
  });

  it('default and mode are its own, and only where it does not say those of the extended', async () => {
    const silent = await documentOf({ 'base.yaml': BASE, 'policy.yaml': 'version: 1\nextends: base.yaml\n' });
    assert.deepEqual([silent.default, silent.mode], ['allow', 'audit']);
    const speaking = 'version: 1\nextends: [base.yaml]\ndefault: deny\nmode: enforce\n';
    const own = await documentOf({ 'policy.yaml': speaking });
    assert.deepEqual([own.default, own.mode], ['deny', 'enforce']);
  });

  it('two that differ, if only by not saying, want a word of its own', async () => {
    const silent = 'version: 1\n';
    const both = 'version: 1\nmode: enforce\nextends:\n  - base.yaml\n  - silent.yaml\n';
    assert.deepEqual(await problemsOf({ 'base.yaml': BASE, 'silent.yaml': silent, 'policy.yaml': both }), [
      'policy.yaml:3:1  extends: what is extended differs in default: write here which it is',
    ]);
    assert.equal((await documentOf({ 'policy.yaml': `${both}default: deny\n` })).default, 'deny');
  });

  it('one that extends speaks for what it extends', async () => {
    const between = 'version: 1\nextends: base.yaml\ndefault: deny\nmode: enforce\n';
    const document = await documentOf({
      'base.yaml': BASE,
      'between.yaml': between,
      'policy.yaml': 'version: 1\nextends: [between.yaml]\n',
    });
    assert.deepEqual([document.default, document.mode], ['deny', 'enforce']);
  });

  it('version is its own, and one for all', async () => {
    assert.match((await problemsOf({ 'base.yaml': BASE, 'policy.yaml': 'extends: base.yaml\n' })).join(), /version/);
    const other = await problemsOf({ 'base.yaml': 'version: 2\n', 'policy.yaml': 'version: 1\nextends: base.yaml\n' });
    assert.deepEqual(other, ['base.yaml:1:1  version: must be that of the policy which extends this one']);
    const none = await problemsOf({ 'base.yaml': BASE, 'policy.yaml': 'version: 2\nextends: base.yaml\n' });
    assert.deepEqual(none, ['policy.yaml:1:10  version: must be 1, the version of the policy language']);
  });

  it('one name in both is refused, with both places', async () => {
    const policy = 'version: 1\nextends: base.yaml\nroles: { reader: {} }\nrules: [ { name: no drops, allow: [] } ]\n';
    assert.deepEqual(await problemsOf({ 'base.yaml': BASE, 'policy.yaml': policy }), [
      `policy.yaml:3:10  roles.reader: stands in ${join(folder, 'base.yaml')}:4 too`,
      `policy.yaml:4:10  rules[0]: stands in ${join(folder, 'base.yaml')}:5 too`,
    ]);
  });

  it('a file that is extended twice counts once', async () => {
    const document = await documentOf({
      'base.yaml': BASE,
      'a.yaml': 'version: 1\nextends: base.yaml\n',
      'b.yaml': 'version: 1\nextends: base.yaml\n',
      'policy.yaml': 'version: 1\nextends: [a.yaml, b.yaml, base.yaml]\n',
    });
    assert.equal((document.rules as unknown[]).length, 1);
  });

  it('a policy that extends itself, by whatever way', async () => {
    const circle = { 'policy.yaml': 'version: 1\nextends: a.yaml\n', 'a.yaml': 'version: 1\nextends: [policy.yaml]\n' };
    const [problem, ...others] = await problemsOf(circle);
    assert.match(
      problem!,
      /^a\.yaml:2:11 {2}extends\[0\]: extends itself: .*policy\.yaml → .*a\.yaml → .*policy\.yaml$/,
    );
    assert.deepEqual(others, []);
  });

  it('eight in a row, and no more', async () => {
    const chain = (length: number) =>
      Object.fromEntries([
        ['policy.yaml', 'version: 1\nextends: 1.yaml\n'],
        ...Array.from({ length }, (_, index) => [
          `${index + 1}.yaml`,
          `version: 1\n${index + 1 < length ? `extends: ${index + 2}.yaml\n` : ''}`,
        ]),
      ]);
    await documentOf(chain(8));
    assert.match(
      (await problemsOf(chain(9))).join(),
      /^8\.yaml:2:10 {2}extends\[0\]: extends more than 8 policies in a row/,
    );
  });

  it('what is not there is told where it is named, and watched for', async () => {
    const policy = 'version: 1\nextends: [library/nope, ./gone.yaml]\n';
    const [library, gone] = await problemsOf({ 'policy.yaml': policy });
    assert.match(
      library!,
      /^policy\.yaml:2:11 {2}extends\[0\]: .* is not in the library of this package: .*library\/observe/,
    );
    assert.match(gone!, /^policy\.yaml:2:25 {2}extends\[1\]: .*gone\.yaml does not exist$/);
    const tried = new Set<string>();
    await loadPolicy({ kind: 'path', path: join(folder, 'policy.yaml') }, {}, tried);
    assert.ok(tried.has(join(folder, 'gone.yaml')));
  });

  for (const [wrong, text] of Object.entries({
    'a number': '3',
    'a URL': 'https://policies.example/x',
    'an empty list': '[]',
    'a list of lists': '[[a.yaml]]',
  }))
    it(`${wrong} is refused`, async () => {
      assert.deepEqual(await problemsOf({ 'policy.yaml': `version: 1\nextends: ${text}\n` }), [
        'policy.yaml:2:10  extends: must be library/<name>, the path of a policy file or folder, or a list of at most 32 of these',
      ]);
    });

  it('a fault of what is extended is told with its place there', async () => {
    const problems = await problemsOf({
      'base.yaml': 'version: 1\nrules:\n  - { name: x, allow: [ { tools: [a] } ], when: nobody }\n',
      'policy.yaml': 'version: 1\nextends: base.yaml\n',
    });
    assert.match(problems.join(), /^base\.yaml:3:\d+ {2}rules\[0\]\.when: /);
  });

  it('of files in a folder, and of a policy within sidecar.yaml', async () => {
    mkdirSync(join(folder, 'policies'));
    writeFileSync(join(folder, 'policies/a.yaml'), 'version: 1\nextends: ../base.yaml\n');
    writeFileSync(join(folder, 'base.yaml'), BASE);
    const fromFolder = await loadPolicy({ kind: 'path', path: join(folder, 'policies') }, {});
    assert.ok(fromFolder.ok, fromFolder.ok ? '' : formatProblems(fromFolder.error));
    assert.deepEqual(fromFolder.value.watch, [join(folder, 'policies'), join(folder, 'base.yaml')]);

    const inline = await loadPolicy(
      {
        kind: 'inline',
        value: { version: 1, extends: ['base.yaml'] },
        folder,
        locate: () => assert.fail('there is no problem'),
      },
      {},
    );
    assert.ok(inline.ok);
    assert.deepEqual(inline.value.watch, [join(folder, 'base.yaml')]);
  });
});
