/**
 * The structure of the house, as a test: which folder may import which, what is pure, what is never written.
 *
 * Each rule is a function from a tree of files to its violations. It is run on this project, where there must be
 * none, and on made-up files that break it, where there must be one: so each rule is known to be able to fail.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import {
  codeOnly,
  findImportCycle,
  type Import,
  readImports,
  readSourceTree,
  type SourceTree,
  withoutComments,
} from '../support/source-tree.ts';

interface Rule {
  readonly name: string;
  readonly find: (tree: SourceTree) => string[];
  /** Files that break the rule, each exactly once. */
  readonly bad: Readonly<Record<string, string>>;
  /** Files that look as if they did. */
  readonly good: Readonly<Record<string, string>>;
}

const isShipped = (path: string) => /^(?:sidecar|policies|injector|examples)\//.test(path);
const isPure = (path: string) => /^(?:policies|sidecar\/protocol)\//.test(path);

/** Calls `judge` for each TypeScript file that `applies`, and collects what it says against it. */
function inSources(applies: (path: string) => boolean, judge: (source: string, path: string) => string[]) {
  return (tree: SourceTree): string[] =>
    [...tree].flatMap(([path, source]) =>
      path.endsWith('.ts') && applies(path) ? judge(source, path).map((fault) => `${path} ${fault}`) : [],
    );
}

/** Violations by imports: files of `from` must import only what is `allowed`. */
function importsOf(from: RegExp, allowed: (imported: Import, path: string) => boolean) {
  return inSources(
    (path) => from.test(path),
    (source, path) =>
      readImports(path, source)
        .filter((imported) => !allowed(imported, path))
        .map(({ target }) => `imports ${target}`),
  );
}

const relativeOnlyTo = (target: RegExp) => (imported: Import) => !imported.isRelative || target.test(imported.target);
const neverTo = (target: RegExp) => (imported: Import) => !imported.isRelative || !target.test(imported.target);

/** What a pure file may use from outside: computation on values in memory. */
const PURE_PACKAGES = new Set(['zod', '@marcbachmann/cel-js', 'node:buffer']);
const EFFECTS =
  /\b(?:Date\.now|Math\.random|performance\.now|console\.|process\.|globalThis\b|setTimeout\(|setInterval\(|setImmediate\(|queueMicrotask\(|fetch\()|\bnew Date\(\s*\)|\bcrypto\.|\bimport\s*\{[^}]*\brandom[A-Z]\w*/g;

/** A file whose whole content is the content of others. The public index of the package may be one. */
function isBarrel(source: string): boolean {
  const code = withoutComments(source);
  const rest = code.replace(
    /^\s*export\s+(?:type\s+)?(?:\*(?:\s+as\s+\w+)?|\{[^}]*\})\s+from\s*['"][^'"]+['"];?/gm,
    '',
  );
  return rest !== code && rest.trim() === '';
}

const EMPTY_NAME = /^(?:.*-)?(?:utils?|helpers?|common|managers?)$/;
const TOP_FOLDERS = new Set(['sidecar', 'injector', 'policies', 'examples', 'test']);

// Written so that this file does not break its own rule.
const UNFINISHED = /\b(?:T[O]DO|F[I]XME)\b/;
const REGISTRY_HOST = /registry\.(?:npmjs|yarnpkg)|pypi\.org|pythonhosted\.org|proxy\.golang|crates\.io/;
const MACHINE_PATH = /(?:^|[\s'"`(=:])\/(?:root|work|home\/\w+|Users\/\w+)\//;

/** Lines of any text file that match, by number. */
const linesWith = (pattern: RegExp) => (tree: SourceTree) =>
  [...tree].flatMap(([path, text]) =>
    text.split('\n').flatMap((line, index) => (pattern.test(line) ? [`${path}:${index + 1}: ${line.trim()}`] : [])),
  );

const SOURCE_NAME = /`[\w.*-]+\.ts`/g;

/** Names of files in a README whose table lists files; `certificate*.ts` stands for all of that beginning. */
function filesInTable(readme: string): RegExp[] {
  const rows = readme.split('\n').flatMap((line) => line.match(/^\|([^|]*)\|/)?.[1] ?? []);
  if (new Set(rows.join('\n').match(SOURCE_NAME)).size < 3) return [];
  return (readme.match(SOURCE_NAME) ?? []).map(
    (name) => new RegExp(`^${name.slice(1, -1).replaceAll('.', '\\.').replaceAll('*', '.*')}$`),
  );
}

/** Where a README has a table of the files beside it, it has all of them. */
function filesThatNoReadmeNames(tree: SourceTree): string[] {
  return [...tree].flatMap(([path, readme]) => {
    const folder = path.slice(0, -'README.md'.length);
    const named = path.endsWith('/README.md') && folder !== 'sidecar/commands/' ? filesInTable(readme) : [];
    if (named.length === 0) return [];
    const beside = [...tree.keys()].filter(
      (file) => file.startsWith(folder) && /^[^/]+(?<!\.d)\.ts$/.test(file.slice(folder.length)),
    );
    return beside
      .filter((file) => !named.some((name) => name.test(file.slice(folder.length))))
      .map((file) => `${file} is not named in ${path}`);
  });
}

const RULES: Rule[] = [
  {
    name: 'a table of files names all of them',
    find: filesThatNoReadmeNames,
    bad: { 'sidecar/x/cab.ts': '', 'sidecar/x/d.ts': '' },
    good: {
      'sidecar/x/README.md': '| `a.ts`, `b.ts` | x |\n| `ca*t.ts` | x |\n',
      'sidecar/x/a.ts': '',
      'sidecar/x/cast.ts': '',
      'sidecar/y/README.md': '| `one/` | `a.ts`, `b.ts`, `c.ts` |\n',
      'sidecar/y/d.ts': '',
      'sidecar/z/README.md': '| `a.ts`, `b.ts` | x |\n| `c.ts` | x |\n\n`e.ts` too.\n',
      'sidecar/z/e.ts': '',
      'sidecar/z/f.d.ts': '',
      'sidecar/z/inner/g.ts': '',
    },
  },
  {
    name: 'policies import nothing from outside policies',
    find: importsOf(/^policies\//, relativeOnlyTo(/^policies\//)),
    bad: {
      'policies/a.ts': "import { x } from '../sidecar/x.ts';",
      'policies/b.ts': "import type { X } from '../injector/x.ts';",
      'policies/c.ts': "export { x } from '../test/x.ts';",
      'policies/d.ts': "const x = await import('../examples/x.ts');",
      'policies/e.ts': "import {\n  one,\n  two,\n} from '../sidecar/x.ts';",
    },
    good: { 'policies/f.ts': "// import { x } from '../sidecar/x.ts'\nimport { err } from './result.ts';" },
  },
  {
    name: 'the protocol imports only itself and the result type',
    find: importsOf(/^sidecar\/protocol\//, relativeOnlyTo(/^sidecar\/protocol\/|^policies\/result\.ts$/)),
    bad: {
      'sidecar/protocol/a.ts': "import { x } from '../config/load.ts';",
      'sidecar/protocol/b.ts': "import { x } from '../../policies/decide.ts';",
    },
    good: { 'sidecar/protocol/c.ts': "import { ok } from '../../policies/result.ts';\nimport './message.ts';" },
  },
  {
    name: 'pure code uses no package or builtin that could reach outside',
    find: importsOf(
      /^(?:policies|sidecar\/protocol)\//,
      ({ target, isRelative }, path) =>
        isRelative || PURE_PACKAGES.has(target) || (path === 'sidecar/protocol/seal.ts' && target === 'node:crypto'),
    ),
    bad: {
      'policies/a.ts': "import { readFileSync } from 'node:fs';",
      'policies/b.ts': "import { request } from 'undici';",
      'sidecar/protocol/c.ts': "import { createHash } from 'node:crypto';",
      'sidecar/protocol/d.ts': "import 'node:net';",
    },
    good: {
      'sidecar/protocol/seal.ts': "import { createCipheriv } from 'node:crypto';",
      'policies/z.ts': "import * as z from 'zod';",
    },
  },
  {
    name: 'pure code knows no clock, chance, process or console',
    find: inSources(isPure, (source) => Array.from(codeOnly(source).matchAll(EFFECTS), ([found]) => `uses ${found}`)),
    bad: {
      'policies/a.ts': 'const now = Date.now();',
      'policies/b.ts': 'const chance = Math.random();',
      'policies/c.ts': 'const now = new Date();',
      'policies/d.ts': 'const now = performance.now();',
      'sidecar/protocol/e.ts': "console.log('x');",
      'sidecar/protocol/f.ts': 'const text = `<$' + '{process.env.HOME}>`;',
      'sidecar/protocol/g.ts': 'setTimeout(() => {}, 1);',
      'sidecar/protocol/seal.ts': "import { createHmac, randomBytes } from 'node:crypto';",
      'policies/i.ts': 'const id = crypto.randomUUID();',
    },
    good: {
      'policies/h.ts': "// Date.now() is passed in\nconst text = 'use Date.now()';\nconst then = new Date(now);",
    },
  },
  {
    name: 'the injector imports only itself, sidecar/config, results and the nearest name',
    find: importsOf(
      /^injector\//,
      relativeOnlyTo(/^(?:injector\/|sidecar\/config\/|policies\/(?:result|nearest)\.ts$)/),
    ),
    bad: {
      'injector/a.ts': "import { x } from '../sidecar/app.ts';",
      'injector/b.ts': "import { x } from '../policies/x.ts';",
    },
    good: { 'injector/c.ts': "import { x } from '../sidecar/config/load.ts';\nimport { y } from './patch.ts';" },
  },
  {
    name: 'the sidecar imports nothing of examples or test, and of injector only in its commands',
    find: (tree) => [
      ...importsOf(/^sidecar\//, neverTo(/^(?:examples|test)\//))(tree),
      ...importsOf(/^sidecar\/(?!commands\/)/, neverTo(/^injector\//))(tree),
    ],
    bad: {
      'sidecar/a.ts': "import { x } from '../test/support/x.ts';",
      'sidecar/commands/b.ts': "const x = await import('../../examples/demo/server.ts');",
    },
    good: { 'sidecar/commands/c.ts': "const path = '../../examples/demo/server.ts';" },
  },
  {
    name: 'stages and ports do not know the composition root, the commands or main',
    find: importsOf(/^sidecar\/(?!commands\/)[^/]+\//, neverTo(/^sidecar\/(?:commands\/|(?:app|main)\.ts$)/)),
    bad: {
      'sidecar/pipeline/stages/a.ts': "import { x } from '../../app.ts';",
      'sidecar/upstream/b.ts': "import type { X } from '../commands/run.ts';",
    },
    good: { 'sidecar/pipeline/stages/c.ts': "import { x } from '../compose.ts';" },
  },
  {
    name: 'the composition root does not know the commands, and nothing knows main',
    find: (tree) => [
      ...importsOf(
        /^sidecar\/[^/]+\.ts$/,
        (imported, path) => path === 'sidecar/main.ts' || neverTo(/^sidecar\/commands\//)(imported),
      )(tree),
      ...importsOf(/^sidecar\/(?:commands\/|[^/]+\.ts$)/, neverTo(/^sidecar\/main\.ts$/))(tree),
    ],
    bad: {
      'sidecar/app.ts': "import { x } from './commands/run.ts';",
      'sidecar/commands/b.ts': "import { x } from '../main.ts';",
    },
    good: {
      'sidecar/main.ts': "await import('./commands/program.ts');",
      'sidecar/commands/c.ts': "import { x } from '../app.ts';",
    },
  },
  {
    name: 'the MCP SDK is for tests and examples',
    find: importsOf(/^(?:sidecar|injector|policies)\//, ({ target }) => !target.startsWith('@modelcontextprotocol/')),
    bad: {
      'sidecar/a.ts': "import { Client } from '@modelcontextprotocol/client';",
      'sidecar/b.ts': "await import('@modelcontextprotocol/server');",
    },
    good: { 'examples/c.ts': "import { McpServer } from '@modelcontextprotocol/server';" },
  },
  {
    name: 'no cycle of imports',
    find: (tree) => {
      const cycle = findImportCycle(tree);
      return cycle.length > 0 ? [cycle.join(' → ')] : [];
    },
    bad: {
      'sidecar/a.ts': "import { b } from './b.ts';",
      'sidecar/b.ts': "export { c } from './c.ts';",
      'sidecar/c.ts': "import { a } from './a.ts';",
    },
    good: {
      'sidecar/d.ts': "import type { E } from './e.ts';",
      'sidecar/e.ts': "import { d } from './d.ts';",
      'sidecar/f.ts': "import { d } from './d.ts';\nimport { e } from './e.ts';",
    },
  },
  {
    name: 'no barrel but the public index',
    find: inSources(
      (path) => path !== 'sidecar/index.ts',
      (source) => (isBarrel(source) ? ['only passes on what others export'] : []),
    ),
    bad: {
      'sidecar/upstream/index.ts': "/** All of it. */\nexport * from './http.ts';\nexport { a, b } from './stdio.ts';",
      'policies/all.ts': "export type { A } from './a.ts';",
    },
    good: {
      'sidecar/index.ts': "export * from './app.ts';",
      'sidecar/c.ts': "export { a } from './a.ts';\nexport const b = 1;",
    },
  },
  {
    name: 'names that say nothing',
    find: (tree) =>
      [...tree.keys()].filter((path) => path.split(/[/.]/).some((part) => EMPTY_NAME.test(part.toLowerCase()))),
    bad: {
      'sidecar/utils.ts': '',
      'test/helpers/x.ts': '',
      'sidecar/string-util.ts': '',
      'policies/common.md': '',
      'sidecar/session-manager.ts': '',
    },
    good: { 'sidecar/commands/common-name.ts': '', 'sidecar/uncommon.ts': '' },
  },
  {
    name: 'the process ends in main.ts only',
    find: inSources(
      (path) => isShipped(path) && path !== 'sidecar/main.ts',
      (source) => (/\bprocess\.(?:exit|abort|reallyExit)\b/.test(codeOnly(source)) ? ['ends the process'] : []),
    ),
    bad: { 'sidecar/app.ts': 'process.exit(1);', 'examples/a.ts': 'process.abort();' },
    good: { 'sidecar/main.ts': 'process.exit(2);', 'sidecar/b.ts': 'process.exitCode = 1; // not process.exit(1)' },
  },
  {
    name: 'the folders at the top',
    find: (tree) =>
      [...tree.keys()].filter((path) => {
        const top = path.split('/', 1)[0]!;
        return path !== top && !top.startsWith('.') && !TOP_FOLDERS.has(top);
      }),
    bad: { 'src/a.ts': '', 'docs/readme.md': '' },
    good: { 'README.md': '', '.ci/run': '', 'injector/a.ts': '' },
  },
  {
    name: 'nothing is left for later in a comment',
    find: linesWith(UNFINISHED),
    bad: { 'sidecar/a.ts': `// ${'TO'}DO: later`, 'README.md': `${'FIX'}ME` },
    good: { 'sidecar/b.ts': 'const todo = 1;' },
  },
  {
    name: 'no package registry host and no path of a machine',
    find: (tree) => [...linesWith(REGISTRY_HOST)(tree), ...linesWith(MACHINE_PATH)(tree)],
    bad: {
      'package-lock.json': `"resolved": "https://registry${'.npmjs'}.org/x"`,
      'README.md': `see ${'/work'}/main`,
      'sidecar/a.ts': `const path = '${'/root'}/x';`,
      'CHANGELOG.md': `${'/home'}/someone/x`,
    },
    good: { 'sidecar/b.ts': "const path = './work/x'; // and https://example.com/work/x" },
  },
];

const project = readSourceTree(join(import.meta.dirname, '..', '..'));

suite('this project keeps the rule:', () => {
  for (const { name, find } of RULES) test(name, () => assert.deepEqual(find(project), []));
});

suite('the rule can fail:', () => {
  for (const { name, find, bad, good } of RULES) {
    test(name, () => {
      const tree = new Map(Object.entries({ ...bad, ...good }));
      const faults = find(tree);
      if (name === 'no cycle of imports')
        assert.deepEqual(faults, ['sidecar/a.ts → sidecar/b.ts → sidecar/c.ts → sidecar/a.ts']);
      else assert.deepEqual(faults.map((fault) => fault.split(/[\s]|:\d/, 1)[0]).sort(), Object.keys(bad).sort());
    });
  }
});

test('the tree holds what is meant', () => {
  for (const path of ['sidecar/main.ts', 'policies/result.ts', 'package.json', 'test/unit/structure.test.ts']) {
    assert.ok(project.has(path), `${path} was not read`);
  }
  assert.ok(![...project.keys()].some((path) => /^(?:node_modules|dist|\.git)\//.test(path)));
});

test('an import is found however it is written', () => {
  const source = `import a from './a.ts';
import { b } from "./b.ts";
import type { C } from './c.ts';
import './d.ts';
export * from './e.ts';
export type { F } from './f.ts';
const g = await import('./g.ts');
import {
  h,
} from '../h.ts';
const text = "import { x } from './x.ts'";
/* import { y } from './y.ts'; */
export const from = 1; const z = ['./z.ts'];`;
  const imports = readImports('sidecar/x/here.ts', source);
  const found = (isTypeOnly: boolean) =>
    imports
      .filter((imported) => imported.isTypeOnly === isTypeOnly)
      .map(({ target }) => target)
      .sort();
  assert.deepEqual(found(true), ['sidecar/x/c.ts', 'sidecar/x/f.ts']);
  assert.deepEqual(found(false), [
    'sidecar/h.ts',
    'sidecar/x/a.ts',
    'sidecar/x/b.ts',
    'sidecar/x/d.ts',
    'sidecar/x/e.ts',
    'sidecar/x/g.ts',
  ]);
});
