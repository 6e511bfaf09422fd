/**
 * `node examples/quickstart/run.ts`: the sidecar's main job on real parts, told step by step.
 *
 * A real authorization server, two protected MCP servers and one over stdio, the sidecar as a process of its own, and
 * the official MCP client for two agents that hold nothing but a name.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { exportJWK, exportPKCS8, generateKeyPair } from 'jose';
import { type AuthorizationServer, startAuthorizationServer } from '../support/authorization-server.ts';
import { type ProtectedServer, startEverything } from './servers.ts';

const SIDECAR = fileURLToPath(new URL('../../sidecar/main.ts', import.meta.url));
const FILESYSTEM = fileURLToPath(import.meta.resolve('@modelcontextprotocol/server-filesystem/dist/index.js'));

/** What happened, for whoever wants to check it. */
export interface QuickstartReport {
  readonly tools: Readonly<Record<string, readonly string[]>>;
  readonly hiddenToolError: string;
  readonly quotaError: string;
  readonly filesystemText: string;
  readonly tokenRequests: number;
  readonly eras: readonly string[];
  // biome-ignore lint/suspicious/noExplicitAny: audit records are read by field
  readonly audit: readonly any[];
  /** No secret of the group, and no key of an agent, is in anything that was printed or written. */
  readonly leaks: readonly string[];
}

export async function quickstart(say: (line: string) => void): Promise<QuickstartReport> {
  const folder = await mkdtemp(join(tmpdir(), 'sidecar-quickstart-'));
  const everything = await startEverything();
  const research = await startEverything();
  const secrets = {
    secret: randomBytes(24).toString('base64url'),
    triage: randomBytes(24).toString('base64url'),
    writer: randomBytes(24).toString('base64url'),
  };
  const key = await generateKeyPair('ES256', { extractable: true });
  const authorizationServer = await startAuthorizationServer({
    clients: [
      { clientId: 'support-agents', method: 'client_secret_basic', secret: secrets.secret },
      { clientId: 'support-research', method: 'private_key_jwt', publicKey: await exportJWK(key.publicKey) },
    ],
    resources: [everything.url, research.url],
    scopes: ['mcp:use'],
  });
  for (const server of [everything, research]) server.requireTokens(authorizationServer.issuer, ['mcp:use']);
  say(`authorization server ${authorizationServer.issuer}`);
  say(`everything           ${everything.url} (asks for a token)`);
  say(`research             ${research.url} (asks for a token)`);

  await mkdir(join(folder, 'notes'));
  await writeFile(join(folder, 'notes', 'hello.txt'), 'A note that only the filesystem server can read.\n');
  await writeFile(join(folder, 'client-secret'), secrets.secret, { mode: 0o600 });
  await writeFile(join(folder, 'private-key.pem'), await exportPKCS8(key.privateKey), { mode: 0o600 });
  await writeFile(join(folder, 'triage-key'), secrets.triage, { mode: 0o600 });
  await writeFile(join(folder, 'writer-key'), secrets.writer, { mode: 0o600 });
  await writeFile(join(folder, 'sidecar.yaml'), configuration(everything, research));
  await writeFile(join(folder, 'policy.yaml'), POLICY);

  const sidecar = await startSidecar(folder);
  say(`sidecar              ${sidecar.base}`);
  say('');
  try {
    const report = await runAgents(sidecar.base, secrets, authorizationServer, say);
    await sidecar.stop();
    const auditText = await readFile(join(folder, 'audit.jsonl'), 'utf8');
    const audit = auditText
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    say('');
    say('The audit, one line for each request (shortened):');
    for (const line of audit.filter((one) => one.tool !== undefined)) {
      say(
        `  ${line.time}  ${line.agent.padEnd(6)}  ${line.decision.padEnd(5)}  ${line.server}.${line.tool}  ${line.rule ?? ''}  trace ${line.traceId}`,
      );
    }
    const written = auditText + sidecar.said();
    const leaks = Object.entries(secrets).flatMap(([name, value]) => (written.includes(value) ? [name] : []));
    return { ...report, tokenRequests: authorizationServer.tokenRequests(), audit, leaks };
  } finally {
    await sidecar.stop();
    await Promise.all([everything.close(), research.close(), authorizationServer.close()]);
    await rm(folder, { recursive: true, force: true });
  }
}

function configuration(everything: ProtectedServer, research: ProtectedServer): string {
  return `group: support-agents
listen: { mcp: 127.0.0.1:0, admin: 127.0.0.1:0 }
identify:
  - { type: apiKey, agents: { triage: { file: triage-key }, writer: { file: writer-key } } }
servers:
  everything:
    url: ${everything.url}
    auth: { type: client_credentials, clientId: support-agents, clientSecret: { file: client-secret }, scopes: [mcp:use] }
  research:
    url: ${research.url}
    auth: { type: client_credentials, clientId: support-research, privateKey: { file: private-key.pem }, scopes: [mcp:use] }
  files:
    command: [${JSON.stringify(process.execPath)}, ${JSON.stringify(FILESYSTEM)}, notes]
policy: ./policy.yaml
audit: { path: ./audit.jsonl }
`;
}

const POLICY = `version: 1
default: deny
roles:
  reader:
    allow:
      - { server: everything, tools: [echo, get-*] }
      - { server: files, tools: [list_*, read_*] }
  writer:
    allow:
      - { server: "*", tools: ["*"], prompts: ["*"], resources: ["*"] }
agents:
  triage: { roles: [reader] }
  writer: { roles: [writer] }
rules:
  - name: no environment
    deny: [ { server: everything, tools: [get-env] } ]
  - name: short echoes only
    deny: [ { server: everything, tools: [echo] } ]
    when: size(args.message) > 100
quotas:
  - { name: triage calls, when: 'agent.name == "triage"', key: [agent], calls: 5/min }
`;

async function runAgents(
  base: string,
  keys: { readonly triage: string; readonly writer: string },
  authorizationServer: AuthorizationServer,
  say: (line: string) => void,
): Promise<Omit<QuickstartReport, 'audit' | 'leaks' | 'tokenRequests'>> {
  const tools: Record<string, readonly string[]> = {};
  const eras: string[] = [];
  const connect = async (agent: 'triage' | 'writer', server: string, mode: 'legacy' | 'auto'): Promise<Client> => {
    const client = new Client({ name: agent, version: '1.0.0' }, { versionNegotiation: { mode } });
    const transport = new StreamableHTTPClientTransport(new URL(`${base}/servers/${server}/mcp`), {
      requestInit: { headers: { authorization: `Bearer ${keys[agent]}` } },
    });
    await client.connect(transport);
    eras.push(`${mode}: ${client.getNegotiatedProtocolVersion()}`);
    const listed = await client.listTools();
    tools[`${agent} at ${server}`] = listed.tools.map((tool) => tool.name);
    say(
      `${agent} (${mode}, ${client.getNegotiatedProtocolVersion()}) sees at ${server}: ${tools[`${agent} at ${server}`]!.join(', ')}`,
    );
    return client;
  };

  const triage = await connect('triage', 'everything', 'legacy');
  const echo = await triage.callTool({ name: 'echo', arguments: { message: 'hello' } });
  say(`triage calls echo: ${textOf(echo)}`);
  const hiddenToolError = await errorOf(triage.callTool({ name: 'get-env', arguments: {} }));
  say(`triage calls get-env, which is hidden: ${hiddenToolError}`);
  say(
    `triage echoes 200 characters: ${await errorOf(triage.callTool({ name: 'echo', arguments: { message: 'x'.repeat(200) } }))}`,
  );

  const files = await connect('triage', 'files', 'auto');
  const listing = tools['triage at files']!.includes('read_text_file') ? 'read_text_file' : 'read_file';
  const read = await files.callTool({ name: listing, arguments: { path: 'hello.txt' } });
  say(`triage reads a file: ${textOf(read).trim()}`);

  let quotaError = 'never';
  for (let count = 0; count < 10 && quotaError === 'never'; count += 1) {
    quotaError = await errorOf(triage.callTool({ name: 'echo', arguments: { message: `${count}` } }));
    if (quotaError === '') quotaError = 'never';
  }
  say(`triage calls on: ${quotaError}`);

  const writer = await connect('writer', 'everything', 'auto');
  say(
    `writer has a quota of its own: ${textOf(await writer.callTool({ name: 'echo', arguments: { message: 'still here' } }))}`,
  );
  const research = await connect('writer', 'research', 'auto');
  say(
    `writer at research, by private key: ${textOf(await research.callTool({ name: 'get-sum', arguments: { a: 2, b: 40 } }))}`,
  );
  say(`tokens asked for so far: ${authorizationServer.tokenRequests()} (one for each server, whoever calls)`);

  for (const client of [triage, files, writer, research]) await client.close();
  return { tools, hiddenToolError, quotaError, filesystemText: textOf(read), eras };
}

function textOf(result: unknown): string {
  const content = (result as { content?: { text?: string }[] }).content ?? [];
  return content.map((item) => item.text ?? '').join('');
}

/** The error of a call that is refused; empty when it was not. */
async function errorOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return '';
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

interface SidecarChild {
  readonly base: string;
  said(): string;
  stop(): Promise<void>;
}

async function startSidecar(folder: string): Promise<SidecarChild> {
  const child: ChildProcess = spawn(process.execPath, [SIDECAR, 'run', '--json'], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const listening = new Promise<string>((resolve) => {
    createInterface({ input: child.stdout! }).on('line', (line) => {
      const event = JSON.parse(line);
      if (event.event === 'listening') resolve(event.mcp[0]);
    });
  });
  const url = await Promise.race([listening, ended.then(() => undefined)]);
  if (url === undefined) throw new Error(`the sidecar did not start: ${said}`);
  return {
    base: url.replace(/\/mcp$/, ''),
    said: () => said,
    stop: async () => {
      child.kill('SIGTERM');
      await ended;
    },
  };
}

if (import.meta.main) {
  await quickstart((line) => process.stdout.write(`${line}\n`));
}
