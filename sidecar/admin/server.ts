/**
 * The admin listener: probes for the kubelet, metrics for the scraper, and a page that says so.
 *
 * Guarantees: only GET and HEAD; nothing here changes anything; never throws; a slow or stuck client cannot hold it
 * (short timeouts, few connections). What could tell a stranger something is only answered to a Host that is an
 * address or `localhost`: a web page that reaches us by DNS rebinding comes with the name of its own site.
 * It serves no MCP and knows no caller: keeping it on loopback, or a pod's own address, is the configuration's part.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, isIP } from 'node:net';
import { err, ok, type Result } from '../../policies/result.ts';

/** One thing that must hold before agents may be sent here. */
export interface Probe {
  readonly name: string;
  /** A sentence while it does not hold; `undefined` while it does. Must be cheap. */
  readonly failing: () => string | undefined;
}

export interface AdminServerOptions {
  readonly listen: { readonly host: string; readonly port: number };
  /** The key of sidecar.yaml that says so, for people. */
  readonly key: 'listen.admin' | 'listen.health';
  /** All of them must hold for `/readyz` to answer 200. */
  readonly probes: readonly Probe[];
  /** Prometheus text format 0.0.4. */
  readonly metricsText: () => string | Promise<string>;
}

export interface AdminServer {
  readonly address: { readonly host: string; readonly port: number };
  /** Stops listening and cuts what is open. */
  close(): Promise<void>;
}

const CONNECTIONS_MAX = 64;
const TIMEOUT_MS = 5_000;
const HEADER_BYTES_MAX = 8_192;

const PAGE = `MCP sidecar

/livez    200 while the process runs
/readyz   200 when agents may be sent here, otherwise 503 and what is missing
/metrics  Prometheus
`;

const NO_SUCH_PAGE = 'no such page: try /livez, /readyz or /metrics\n';

/** Opens the listener. An address that cannot be had is an error in one sentence. */
export function createAdminServer(options: AdminServerOptions): Promise<Result<AdminServer, string>> {
  const server = createServer(
    {
      maxHeaderSize: HEADER_BYTES_MAX,
      headersTimeout: TIMEOUT_MS,
      requestTimeout: TIMEOUT_MS,
      keepAliveTimeout: TIMEOUT_MS,
      connectionsCheckingInterval: 1_000,
    },
    (request, response) => {
      respond(request, response, options).catch(() => response.destroy());
    },
  );
  server.maxConnections = CONNECTIONS_MAX;
  // Answers nothing to what is not HTTP.
  server.on('clientError', (_error, socket) => socket.destroy());

  const { host, port } = options.listen;
  return new Promise((resolve) => {
    server.on('error', (error: NodeJS.ErrnoException) => {
      // `::` stands for every address; some containers have no IPv6.
      if (error.code === 'EAFNOSUPPORT' && host === '::') {
        server.listen(port, '0.0.0.0');
        return;
      }
      const why =
        error.code === 'EADDRINUSE'
          ? `it is in use by another process: stop it, or choose another address (${options.key})`
          : error.message;
      resolve(err(`${options.key}: cannot listen on ${host} port ${port}: ${why}`));
    });
    server.on('listening', () => {
      server.removeAllListeners('error');
      server.on('error', () => {});
      const address = server.address() as AddressInfo;
      resolve(ok({ address: { host: address.address, port: address.port }, close: () => closeServer(server) }));
    });
    server.listen(port, host);
  });
}

async function respond(request: IncomingMessage, response: ServerResponse, options: AdminServerOptions): Promise<void> {
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('allow', 'GET, HEAD');
    // The body is not going to be read.
    response.setHeader('connection', 'close');
    return send(response, 405, 'only GET and HEAD\n');
  }
  const path = request.url?.split('?', 1)[0];
  switch (path) {
    case '/livez':
      return send(response, 200, 'alive\n');
    case '/readyz':
      return sendReadiness(response, options.probes);
    case '/metrics':
    case '/':
      if (!isOwnHost(request.headers.host)) return send(response, 403, 'this Host is not allowed: use the address\n');
      if (path === '/' && options.key === 'listen.health') return send(response, 404, NO_SUCH_PAGE);
      if (path === '/') return send(response, 200, PAGE);
      return sendMetrics(response, options);
    default:
      return send(response, 404, NO_SUCH_PAGE);
  }
}

function sendReadiness(response: ServerResponse, probes: readonly Probe[]): void {
  const missing = probes.flatMap(({ name, failing }) => {
    const reason = reasonOf(failing);
    return reason === undefined ? [] : [{ name, reason }];
  });
  if (missing.length === 0) send(response, 200, 'ready\n');
  else send(response, 503, `${JSON.stringify({ ready: false, missing })}\n`, 'application/json');
}

/** A probe that throws is not ready: unknown refuses. */
function reasonOf(failing: Probe['failing']): string | undefined {
  try {
    return failing();
  } catch {
    return 'the probe itself failed';
  }
}

async function sendMetrics(response: ServerResponse, { metricsText }: AdminServerOptions): Promise<void> {
  try {
    send(response, 200, await metricsText(), 'text/plain; version=0.0.4; charset=utf-8');
  } catch {
    send(response, 500, 'the metrics cannot be collected\n');
  }
}

function send(response: ServerResponse, status: number, body: string, type = 'text/plain; charset=utf-8'): void {
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  });
  // Node leaves the body out for HEAD.
  response.end(body);
}

/** An IP address or `localhost`, with or without a port. */
function isOwnHost(host: string | undefined): boolean {
  const name = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+))(?::\d{1,5})?$/.exec(host ?? '');
  if (name === null) return false;
  if (name[1] !== undefined) return isIP(name[1]) === 6;
  return name[2]!.toLowerCase() === 'localhost' || isIP(name[2]!) === 4;
}

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
