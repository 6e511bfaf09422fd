/**
 * The sockets on which agents connect: plain or TLS, TCP or unix. Hands each request to the pipeline; holds no rules.
 */
import { chmod } from 'node:fs/promises';
import * as http from 'node:http';
import { type AddressInfo, Server, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { err, ok, type Result } from '../policies/result.ts';
import { showAddress } from './config/quantity.ts';

export type ListenTarget =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number; readonly tls: ListenTls | undefined }
  /** `mode`: permissions to give the file; `undefined`: as the process's umask leaves it. */
  | { readonly kind: 'unix'; readonly path: string; readonly mode: number | undefined };

/** PEM texts. With `clientCa` a caller must show a certificate of one of these authorities. */
export interface ListenTls {
  readonly cert: string;
  readonly key: string;
  readonly clientCa: string | undefined;
}

export interface ListenLimits {
  readonly headersBytes: number;
  readonly connections: number;
}

export interface Listener {
  /** Where agents reach `/mcp` here. */
  readonly url: string;
  /** Accepts nobody any more, and lets connections without a request go. */
  stop(): void;
  /** Resolves when every answer has gone out in full: an agent that reads slowly may still be at it when its exchange is over. */
  flushed(): Promise<void>;
  /** Cuts what is left. */
  destroy(): void;
}

export interface ListenTimeouts {
  /** A caller gets this long to send its head, and its whole request: a slow one must not hold a place (slowloris). */
  readonly headMs: number;
  readonly requestMs: number;
  /** Longer than the idle time of common HTTP clients, so that it is they who close (RFC 9112 section 9.5). */
  readonly keepAliveMs: number;
  /** How often slow connections are looked for. */
  readonly lookMs: number;
}

const TIMEOUTS: ListenTimeouts = { headMs: 10_000, requestMs: 60_000, keepAliveMs: 75_000, lookMs: 2_000 };
/** How often sockets with something to send are looked at while stopping. */
const LOOK_MS = 20;

export interface ListenHandlers {
  onRequest(request: http.IncomingMessage, response: http.ServerResponse): void;
  onConnection?(socket: Socket): void;
  /** A connection could not be accepted, for want of file descriptors or memory: a sentence. The listener goes on. */
  onError(message: string): void;
  /** Something was refused here, before it became a request. */
  onRefused?(kind: RefusedKind): void;
}

/** `malformed`: not HTTP, or HTTP that can be read in two ways; `timeout`: a head or body that took too long. */
export type RefusedKind = 'malformed' | 'headTooLarge' | 'timeout' | 'expectation' | 'connect';

/** Problems come back as a sentence that says what to do. */
export async function openListener(
  target: ListenTarget,
  limits: ListenLimits,
  { onRequest, onConnection, onError, onRefused }: ListenHandlers,
  timeouts = TIMEOUTS,
): Promise<Result<Listener, string>> {
  const tls = target.kind === 'tcp' ? target.tls : undefined;
  const options: http.ServerOptions = {
    maxHeaderSize: limits.headersBytes,
    headersTimeout: timeouts.headMs,
    requestTimeout: timeouts.requestMs,
    keepAliveTimeout: timeouts.keepAliveMs,
    connectionsCheckingInterval: timeouts.lookMs,
  };
  const server = tls === undefined ? http.createServer(options) : await createTlsServer(options, tls);
  server.maxConnections = limits.connections;
  server.on('request', onRequest);
  server.on('clientError', (error, socket) => {
    const kind = refuseBrokenRequest(error, socket as Socket);
    if (kind !== undefined) onRefused?.(kind);
  });
  server.on('checkExpectation', (_request, response) => {
    onRefused?.('expectation');
    response.writeHead(417, { connection: 'close', 'content-length': 0 }).end();
  });
  server.on('connect', (_request, socket) => {
    onRefused?.('connect');
    socket.on('error', () => socket.destroy());
    socket.end('HTTP/1.1 405 Method Not Allowed\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
  });
  if (onConnection !== undefined) server.on('connection', onConnection);
  const sockets = new Set<Socket>();
  server.on(tls === undefined ? 'connection' : 'secureConnection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });

  const flushed = async () => {
    while ([...sockets].some(({ writableLength }) => writableLength > 0)) await delay(LOOK_MS);
  };

  const failure = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
    server.once('error', resolve);
    const listening = () => {
      server.off('error', resolve);
      resolve(undefined);
    };
    if (target.kind === 'tcp') server.listen({ host: target.host, port: target.port }, listening);
    else server.listen({ path: target.path }, listening);
  });
  if (failure !== undefined) return err(explain(target, failure));
  const url = urlOf(target, server);
  server.on('error', (error: NodeJS.ErrnoException) =>
    onError(`a connection to ${url} could not be accepted (${error.code ?? error.name})`),
  );
  if (target.kind === 'unix' && target.mode !== undefined) {
    const problem = await setMode(target.path, target.mode);
    if (problem !== undefined) {
      server.close();
      return err(problem);
    }
  }

  return ok({
    url,
    stop: () => {
      // HTTP's own `close` cuts each connection whose answer was handed over, though an agent may still be reading it.
      Server.prototype.close.call(server);
      void flushed().then(() => server.closeIdleConnections());
    },
    flushed,
    destroy: () => server.closeAllConnections(),
  });
}

async function setMode(path: string, mode: number): Promise<string | undefined> {
  try {
    await chmod(path, mode);
    return undefined;
  } catch (error) {
    const { code, name } = error as NodeJS.ErrnoException;
    return `the permissions of the socket ${path} cannot be set (${code ?? name}): choose a folder of another kind`;
  }
}

async function createTlsServer(options: http.ServerOptions, { cert, key, clientCa }: ListenTls): Promise<http.Server> {
  const { createServer } = await import('node:https');
  return createServer({
    ...options,
    cert,
    key,
    minVersion: 'TLSv1.2',
    ...(clientCa === undefined ? undefined : { ca: clientCa, requestCert: true, rejectUnauthorized: true }),
  });
}

/** What is not HTTP never becomes a request; it still gets an answer, where one can be written. `undefined`: the caller has only gone. */
function refuseBrokenRequest(error: NodeJS.ErrnoException, socket: Socket): RefusedKind | undefined {
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy();
    return undefined;
  }
  const [kind, status]: [RefusedKind, string] =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? ['headTooLarge', '431 Request Header Fields Too Large']
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? ['timeout', '408 Request Timeout']
        : ['malformed', '400 Bad Request'];
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
  return kind;
}

function urlOf(target: ListenTarget, server: http.Server): string {
  if (target.kind === 'unix') return `unix:${target.path}`;
  const { port } = server.address() as AddressInfo;
  return `${target.tls === undefined ? 'http' : 'https'}://${showAddress({ host: target.host, port })}/mcp`;
}

function explain(target: ListenTarget, error: NodeJS.ErrnoException): string {
  const where = target.kind === 'unix' ? target.path : `${target.host} port ${target.port}`;
  switch (error.code) {
    case 'EADDRINUSE':
      return `${where} is in use by another process: stop it, or choose another address (listen.mcp)`;
    case 'EADDRNOTAVAIL':
    case 'EAFNOSUPPORT':
      return `this machine has no address ${where}: take it out of listen.mcp`;
    case 'EACCES':
      return `not allowed to listen on ${where}: choose a port above 1023, or a folder that may be written (listen.mcp)`;
    case 'ENOENT':
      return `the folder of ${where} does not exist: make it, or choose another path (listen.mcp)`;
    default:
      return `cannot listen on ${where}: ${error.code ?? error.message}`;
  }
}
