/**
 * The webhook's two listeners: HTTPS for the API server, and plain HTTP for probes and metrics.
 *
 * Guarantees: a valid reply to anything that comes, well within the API server's deadline; a body is bounded in size and
 * time; nothing is awaited but the body. The certificate is swapped under open connections.
 */
import { createServer as createHttpServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer, type Server as HttpsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { err, ok, type Result } from '../policies/result.ts';
import type { KeyPair } from './certificate.ts';
import { type Cluster, type Outcome, review } from './review.ts';

export interface Address {
  readonly host: string;
  readonly port: number;
}

export interface WebhookPorts {
  readonly cluster: () => Cluster;
  /** After the reply is on its way. `outcome` is absent for what was no review. */
  readonly reviewed: (result: Reviewed) => void;
  /** Monotonic clock, milliseconds. */
  readonly now: () => number;
}

export interface Reviewed {
  readonly outcome: Outcome | undefined;
  readonly status: number;
  readonly durationMs: number;
}

/** An object of etcd has 1.5 MiB at most; a review holds it twice. */
const BODY_BYTES_MAX = 8 * 1024 * 1024;
/** The API server waits 5 s in all. */
const BODY_MS = 3_000;
/**
 * Longer than the API server keeps an idle connection (90 s, Go's http.Transport): it does not send a review again that
 * met with the closing of its connection, and the pod would be refused.
 */
const IDLE_MS = 120_000;
const CONNECTIONS_MAX = 1_024;
const HEADER_BYTES_MAX = 16 * 1024;

export class Webhook {
  readonly #server: HttpsServer;
  readonly #ports: WebhookPorts;
  #isDraining = false;

  constructor(pair: KeyPair, ports: WebhookPorts) {
    this.#ports = ports;
    this.#server = createHttpsServer(
      {
        cert: pair.certificate,
        key: pair.key,
        minVersion: 'TLSv1.2',
        maxHeaderSize: HEADER_BYTES_MAX,
        headersTimeout: BODY_MS,
        requestTimeout: BODY_MS,
        connectionsCheckingInterval: 500,
        handshakeTimeout: BODY_MS,
        keepAliveTimeout: IDLE_MS,
      },
      (request, response) => {
        void this.#respond(request, response).catch(() => response.destroy());
      },
    );
    this.#server.maxConnections = CONNECTIONS_MAX;
    this.#server.on('tlsClientError', (_error, socket) => socket.destroy());
    this.#server.on('clientError', (_error, socket) => socket.destroy());
  }

  listen(address: Address): Promise<Result<Address, string>> {
    return listenOn(this.#server, address);
  }

  /** From the next connection on. */
  use({ certificate, key }: KeyPair): void {
    this.#server.setSecureContext({ cert: certificate, key, minVersion: 'TLSv1.2' });
  }

  /** From now on each reply is the last on its connection: the API server finds another replica for the next one. */
  drain(): void {
    this.#isDraining = true;
  }

  /** Lets reviews under way finish. */
  close(graceMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#server.closeAllConnections(), graceMs);
      this.#server.close(() => {
        clearTimeout(timer);
        resolve();
      });
      this.#server.closeIdleConnections();
    });
  }

  async #respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const started = this.#ports.now();
    const finish = (status: number, body: string, outcome?: Outcome): void => {
      const isReview = outcome !== undefined;
      response.writeHead(status, {
        'content-type': isReview ? 'application/json' : 'text/plain; charset=utf-8',
        'content-length': Buffer.byteLength(body),
        // The rest of a body that was refused is not going to be read.
        ...(request.complete && !this.#isDraining ? {} : { connection: 'close' }),
      });
      response.end(body);
      this.#ports.reviewed({ outcome, status, durationMs: this.#ports.now() - started });
    };

    if (request.url?.split('?', 1)[0] !== '/inject') return finish(404, 'there is only /inject\n');
    if (request.method !== 'POST') return finish(405, 'only POST\n');
    const type = (request.headers['content-type'] ?? '').split(';', 1)[0]!.trim().toLowerCase();
    if (type !== 'application/json') return finish(415, 'the Content-Type must be application/json\n');
    const body = await readBody(request);
    if (!body.ok)
      return finish(body.error, body.error === 413 ? 'the body is too large\n' : 'the body did not arrive\n');
    let value: unknown;
    try {
      value = JSON.parse(body.value.toString());
    } catch {
      return finish(400, 'the body is not JSON\n');
    }
    const reviewed = review(value, this.#ports.cluster());
    if (!reviewed.ok) return finish(400, `${reviewed.error}\n`);
    finish(200, JSON.stringify(reviewed.value.reply), reviewed.value.outcome);
  }
}

function readBody(request: IncomingMessage): Promise<Result<Buffer, 408 | 413>> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let length = 0;
    const finish = (result: Result<Buffer, 408 | 413>) => {
      clearTimeout(timer);
      request.pause();
      resolve(result);
    };
    const timer = setTimeout(() => finish(err(408)), BODY_MS);
    request.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length > BODY_BYTES_MAX) return finish(err(413));
      chunks.push(chunk);
    });
    request.on('end', () => finish(ok(Buffer.concat(chunks, length))));
    request.on('error', () => finish(err(408)));
    request.on('close', () => finish(err(408)));
  });
}

export interface HealthPorts {
  /** Sentences for what is missing; none: ready. */
  readonly missing: () => readonly string[];
  readonly metricsText: () => string;
}

/** Probes and metrics. */
export async function openHealth(
  address: Address,
  ports: HealthPorts,
): Promise<Result<{ readonly address: Address; close(): Promise<void> }, string>> {
  const server = createHttpServer(
    { maxHeaderSize: HEADER_BYTES_MAX, headersTimeout: BODY_MS, requestTimeout: BODY_MS },
    (request, response) => {
      const send = (status: number, body: string) => {
        response.writeHead(status, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' });
        response.end(body);
      };
      const missing = ports.missing();
      switch (request.url) {
        case '/livez':
          return send(200, 'alive\n');
        case '/readyz':
          return missing.length === 0 ? send(200, 'ready\n') : send(503, `${missing.join('\n')}\n`);
        case '/metrics':
          return send(200, ports.metricsText());
        default:
          return send(404, 'try /livez, /readyz or /metrics\n');
      }
    },
  );
  server.on('clientError', (_error, socket) => socket.destroy());
  const listening = await listenOn(server, address);
  if (!listening.ok) return listening;
  return ok({
    address: listening.value,
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  });
}

function listenOn(server: Server | HttpsServer, { host, port }: Address): Promise<Result<Address, string>> {
  return new Promise((resolve) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      resolve(err(`cannot listen on ${host} port ${port}: ${error.code ?? error.message}`)),
    );
    server.listen(port, host, () => {
      const { address, port: given } = server.address() as AddressInfo;
      resolve(ok({ host: address, port: given }));
    });
  });
}
