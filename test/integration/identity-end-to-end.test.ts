/**
 * Who is calling, through the whole sidecar: each way to know an agent gives it its own roles, quota and audit lines,
 * and what no way knows is refused before the server sees anything. (The ways by themselves: identity.test.ts.)
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fsPromises, { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import * as http from 'node:http';
import { syncBuiltinESMExports } from 'node:module';
import { platform, tmpdir } from 'node:os';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import { after, before, beforeEach, describe, mock, type TestContext, test } from 'node:test';
import { runAsOtherUser } from '../support/other-user.ts';
import { ACCEPT_BOTH, askLegacy, type RawAnswer, toolCall } from '../support/raw-http.ts';
import { type ScriptedUpstream, sendJson, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';

const OWN_UID = process.getuid?.() ?? -1;
const WRITER_UID = 10001;
const STRANGER_UID = 10002;
const needsLinux = platform() !== 'linux' && 'needs Linux';
const needsRoot = (needsLinux || OWN_UID !== 0) && 'needs root on Linux, to run a client as another user';

const POLICY = `
policy:
  version: 1
  default: deny
  roles:
    reader: { allow: [ { server: main, tools: [get_*] } ] }
    writer: { allow: [ { server: main, tools: [put_*] } ] }
  agents:
    triage: { roles: [reader] }
    author: { roles: [writer] }
    support: { roles: [reader, writer] }
  quotas:
    - { name: counted, key: [agent], calls: 2/min, when: 'tool.name.endsWith("_counted")' }
`;

let upstream: ScriptedUpstream;
before(async () => {
  upstream = await startScriptedUpstream();
  upstream.answer = (seen, response) => {
    const tools = ['get_x', 'put_x', 'drop_x'].map((name) => ({ name, inputSchema: { type: 'object' } }));
    const result = seen.json.method === 'tools/list' ? { tools } : { content: [] };
    sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result });
  };
});
after(() => upstream.close());
beforeEach(() => {
  upstream.seen.length = 0;
});

async function started(context: TestContext, identify: string): Promise<TestSidecar> {
  const sidecar = await startTestSidecar(
    `group: support\n${identify}\nservers: { main: { url: "${upstream.url}" } }${POLICY}`,
  );
  context.after(() => sidecar.close());
  return sidecar;
}

async function folderOf(context: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'identify-'));
  context.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

const LIST = { jsonrpc: '2.0', id: 1, method: 'tools/list' };

/** The reply's status, and its tools or the code of its error. */
function gist({ status, json: body }: Pick<RawAnswer, 'status' | 'json'>): unknown {
  if (body.error !== undefined) return [status, body.error.code];
  return body.result.tools?.map(({ name }: { name: string }) => name) ?? status;
}

async function lastAgents(sidecar: TestSidecar, count: number): Promise<unknown[]> {
  const lines = (await sidecar.auditLines()).filter((line) => line.event === undefined);
  return lines.slice(-count).map((line) => line.agent);
}

/** The same as {@link askLegacy}, from a process of another user. */
async function askAs(uid: number, base: string, message: unknown): Promise<Pick<RawAnswer, 'status' | 'json'>> {
  const code = `
    const [url, body, accept] = process.argv.slice(1);
    const headers = { accept, 'content-type': 'application/json', 'mcp-protocol-version': '2025-11-25' };
    require('node:http').request(url, { method: 'POST', agent: false, headers }, (reply) => {
      let text = '';
      reply.setEncoding('utf8').on('data', (chunk) => { text += chunk; });
      reply.on('end', () => console.log(JSON.stringify({ status: reply.statusCode, json: JSON.parse(text) })));
    }).end(body);`;
  const child = spawn(process.execPath, ['-e', code, `${base}/mcp`, JSON.stringify(message), ACCEPT_BOTH], {
    uid,
    cwd: '/',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  return (await json(child.stdout)) as Pick<RawAnswer, 'status' | 'json'>;
}

describe('uid', () => {
  test('two users are two agents, with their own rules and their own quota', { skip: needsRoot }, async (context) => {
    const sidecar = await started(
      context,
      `identify: [ { type: uid, agents: { ${OWN_UID}: triage, ${WRITER_UID}: author } } ]`,
    );
    assert.deepEqual(gist(await askLegacy(sidecar.base, LIST)), ['get_x']);
    assert.deepEqual(gist(await askAs(WRITER_UID, sidecar.base, LIST)), ['put_x']);
    assert.deepEqual(gist(await askLegacy(sidecar.base, toolCall('put_x'))), [200, -32602]);
    assert.equal(gist(await askAs(WRITER_UID, sidecar.base, toolCall('put_x'))), 200);
    assert.deepEqual(await lastAgents(sidecar, 4), ['triage', 'author', 'triage', 'author']);
  });

  test('an unknown user is 401, and the server hears nothing', { skip: needsRoot }, async (context) => {
    const sidecar = await started(context, `identify: [ { type: uid, agents: { ${OWN_UID}: triage } } ]`);
    const refused = await askAs(STRANGER_UID, sidecar.base, toolCall('get_x', {}, 'theirs'));
    assert.deepEqual([refused.status, refused.json.id, refused.json.error.code], [401, 'theirs', -31401]);
    assert.equal(upstream.seen.length, 0);
    const line = (await sidecar.auditLines()).at(-1);
    assert.match(line.reason, new RegExp(`uid ${STRANGER_UID} is not configured`));
    assert.equal(line.agent, undefined);
  });

  test('a kept-alive connection is looked up once', { skip: needsLinux }, async (context) => {
    const sidecar = await started(context, `identify: [ { type: uid, agents: { ${OWN_UID}: triage } } ]`);
    const opened = mock.method(fsPromises, 'open');
    syncBuiltinESMExports();
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    context.after(() => {
      agent.destroy();
      mock.restoreAll();
      syncBuiltinESMExports();
    });
    const lookups = () => opened.mock.calls.filter((call) => String(call.arguments[0]).startsWith('/proc/net/')).length;
    for (let index = 0; index < 5; index += 1) {
      const status = await new Promise((resolve, reject) => {
        const headers = { accept: ACCEPT_BOTH, 'content-type': 'application/json' };
        const request = http.request(`${sidecar.base}/mcp`, { method: 'POST', agent, headers }, (response) => {
          response.resume().on('end', () => resolve(response.statusCode));
        });
        request.on('error', reject).end(JSON.stringify(toolCall('get_x', {}, index)));
      });
      assert.equal(status, 200);
    }
    assert.equal(lookups(), 1);
    await askLegacy(sidecar.base, toolCall('get_x'));
    assert.equal(lookups(), 2);
  });
});

test('socket: the socket that was called names the agent, and the port beside it knows nobody', async (context) => {
  const folder = await folderOf(context);
  const sockets = { triage: join(folder, 'triage.sock'), author: join(folder, 'author.sock') };
  const sidecar = await started(context, `identify: [ { type: socket, agents: ${JSON.stringify(sockets)} } ]`);
  const askOver = (socketPath: string, message: unknown) =>
    new Promise<Pick<RawAnswer, 'status' | 'json'>>((resolve, reject) => {
      const headers = { accept: ACCEPT_BOTH, 'content-type': 'application/json' };
      const request = http.request({ socketPath, path: '/mcp', method: 'POST', agent: false, headers }, (response) => {
        json(response).then((body) => resolve({ status: response.statusCode ?? 0, json: body }), reject);
      });
      request.on('error', reject).end(JSON.stringify(message));
    });
  assert.deepEqual(gist(await askOver(sockets.triage, LIST)), ['get_x']);
  assert.deepEqual(gist(await askOver(sockets.author, LIST)), ['put_x']);
  assert.deepEqual(gist(await askOver(sockets.author, toolCall('get_x'))), [200, -32602]);
  assert.deepEqual(gist(await askLegacy(sidecar.base, LIST)), [401, -31401]);
  assert.deepEqual(await lastAgents(sidecar, 4), ['triage', 'author', 'author', undefined]);
  // As the umask leaves it: for its own user alone, with the usual one.
  assert.equal((await fsPromises.stat(sockets.triage)).mode & 0o777, 0o777 & ~process.umask());
});

test('socket: another user may be the agent whose socket it may open, and no other', {
  skip: needsRoot,
}, async (context) => {
  const folder = await folderOf(context);
  await fsPromises.chmod(folder, 0o755);
  const sockets = { triage: join(folder, 'triage.sock'), author: join(folder, 'author.sock') };
  const agents = { triage: { path: sockets.triage, mode: '0666' }, author: { path: sockets.author, mode: '0600' } };
  const sidecar = await started(context, `identify: [ { type: socket, agents: ${JSON.stringify(agents)} } ]`);
  const ask = (socketPath: string) =>
    runAsOtherUser(
      { request: new URL('node:http') },
      `const headers = ${JSON.stringify({ accept: ACCEPT_BOTH, 'content-type': 'application/json' })};
       request({ socketPath: ${JSON.stringify(socketPath)}, path: '/mcp', method: 'POST', headers }, (answer) => answer.pipe(process.stdout))
         .on('error', ({ code }) => console.log(JSON.stringify(code)))
         .end(${JSON.stringify(JSON.stringify(LIST))});`,
    ).then(JSON.parse);
  const listed = await ask(sockets.triage);
  assert.deepEqual(
    listed.result.tools.map(({ name }: { name: string }) => name),
    ['get_x'],
  );
  assert.equal(await ask(sockets.author), 'EACCES');
  assert.deepEqual(await lastAgents(sidecar, 1), ['triage']);
});

describe('apiKey', () => {
  const newKey = () => randomBytes(24).toString('base64url');

  test('a rotated file counts at once: replaced or edited in place', async (context) => {
    const folder = await folderOf(context);
    const file = join(folder, 'triage-key');
    const first = newKey();
    await writeFile(file, `${first}\n`);
    const sidecar = await started(context, `identify: [ { type: apiKey, agents: { triage: { file: ${file} } } } ]`);
    const statusWith = async (key: string) =>
      (await askLegacy(sidecar.base, toolCall('get_x'), { 'x-api-key': key })).status;
    assert.equal(await statusWith(first), 200);

    const second = newKey();
    await writeFile(`${file}.new`, second);
    await rename(`${file}.new`, file);
    assert.deepEqual([await statusWith(second), await statusWith(first)], [200, 401]);

    const third = newKey();
    await writeFile(file, third);
    assert.deepEqual([await statusWith(third), await statusWith(second)], [200, 401]);

    await rm(file);
    assert.equal(await statusWith(third), 401);
    assert.equal(upstream.seen.length, 3);
    const written = JSON.stringify(await sidecar.auditLines()) + sidecar.logged.join('');
    for (const key of [first, second, third]) assert.ok(!written.includes(key));
  });

  test('each agent has its own roles and its own quota', async (context) => {
    const folder = await folderOf(context);
    const keys = { triage: newKey(), author: newKey() };
    for (const [agent, key] of Object.entries(keys)) await writeFile(join(folder, agent), key);
    const sidecar = await started(
      context,
      `identify: [ { type: apiKey, agents: { triage: { file: ${folder}/triage }, author: { file: ${folder}/author } } } ]`,
    );
    const bearer = (key: string) => ({ authorization: `Bearer ${key}` });
    assert.deepEqual(gist(await askLegacy(sidecar.base, LIST, bearer(keys.triage))), ['get_x']);
    assert.deepEqual(gist(await askLegacy(sidecar.base, LIST, { 'x-api-key': keys.author })), ['put_x']);

    const spend = async (tool: string, key: string) =>
      (await askLegacy(sidecar.base, toolCall(tool), bearer(key))).status;
    const triage: number[] = [];
    for (let index = 0; index < 4; index += 1) triage.push(await spend('get_counted', keys.triage));
    assert.deepEqual(triage, [200, 200, 429, 429]);
    const author: number[] = [];
    for (let index = 0; index < 3; index += 1) author.push(await spend('put_counted', keys.author));
    assert.deepEqual(author, [200, 200, 429]);
  });
});

describe('several ways, in their order', () => {
  async function withKey(context: TestContext) {
    const folder = await folderOf(context);
    const key = randomBytes(24).toString('base64url');
    await writeFile(join(folder, 'key'), key);
    return { key: { 'x-api-key': key }, method: `{ type: apiKey, agents: { author: { file: ${folder}/key } } }` };
  }
  const uid = `{ type: uid, agents: { ${OWN_UID}: triage } }`;

  test('a key first: no key leaves it to the kernel, a wrong key does not', { skip: needsLinux }, async (context) => {
    const { key, method } = await withKey(context);
    const sidecar = await started(context, `identify: [ ${method}, ${uid} ]`);
    assert.deepEqual(gist(await askLegacy(sidecar.base, LIST, key)), ['put_x']);
    assert.deepEqual(gist(await askLegacy(sidecar.base, LIST)), ['get_x']);
    assert.deepEqual(gist(await askLegacy(sidecar.base, LIST, { 'x-api-key': 'wrong' })), [401, -31401]);
  });

  test('the kernel first: a key changes nothing', { skip: needsLinux }, async (context) => {
    const { key, method } = await withKey(context);
    const sidecar = await started(context, `identify: [ ${uid}, ${method} ]`);
    assert.deepEqual(gist(await askLegacy(sidecar.base, LIST, key)), ['get_x']);
    assert.deepEqual(await lastAgents(sidecar, 1), ['triage']);
  });
});

test('none configured: everyone is the group, whatever they say they are', async (context) => {
  const sidecar = await started(context, '');
  const headers = { authorization: 'Bearer author', 'x-api-key': 'author', cookie: 'agent=author' };
  assert.deepEqual(gist(await askLegacy(sidecar.base, LIST, headers)), ['get_x', 'put_x']);
  assert.deepEqual(await lastAgents(sidecar, 1), ['support']);
  for (const name of Object.keys(headers)) assert.equal(upstream.seen.at(-1)!.headers[name], undefined);
});
