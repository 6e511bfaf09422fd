/**
 * The webhook's two listeners: HTTPS for the API server, and plain HTTP for probes and metrics.
 *
 * Guarantees: a valid reply to anything that comes, well within the API server's deadline; bodies and connections are
 * bounded; nothing is awaited but the body. The certificate is swapped under open connections.
 */
import { createServer as createHttpServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer, type Server as HttpsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { SecureContextOptions } from 'node:tls';
import { err, ok, type Result } from '../policies/result.ts';
import { Bodies, type BodyRefusal } from './bodies.ts';
import type { KeyPair } from './certificate.ts';
import { Connections } from './connections.ts';
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

/** @param outcome Of a review; the body is then its reply, and text otherwise. */
type Finish = (status: number, body: string, outcome?: Outcome) => void;

/** The API server takes no larger object either (MaxRequestBodyBytes). */
const BODY_BYTES_MAX = 3 * 1024 * 1024;
/** Eight of the largest. A byte of them costs about three, of the 256 MiB that the manifests give. */
const BODIES_BYTES_MAX = 24 * 1024 * 1024;
/** The API server waits 5 s in all. */
const BODY_MS = 3_000;
/**
 * Longer than the API server keeps an idle connection (90 s, Go's http.Transport): it does not send a review again that
 * met with the closing of its connection, and the pod would be refused. Only a review earns it.
 */
const IDLE_MS = 120_000;
/** Three API servers with 200 changes under way each, as they have it by default; some 50 KiB each. */
const CONNECTIONS_MAX = 640;
/** Kubelets and scrapers are few. */
const HEALTH_CONNECTIONS_MAX = 128;
const HEADER_BYTES_MAX = 16 * 1024;
/** How often connections are looked at that have said too little for too long. */
const CHECK_MS = 500;

export class Webhook {
  readonly #server: HttpsServer;
  readonly #clientCa: string | undefined;
  readonly #ports: WebhookPorts;
  readonly #connections: Connections;
  readonly #bodies = new Bodies({
    bytesMax: BODY_BYTES_MAX,
    bytesInAllMax: BODIES_BYTES_MAX,
    withinMs: BODY_MS,
  });
  #isDraining = false;

  /** @param clientCa PEM: whoever shows no certificate of one of these authorities is not heard; `undefined`: everybody is. */
  constructor(pair: KeyPair, clientCa: string | undefined, ports: WebhookPorts) {
    this.#clientCa = clientCa;
    this.#ports = ports;
    this.#server = createHttpsServer(
      {
        ...this.#contextOf(pair),
        requestCert: clientCa !== undefined,
        rejectUnauthorized: clientCa !== undefined,
        maxHeaderSize: HEADER_BYTES_MAX,
        headersTimeout: BODY_MS,
        requestTimeout: BODY_MS,
        connectionsCheckingInterval: CHECK_MS,
        handshakeTimeout: BODY_MS,
        keepAliveTimeout: IDLE_MS,
      },
      (request, response) => {
        this.#connections.touch(request.socket);
        const finish = this.#finisher(request, response);
        void this.#respond(request, finish)
          .catch(() => finish(500, 'the injector failed at this request: please report it\n'))
          // The reply had begun.
          .catch(() => response.destroy());
      },
    );
    this.#connections = new Connections(this.#server, CONNECTIONS_MAX);
    this.#server.on('tlsClientError', (_error, socket) => socket.destroy());
    this.#server.on('clientError', (_error, socket) => socket.destroy());
  }

  listen(address: Address): Promise<Result<Address, string>> {
    return listenOn(this.#server, address);
  }

  /** From the next connection on. */
  use(pair: KeyPair): void {
    this.#server.setSecureContext(this.#contextOf(pair));
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

  #contextOf({ certificate, key }: KeyPair): SecureContextOptions {
    return {
      cert: certificate,
      key,
      minVersion: 'TLSv1.2',
      ...(this.#clientCa === undefined ? {} : { ca: this.#clientCa }),
    };
  }

  /** What sends the reply to a request that has just come, and tells of it. */
  #finisher(request: IncomingMessage, response: ServerResponse): Finish {
    const started = this.#ports.now();
    return (status, body, outcome) => {
      const isReview = outcome !== undefined;
      response.writeHead(status, {
        'content-type': isReview ? 'application/json' : 'text/plain; charset=utf-8',
        'content-length': Buffer.byteLength(body),
        ...(status === 503 ? { 'retry-after': '1' } : {}),
        // Nobody who asks for anything else keeps a connection; and the rest of a body that was refused is not read.
        ...(isReview && !this.#isDraining ? {} : { connection: 'close' }),
      });
      response.end(body);
      this.#connections.touch(request.socket);
      this.#ports.reviewed({ outcome, status, durationMs: this.#ports.now() - started });
    };
  }

  async #respond(request: IncomingMessage, finish: Finish): Promise<void> {
    if (request.url?.split('?', 1)[0] !== '/inject') return finish(404, 'there is only /inject\n');
    if (request.method !== 'POST') return finish(405, 'only POST\n');
    const type = (request.headers['content-type'] ?? '').split(';', 1)[0]!.trim().toLowerCase();
    if (type !== 'application/json') return finish(415, 'the Content-Type must be application/json\n');
    const body = await this.#bodies.read(request);
    if (!body.ok) return finish(body.error, BODY_REFUSALS[body.error]);
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

const BODY_REFUSALS: Readonly<Record<BodyRefusal, string>> = {
  408: 'the body did not arrive\n',
  413: 'the body is too large\n',
  503: 'too many bodies are under way\n',
};

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
    {
      maxHeaderSize: HEADER_BYTES_MAX,
      headersTimeout: BODY_MS,
      requestTimeout: BODY_MS,
      connectionsCheckingInterval: CHECK_MS,
    },
    (request, response) => {
      connections.touch(request.socket);
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
  const connections = new Connections(server, HEALTH_CONNECTIONS_MAX);
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
