/**
 * The command that the suite's client scenarios run: an agent without any credential, and a sidecar that has them.
 *
 * The suite passes the URL of its protected server as the last argument and the credential as JSON in
 * `MCP_CONFORMANCE_CONTEXT`. The credential reaches the sidecar by environment variable; the client never sees it.
 */
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { startSidecar } from '../support/sidecar-process.ts';

interface Context {
  readonly client_id: string;
  readonly client_secret?: string;
  readonly private_key_pem?: string;
  readonly signing_algorithm?: string;
}

const url = process.argv.at(-1);
const context: Context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? '{}');
const credential = context.client_secret ?? context.private_key_pem;
if (credential === undefined) throw new Error('MCP_CONFORMANCE_CONTEXT holds neither a secret nor a key');
const reference = { env: 'CONFORMANCE_CREDENTIAL' };

const configuration = {
  group: 'conformance',
  listen: { mcp: '127.0.0.1:0', admin: '127.0.0.1:0' },
  servers: {
    conformance: {
      url,
      auth: {
        type: 'client_credentials',
        clientId: context.client_id,
        ...(context.client_secret === undefined
          ? { privateKey: reference, algorithm: context.signing_algorithm }
          : { clientSecret: reference }),
      },
    },
  },
  policy: { version: 1, default: 'deny', rules: [{ name: 'tools', allow: [{ server: 'conformance', tools: ['*'] }] }] },
  audit: { path: './audit.jsonl' },
};

const sidecar = await startSidecar(JSON.stringify(configuration), { env: { [reference.env]: credential } });
try {
  const client = new Client({ name: 'credential-less-agent', version: '1.0.0' });
  await client.connect(new StreamableHTTPClientTransport(new URL('/servers/conformance/mcp', sidecar.mcp[0])));
  const { tools } = await client.listTools();
  for (const { name } of tools.slice(0, 1)) await client.callTool({ name });
  await client.close();
} finally {
  await sidecar.stop();
  process.stderr.write(sidecar.stderr());
}
