import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { jsonSchema } from '../../sidecar/commands/schema.ts';
import { loadConfig } from '../../sidecar/config/load.ts';
import { formatProblems } from '../../sidecar/config/problem.ts';
import { runAsOtherUser } from '../support/other-user.ts';

const folder = mkdtempSync(join(tmpdir(), 'config-load-'));
after(() => rmSync(folder, { recursive: true }));

const POLICY = 'version: 1\ndefault: deny\n';
writeFileSync(join(folder, 'policy.yaml'), POLICY);
writeFileSync(join(folder, 'broken.yaml'), 'version: 7\n');
writeFileSync(join(folder, 'secret'), 'shh\n');
writeFileSync(join(folder, 'empty'), '');
writeFileSync(join(folder, 'cert.pem'), 'certificate\n');
mkdirSync(join(folder, 'work'));

/** The smallest whole file; each case below changes one thing. */
const SERVER = 'servers: { a: { url: "https://a.example/mcp" } }\n';
const WHOLE = `policy: ./policy.yaml\n${SERVER}`;
const UNSIGNED =
  'is a URL, and what comes from there must be signed: write beside it whose signature counts, bundle: { keys: [./policy-key.pub.pem] } (sidecar policy bundle signs)';
const ENVIRONMENT = { TOKEN: 'hunter2', BLANK: '' };

async function load(text: string | Uint8Array, environment: Record<string, string> = ENVIRONMENT) {
  const file = join(folder, 'sidecar.yaml');
  writeFileSync(file, text);
  return loadConfig(file, environment);
}

async function faultsOf(text: string | Uint8Array): Promise<string[]> {
  const loaded = await load(text);
  return loaded.ok ? [] : formatProblems(loaded.error, folder).split('\n');
}

describe('what comes out of a whole file', () => {
  it('has every default, in milliseconds and bytes, and is frozen', async () => {
    const loaded = await load(WHOLE);
    assert.ok(loaded.ok);
    const { config } = loaded.value;
    assert.deepEqual(config.listen, {
      mcp: [
        { kind: 'tcp', host: '127.0.0.1', port: 4180, tls: undefined },
        { kind: 'tcp', host: '::1', port: 4180, tls: undefined },
      ],
      admin: { host: '127.0.0.1', port: 4181 },
    });
    assert.equal(config.timeouts.idle, 300_000);
    assert.equal(config.limits.body, 4_194_304);
    assert.equal(config.audit.path, join(folder, 'audit.jsonl'));
    assert.equal(config.telemetry, undefined);
    assert.deepEqual(config.servers.a, {
      kind: 'http',
      url: 'https://a.example/mcp',
      auth: { type: 'none' },
      dangerouslyAllowHttp: false,
    });
    assert.ok(Object.isFrozen(config) && Object.isFrozen(config.listen.mcp[0]) && Object.isFrozen(config.servers.a));
    assert.deepEqual(loaded.value.watch, [join(folder, 'policy.yaml')]);
  });

  it('takes every form that the schema has', async () => {
    const loaded = await load(`
group: support-agents
listen:
  mcp: [ "127.0.0.1:0", "unix:./a.sock", { address: "0.0.0.0:8443", tls: { cert: cert.pem, key: secret } } ]
  admin: "[::1]:4181"
  allowedHosts: [mcp.example]
identify:
  - { type: uid, agents: { 10001: triage } }
  - { type: socket, agents: { triage: ./triage.sock } }
  - { type: apiKey, agents: { writer: { file: ./secret } } }
servers:
  oauth:
    url: https://b.example/mcp
    auth: { type: client_credentials, clientId: me, clientSecret: { env: TOKEN }, scopes: [repo:read] }
    tls: { ca: cert.pem }
  fixed: { url: "http://127.0.0.1:9/mcp", auth: { type: headers, headers: { X-Api-Key: { env: TOKEN } } } }
  local: { command: [npx, -y, thing], env: { A: plain, B: { env: TOKEN } }, cwd: work, inheritEnv: [PATH] }
  word: { command: thing }
policy: { version: 1, default: deny }
telemetry: { otlp: "http://127.0.0.1:4317", sampleRatio: 0.5 }
timeouts: { idle: 500ms, total: 2h }
limits: { body: 1MB, event: 64KiB }
`);
    assert.ok(loaded.ok, loaded.ok ? '' : formatProblems(loaded.error));
    const { config, watch } = loaded.value;
    assert.equal(config.limits.body, 1_000_000);
    assert.equal(config.limits.event, 65_536);
    assert.deepEqual([config.timeouts.idle, config.timeouts.total], [500, 7_200_000]);
    assert.deepEqual(config.listen.mcp[1], { kind: 'unix', path: join(folder, 'a.sock') });
    assert.deepEqual(config.identify[2], { type: 'apiKey', agents: { writer: { file: join(folder, 'secret') } } });
    assert.ok(config.servers.local?.kind === 'stdio');
    assert.equal(config.servers.local.cwd, join(folder, 'work'));
    assert.ok(config.servers.word?.kind === 'stdio');
    assert.deepEqual(config.servers.word.command, ['thing']);
    assert.deepEqual(watch, []);
  });

  it('says each dangerous switch at each start', async () => {
    const server =
      '{ url: "http://a.example/mcp", auth: { type: bearer, token: { env: TOKEN } }, dangerouslyAllowHttp: true }';
    const store = '{ redis: "redis://b.example", password: { env: TOKEN }, dangerouslyAllowPlaintext: true }';
    const loaded = await load(`policy: ./policy.yaml\nservers: { a: ${server} }\nquotaStore: ${store}\n`);
    assert.ok(loaded.ok, loaded.ok ? '' : formatProblems(loaded.error));
    assert.deepEqual(loaded.value.notes, [
      'dangerouslyAllowHttp: the credential of server a may travel over plain http, where others can read it',
      'dangerouslyAllowPlaintext: the password of quotaStore may travel without TLS, where others can read it',
    ]);
    const switches = JSON.stringify(await jsonSchema({ policy: false })).match(/"dangerously\w+":/g) ?? [];
    const told = loaded.value.notes.map((note) => `"${note.split(':')[0]}":`);
    assert.deepEqual([...new Set(switches)].sort(), told.sort());
  });
});

const SECRET = 'must be { file: path } or { env: NAME }: a secret is never written here itself';
const DURATION = 'must be a duration with its unit, such as 500ms, 30s, 5m or 1h';

const BAD: [what: string, text: string, ...problems: string[]][] = [
  ['nothing', '', 'sidecar.yaml  is empty'],
  ['only a comment', '# nothing\n', 'sidecar.yaml  is empty'],
  ['a list', '- a\n', 'sidecar.yaml:1:1  must be a mapping'],
  ['a duplicate key', `${WHOLE}policy: b\n`, 'sidecar.yaml:3:1  this key stands here twice'],
  ['a tab', `${WHOLE}log:\n\tlevel: info\n`, 'sidecar.yaml:4:1  a tab cannot indent YAML: use spaces'],
  ['two documents', `${WHOLE}---\na: 1\n`, 'sidecar.yaml:3:1  a second document starts here: one file holds one'],
  ['a tag', `${WHOLE}group: !env X\n`, 'sidecar.yaml:3:8  tags (!name) are not used here'],
  [
    'an alias to nothing',
    `${WHOLE}group: *x\n`,
    'sidecar.yaml:3:8  this alias (*name) has no anchor (&name) before it',
  ],
  ['an alias to itself', `${WHOLE}log: &x { level: *x }\n`, 'sidecar.yaml:3:18  this alias contains itself'],
  [
    'anchors that multiply',
    `a: &a [${'x,'.repeat(20)}]\nb: &b [${'*a,'.repeat(20)}]\nc: [${'*b,'.repeat(20)}]\n`,
    'sidecar.yaml  uses anchors that multiply beyond measure',
  ],
  ['a bracket too few', 'servers: [\n', 'sidecar.yaml:1:10  this [ is not closed'],
  [
    'a bracket too few inside others: only the first slip counts',
    'servers: { a: { command: [npx, x }, b: { url: y } }\npolicy: "p\n',
    'sidecar.yaml:1:26  this [ is not closed',
  ],
  ['a quote too few', 'group: "a\nservers: {}\n', 'sidecar.yaml:1:8  this " is not closed'],
  [
    'a wrong indentation',
    'group: a\n  servers: [x]\n',
    'sidecar.yaml:1:8  a mapping cannot start here: a colon too many, or a wrong indentation',
  ],
  [
    'an unknown key',
    `groop: x\n${WHOLE}timeouts: { conect: 3s }\nzzz: 1\n`,
    'sidecar.yaml:1:1  groop: is not a known key; did you mean group?',
    'sidecar.yaml:4:13  timeouts.conect: is not a known key; did you mean connect?',
    'sidecar.yaml:5:1  zzz: is not a known key; known here: group, listen, identify, servers, policy, bundle, pins, telemetry, audit, timeouts, limits, breaker, cache, drain, quotaStore, state, log',
  ],
  ['no server', 'policy: ./policy.yaml\n', 'sidecar.yaml:1:1  servers: is missing: name at least one MCP server'],
  [
    'an empty mapping of servers',
    'policy: ./policy.yaml\nservers: {}\n',
    'sidecar.yaml:2:10  servers: must name at least one MCP server',
  ],
  [
    'two underscores in the name of a server',
    'policy: ./policy.yaml\nservers: { a__b: { command: x } }\n',
    'sidecar.yaml:2:12  servers.a__b: is not a server name: lower-case letters, digits and dashes, at most 63',
  ],
  [
    'url and command',
    'policy: ./policy.yaml\nservers: { a: { url: "https://a.example", command: x } }\n',
    'sidecar.yaml:2:43  servers.a.command: does not go together with the other keys here',
  ],
  [
    'neither url nor command',
    'policy: ./policy.yaml\nservers: { a: { auth: { type: none } } }\n',
    'sidecar.yaml:2:15  servers.a: needs a url (Streamable HTTP) or a command (stdio)',
  ],
  [
    'a command line in one text',
    'policy: ./policy.yaml\nservers: { a: { command: npx -y thing } }\n',
    'sidecar.yaml:2:26  servers.a.command: must be a list when it has arguments: [npx, -y, some-server]',
  ],
  [
    'an inline secret',
    'policy: ./policy.yaml\nservers: { a: { url: "https://a.example", auth: { type: bearer, token: hunter2 } } }\n',
    `sidecar.yaml:2:72  servers.a.auth.token: ${SECRET}`,
  ],
  [
    'a password in a URL',
    'policy: ./policy.yaml\nservers: { a: { url: "https://me:hunter2@a.example" } }\n',
    'sidecar.yaml:2:22  servers.a.url: must not carry a user name or password: use auth',
  ],
  [
    'an unknown grant',
    'policy: ./policy.yaml\nservers: { a: { url: "https://a.example", auth: { type: jwt } } }\n',
    'sidecar.yaml:2:57  servers.a.auth.type: must be one of client_credentials, bearer, headers, none',
  ],
  [
    'client credentials without any',
    'policy: ./policy.yaml\nservers: { a: { url: "https://a.example", auth: { type: client_credentials, clientId: me } } }\n',
    'sidecar.yaml:2:87  servers.a.auth.clientId: needs clientSecret or privateKey beside it',
  ],
  [
    'a credential over plain http',
    'policy: ./policy.yaml\nservers: { a: { url: "http://10.0.0.1", auth: { type: bearer, token: { env: TOKEN } } } }\n',
    'sidecar.yaml:2:22  servers.a.url: must be https: a credential is only sent over https, or over http to loopback (dangerouslyAllowHttp: true lets it through)',
  ],
  [
    'a token endpoint over plain http',
    'policy: ./policy.yaml\nservers: { a: { url: "https://a.example", auth: { type: client_credentials, clientId: me, clientSecret: { env: TOKEN }, tokenEndpoint: "http://as.example/token" } } }\n',
    'sidecar.yaml:2:136  servers.a.auth.tokenEndpoint: must be https (or http to loopback): the client secret is sent there',
  ],
  ['a duration without unit', `${WHOLE}timeouts: { idle: 30 }\n`, `sidecar.yaml:3:19  timeouts.idle: ${DURATION}`],
  [
    'a duration with a strange unit',
    `${WHOLE}timeouts: { idle: 1d }\n`,
    `sidecar.yaml:3:19  timeouts.idle: ${DURATION}`,
  ],
  [
    'a duration out of bounds',
    `${WHOLE}timeouts: { idle: 1ms }\n`,
    'sidecar.yaml:3:19  timeouts.idle: must lie between 10ms and 24h',
  ],
  [
    'a size without unit',
    `${WHOLE}limits: { body: 4096 }\n`,
    'sidecar.yaml:3:17  limits.body: must be a size with its unit, such as 64KiB, 1MiB or 1MB',
  ],
  [
    'a number out of bounds',
    `${WHOLE}limits: { batch: 9999 }\n`,
    'sidecar.yaml:3:18  limits.batch: must lie between 1 and 1000',
  ],
  ['half a number', `${WHOLE}limits: { depth: 9.5 }\n`, 'sidecar.yaml:3:18  limits.depth: must be a whole number'],
  [
    'a word for a switch',
    `${WHOLE}telemetry: { otlp: "http://a.example", metrics: maybe }\n`,
    'sidecar.yaml:3:49  telemetry.metrics: must be true or false',
  ],
  [
    'an unknown choice',
    `${WHOLE}log: { level: loud }\n`,
    'sidecar.yaml:3:15  log.level: must be one of debug, info, warn, error',
  ],
  [
    'no address',
    `${WHOLE}listen: { mcp: example.com:80 }\n`,
    'sidecar.yaml:3:16  listen.mcp: must be an IP address and a port, such as 127.0.0.1:4180 or [::1]:4180, or unix:/path',
  ],
  [
    'a port that does not exist',
    `${WHOLE}listen: { admin: "127.0.0.1:70000" }\n`,
    'sidecar.yaml:3:18  listen.admin: must be an IP address and a port, such as 127.0.0.1:4180 or [::1]:4180',
  ],
  [
    'the world for everyone',
    `${WHOLE}listen: { mcp: "0.0.0.0:4180" }\nlimits: { batch: 0 }\n`,
    'sidecar.yaml:3:16  listen.mcp[0]: listens beyond loopback, which needs TLS: { address, tls: { cert, key } }',
    'sidecar.yaml:3:16  listen.mcp[0]: listens beyond loopback, where anybody may call: say with identify who may',
    'sidecar.yaml:4:18  limits.batch: must lie between 1 and 1000',
  ],
  [
    'the admin port for everyone',
    `${WHOLE}listen: { admin: "0.0.0.0:1" }\n`,
    'sidecar.yaml:3:18  listen.admin: must be a loopback address: probes and metrics stay on this machine',
  ],
  [
    'one address twice',
    `${WHOLE}listen: { mcp: "127.0.0.1:4181" }\n`,
    'sidecar.yaml:3:16  listen.mcp[0]: this address is in use by another listener',
  ],
  [
    'an unknown way to identify',
    `${WHOLE}identify: [ { type: jwt } ]\n`,
    'sidecar.yaml:3:21  identify[0].type: jwt is not supported yet: use uid, socket or apiKey',
  ],
  [
    'a name for a user id',
    `${WHOLE}identify: [ { type: uid, agents: { root: x } } ]\n`,
    'sidecar.yaml:3:36  identify[0].agents.root: is not a user id (a number)',
  ],
  [
    'a quota store that is none',
    `${WHOLE}quotaStore: { redis: x }\n`,
    'sidecar.yaml:3:22  quotaStore.redis: must be redis://host:6379/0 or rediss://host:6379/0',
  ],
  [
    'a password in the address of the quota store',
    `${WHOLE}quotaStore: { redis: "redis://me:secret@redis:6379/0" }\n`,
    'sidecar.yaml:3:22  quotaStore.redis: must not carry a user name or password: use username and password',
  ],
  [
    'a password of the quota store that is not there',
    `${WHOLE}quotaStore: { redis: "rediss://redis:6379/0", password: { file: absent } }\n`,
    'sidecar.yaml:3:65  quotaStore.password.file: this file does not exist',
  ],
  [
    'a password of the quota store that would go over the network in the clear',
    `${WHOLE}quotaStore: { redis: "redis://redis:6379/0", password: { file: work } }\n`,
    'sidecar.yaml:3:22  quotaStore.redis: must be rediss: a password is only sent over TLS, or to loopback (dangerouslyAllowPlaintext: true lets it through)',
  ],
  [
    'what would have no effect in the address of the quota store',
    `${WHOLE}quotaStore: { redis: "rediss://redis:6379/0?password=x" }\n`,
    'sidecar.yaml:3:22  quotaStore.redis: must be redis://host:6379/0 or rediss://host:6379/0',
  ],
  [
    'a quota store of another kind',
    `${WHOLE}quotaStore: etcd\n`,
    'sidecar.yaml:3:13  quotaStore: must be memory or { redis: redis://… }',
  ],
  [
    'a prefix that could leave its hash tag',
    `${WHOLE}quotaStore: { redis: "redis://localhost", prefix: "{x" }\n`,
    'sidecar.yaml:3:51  quotaStore.prefix: must be letters, digits and . : / - _, at most 64',
  ],
  ['a policy by URL, unsigned', `policy: https://x.example/p\n${SERVER}`, `sidecar.yaml:1:9  policy: ${UNSIGNED}`],
  [
    'a policy over plain http',
    `policy: http://x.example/p\nbundle: { keys: [secret] }\n${SERVER}`,
    'sidecar.yaml:1:9  policy: must be https (or http to loopback): only from there a signed bundle is taken',
  ],
  [
    'a policy by another protocol',
    `policy: ftp://x.example/p\n${SERVER}`,
    'sidecar.yaml:1:9  policy: must be https (or http to loopback): only from there a signed bundle is taken',
  ],
  [
    'a policy by URL with a password',
    `policy: https://me:hunter2@x.example/p\nbundle: { keys: [secret] }\n${SERVER}`,
    'sidecar.yaml:1:9  policy: must not carry a user name or password',
  ],
  [
    'a bundle without a URL',
    `${WHOLE}bundle: { keys: [secret] }\n`,
    'sidecar.yaml:3:1  bundle: has no effect: policy is not the URL of a bundle',
  ],
  [
    'a bundle without keys, asked for too often',
    `policy: https://x.example/p\nbundle: { keys: [], poll: 1s }\n${SERVER}`,
    'sidecar.yaml:2:17  bundle.keys: must name at least one public key',
    'sidecar.yaml:2:27  bundle.poll: must lie between 10s and 24h',
  ],
  [
    'a key that is none',
    `policy: https://x.example/p\nbundle: { keys: [secret] }\n${SERVER}`,
    `sidecar.yaml:2:17  bundle.keys: ${join(folder, 'secret')} is neither a public key in PEM (-----BEGIN PUBLIC KEY-----) nor a public JWK`,
  ],
  [
    'what comes later',
    `policy: { version: 1 }
health: {}
identify: [ { type: introspection } ]
servers:
  a: { endpoints: [] }
  b: { url: "https://b.example", balance: weighted }
`,
    'sidecar.yaml:2:1  health: is not supported yet',
    'sidecar.yaml:3:21  identify[0].type: introspection is not supported yet: use uid, socket or apiKey',
    'sidecar.yaml:5:6  servers.a: endpoints is not supported yet: name one url',
    'sidecar.yaml:6:34  servers.b.balance: is not supported yet',
  ],
  [
    'what is no policy and could be a secret',
    `policy: s3cr3t\n${SERVER}`,
    'sidecar.yaml:1:9  policy: this file or folder does not exist',
  ],
  ['a missing policy file', `policy: ./nope.yaml\n${SERVER}`, 'sidecar.yaml:1:9  policy: nope.yaml does not exist'],
  [
    'a policy that is a list',
    `policy: []\n${SERVER}`,
    'sidecar.yaml:1:9  policy: must be a path, library/<name>, or the policy itself',
  ],
  [
    'a wrong shape, and beside it what is not there and a policy that is broken',
    `policy: ./broken.yaml
groop: x
identify: [ { type: nope }, { type: apiKey, agents: { me: { file: absent } } } ]
servers:
  a: { url: "https://a.example", auth: { type: bearer, token: { env: ABSENT } } }
  b: { command: x, colour: red }
`,
    'sidecar.yaml:2:1  groop: is not a known key; did you mean group?',
    'sidecar.yaml:3:21  identify[0].type: must be one of uid, socket, apiKey',
    'sidecar.yaml:3:67  identify[1].agents.me.file: this file does not exist',
    'sidecar.yaml:5:70  servers.a.auth.token.env: the environment variable ABSENT is not set',
    'sidecar.yaml:6:20  servers.b.colour: is not a known key; known here: url, auth, tls, dangerouslyAllowHttp, command, env, cwd, inheritEnv',
    'broken.yaml:1:10  version: must be 1, the version of the policy language',
  ],
  [
    'everything that is not there',
    `policy: ./policy.yaml
listen: { mcp: { address: "127.0.0.1:1", tls: { cert: nope.pem, key: work } } }
identify: [ { type: apiKey, agents: { me: { file: empty } } } ]
servers:
  a: { url: "https://a.example", auth: { type: bearer, token: { env: ABSENT } } }
  b: { command: x, env: { A: { env: BLANK } }, cwd: nope }
`,
    'sidecar.yaml:2:55  listen.mcp[0].tls.cert: this file does not exist',
    'sidecar.yaml:2:70  listen.mcp[0].tls.key: this is a folder, not a file',
    'sidecar.yaml:3:51  identify[0].agents.me.file: this file is empty',
    'sidecar.yaml:5:70  servers.a.auth.token.env: the environment variable ABSENT is not set',
    'sidecar.yaml:6:37  servers.b.env.A.env: the environment variable BLANK is empty',
    'sidecar.yaml:6:53  servers.b.cwd: this folder does not exist',
  ],
];

describe('a bad file is refused with every problem and its place:', () => {
  for (const [what, text, ...problems] of BAD)
    it(what, async () => {
      const faults = await faultsOf(text);
      assert.deepEqual(faults, problems);
      assert.doesNotMatch(faults.join('\n'), /hunter2/);
    });

  it('no policy: the message shows how to write one', async () => {
    const faults = await faultsOf(SERVER);
    assert.equal(faults.length, 1, 'on one line');
    assert.match(faults[0]!, /^sidecar\.yaml:1:1 {2}policy: is missing, /);
    const [, example] = /write it here \((policy: .*?)\), or start with/.exec(faults[0]!)!;
    assert.ok((await load(`${example}\n${SERVER}`)).ok, 'the example itself must be a policy');
  });

  it('a policy with a fault: the place in its own file, or in sidecar.yaml when it is inline', async () => {
    writeFileSync(join(folder, 'broken.yaml'), 'default: deny\nversion: 7\n');
    assert.match((await faultsOf(`policy: ./broken.yaml\n${SERVER}`))[0]!, /^broken\.yaml:2:10 {2}version: /);
    assert.match((await faultsOf(`policy:\n  version: 7\n${SERVER}`))[0]!, /^sidecar\.yaml:2:12 {2}policy\.version: /);
  });

  it('not UTF-8, a folder, nothing there, too large, too deep', async () => {
    assert.deepEqual(await faultsOf(new Uint8Array([0x61, 0x3a, 0x20, 0xff, 0xfe])), [
      'sidecar.yaml  is not UTF-8 text',
    ]);
    assert.deepEqual(await faultsOf('#'.repeat(1024 * 1024 + 1)), ['sidecar.yaml  is larger than 1 MiB']);
    const deep = await faultsOf('['.repeat(100_000));
    assert.equal(deep.length, 1);
    assert.match(deep[0]!, /^sidecar\.yaml:1:\d+ {2}is nested too deeply$/);
    for (const [path, message] of [
      [folder, `${folder}  is a folder: name the file in it`],
      [join(folder, 'nope'), 'nope  does not exist'],
    ] as const) {
      const loaded = await loadConfig(path, ENVIRONMENT);
      assert.ok(!loaded.ok);
      assert.equal(formatProblems(loaded.error, folder), message);
    }
  });

  it('a file that this user may not read', async () => {
    chmodSync(folder, 0o755);
    writeFileSync(join(folder, 'locked'), 'x');
    chmodSync(join(folder, 'locked'), 0);
    const text = `policy: ./policy.yaml\nservers: { a: { command: x, env: { A: { file: locked } } } }\n`;
    writeFileSync(join(folder, 'sidecar.yaml'), text);
    const printed = await runAsOtherUser(
      { loadConfig: new URL('../../sidecar/config/load.ts', import.meta.url) },
      `console.log(JSON.stringify(await loadConfig(${JSON.stringify(join(folder, 'sidecar.yaml'))}, {})));`,
    );
    const loaded = JSON.parse(printed);
    assert.equal(
      formatProblems(loaded.error, folder),
      'sidecar.yaml:2:47  servers.a.env.A.file: this file may not be read by this user',
    );
  });
});
