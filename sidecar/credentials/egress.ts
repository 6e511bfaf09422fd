/**
 * The one way to the network for what is no MCP traffic: bounded requests to authorization servers, their metadata, and
 * for policy bundles.
 *
 * Guarantees, for every request: 5 seconds in all and 64 KiB of answer, unless other bounds are given; no redirect is
 * followed; nothing is decompressed; plain http only to loopback; and the address that is *connected to* lies at most as near as the URLs which the
 * operator configured, so that a URL out of somebody's metadata cannot reach the inner network, this pod or a cloud's
 * metadata service (SSRF). The address is judged between resolving and connecting, so a name that resolves
 * differently the second time (DNS rebinding) gains nothing.
 *
 * Error texts name the origin only: paths and queries may carry what must not be logged. Uses node:http(s) with a
 * connection for each request: these are rare, and undici's index would cost more memory than all of this folder.
 */
import { type LookupAddress, lookup } from 'node:dns';
import * as http from 'node:http';
import * as https from 'node:https';
import { isIP, type LookupFunction } from 'node:net';
import { err, ok, type Result } from '../../policies/result.ts';
import { Zone, zoneOf } from './address-zone.ts';

/** PEM texts: a private authority, and a client certificate for mutual TLS. */
export interface EgressTls {
  readonly ca?: string | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
}

export interface Answer {
  readonly status: number;
  /** `Retry-After` in milliseconds; 0 when absent or a date. */
  readonly retryAfterMs: number;
  readonly etag: string | undefined;
  readonly body: string;
}

export interface Egress {
  /** `headers` go before the default `Accept: application/json`. */
  get(url: URL, signal: AbortSignal, headers?: Readonly<Record<string, string>>): Promise<Result<Answer, string>>;
  /** Sends a form (`application/x-www-form-urlencoded`). */
  post(
    url: URL,
    headers: Readonly<Record<string, string>>,
    form: URLSearchParams,
    signal: AbortSignal,
  ): Promise<Result<Answer, string>>;
}

export interface Bounds {
  /** The whole request, from resolving the name to the last byte. */
  readonly timeoutMs: number;
  readonly bodyBytes: number;
}

const BOUNDS: Bounds = { timeoutMs: 5000, bodyBytes: 64 * 1024 };

/** A failure that we found ourselves; its message is fit for a log. */
class Refusal extends Error {}

/** `configured`: the URLs which the operator wrote down; they say how near any request may go. */
export function createEgress(configured: readonly URL[], tls: EgressTls | undefined, bounds: Bounds = BOUNDS): Egress {
  async function send(
    url: URL,
    init: { readonly method: string; readonly headers: Readonly<Record<string, string>>; readonly body?: string },
    signal: AbortSignal,
  ): Promise<Result<Answer, string>> {
    if (url.protocol !== 'https:' && url.protocol !== 'http:') return err(`${url.protocol} URLs are not allowed`);
    if (url.username !== '' || url.password !== '')
      return err(`${url.origin}: the URL carries a user name or password`);
    const timeout = AbortSignal.timeout(bounds.timeoutMs);
    const either = AbortSignal.any([signal, timeout]);
    try {
      const reach = await unlessAborted(reachOf(configured), either);
      return ok(await exchange(url, init, reach, tls, bounds.bodyBytes, either));
    } catch (error) {
      if (timeout.aborted) return err(`${url.origin} did not answer within ${bounds.timeoutMs / 1000} s`);
      if (signal.aborted) return err(`the request to ${url.origin} was given up`);
      if (error instanceof Refusal) return err(`${url.origin} ${error.message}`);
      return err(`${url.origin} could not be reached (${(error as NodeJS.ErrnoException).code ?? 'unknown error'})`);
    }
  }

  return {
    get: (url, signal, headers) =>
      send(url, { method: 'GET', headers: { accept: 'application/json', ...headers } }, signal),
    post: (url, headers, form, signal) =>
      send(
        url,
        {
          method: 'POST',
          headers: { accept: 'application/json', 'content-type': 'application/x-www-form-urlencoded', ...headers },
          body: form.toString(),
        },
        signal,
      ),
  };
}

/** The nearest of the configured servers. One that has several addresses is as far as its farthest. */
async function reachOf(configured: readonly URL[]): Promise<Zone> {
  const zones = await Promise.all(
    configured.map(async (url) => {
      const addresses = await resolve(url.hostname).catch(() => []);
      return addresses.reduce<Zone>((farthest, { address }) => minimum(farthest, zoneOf(address)), Zone.NEVER);
    }),
  );
  // NEVER stands for no address at all, and for addresses that a configured server does not widen the rule to.
  return zones.reduce<Zone>((nearest, zone) => (zone !== Zone.NEVER && zone > nearest ? zone : nearest), Zone.PUBLIC);
}

/** `dns.lookup` takes no signal and may hang for longer than we wait. */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((done, fail) => {
    signal.throwIfAborted();
    signal.addEventListener('abort', () => fail(signal.reason), { once: true });
    promise.then(done, fail);
  });
}

const minimum = (a: Zone, b: Zone): Zone => (a < b ? a : b);

function resolve(hostname: string): Promise<readonly LookupAddress[]> {
  return new Promise((done, fail) => {
    lookup(bare(hostname), { all: true }, (error, addresses) => (error ? fail(error) : done(addresses)));
  });
}

/** `[::1]` → `::1`. */
const bare = (hostname: string): string => hostname.replace(/^\[(.*)\]$/, '$1');

function judge(address: string, protocol: string, reach: Zone): Refusal | undefined {
  const zone = zoneOf(address);
  if (zone > reach)
    return new Refusal(
      'lies on an inner address that discovery must not reach; if it is right, configure issuer or tokenEndpoint yourself',
    );
  if (protocol === 'http:' && zone !== Zone.LOOPBACK)
    return new Refusal('is plain http beyond loopback; https is needed');
  return undefined;
}

function exchange(
  url: URL,
  init: { readonly method: string; readonly headers: Readonly<Record<string, string>>; readonly body?: string },
  reach: Zone,
  tls: EgressTls | undefined,
  bodyBytesMax: number,
  signal: AbortSignal,
): Promise<Answer> {
  const host = bare(url.hostname);
  // Node does not resolve a literal address, so the hook below would not see it.
  const refusal = isIP(host) === 0 ? undefined : judge(host, url.protocol, reach);
  if (refusal !== undefined) return Promise.reject(refusal);

  const checkedLookup: LookupFunction = (hostname, options, callback) => {
    lookup(hostname, { ...options, all: true }, (error, addresses) => {
      const refused = error ?? addresses.map(({ address }) => judge(address, url.protocol, reach)).find(Boolean);
      const [first] = addresses ?? [];
      if (refused || first === undefined) callback(refused ?? new Refusal('has no address'), [], 0);
      else if (options.all) callback(null, addresses);
      else callback(null, first.address, first.family);
    });
  };

  const options: https.RequestOptions = {
    ...tls,
    method: init.method,
    headers: init.headers,
    agent: false,
    lookup: checkedLookup,
    signal,
  };
  return new Promise((done, fail) => {
    const request = (url.protocol === 'https:' ? https : http).request(url, options, (response) => {
      read(response, bodyBytesMax).then(done, fail);
    });
    request.on('error', fail);
    request.end(init.body);
  });
}

async function read(response: http.IncomingMessage, bytesMax: number): Promise<Answer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  // Leaving the loop destroys the response, and with it the connection.
  for await (const chunk of response) {
    bytes += (chunk as Buffer).length;
    if (bytes > bytesMax) throw new Refusal(`answered more than ${bytesMax / 1024} KiB`);
    chunks.push(chunk as Buffer);
  }
  const retryAfter = response.headers['retry-after'] ?? '';
  return {
    status: response.statusCode ?? 0,
    retryAfterMs: /^\d{1,6}$/.test(retryAfter) ? Number(retryAfter) * 1000 : 0,
    etag: response.headers.etag,
    body: Buffer.concat(chunks).toString('utf8'),
  };
}
