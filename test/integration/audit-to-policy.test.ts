/**
 * From observing to enforcing: a sidecar that lets everything through, its audit, the policy that `policy suggest` makes
 * of it, and a sidecar that enforces that. Then the commands on files that are no good audit.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, type TestContext, test } from 'node:test';
import { formatEvent, formatExchange } from '../../sidecar/telemetry/audit-line.ts';
import { finishedExchange } from '../support/finished-exchange.ts';
import { askLegacy, toolCall } from '../support/raw-http.ts';
import { type ScriptedUpstream, sendJson, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';

const MAIN = join(import.meta.dirname, '../../sidecar/main.ts');
const KEYS = { triage: randomBytes(24).toString('hex'), writer: randomBytes(24).toString('hex') };

let upstream: ScriptedUpstream;
let folder: string;
before(async () => {
  upstream = await startScriptedUpstream();
  upstream.answer = ({ json }, response) => {
    const tools = [{ name: 'list_issues', inputSchema: {}, annotations: { readOnlyHint: true } }];
    const result = json.method === 'tools/list' ? { tools } : { content: [{ type: 'text', text: 'ok' }] };
    sendJson(response, json.id === undefined ? undefined : { jsonrpc: '2.0', id: json.id, result });
  };
  folder = await mkdtemp(join(tmpdir(), 'audit-to-policy-'));
});
after(async () => {
  await upstream.close();
  await rm(folder, { recursive: true, force: true });
});

async function start(context: TestContext, policy: string): Promise<TestSidecar> {
  const files = Object.fromEntries(Object.entries(KEYS).map(([agent, key]) => [`${agent}.key`, key]));
  const agents = Object.keys(KEYS).map((agent) => `${agent}: { file: ./${agent}.key }`);
  const sidecar = await startTestSidecar(
    [
      `servers: { main: { url: "${upstream.url}" } }`,
      `identify: [ { type: apiKey, agents: { ${agents.join(', ')} } } ]`,
      `policy: ${policy}`,
      '',
    ].join('\n'),
    files,
  );
  context.after(() => sidecar.close());
  return sidecar;
}

function as(agent: keyof typeof KEYS) {
  return { authorization: `Bearer ${KEYS[agent]}` };
}

/** What the command said and how it ended. The process may not outlive the test. */
async function sidecar(args: readonly string[], stdin?: string) {
  const child = spawn(process.execPath, [MAIN, ...args], { cwd: folder, stdio: 'pipe', timeout: 60_000 });
  child.stdin.on('error', () => {});
  child.stdin.end(stdin ?? '');
  const said = { stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => (said.stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said.stderr += text));
  const [code] = await once(child, 'close');
  return { code, ...said };
}

/** Names that a YAML document could be broken with. */
const ODD = ['a: b # c', 'x*', '- "\'', 'line\nbreak'];

const TRAFFIC: [keyof typeof KEYS, object][] = [
  ['triage', toolCall('list_issues', { repository: 'a/b' })],
  ['triage', toolCall('list_issues', { repository: 'a/c' })],
  ['writer', toolCall('push_files', { secret: '=cmd' })],
  ['writer', { jsonrpc: '2.0', id: 8, method: 'resources/read', params: { uri: 'file:///docs/a.md' } }],
  ['triage', { jsonrpc: '2.0', id: 9, method: 'prompts/get', params: { name: 'review', arguments: {} } }],
  ['triage', { jsonrpc: '2.0', id: 10, method: 'tools/list' }],
  [
    'triage',
    {
      jsonrpc: '2.0',
      id: 11,
      method: 'completion/complete',
      params: { ref: { type: 'ref/prompt', name: 'review' }, argument: { name: 'a', value: 'b' } },
    },
  ],
  ...ODD.map((tool): [keyof typeof KEYS, object] => ['writer', toolCall(tool)]),
];

test('what was observed is suggested, enforced, and nothing else passes', async (context) => {
  const observing = await start(context, 'library/observe');
  for (const [agent, message] of TRAFFIC) {
    const { json } = await askLegacy(observing.base, message, as(agent));
    assert.ok(json.result !== undefined, JSON.stringify(json));
  }
  const lines = await observing.auditLines();
  assert.deepEqual(
    lines.filter(({ tool }) => tool === 'list_issues').map(({ decision }) => decision),
    ['audit', 'audit'],
  );
  await copyFile(join(observing.folder, 'audit.jsonl'), join(folder, 'observed.jsonl'));

  const suggested = await sidecar(['policy', 'suggest', '--audit', 'observed.jsonl', '--out', '.']);
  assert.equal(suggested.code, 0, suggested.stderr);
  assert.match(
    suggested.stderr,
    /wrote suggested\.yaml and suggested\.cases\.yaml\n11 requests judged again: nothing would change/,
  );
  const policy = await readFile(join(folder, 'suggested.yaml'), 'utf8');
  assert.match(policy, /- list_issues # 2 by triage; \d{4}-\d\d-\d\d; observed\.jsonl sequence \d+/);

  const tested = await sidecar(['policy', 'test', '--coverage', '100', 'suggested.yaml']);
  assert.equal(tested.code, 0, tested.stdout + tested.stderr);
  const replayed = await sidecar(['policy', 'replay', '--audit', 'observed.jsonl', '--policy', 'suggested.yaml']);
  assert.deepEqual([replayed.code, replayed.stdout], [0, '11 requests judged again: nothing would change\n']);

  const enforcing = await start(context, join(folder, 'suggested.yaml'));
  for (const [agent, message] of TRAFFIC) {
    const { json } = await askLegacy(enforcing.base, message, as(agent));
    assert.ok(json.result !== undefined, JSON.stringify(json));
  }
  const others: [keyof typeof KEYS, object][] = [
    ['writer', toolCall('list_issues')],
    ['triage', toolCall('push_files')],
    ['writer', toolCall('xy')],
    ['writer', toolCall('linesbreak')],
    ['writer', { jsonrpc: '2.0', id: 8, method: 'resources/read', params: { uri: 'file:///docs/b.md' } }],
  ];
  const before = upstream.seen.length;
  for (const [agent, message] of others) {
    const { json } = await askLegacy(enforcing.base, message, as(agent));
    assert.ok(json.error !== undefined, JSON.stringify(message));
  }
  assert.equal(upstream.seen.length, before);

  // What was refused stays refused, and what passed passes, by the audit of the enforcing one too.
  await enforcing.auditLines();
  await copyFile(join(enforcing.folder, 'audit.jsonl'), join(folder, 'enforced.jsonl'));
  const again = await sidecar([
    'policy',
    'replay',
    '--audit',
    'enforced.jsonl',
    'observed.jsonl',
    '--policy',
    'suggested.yaml',
  ]);
  assert.deepEqual([again.code, again.stdout], [0, '27 requests judged again: nothing would change\n']);
  const both = await sidecar(['policy', 'suggest', '--audit', 'observed.jsonl', 'enforced.jsonl', '--json']);
  assert.equal(both.code, 0, both.stdout);
});

describe('the commands', () => {
  const line = (sequence: number, changes: Parameters<typeof finishedExchange>[0] = {}) =>
    formatExchange(finishedExchange(changes), sequence);
  const TORN = line(9).slice(0, 50);

  before(async () => {
    await writeFile(
      join(folder, 'audit.jsonl'),
      [
        line(1),
        line(2, { tool: 'push_files', argumentsJson: '{"branch":"[redacted]"}' }),
        line(3, { tool: 'push_files', argumentsJson: '{"branch":"[redacted]"}' }),
        line(4, { tool: 'hidden', decision: 'deny', reasonKind: 'hidden', upstream: undefined, agent: '=1+1' }),
        formatEvent(0, { event: 'policy.reloaded' }, 5),
        'not json\n',
        TORN,
      ].join(''),
    );
    await writeFile(
      join(folder, 'allow.yaml'),
      'version: 1\nrules: [ { name: all, allow: [ { tools: ["list_*", "push_*"] } ] } ]\n',
    );
    await writeFile(
      join(folder, 'deny.yaml'),
      'version: 1\nrules:\n  - { name: all, allow: [ { tools: ["*"] } ] }\n  - { name: no-pushes, deny: [ { tools: ["push_*"] } ] }\n',
    );
    await writeFile(
      join(folder, 'unsure.yaml'),
      'version: 1\nrules:\n  - { name: all, allow: [ { tools: ["list_*"] } ] }\n  - { name: branches, allow: [ { tools: ["push_*"] } ], when: args.branch == "main" }\n',
    );
    await writeFile(join(folder, 'binary.jsonl'), randomBytes(5_000));
    await writeFile(join(folder, 'empty.jsonl'), '');
    await writeFile(join(folder, 'broken.yaml'), 'version: 1\nrulez: []\n');
  });

  test('replay: nothing would change', async () => {
    const { code, stdout, stderr } = await sidecar([
      'policy',
      'replay',
      '--audit',
      'audit.jsonl',
      '--policy',
      'allow.yaml',
    ]);
    assert.deepEqual([code, stdout], [0, '4 requests judged again: nothing would change\n']);
    assert.match(
      stderr,
      /^read 4 records and 1 event; 1 line passed over that is torn at the end of its file; 1 line passed over that is no JSON; the first such line: audit\.jsonl:6\n$/,
    );
  });

  test('replay: what would change, by agent and tool', async () => {
    const { code, stdout } = await sidecar(['policy', 'replay', '--audit', 'audit.jsonl', '--policy', 'deny.yaml']);
    assert.equal(code, 1);
    assert.equal(
      stdout,
      [
        'triage github.push_files: 2 calls allowed → refused by rule no-pushes; first at 2026-11-20T12:00:00.250Z, audit.jsonl sequence 2',
        '=1+1 github.hidden: 1 call refused by rule reader → allowed by rule all; first at 2026-11-20T12:00:00.250Z, audit.jsonl sequence 4',
        '4 requests judged again: 3 would change',
        '',
      ].join('\n'),
    );
    const one = await sidecar([
      'policy',
      'replay',
      '--audit',
      'audit.jsonl',
      '--policy',
      'deny.yaml',
      '--agent',
      '=1+1',
      '--json',
    ]);
    const { ok, judged, changed, changes, read } = JSON.parse(one.stdout);
    assert.deepEqual([one.code, ok, judged, changed, changes[0].agent, read.events], [1, false, 1, 1, '=1+1', 1]);
  });

  test('replay: what cannot be judged surely is told, and is no change', async () => {
    const { code, stdout } = await sidecar(['policy', 'replay', '--audit', 'audit.jsonl', '--policy', 'unsure.yaml']);
    assert.equal(code, 0);
    assert.match(stdout, /^triage github\.push_files: 2 calls unsure: arguments are redacted; first at /);
    assert.match(stdout, /\n2 requests cannot be judged surely from the audit alone\n$/);
  });

  test('suggest: what policy did to arguments is told, and its refusals are no change', async () => {
    const refused = {
      decision: 'deny',
      reasonKind: 'argumentsRefused',
      rule: 'declared',
      upstream: undefined,
    } as const;
    await writeFile(
      join(folder, 'touched.jsonl'),
      [
        line(1, { argumentsChanged: true, virtual: 'few' }),
        line(2, { ...refused, argumentsJson: '{"limit":50}' }),
        line(3, { ...refused, tool: 'push_files' }),
        line(4, refused),
      ].join(''),
    );
    const { code, stdout, stderr } = await sidecar(['policy', 'suggest', '--audit', 'touched.jsonl']);
    assert.equal(code, 0);
    const told = [
      '1 call had its arguments changed by policy (github.list_issues): take over its arguments entries',
      '3 calls were refused by arguments entries of policy (github.list_issues, github.push_files), and nothing here refuses them: take those entries over',
      'Virtual servers hold what was let through there (few): compare them with those of your present policy',
    ];
    for (const words of told) {
      assert.ok(stderr.includes(`${words}\n`), stderr);
      assert.ok(stdout.includes(`# ${words}.\n`), stdout);
    }
    assert.match(stderr, /github\.list_issues: 2 calls unsure: an entry of the policy's arguments refused it/);
    assert.match(stderr, /4 requests judged again: nothing would change/);
    const json = JSON.parse((await sidecar(['policy', 'suggest', '--audit', 'touched.jsonl', '--json'])).stdout);
    assert.deepEqual(json.argumentsTouched, [
      { server: 'github', tool: 'list_issues', changed: 1, refused: 2 },
      { server: 'github', tool: 'push_files', changed: 0, refused: 1 },
    ]);
    assert.doesNotMatch((await sidecar(['policy', 'suggest', '--audit', 'audit.jsonl'])).stderr, /arguments entries/);
  });

  test('suggest: makes the folder that it writes to', async () => {
    const { code, stderr } = await sidecar(['policy', 'suggest', '--audit', 'audit.jsonl', '--out', 'new/folder']);
    assert.equal(code, 0, stderr);
    assert.match(stderr, /^wrote new\/folder\/suggested\.yaml and new\/folder\/suggested\.cases\.yaml\n/);
    assert.match(await readFile(join(folder, 'new/folder/suggested.yaml'), 'utf8'), /\nversion: 1\n/);
  });

  test('report: as a table, CSV and JSON, of a time', async () => {
    const table = await sidecar(['audit', 'report', '--audit', 'audit.jsonl']);
    assert.equal(table.code, 0);
    assert.match(table.stdout, /^agent +server +tool +calls +refused .*\ntriage +github +push_files +2 +0 /);
    const csv = await sidecar(['audit', 'report', '--audit', 'audit.jsonl', '--format', 'csv', '--by', 'agent']);
    assert.match(
      csv.stdout,
      /^"agent","calls","refused","limited","errors","tokensIn","tokensOut","cost","p50Ms","p99Ms"\r\n"triage",3,0,/,
    );
    assert.match(csv.stdout, /\r\n"'=1\+1",1,1,0,0,/);
    const json = await sidecar(['audit', 'report', '--audit', 'audit.jsonl', '--format', 'json']);
    assert.equal((await sidecar(['audit', 'report', '--audit', 'audit.jsonl', '--json'])).stdout, json.stdout);
    const stdin = await sidecar(
      ['audit', 'report', '--audit', '-', '--json', '--since', '2026-11-20'],
      line(1) + line(2, { startedAt: 0 }),
    );
    const { total, read } = JSON.parse(stdin.stdout);
    assert.deepEqual([stdin.code, total.calls, read.records], [0, 1, 2]);
  });

  test('report: says what the rows without a tool are, in a table alone', async () => {
    const report = async (stdin: string, ...args: string[]) =>
      (await sidecar(['audit', 'report', '--audit', '-', ...args], stdin)).stdout;
    const list = line(1, { method: 'tools/list', tool: undefined }) + line(2);
    assert.match(await report(list), /\n\(total\) .*\ntool -: lists, initialize, .* and the like\n$/);
    for (const args of [['--by', 'agent'], ['--format', 'csv'], ['--json']])
      assert.doesNotMatch(await report(list, ...args), /initialize/, args.join(' '));
    assert.doesNotMatch(await report(line(1)), /initialize/);
  });

  test('report: what the audit has no cost for is priced by a policy', async () => {
    const prices = 'prices: [ { server: "*", tools: ["push_*"], perCall: 0.25, perThousandTokens: 1 } ]\n';
    await writeFile(join(folder, 'prices.yaml'), `version: 1\n${prices}`);
    const { stdout } = await sidecar([
      'audit',
      'report',
      '--audit',
      'audit.jsonl',
      '--policy',
      'prices.yaml',
      '--json',
      '--by',
      'tool',
    ]);
    const costs = JSON.parse(stdout).rows.map(({ names, cost }: { names: { tool: string }; cost?: number }) => [
      names.tool,
      cost,
    ]);
    // 2 calls of 12 and 144 tokens each.
    assert.deepEqual(costs, [
      ['push_files', 0.812],
      ['list_issues', 0],
      ['hidden', undefined],
    ]);
    const plain = await sidecar(['audit', 'report', '--audit', 'audit.jsonl', '--json']);
    assert.equal(JSON.parse(plain.stdout).total.cost, undefined);
  });

  const wrong: [string, string[], RegExp][] = [
    [
      'a file that is not there',
      ['policy', 'replay', '--audit', 'none.jsonl', '--policy', 'allow.yaml'],
      /none\.jsonl cannot be read: it does not exist/,
    ],
    ['a folder', ['audit', 'report', '--audit', '.'], /it is a folder/],
    ['a binary file', ['policy', 'suggest', '--audit', 'binary.jsonl'], /holds no audit of a sidecar/],
    ['another file', ['audit', 'report', '--audit', 'allow.yaml'], /holds no audit of a sidecar/],
    [
      'a policy with a problem',
      ['policy', 'replay', '--audit', 'audit.jsonl', '--policy', 'broken.yaml'],
      /broken\.yaml:2.*rulez/,
    ],
    ['no audit', ['policy', 'replay', '--policy', 'allow.yaml'], /--audit/],
    ['no policy', ['policy', 'replay', '--audit', 'audit.jsonl'], /--policy/],
    ['an audit that can be read once only', ['policy', 'suggest', '--audit', '-'], /read twice/],
    ['a name that is a path', ['policy', 'suggest', '--audit', 'audit.jsonl', '--name', '../x'], /--name/],
    [
      'files that are there already',
      ['policy', 'suggest', '--audit', 'audit.jsonl', '--out', '.', '--name', 'deny'],
      /deny\.yaml is there already/,
    ],
    [
      'a folder that cannot be',
      ['policy', 'suggest', '--audit', 'audit.jsonl', '--out', 'audit.jsonl/none'],
      /none cannot be made a folder \(ENOTDIR\)/,
    ],
    ['prices of no policy', ['audit', 'report', '--audit', 'audit.jsonl', '--policy', 'broken.yaml'], /broken\.yaml:2/],
    ['an unknown dimension', ['audit', 'report', '--audit', 'audit.jsonl', '--by', 'user'], /--by takes/],
    [
      'two formats',
      ['audit', 'report', '--audit', 'audit.jsonl', '--json', '--format', 'csv'],
      /--json and --format csv/,
    ],
    ['a dimension twice', ['audit', 'report', '--audit', 'audit.jsonl', '--by', 'agent,agent'], /--by takes/],
    [
      'a time that is none',
      ['audit', 'report', '--audit', 'audit.jsonl', '--since', 'yesterday'],
      /--since and --until/,
    ],
  ];
  for (const [name, args, expected] of wrong)
    test(`2 for ${name}`, async () => {
      const { code, stderr } = await sidecar(args);
      assert.match(stderr, expected);
      assert.equal(code, 2);
      assert.doesNotMatch(stderr, /\n +at /);
    });

  test('an empty audit is an audit, of which nothing can be suggested', async () => {
    const { code, stdout } = await sidecar(['policy', 'replay', '--audit', 'empty.jsonl', '--policy', 'allow.yaml']);
    assert.deepEqual([code, stdout], [0, '0 requests judged again: nothing would change\n']);
    const suggested = await sidecar(['policy', 'suggest', '--audit', 'empty.jsonl']);
    assert.deepEqual([suggested.code, suggested.stdout], [2, '']);
    assert.match(
      suggested.stderr,
      /^no request that a policy has judged is in there \(read 0 records and 0 events\)\n$/,
    );
  });
});
