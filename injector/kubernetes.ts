/**
 * The few calls that the injector makes to the Kubernetes API, over undici.
 *
 * Why not @kubernetes/client-node: it brings some twenty packages and typed objects, which drop the fields that they do
 * not know; these are six verbs on JSON. Watches are read line by line as the API server writes them.
 *
 * The token is read again for each call: the kubelet renews it. No answer is larger than {@link ANSWER_BYTES_MAX}.
 */
import { readFile } from 'node:fs/promises';
import { Agent, request } from 'undici';
import { err, ok, type Result } from '../policies/result.ts';
import { isRaw, type Raw, rawAt, rawList } from './raw-object.ts';

export interface KubernetesAddress {
  /** `https://10.0.0.1:443`. */
  readonly server: string;
  /** PEM. */
  readonly ca: string;
  readonly token: () => Promise<string>;
}

export interface KubernetesFailure {
  /** 0: there was no answer. 413: there was one that is larger than what is read. */
  readonly status: number;
  readonly message: string;
}

export interface WatchEvent {
  readonly type: string;
  readonly object: Raw;
}

/** What HTTP calls it; the API server itself only says so of what it is sent. */
const TOO_LARGE = 413;
/** Of objects asked for at once, of which each may have a few bytes or a MiB. */
const PAGE_MAX = 500;
/** One object always fits: 1.5 MiB in etcd, and as JSON six bytes for a byte at worst (\u0001). */
const ANSWER_BYTES_MAX = 16 * 1024 * 1024;
const CALL_MS = 10_000;
const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';

/** How a pod reaches its own cluster. */
export async function inClusterAddress(
  environment: Readonly<Record<string, string | undefined>>,
  folder = SERVICE_ACCOUNT,
): Promise<Result<KubernetesAddress, string>> {
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port = '443' } = environment;
  if (host === undefined)
    return err('KUBERNETES_SERVICE_HOST is not set: the injector runs in a cluster; sidecar inject works on files');
  try {
    const ca = await readFile(`${folder}/ca.crt`, 'utf8');
    const server = `https://${host.includes(':') ? `[${host}]` : host}:${port}`;
    return ok({ server, ca, token: async () => (await readFile(`${folder}/token`, 'utf8')).trim() });
  } catch {
    return err(`${folder} has no ca.crt that can be read: the pod needs its service account token mounted`);
  }
}

export class Kubernetes {
  readonly #address: KubernetesAddress;
  readonly #agent: Agent;

  constructor(address: KubernetesAddress) {
    this.#address = address;
    this.#agent = new Agent({ connect: { ca: address.ca, timeout: 5_000 }, bodyTimeout: 0, headersTimeout: CALL_MS });
  }

  get(path: string): Promise<Result<Raw, KubernetesFailure>> {
    return this.#call('GET', path);
  }

  /**
   * All objects of a collection, however many and large they are: of those in too large an answer fewer are asked for.
   *
   * @param path without a query. @returns the version from which to watch.
   */
  async list(path: string, take: (object: Raw) => void): Promise<Result<string, KubernetesFailure>> {
    let from = '';
    let page = PAGE_MAX;
    for (;;) {
      const listed = await this.get(`${path}?limit=${page}${from}`);
      if (!listed.ok && listed.error.status === TOO_LARGE && page > 1) {
        page = Math.floor(page / 2);
        continue;
      }
      if (!listed.ok) return listed;
      for (const object of rawList(listed.value.items)) take(object);
      const { continue: next, resourceVersion } = rawAt(listed.value, 'metadata');
      if (typeof next !== 'string' || next === '') return ok(String(resourceVersion));
      from = `&continue=${encodeURIComponent(next)}`;
      // Large ones stand together, in the namespace of whoever has them: what follows may be small again.
      page = Math.min(2 * page, PAGE_MAX);
    }
  }

  create(path: string, object: Raw): Promise<Result<Raw, KubernetesFailure>> {
    return this.#call('POST', path, object, 'application/json');
  }

  /** Refused with 409 when the object has changed since `object` was read. */
  replace(path: string, object: Raw): Promise<Result<Raw, KubernetesFailure>> {
    return this.#call('PUT', path, object, 'application/json');
  }

  /** @param operations JSON Patch (RFC 6902). */
  patch(path: string, operations: readonly unknown[]): Promise<Result<Raw, KubernetesFailure>> {
    return this.#call('PATCH', path, operations, 'application/json-patch+json');
  }

  /**
   * The events of a watch, until the server ends it or `signal` does. An error event of the server's (410: the version
   * is too old) is an event like any other.
   */
  async *watch(path: string, signal: AbortSignal): AsyncGenerator<WatchEvent> {
    const { statusCode, body } = await request(`${this.#address.server}${path}`, {
      dispatcher: this.#agent,
      headers: { authorization: `Bearer ${await this.#address.token()}`, accept: 'application/json' },
      signal,
    });
    if (statusCode !== 200) {
      await body.dump();
      throw new Error(`the API server answered ${statusCode}`);
    }
    let rest: string[] = [];
    let length = 0;
    for await (const chunk of body.setEncoding('utf8')) {
      const lines = String(chunk).split('\n');
      const last = lines.pop()!;
      if (lines.length > 0) {
        lines[0] = rest.join('') + lines[0]!;
        rest = [];
        length = 0;
      }
      for (const line of lines) {
        if (line === '') continue;
        const event: unknown = JSON.parse(line);
        if (isRaw(event) && typeof event.type === 'string' && isRaw(event.object))
          yield { type: event.type, object: event.object };
      }
      rest.push(last);
      length += last.length;
      if (length > ANSWER_BYTES_MAX) throw new Error('an event of the watch is too large');
    }
  }

  close(): Promise<void> {
    return this.#agent.destroy();
  }

  async #call(
    method: 'GET' | 'POST' | 'PUT' | 'PATCH',
    path: string,
    body?: unknown,
    contentType?: string,
  ): Promise<Result<Raw, KubernetesFailure>> {
    try {
      const answer = await request(`${this.#address.server}${path}`, {
        method,
        dispatcher: this.#agent,
        headers: {
          authorization: `Bearer ${await this.#address.token()}`,
          accept: 'application/json',
          ...(contentType === undefined ? {} : { 'content-type': contentType }),
        },
        body: body === undefined ? null : JSON.stringify(body),
        signal: AbortSignal.timeout(CALL_MS),
      });
      const chunks: Buffer[] = [];
      let length = 0;
      for await (const chunk of answer.body as AsyncIterable<Buffer>) {
        length += chunk.length;
        if (length > ANSWER_BYTES_MAX) return err({ status: TOO_LARGE, message: 'the answer is too large' });
        chunks.push(chunk);
      }
      const value: unknown = JSON.parse(Buffer.concat(chunks).toString());
      if (answer.statusCode < 300 && isRaw(value)) return ok(value);
      const said = isRaw(value) && typeof value.message === 'string' ? value.message.slice(0, 500) : 'no reason given';
      return err({ status: answer.statusCode, message: said });
    } catch (error) {
      return err({ status: 0, message: error instanceof Error ? error.message : 'no answer' });
    }
  }
}
