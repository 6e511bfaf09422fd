import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { summarize } from '../../sidecar/commands/configuration-summary.ts';
import { writeStart } from '../../sidecar/commands/init.ts';
import { greeting } from '../../sidecar/commands/run.ts';
import { jsonSchema } from '../../sidecar/commands/schema.ts';
import { discoverConfig } from '../../sidecar/config/discover.ts';
import { loadConfig } from '../../sidecar/config/load.ts';
import { formatProblems } from '../../sidecar/config/problem.ts';

const MAIN = join(import.meta.dirname, '../../sidecar/main.ts');
const TOKEN = ['gh', 'p_', 'x'.repeat(20), '1'].join('');

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'commands-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

function write(name: string, text: string): string {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
}

function sidecar(...args: string[]) {
  return spawnSync(process.execPath, [MAIN, ...args], { cwd: folder, encoding: 'utf8', timeout: 20_000 });
}

describe('init', () => {
  it('writes what loads, in audit mode, with schemas for the editor', async () => {
    const done = await writeStart({}, folder, {});
    assert.ok(done.ok, done.ok ? '' : formatProblems(done.error.problems));
    const loaded = await loadConfig(join(folder, 'sidecar.yaml'), {});
    assert.ok(loaded.ok, loaded.ok ? '' : formatProblems(loaded.error));
    assert.equal(loaded.value.policy.audit, true);
    const text = readFileSync(join(folder, 'sidecar.yaml'), 'utf8');
    assert.match(text, /^# yaml-language-server: \$schema=\.sidecar\/sidecar\.schema\.json\n/);
    assert.equal(JSON.parse(readFileSync(join(folder, '.sidecar/sidecar.schema.json'), 'utf8')).title, 'sidecar.yaml');
    assert.ok(existsSync(join(folder, '.sidecar/policy.schema.json')));
  });

  it('takes over a .mcp.json, moves its secrets to references, and quotes none', async () => {
    write(
      '.mcp.json',
      JSON.stringify({
        mcpServers: {
          'My Hub': { type: 'http', url: 'https://hub.example/mcp', headers: { Authorization: `Bearer ${TOKEN}` } },
          files: { command: 'npx', args: ['-y', 'thing', '.'], env: { API_KEY: TOKEN, REGION: 'eu' } },
          old: { type: 'sse', url: 'https://old.example' },
          telling: { command: 'x', args: ['--api-key', TOKEN] },
        },
      }),
    );
    const done = await writeStart({}, folder, {});
    assert.ok(done.ok, done.ok ? '' : formatProblems(done.error.problems));
    const text = done.value.lines.join('\n');
    assert.match(text, /server my-hub: header Authorization held a secret: it is \{ env: MY_HUB_TOKEN \} now/);
    assert.match(text, /server files: env API_KEY held a secret: it is \{ env: FILES_API_KEY \} now/);
    assert.match(text, /left out: .*mcpServers\.old: speaks HTTP\+SSE/);
    assert.match(text, /left out: server telling: its arguments seem to hold a secret/);
    const written = readFileSync(join(folder, 'sidecar.yaml'), 'utf8');
    assert.doesNotMatch(text + written, new RegExp(TOKEN));

    const loaded = await loadConfig(join(folder, 'sidecar.yaml'), { MY_HUB_TOKEN: 'a', FILES_API_KEY: 'b' });
    assert.ok(loaded.ok, loaded.ok ? '' : formatProblems(loaded.error));
    assert.deepEqual(Object.keys(loaded.value.config.servers), ['my-hub', 'files']);
    const { files } = loaded.value.config.servers;
    assert.ok(files?.kind === 'stdio');
    assert.deepEqual(files.env, { API_KEY: { env: 'FILES_API_KEY' }, REGION: 'eu' });
  });

  it('never overwrites: exit code 1, and nothing changes', () => {
    write('policy.yaml', 'mine');
    const { status, stderr } = sidecar('init');
    assert.equal(status, 1);
    assert.match(stderr, /policy\.yaml is there already, and nothing was written/);
    assert.equal(readFileSync(join(folder, 'policy.yaml'), 'utf8'), 'mine');
    assert.equal(existsSync(join(folder, 'sidecar.yaml')), false);
  });

  it('a .mcp.json that is not JSON: the place, and nothing written', async () => {
    write('.mcp.json', '{ "mcpServers": { ');
    const done = await writeStart({}, folder, {});
    assert.ok(!done.ok);
    assert.match(formatProblems(done.error.problems), /\.mcp\.json:1:\d+ {2}/);
    assert.equal(existsSync(join(folder, 'policy.yaml')), false);
  });
});

describe('init on the command line', () => {
  it('exit code 2 for what cannot be started from, and nothing is written', () => {
    write('broken.json', '{');
    for (const from of ['nowhere.json', 'broken.json']) {
      assert.equal(sidecar('init', '--from', from).status, 2);
      assert.equal(existsSync(join(folder, 'policy.yaml')), false);
    }
  });

  it('--json: what was written, or why nothing was', () => {
    const { status, stdout, stderr } = sidecar('init', '--json');
    assert.deepEqual([status, stderr], [0, '']);
    assert.deepEqual(JSON.parse(stdout), { ok: true, files: ['sidecar.yaml', 'policy.yaml'], notes: [] });
    const again = sidecar('init', '--json');
    assert.equal(again.status, 1);
    assert.match(JSON.parse(again.stdout).problems[0].message, /are there already/);
  });
});

describe('the greeting of run', () => {
  async function greetingFor(mcp: string[], servers: string) {
    const loaded = await loadConfig(write('sidecar.yaml', `servers: ${servers}\npolicy: { version: 1 }\n`), {});
    assert.ok(loaded.ok, loaded.ok ? '' : formatProblems(loaded.error));
    return greeting(loaded.value, mcp, 'http://127.0.0.1:2').join('\n');
  }
  const ONE = '{ a: { command: x } }';
  const TWO = '{ a: { command: x }, b: { command: x } }';

  it('gives a client the first address of HTTP', async () => {
    const mcp = ['unix:/run/x.sock', 'http://127.0.0.1:1/mcp', 'http://[::1]:1/mcp'];
    assert.match(
      await greetingFor(mcp, ONE),
      /{"mcpServers":{"sidecar":{"type":"http","url":"http:\/\/127\.0\.0\.1:1\/mcp"}}}/,
    );
    assert.match(await greetingFor(mcp, TWO), /"b":{"type":"http","url":"http:\/\/127\.0\.0\.1:1\/servers\/b\/mcp"}/);
  });

  async function greetingOf(name: string, text: string) {
    const loaded = await loadConfig(write(name, text), { KEY: 'k' });
    assert.ok(loaded.ok, loaded.ok ? '' : formatProblems(loaded.error));
    return greeting(loaded.value, ['http://127.0.0.1:1/mcp'], 'http://127.0.0.1:2').join('\n');
  }

  it('where keys are asked for, shows where the key goes, but not the key', async () => {
    const identify = 'identify: [ { type: apiKey, agents: { me: { env: KEY } } } ]';
    const text = await greetingOf('sidecar.yaml', `servers: ${ONE}\npolicy: { version: 1 }\n${identify}\n`);
    assert.match(text, /"url":"http:\/\/127\.0\.0\.1:1\/mcp","headers":{"Authorization":"Bearer <key>"}}/);
    assert.doesNotMatch(await greetingFor(['http://127.0.0.1:1/mcp'], ONE), /Authorization/);
  });

  it('says the quotas, and where to write enforce', async () => {
    const audit = '{ version: 1, mode: audit, quotas: [ { name: few, key: [agent], calls: 2/min } ] }';
    write('p.yaml', audit);
    const inFile = await greetingOf('sidecar.yaml', `servers: ${ONE}\npolicy: ./p.yaml\n`);
    assert.match(inFile, /quota few, for each agent: 2\/min calls\n/);
    assert.match(inFile, /to enforce: set mode: enforce in \S*p\.yaml when/);
    const inline = await greetingOf('sidecar.yaml', `servers: ${ONE}\npolicy: ${audit}\n`);
    assert.match(inline, /to enforce: set mode: enforce in \S*sidecar\.yaml \(policy\) when/);
    const library = await greetingOf('sidecar.yaml', `servers: ${ONE}\npolicy: library/observe\n`);
    assert.match(
      library,
      /to enforce: sidecar policy suggest --audit \S*audit\.jsonl --out \. writes .* name that in \S*sidecar\.yaml \(/,
    );
    assert.doesNotMatch(inFile + inline + library, /sidecar init/);
  });

  it('over a .mcp.json, says that init comes before pasting', async () => {
    const text = await greetingOf('.mcp.json', '{ "mcpServers": { "a": { "command": "x" } } }');
    assert.match(text, /paste into an MCP client \(first npx sidecar init, since .*\.mcp\.json would replace/);
    assert.match(text, /to enforce: npx sidecar init writes a policy\.yaml/);
  });

  it('with sockets alone, says how to connect, and makes no URL of a socket', async () => {
    const text = await greetingFor(['unix:/run/x.sock'], TWO);
    assert.match(text, /curl --unix-socket \/run\/x\.sock http:\/\/localhost\/servers\/b\/mcp/);
    assert.doesNotMatch(text, /mcpServers|unix:[^\n]*\/mcp/);
  });
});

const POLICY = `version: 1
roles: { reader: { allow: [ { server: hub, tools: ["get_*"], prompts: ["*"] } ] } }
agents: { triage: { roles: [reader] }, ghost: { roles: [] } }
rules:
  - { name: no pushes, deny: [ { server: hub, tools: ["push_*"] }, { server: nowhere, tools: [x] } ], when: now.getHours() < 6 }
quotas: [ { name: calls, key: [agent], calls: 60/min } ]
`;
const CONFIG = `group: support
identify: [ { type: uid, agents: { 10001: triage } } ]
servers:
  hub: { url: "https://hub.example/mcp?key=abc", auth: { type: bearer, token: { file: ./token } } }
policy: ./policy.yaml
`;

describe('check', () => {
  it('explains what each agent may do, and what is odd', async () => {
    write('policy.yaml', POLICY);
    write('token', TOKEN);
    const loaded = await loadConfig(write('sidecar.yaml', CONFIG), {});
    assert.ok(loaded.ok, loaded.ok ? '' : formatProblems(loaded.error));
    const summary = summarize(loaded.value);
    assert.deepEqual(summary.servers, [{ name: 'hub', target: 'https://hub.example/mcp', credential: 'bearer' }]);
    assert.deepEqual(summary.agents, [
      { name: 'triage', may: ['reader: allow hub: tools get_* and prompts *'] },
      { name: 'ghost', may: [] },
    ]);
    assert.deepEqual(summary.rules, [
      'no pushes: deny hub: tools push_*; deny nowhere: tools x when now.getHours() < 6',
    ]);
    assert.deepEqual(summary.policy.quotas, ['calls, for each agent: 60/min calls']);
    assert.deepEqual(summary.warnings, [
      'the policy speaks of server nowhere, which is not configured',
      'the policy speaks of agent ghost, which identify does not know',
    ]);
  });

  it('says what a policy extends, does to arguments, asks for and redacts', async () => {
    const more = `extends: library/per-agent-quotas
arguments: [ { name: here, tools: [x], remove: [/a], set: { /b: secret }, validate: true } ]
prices: [ { perCall: 0.01, perThousandTokens: 0.5 } ]
budgets: [ { name: daily, key: [agent], cost: 0.03/day } ]
redact: [ { server: crm, arguments: [/email] }, { server: hub, tools: [x], result: [/c] } ]
`;
    write('policy.yaml', POLICY.replace('quotas: [ { name: calls', 'quotas: [ { name: own') + more);
    write('token', TOKEN);
    const loaded = await loadConfig(write('sidecar.yaml', CONFIG), {});
    assert.ok(loaded.ok, loaded.ok ? '' : formatProblems(loaded.error));
    const summary = summarize(loaded.value);
    assert.deepEqual(summary.policy.extends, ['library/per-agent-quotas']);
    assert.deepEqual(summary.arguments, ['here, every server: tools x: remove /a; set /b; validate']);
    assert.deepEqual(summary.prices, ['every server: tools *: 0.01 per call, 0.5 per 1000 tokens']);
    assert.deepEqual(summary.redact, ['crm: tools *: arguments /email', 'hub: tools x: result /c']);
    assert.equal(summary.policy.quotas.at(-1), 'daily, for each agent: cost 0.03/day');
  });

  it('warns of a virtual server that has no endpoint', async () => {
    write('policy.yaml', `${POLICY}virtualServers: { both: { tools: [hub.a, other.b] }, one: { tools: [hub.a] } }\n`);
    write('token', TOKEN);
    const loaded = await loadConfig(write('sidecar.yaml', CONFIG), {});
    assert.ok(loaded.ok, loaded.ok ? '' : formatProblems(loaded.error));
    const warned = summarize(loaded.value).warnings.filter((warning) => warning.startsWith('virtual server'));
    assert.equal(warned.length, 1);
    assert.match(warned[0]!, /^virtual server both spans the servers hub, other, and serving several/);
  });

  it('warns of a way to know the caller that is never asked', async () => {
    const key = { type: 'apiKey', agents: { me: { env: 'KEY' } } };
    const uid = { type: 'uid', agents: { 1: 'me' } };
    const socket = { type: 'socket', agents: { me: './me.sock' } };
    const unix = { mcp: ['127.0.0.1:0', 'unix:./mcp.sock'] };
    for (const [identify, listen, expected] of [
      [[uid, key], {}, ['apiKey']],
      [[uid, socket, key, uid], {}, ['apiKey', 'uid']],
      [[key, uid], {}, []],
      [[uid, socket], {}, []],
      [[uid, key], unix, []],
    ] as const) {
      const text = JSON.stringify({ identify, listen, servers: { a: { command: 'x' } }, policy: { version: 1 } });
      const loaded = await loadConfig(write('sidecar.yaml', text), { KEY: 'x' });
      assert.ok(loaded.ok, loaded.ok ? '' : formatProblems(loaded.error));
      const { warnings } = summarize(loaded.value);
      assert.deepEqual(
        warnings,
        expected.map(
          (type) =>
            `identify: ${type} is never asked, since uid before it knows or refuses every caller: write it before uid`,
        ),
      );
    }
  });

  it('prints for people, and with --json for programs', () => {
    write('policy.yaml', POLICY);
    write('token', TOKEN);
    write('sidecar.yaml', CONFIG);
    const human = sidecar('check');
    assert.equal(human.status, 0, human.stderr);
    assert.match(human.stdout, /^sidecar\.yaml is valid\.\n/);
    assert.match(human.stdout, / {2}triage: reader: allow hub: tools get_\*/);
    const json = sidecar('check', '--json', '-c', 'sidecar.yaml');
    assert.equal(json.status, 0, json.stderr);
    assert.equal(JSON.parse(json.stdout).group, 'support');
    assert.doesNotMatch(human.stdout + json.stdout, new RegExp(`${TOKEN}|abc`));
  });

  it('a wrong configuration: exit code 2, every problem on stderr, or as JSON on stdout', () => {
    write('sidecar.yaml', 'groop: x\nservers: { a: { command: x } }\npolicy: { version: 1 }\n');
    const human = sidecar('check');
    assert.equal(human.status, 2);
    assert.equal(human.stdout, '');
    assert.equal(human.stderr, 'sidecar.yaml:1:1  groop: is not a known key; did you mean group?\n');
    const json = sidecar('check', '--json');
    assert.equal(json.status, 2);
    const { ok, problems } = JSON.parse(json.stdout);
    assert.deepEqual([ok, problems.length, problems[0].line], [false, 1, 1]);
  });
});

describe('without a configuration', () => {
  it('the demo is whole, in audit mode', async () => {
    const loaded = await discoverConfig(undefined, { folder, environment: {} });
    assert.ok(loaded.ok, loaded.ok ? '' : formatProblems(loaded.error));
    assert.equal(loaded.value.origin.kind, 'demo');
    assert.equal(loaded.value.policy.audit, true);
    assert.equal(loaded.value.config.audit.path, join(folder, 'audit.jsonl'));
    const { notebook } = loaded.value.config.servers;
    assert.ok(notebook?.kind === 'stdio' && existsSync(notebook.command[1]!));
  });

  it('sidecar.yaml comes before .mcp.json, and that before mcp.json', async () => {
    write('mcp.json', JSON.stringify({ mcpServers: { c: { command: 'x' } } }));
    const kindOf = async () => {
      const loaded = await discoverConfig(undefined, { folder, environment: {} });
      assert.ok(loaded.ok, loaded.ok ? '' : formatProblems(loaded.error));
      return Object.keys(loaded.value.config.servers).join();
    };
    assert.equal(await kindOf(), 'c');
    write('.mcp.json', JSON.stringify({ mcpServers: { b: { command: 'x' } } }));
    assert.equal(await kindOf(), 'b');
    write('sidecar.yaml', 'servers: { a: { command: x } }\npolicy: { version: 1 }\n');
    assert.equal(await kindOf(), 'a');
  });
});

describe('schema', () => {
  it('of sidecar.yaml has these keys, each of them closed', async () => {
    const schema = await jsonSchema({ policy: false });
    assert.deepEqual(Object.keys(schema.properties ?? {}), [
      'group',
      'listen',
      'identify',
      'servers',
      'policy',
      'bundle',
      'pins',
      'telemetry',
      'audit',
      'timeouts',
      'limits',
      'breaker',
      'cache',
      'drain',
      'quotaStore',
      'state',
      'log',
    ]);
    assert.equal(schema.additionalProperties, false);
    assert.deepEqual(schema.required, ['servers', 'policy']);
  });

  it('of policy.yaml, by --policy', () => {
    const { status, stdout, stderr } = sidecar('schema', '--policy', '--json');
    assert.equal(status, 0, stderr);
    const { properties } = JSON.parse(stdout);
    assert.ok('rules' in properties && 'extends' in properties);
  });
});

describe('the command line', () => {
  it('--version is the version of the package', () => {
    const manifest = JSON.parse(readFileSync(join(import.meta.dirname, '../../package.json'), 'utf8'));
    assert.equal(sidecar('--version').stdout, `${manifest.version}\n`);
  });

  for (const args of [['chekc'], ['check', '--nope'], ['check', 'extra'], ['run', '--log-level', 'loud']])
    it(`wrong use is 2: ${args.join(' ')}`, () => {
      const { status, stdout, stderr } = sidecar(...args);
      assert.equal(status, 2);
      assert.equal(stdout, '');
      assert.match(stderr, /^error: /);
      assert.doesNotMatch(stderr, / {4}at /);
    });
});
