/**
 * A whole session of an agent that has just started: connect, list, call, close, with the real MCP client and
 * connections that nobody used before. Direct, the agent discovers the authorization server, asks for its own token
 * and makes its own TLS connections; through the sidecar it speaks plain HTTP on loopback, and the sidecar's token
 * and connections are warm, because it outlives its agents.
 */
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Client, ClientCredentialsProvider, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { Agent, fetch } from 'undici';
import type { AuthorizationQuestion } from './authorization.ts';
import { toolName } from './call.ts';
import { makeCertificate } from './certificate.ts';
import { type Child, startChild } from './child.ts';
import type { SessionPair } from './report.ts';
import { type Sidecar, startSidecar } from './sidecar.ts';
import type { UpstreamQuestion } from './upstream.ts';

const clientId = 'bench-agents';
const scope = 'documents:search';

/** One session, in milliseconds. Every connection is new and closed at the end. */
async function session(
  url: URL,
  options: { ca?: string; authProvider?: ClientCredentialsProvider; headers?: Readonly<Record<string, string>> },
): Promise<number> {
  const agent = new Agent({ connect: options.ca === undefined ? {} : { ca: options.ca } });
  const startedAt = performance.now();
  const transport = new StreamableHTTPClientTransport(url, {
    // The global fetch would share connections between sessions.
    fetch: ((input: string | URL, init: object) => fetch(input, { ...init, dispatcher: agent })) as never,
    ...(options.authProvider !== undefined && { authProvider: options.authProvider }),
    ...(options.headers !== undefined && { requestInit: { headers: options.headers } }),
  });
  const client = new Client({ name: 'bench-agent', version: '1.0.0' });
  try {
    await client.connect(transport);
    const { tools } = await client.listTools();
    if (!tools.some(({ name }) => name === toolName)) throw new Error(`${url.origin} does not list ${toolName}`);
    const result = await client.callTool({ name: toolName, arguments: { query: 'revenue', limit: 5 } });
    if (result.isError === true) throw new Error(`${url.origin} answered the call with an error`);
    await transport.terminateSession();
    await client.close();
    return performance.now() - startedAt;
  } finally {
    await agent.destroy();
  }
}

/** A TLS server that wants tokens, its authorization server, and a sidecar before it; and what an agent needs for each. */
async function startAll(temporary: string, otlp: string, started: (Child | Sidecar)[]) {
  const upstream = startChild('upstream.ts');
  started.push(upstream);
  const authorization = startChild('authorization.ts');
  started.push(authorization);

  const { key, certificate } = makeCertificate(new Date());
  const listen: UpstreamQuestion = { kind: 'listen', tls: { key, cert: certificate } };
  const url = new URL('/mcp', (await upstream.ask<{ origin: string }>(listen)).origin);
  const secret = randomBytes(24).toString('base64url');
  const { origin: issuer } = await authorization.ask<{ origin: string }>({
    clients: [{ clientId, method: 'client_secret_basic', secret }],
    resources: [url.href],
    scopes: [scope],
  } satisfies AuthorizationQuestion);
  const protect: UpstreamQuestion = { kind: 'protect', resource: url.href, issuer, scopes: [scope] };
  await upstream.ask(protect);

  const ca = join(temporary, 'authority.pem');
  writeFileSync(ca, certificate);
  const auth = { type: 'client_credentials', clientId, clientSecret: { env: 'BENCH_CLIENT_SECRET' }, scopes: [scope] };
  const sidecar = await startSidecar(temporary, {
    server: { url: url.href, tls: { ca }, auth },
    otlp,
    environment: { BENCH_CLIENT_SECRET: secret },
  });
  started.push(sidecar);
  // A provider keeps its token, so a cold agent has a new one.
  const provider = () =>
    new ClientCredentialsProvider({ clientId, clientSecret: secret, scope, expectedIssuer: issuer });
  return {
    direct: () => session(url, { ca: certificate, authProvider: provider() }),
    throughSidecar: () => session(sidecar.mcp, { headers: sidecar.headers }),
  };
}

/** `pairs` pairs of sessions, direct and through the sidecar in turn, after three pairs that do not count. */
export async function measureColdSessions(temporary: string, otlp: string, pairs: number): Promise<SessionPair[]> {
  const started: (Child | Sidecar)[] = [];
  try {
    const { direct, throughSidecar } = await startAll(temporary, otlp, started);
    const measured: SessionPair[] = [];
    for (let pair = -3; pair < pairs; pair++) {
      const sessions: SessionPair = { directMs: await direct(), sidecarMs: await throughSidecar() };
      if (pair >= 0) measured.push(sessions);
    }
    return measured;
  } finally {
    await Promise.all(started.map((one) => one.stop()));
  }
}
