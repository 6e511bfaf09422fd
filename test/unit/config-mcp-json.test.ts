// biome-ignore-all lint/suspicious/noTemplateCurlyInString: such strings are what the files under test hold.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { loadConfig } from '../../sidecar/config/load.ts';
import { expand, readMcpJson } from '../../sidecar/config/mcp-json.ts';
import { formatProblems } from '../../sidecar/config/problem.ts';
import { looksLikeToken, looksSecret, maskSecrets } from '../../sidecar/config/secret-shapes.ts';
import { parseYaml } from '../../sidecar/config/yaml-document.ts';

const folder = mkdtempSync(join(tmpdir(), 'config-mcp-json-'));
after(() => rmSync(folder, { recursive: true }));

const FILE = join(folder, '.mcp.json');
/** Made up at run time, so that no scanner takes this file for a leak. */
const TOKEN = ['gh', 'p_', 'x'.repeat(20), '1'].join('');

function read(servers: Record<string, unknown>, environment: Record<string, string> = {}, section = 'mcpServers') {
  const document = parseYaml(JSON.stringify({ [section]: servers }), FILE);
  assert.ok(document.ok);
  const imported = readMcpJson(document.value, environment);
  assert.ok(imported.ok);
  return imported.value;
}

function readOne(entry: unknown, environment: Record<string, string> = {}) {
  const imported = read({ one: entry }, environment);
  return { ...imported, server: imported.servers[0]?.server, faults: imported.problems.map(({ message }) => message) };
}

async function load(servers: Record<string, unknown>, environment: Record<string, string> = {}) {
  writeFileSync(FILE, JSON.stringify({ mcpServers: servers }, undefined, 2));
  return loadConfig(FILE, environment);
}

describe('an entry becomes a server', () => {
  const TABLE: [what: string, entry: unknown, server: unknown][] = [
    ['stdio', { command: 'npx', args: ['-y', 'x'] }, { command: ['npx', '-y', 'x'] }],
    [
      'stdio with env and cwd',
      { command: 'x', env: { A: '1' }, cwd: '/w' },
      { command: ['x'], env: { A: '1' }, cwd: '/w' },
    ],
    ['http', { type: 'http', url: 'https://a.example/mcp' }, { url: 'https://a.example/mcp' }],
    ['streamable-http', { type: 'streamable-http', url: 'https://a.example' }, { url: 'https://a.example' }],
    ['a url without a type', { url: 'https://a.example' }, { url: 'https://a.example' }],
    ['a variable', { url: 'https://${HOST}/mcp' }, { url: 'https://h.example/mcp' }],
    ['a default', { command: 'x', args: ['${NOPE:-d}', '${HOST:-d}'] }, { command: ['x', 'd', 'h.example'] }],
    ['env: in front', { command: '${env:HOST}' }, { command: ['h.example'] }],
    ['the folder', { command: 'x', args: ['${workspaceFolder}/y'] }, { command: ['x', `${folder}/y`] }],
    [
      'a bearer token by variable',
      { url: 'https://a.example', headers: { Authorization: 'Bearer ${HOST}' } },
      { url: 'https://a.example', auth: { type: 'bearer', token: { env: 'HOST' } } },
    ],
    [
      'an inline bearer token',
      { url: 'https://a.example', headers: { authorization: `bearer ${TOKEN}` } },
      { url: 'https://a.example', auth: { type: 'bearer', token: { env: 'ONE_TOKEN' } } },
    ],
    [
      'several headers',
      { url: 'https://a.example', headers: { 'X-Api-Key': TOKEN, 'X-Region': 'eu' } },
      {
        url: 'https://a.example',
        auth: {
          type: 'headers',
          headers: { 'X-Api-Key': { env: 'ONE_X_API_KEY' }, 'X-Region': { env: 'ONE_X_REGION' } },
        },
      },
    ],
    [
      'env with secrets, by name and by form',
      { command: 'x', env: { API_KEY: 'short', PLAIN: 'text', ODD: TOKEN, REF: '${HOST}' } },
      {
        command: ['x'],
        env: { API_KEY: { env: 'ONE_API_KEY' }, PLAIN: 'text', ODD: { env: 'ONE_ODD' }, REF: { env: 'HOST' } },
      },
    ],
  ];
  for (const [what, entry, server] of TABLE)
    it(what, () => assert.deepEqual(readOne(entry, { HOST: 'h.example' }).server, server));

  it('VS Code calls the section servers', () => {
    assert.deepEqual(read({ a: { command: 'x' } }, {}, 'servers').servers[0]?.server, { command: ['x'] });
  });

  it('names fit our charset and stay apart', () => {
    const { servers, notes } = read({
      'My Server': { command: 'x' },
      my__server: { command: 'y' },
      日本: { command: 'z' },
    });
    assert.deepEqual(
      servers.map(({ name }) => name),
      ['my-server', 'my-server-2', 'server'],
    );
    assert.equal(notes[0], 'server "My Server" is called my-server here');
  });
});

describe('an entry that cannot be used is one problem of its own:', () => {
  const TABLE: [what: string, entry: unknown, message: RegExp][] = [
    ['sse', { type: 'sse', url: 'https://a.example/sse' }, /type: sse\), which is not supported yet/],
    ['an unknown type', { type: 'ws', url: 'wss://a.example' }, /type that is not known here/],
    ['nothing', {}, /needs a command/],
    ['not a mapping', 'npx', /must be a mapping/],
    ['args in one text', { command: 'x', args: '-y z' }, /args must be a list/],
    ['numbers in env', { command: 'x', env: { A: 1 } }, /env must be a mapping of texts/],
    [
      'a variable that is not set',
      { url: 'https://${NOPE}/' },
      /needs the environment variable NOPE, which is not set/,
    ],
    ['an input', { command: 'x', args: ['${input:key}'] }, /asks a person for an input/],
    ['a strange variable', { command: 'x', args: ['${config:a.b}'] }, /form that is not known here/],
  ];
  for (const [what, entry, message] of TABLE)
    it(what, () => {
      const { server, faults } = readOne(entry);
      assert.equal(server, undefined);
      assert.match(faults.join('\n'), message);
    });

  it('the sidecar itself is left out: by address, by command', () => {
    for (const entry of [
      { url: 'http://localhost:4180/mcp' },
      { url: 'http://[::1]:4180/servers/a/mcp' },
      { command: 'npx', args: ['-y', 'mcp-sidecar@latest', 'stdio'] },
      { command: '/usr/bin/sidecar', args: ['stdio'] },
    ]) {
      const { servers, notes, problems } = read({ one: entry });
      assert.deepEqual([servers, problems], [[], []]);
      assert.match(notes.join(), /it would call itself/);
    }
    assert.equal(read({ one: { url: 'http://localhost:4190/mcp' } }).servers.length, 1);
  });
});

describe('in memory', () => {
  it('bad entries do not keep good ones from working, and are named with their line', async () => {
    const loaded = await load({
      good: { command: 'x' },
      old: { type: 'sse', url: 'https://a.example' },
      plain: { url: 'http://10.0.0.1/mcp', headers: { Authorization: `Bearer ${TOKEN}` } },
      unset: { url: 'https://a.example', headers: { Authorization: 'Bearer ${NOPE}' } },
    });
    assert.ok(loaded.ok, loaded.ok ? '' : formatProblems(loaded.error));
    const notes = loaded.value.notes.join('\n');
    assert.deepEqual(Object.keys(loaded.value.config.servers), ['good']);
    assert.match(notes, /left out: .*\.mcp\.json:6:5 {2}mcpServers\.old: speaks HTTP\+SSE/);
    assert.match(notes, /mcpServers\.plain: url must be https/);
    assert.match(notes, /mcpServers\.unset: needs the environment variable NOPE/);
    assert.match(notes, /library\/observe allows EVERYTHING/);
    assert.doesNotMatch(notes, new RegExp(TOKEN));
  });

  it('an inline secret works, with a warning that does not quote it', async () => {
    const loaded = await load({ hub: { url: 'https://a.example', headers: { Authorization: `Bearer ${TOKEN}` } } });
    assert.ok(loaded.ok);
    assert.equal(loaded.value.environment.HUB_TOKEN, TOKEN);
    assert.match(loaded.value.notes.join('\n'), /server hub: header Authorization holds a secret in \.mcp\.json/);
    assert.doesNotMatch(JSON.stringify([loaded.value.notes, loaded.value.config]), new RegExp(TOKEN));
  });

  it('a variable made up for one server never stands in for one that another server names', async () => {
    const loaded = await load(
      {
        hub: { url: 'https://a.example', headers: { Authorization: `Bearer ${TOKEN}` } },
        other: { url: 'https://b.example', headers: { Authorization: 'Bearer ${HUB_TOKEN}' } },
      },
      { HUB_TOKEN: 'the-real-one' },
    );
    assert.ok(loaded.ok);
    assert.equal(loaded.value.environment.HUB_TOKEN, 'the-real-one');
    assert.equal(loaded.value.environment.HUB_TOKEN_2, TOKEN);
  });

  it('nothing that can be used is an error', async () => {
    const loaded = await load({ old: { type: 'sse', url: 'https://a.example' } });
    assert.ok(!loaded.ok);
    assert.match(formatProblems(loaded.error), /mcpServers\.old.*\n.*names no server that can be used/);
  });

  it('a file that only leads back to the sidecar says why nothing is left, and what to do', async () => {
    const loaded = await load({ sidecar: { url: 'http://127.0.0.1:4180/mcp' }, off: { command: 'x', disabled: true } });
    assert.ok(!loaded.ok);
    const text = formatProblems(loaded.error);
    assert.match(text, /no server that can be used: server sidecar is this sidecar itself.*; server off is disabled/);
    assert.match(text, /run npx sidecar init before pasting/);
  });

  it('neither mcpServers nor servers is an error', async () => {
    writeFileSync(FILE, '{}');
    const loaded = await loadConfig(FILE, {});
    assert.ok(!loaded.ok);
    assert.match(formatProblems(loaded.error), /has neither mcpServers nor servers/);
  });
});

describe('what must not be written to a file', () => {
  it('secrets and variables in arguments and URLs', () => {
    for (const entry of [
      { command: 'x', args: ['--api-key', 'abc'] },
      { command: 'x', args: [`--header=${TOKEN}`] },
      { command: 'x', args: ['--token=${HOST}'] },
      { command: 'x', args: ['${HOST}'] },
      { url: 'https://a.example/?api_key=abc' },
      { url: 'https://${HOST}/' },
    ])
      assert.notEqual(read({ one: entry }, { HOST: 'h' }).servers[0]?.notWritable, undefined, JSON.stringify(entry));
    assert.equal(
      read({ one: { command: 'npx', args: ['-y', '@scope/server-thing', '.'] } }).servers[0]?.notWritable,
      undefined,
    );
  });
});

it('what looks like a secret by name', () => {
  for (const name of [
    'API_KEY',
    'apiKey',
    'X-Api-Key',
    'GITHUB_PERSONAL_ACCESS_TOKEN',
    'password',
    'Authorization',
    'AWS_SECRET_ACCESS_KEY',
  ])
    assert.ok(looksSecret(name), name);
  for (const name of ['MONKEY', 'MAX_TOKENS', 'TOKEN_FILE', 'PATH', 'X-Region', 'keyboard'])
    assert.ok(!looksSecret(name), name);
});

it('what looks like a secret by form', () => {
  for (const value of [TOKEN, `eyJ${'a'.repeat(9)}.bbb.ccc`, 'postgres://me:pw@db/x', 'a1'.repeat(20)])
    assert.ok(looksLikeToken(value), value);
  for (const value of [
    'text',
    '/usr/local/bin/some-long-path/to/a/program-1',
    'https://a.example/x',
    '@scope/server-filesystem',
  ])
    assert.ok(!looksLikeToken(value), value);
  assert.deepEqual(maskSecrets(['x', '--token', 'abc', '--name', 'abc', TOKEN]), [
    'x',
    '--token',
    '…',
    '--name',
    'abc',
    '…',
  ]);
});

it('expanding names the variable that is missing, never the text around it', () => {
  assert.deepEqual(
    expand(`${TOKEN}\${NOPE}`, () => undefined),
    {
      ok: false,
      error: 'needs the environment variable NOPE, which is not set',
    },
  );
  assert.deepEqual(
    expand('a${X:-}b', () => undefined),
    { ok: true, value: 'ab' },
  );
});
