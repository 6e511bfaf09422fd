/**
 * The injected pod's container really runs: the process is started with exactly the arguments and variables that the
 * patch describes, over the files that its mounts would hold, and a real client of the pod completes a governed call.
 *
 * What a kubelet does is done here by hand: each mount is a folder, and its path is moved below one of this test's.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import type { Mode } from '../../injector/container.ts';
import { readGroup } from '../../injector/group.ts';
import { applyPatch } from '../../injector/json-patch.ts';
import { inject } from '../../injector/patch.ts';
import { type Raw, rawAt, rawList } from '../../injector/raw-object.ts';
import { freePort } from '../support/free-port.ts';
import { CONFIG_MAP, CONTEXT, podWith } from '../support/injector.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { toolServer } from '../support/tool-server.ts';
import { until } from '../support/until.ts';

const MAIN = fileURLToPath(new URL('../../sidecar/main.ts', import.meta.url));
const KEY = 'the-key-of-the-group';

for (const mode of ['native', 'classic'] as const satisfies readonly Mode[])
  test(`a governed call through the ${mode} sidecar of an injected pod`, async (context) => {
    const upstream = await startScriptedUpstream();
    const answer = toolServer({
      era: 'legacy',
      tools: ['list_issues', 'delete_repository'].map((name) => ({ name, inputSchema: { type: 'object' } })),
    });
    // A server without a stream of its own.
    upstream.answer = (seen, response, request) =>
      seen.method === 'GET' ? response.writeHead(405).end() : answer(seen, response, request);
    context.after(() => upstream.close());
    const configMap = groupFor(upstream.url);
    // The one between is for the admin endpoint.
    const port = await freePort(3);
    const healthPort = port + 2;
    const pod = podWith(
      { containers: [{ name: 'triage', image: 'x', securityContext: { runAsUser: process.getuid!() } }] },
      {
        annotations: {
          'mcp-sidecar.io/inject': 'true',
          'mcp-sidecar.io/port': String(port),
          'mcp-sidecar.io/health-port': String(healthPort),
        },
      },
    );
    const injected = inject(pod, { ...CONTEXT, mode, groups: [readGroup(configMap)] });
    assert.ok(injected.ok && injected.value.kind === 'injected');
    const after = applyPatch(pod, injected.value.operations);
    const containers = [...rawList(rawAt(after, 'spec').initContainers), ...rawList(rawAt(after, 'spec').containers)];
    const sidecar = containers.find(({ name }) => name === 'mcp-sidecar')!;
    const agent = containers.find(({ name }) => name === 'triage')!;

    const folder = await mountAll(context, after, sidecar, configMap);
    const said = runContainer(context, sidecar, folder);
    await untilAnswers(`http://127.0.0.1:${healthPort}${String(rawAt(sidecar, 'startupProbe', 'httpGet').path)}`, said);

    const [{ value: url }] = agent.env as [{ value: string }];
    assert.equal(url, `http://127.0.0.1:${port}/mcp`);
    const client = new Client({ name: 'triage', version: '1' });
    context.after(() => client.close());
    await client.connect(new StreamableHTTPClientTransport(new URL(url)));
    assert.deepEqual(
      (await client.listTools()).tools.map(({ name }) => name),
      ['list_issues'],
    );
    const { content } = await client.callTool({ name: 'list_issues', arguments: {} });
    assert.deepEqual(content, [{ type: 'text', text: 'called' }]);
    await assert.rejects(client.callTool({ name: 'delete_repository', arguments: {} }), /Unknown tool/);
    assert.equal(upstream.seen.at(-1)!.headers.authorization, `Bearer ${KEY}`);

    // The mounted mcp.json names the same server.
    const { mcpServers } = JSON.parse(String(rawAt(after, 'metadata', 'annotations')['mcp-sidecar.io/mcp.json']));
    assert.deepEqual(mcpServers, { github: { type: 'http', url: `http://127.0.0.1:${port}/servers/github/mcp` } });
    // The audit knows the agent by the kernel's word for its container's user.
    await until(() => said().includes('"tool":"list_issues"'), said);
    assert.match(said(), /"agent":"triage","identifiedBy":"uid".*"tool":"list_issues".*"decision":"allow"/);
    assert.equal(said().includes(KEY), false);
  });

function groupFor(url: string): Raw {
  return {
    ...CONFIG_MAP,
    data: {
      'sidecar.yaml': `group: support
servers:
  github:
    url: ${url}
    auth: { type: bearer, token: { file: /run/secrets/mcp-sidecar/github-oauth/token } }
policy: /etc/mcp-sidecar/policy.yaml
`,
      'policy.yaml': `version: 1
roles: { reader: { allow: [ { server: github, tools: [list_*] } ] } }
agents: { triage: { roles: [reader] } }
`,
    },
  };
}

/** Writes what each mount of the sidecar would hold. @returns the folder that stands for the container's root. */
async function mountAll(context: TestContext, pod: Raw, sidecar: Raw, configMap: Raw): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'injected-'));
  context.after(() => rm(folder, { recursive: true, force: true }));
  const volumes = rawList(rawAt(pod, 'spec').volumes);
  for (const { name, mountPath } of rawList(sidecar.volumeMounts)) {
    const volume = volumes.find((one) => one.name === name);
    assert.ok(volume, `the mount ${String(name)} has no volume`);
    const path = join(folder, String(mountPath));
    await mkdir(path, { recursive: true });
    for (const [file, content] of Object.entries(filesOf(volume, configMap, folder)))
      await writeFile(join(path, file), content, { mode: 0o600 });
  }
  return folder;
}

function filesOf(volume: Raw, configMap: Raw, folder: string): Record<string, string> {
  if ('configMap' in volume) {
    assert.deepEqual(rawAt(volume, 'configMap').name, rawAt(configMap, 'metadata').name);
    const data = Object.entries(rawAt(configMap, 'data'));
    return Object.fromEntries(data.map(([file, content]) => [file, moved(String(content), folder)]));
  }
  if ('secret' in volume) return { token: KEY };
  if ('projected' in volume) return { token: 'a service account token' };
  assert.ok('emptyDir' in volume, JSON.stringify(volume));
  return {};
}

/** The container's absolute paths, below the folder that stands for its root. */
function moved(text: string, folder: string): string {
  return text.replaceAll(
    /(?<![\w/.])\/(?=etc\/mcp-sidecar|var\/lib\/mcp-sidecar|run\/secrets\/mcp-sidecar)/g,
    `${folder}/`,
  );
}

/** @returns what it has said, on both streams. */
function runContainer(context: TestContext, { args, env }: Raw, folder: string): () => string {
  const variables = rawList(env).map(({ name, value }) => [name, moved(String(value), folder)]);
  const child = spawn(process.execPath, [MAIN, ...(args as string[]).map((one) => moved(one, folder))], {
    cwd: dirname(MAIN),
    // Nothing of this process's own environment: a container has none of it.
    env: Object.fromEntries(variables),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
  const ended = new Promise((resolve) => child.once('close', resolve));
  context.after(async () => {
    child.kill('SIGTERM');
    await ended;
  });
  return () => said;
}

async function untilAnswers(url: string, said: () => string): Promise<void> {
  await until(
    () =>
      fetch(url).then(
        ({ status }) => status === 200,
        () => false,
      ),
    said,
  );
}
