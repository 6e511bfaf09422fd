/**
 * Stage 4. Path, method, Host, Origin and header hygiene: what can be refused by the head alone, before anybody is
 * identified or a byte of the body is read.
 *
 * Host and Origin are both checked, always: a page in a browser reaches a loopback port through DNS rebinding
 * (CVE-2025-66414, CVE-2025-66416), and CORS alone does not stop the request.
 */
import type { IncomingMessage } from 'node:http';
import type { Outcome, Stage } from '../compose.ts';
import type { Exchange, Route, Routed } from '../exchange.ts';
import type { Reason } from '../reason.ts';

export interface GuardPorts {
  /** The route a path leads to, or a sentence that says why it leads nowhere. */
  readonly routeOf: (pathname: string) => Route | string;
  /** Host names (lower-case, no port) by which the sidecar may be addressed. */
  readonly allowedHosts: ReadonlySet<string>;
  /** Origins allowed besides those of loopback: exact, lower-case, `https://host[:port]`. */
  readonly allowedOrigins: ReadonlySet<string>;
  /** RFC 9728 document for a path under `/.well-known/oauth-protected-resource`; `undefined` when callers present no token. */
  readonly resourceMetadata: ((request: IncomingMessage, resourcePath: string) => string) | undefined;
}

const METADATA_PATH = '/.well-known/oauth-protected-resource';
const LOOPBACK = new Set(['localhost', '127.0.0.1', '[::1]']);

export function guard(ports: GuardPorts): Stage<Exchange, Routed> {
  return (exchange, next): Outcome | Promise<Outcome> => {
    const { request } = exchange;
    const refusal = checkHeaders(request, ports);
    if (refusal !== undefined) return refusal;

    const url = request.url ?? '/';
    const query = url.indexOf('?');
    const pathname = query === -1 ? url : url.slice(0, query);
    if (ports.resourceMetadata !== undefined && pathname.startsWith(METADATA_PATH) && request.method === 'GET') {
      const resourcePath = pathname.slice(METADATA_PATH.length);
      if (resourcePath !== '' && typeof ports.routeOf(resourcePath) === 'string')
        return { kind: 'pathUnknown', detail: 'No such resource' };
      const body = ports.resourceMetadata(request, resourcePath);
      exchange.reply.head(200, {
        'content-type': 'application/json',
        'content-length': String(Buffer.byteLength(body)),
      });
      exchange.reply.end(body);
      return undefined;
    }

    const route = ports.routeOf(pathname);
    if (typeof route === 'string') return { kind: 'pathUnknown', detail: route };
    exchange.route = route;
    switch (request.method) {
      case 'POST':
        return checkBodyHeaders(request) ?? next(exchange as Routed);
      case 'GET':
      case 'DELETE':
        return next(exchange as Routed);
      default:
        return { kind: 'methodNotAllowed', allow: 'POST, GET, DELETE' };
    }
  };
}

function checkHeaders(request: IncomingMessage, { allowedHosts, allowedOrigins }: GuardPorts): Reason | undefined {
  const { headers, rawHeaders } = request;
  if (!allowedHosts.has(hostNameOf(headers.host ?? '')))
    return { kind: 'hostNotAllowed', value: headers.host ?? '(none)' };
  const { origin } = headers;
  if (origin !== undefined && !isAllowedOrigin(origin.toLowerCase(), allowedOrigins))
    return { kind: 'originNotAllowed', value: origin };

  // A page's image or link is a GET without Origin; browsers say where it comes from all the same.
  const site = headers['sec-fetch-site'];
  if (site === 'cross-site' && origin === undefined) return { kind: 'crossSite', value: 'Sec-Fetch-Site cross-site' };

  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index]!;
    // `Mcp_Method` becomes `Mcp-Method` behind some servers (CGI), so what we checked would not be what they read.
    if (name.includes('_'))
      return { kind: 'badHeader', detail: `header name ${JSON.stringify(name)} has an underscore` };
  }
  // Node keeps the first of some repeated headers, the last of others, and joins the rest: none of that is safe to judge by.
  if (rawHeaders.length !== 2 * Object.keys(headers).length) {
    const repeated = findRepeated(rawHeaders);
    if (repeated !== undefined) return { kind: 'badHeader', detail: `header ${JSON.stringify(repeated)} is repeated` };
  }
  return undefined;
}

function checkBodyHeaders({ headers }: IncomingMessage): Reason | undefined {
  const type = headers['content-type'] ?? '';
  const mediaType = type.split(';', 1)[0]!.trim().toLowerCase();
  if (mediaType !== 'application/json') return { kind: 'unsupportedMediaType', value: type === '' ? '(none)' : type };
  // JSON is UTF-8 (RFC 8259 section 8.1). What says otherwise would be read in two ways.
  const [, charset] = CHARSET.exec(type) ?? [];
  if (charset !== undefined && !/^utf-?8$/i.test(charset)) return { kind: 'unsupportedMediaType', value: type };
  const encoding = headers['content-encoding'];
  if (encoding !== undefined && encoding !== 'identity')
    return { kind: 'unsupportedMediaType', value: `Content-Encoding ${encoding}` };
  return undefined;
}

const CHARSET = /;\s*charset\s*=\s*"?([^";\s]*)/i;

/** List headers may be repeated (RFC 9110 section 5.3); those that decide something may not. */
function findRepeated(rawHeaders: readonly string[]): string | undefined {
  const seen = new Set<string>();
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index]!.toLowerCase();
    if (seen.has(name) && (DECIDING.has(name) || name.startsWith('mcp-'))) return name;
    seen.add(name);
  }
  return undefined;
}

const DECIDING = new Set([
  'host',
  'origin',
  'authorization',
  'x-api-key',
  'content-type',
  'content-length',
  'content-encoding',
  'transfer-encoding',
  'last-event-id',
  'traceparent',
]);

/** `localhost:4180` → `localhost`; `[::1]:4180` → `[::1]`. */
export function hostNameOf(host: string): string {
  const name = host.startsWith('[') ? host.slice(0, host.indexOf(']') + 1) : host.split(':', 1)[0]!;
  return name.toLowerCase();
}

function isAllowedOrigin(origin: string, allowed: ReadonlySet<string>): boolean {
  if (allowed.has(origin)) return true;
  const scheme = /^https?:\/\//.exec(origin);
  return scheme !== null && LOOPBACK.has(hostNameOf(origin.slice(scheme[0].length)));
}
