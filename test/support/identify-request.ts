/** A real HTTP server that asks an identity method about each request, and clients for it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Agent, createServer, get, type IncomingMessage, type RequestOptions } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import type { Identification } from '../../sidecar/identity/identify.ts';

type Identify = (request: IncomingMessage) => Identification | Promise<Identification>;

/** Answers each request with its identification as JSON. */
export async function serveIdentity(
  identify: Identify,
  listen: { host: string } | { path: string },
  onConnection?: (socket: Socket) => void,
) {
  const server = createServer(async (request, response) => {
    response.end(JSON.stringify(await identify(request)));
  });
  if (onConnection !== undefined) server.on('connection', onConnection);
  server.listen('host' in listen ? { ...listen, port: 0 } : listen);
  await once(server, 'listening');
  return {
    port: 'host' in listen ? (server.address() as AddressInfo).port : 0,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

export const oneConnection = (): Agent => new Agent({ keepAlive: true, maxSockets: 1 });

/** One request, over a connection of its own unless `agent` says otherwise. */
export async function askIdentity(target: RequestOptions): Promise<Identification> {
  const request = get({ agent: false, ...target });
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  return JSON.parse(await text(response));
}

/** The same from a process of another user. */
export async function askIdentityAs(uid: number, target: RequestOptions): Promise<Identification> {
  const code = `require('node:http').get({ agent: false, ...JSON.parse(process.argv[1]) }, (reply) => reply.pipe(process.stdout))`;
  const child = spawn(process.execPath, ['-e', code, JSON.stringify(target)], {
    uid,
    cwd: '/',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  return JSON.parse(await text(child.stdout));
}
