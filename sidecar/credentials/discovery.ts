/**
 * Finds the token endpoint of an MCP server: protected-resource metadata (RFC 9728), then authorization-server
 * metadata (RFC 8414, OpenID Connect Discovery), in the order of the MCP authorization specification.
 *
 * `request…` does I/O and decides nothing; `process…` and `…Urls` are pure and decide everything. Metadata is believed
 * only where it speaks for the one it was asked from: `resource` must cover the server, `issuer` must be exactly the
 * issuer asked for. A missing document (4xx) means the next place; anything else that is not a document ends discovery,
 * so that whoever can break one answer cannot choose another.
 */
import { err, ok, type Result } from '../../policies/result.ts';
import type { Answer, Egress } from './egress.ts';

export interface ResourceMetadata {
  /** As the server spells it: what the authorization server knows it by (RFC 8707). */
  readonly resource: string;
  readonly authorizationServers: readonly string[];
}

export interface AuthorizationServerMetadata {
  readonly issuer: string;
  readonly tokenEndpoint: URL;
  /** `token_endpoint_auth_methods_supported`; the default is RFC 8414's. */
  readonly authMethods: readonly string[];
}

/** RFC 8707, MCP authorization: no fragment, no trailing slash; scheme and host in lower case. */
export function canonicalResource(server: URL): string {
  const url = new URL(server);
  url.hash = '';
  return url.search === '' ? url.href.replace(/\/$/, '') : url.href;
}

/** Where a server that names no `resource_metadata` keeps it: by its path, then at the root. */
export function resourceMetadataUrls(server: URL): readonly URL[] {
  const path = server.pathname.replace(/\/$/, '');
  const places = ['/.well-known/oauth-protected-resource'];
  if (path !== '') places.unshift(`/.well-known/oauth-protected-resource${path}${server.search}`);
  return places.map((place) => new URL(place, server.origin));
}

/** RFC 8414 section 3.1, then OpenID Connect Discovery section 4.1 (inserted, then appended to the path). */
export function authorizationServerMetadataUrls(issuer: URL): readonly URL[] {
  const path = issuer.pathname.replace(/\/$/, '');
  const places = [`/.well-known/oauth-authorization-server${path}`, `/.well-known/openid-configuration${path}`];
  if (path !== '') places.push(`${path}/.well-known/openid-configuration`);
  return places.map((place) => new URL(place, issuer.origin));
}

/** RFC 9728, sections 3.2 and 3.3. */
export function processResourceMetadata(server: URL, body: string): Result<ResourceMetadata, string> {
  const document = parseObject(body);
  if (document === undefined) return err('is not a JSON object');
  const { resource, authorization_servers: servers } = document;
  if (typeof resource !== 'string' || !covers(resource, server))
    return err('names another resource than this server, and may be the metadata of somebody else');
  if (!Array.isArray(servers) || servers.length === 0 || !servers.every((one) => typeof one === 'string'))
    return err('names no authorization server');
  return ok({ resource, authorizationServers: servers });
}

/** RFC 8414, sections 3.2 and 3.3. `issuer` is compared as text: it is an identifier, not a location. */
export function processAuthorizationServerMetadata(
  issuer: string,
  body: string,
): Result<AuthorizationServerMetadata, string> {
  const document = parseObject(body);
  if (document === undefined) return err('is not a JSON object');
  if (document.issuer !== issuer) return err('names another issuer than the one asked for (mix-up)');
  const endpoint = document.token_endpoint;
  const tokenEndpoint = typeof endpoint === 'string' ? URL.parse(endpoint) : null;
  if (tokenEndpoint === null || tokenEndpoint.hash !== '') return err('names no usable token_endpoint');
  const methods = document.token_endpoint_auth_methods_supported ?? ['client_secret_basic'];
  if (!Array.isArray(methods)) return err('has a token_endpoint_auth_methods_supported that is not a list');
  return ok({ issuer, tokenEndpoint, authMethods: methods.filter((one) => typeof one === 'string') });
}

/** `undefined`: the server publishes none. `at`: the `resource_metadata` of its challenge, when there was one. */
export async function requestResourceMetadata(
  egress: Egress,
  server: URL,
  at: URL | undefined,
  signal: AbortSignal,
): Promise<Result<ResourceMetadata | undefined, string>> {
  const what = 'protected-resource metadata';
  const answer = await firstDocument(egress, at === undefined ? resourceMetadataUrls(server) : [at], what, signal);
  if (!answer.ok) return answer;
  if (answer.value === undefined) return at === undefined ? ok(undefined) : err(`${what}: not found at ${at.origin}`);
  const metadata = processResourceMetadata(server, answer.value.body);
  return metadata.ok ? metadata : err(`${what} of ${server.origin} ${metadata.error}`);
}

/** `undefined`: the issuer publishes none. */
export async function requestAuthorizationServerMetadata(
  egress: Egress,
  issuer: string,
  signal: AbortSignal,
): Promise<Result<AuthorizationServerMetadata | undefined, string>> {
  const what = 'authorization-server metadata';
  const url = URL.parse(issuer);
  if (url === null || !/^https?:$/.test(url.protocol) || url.search + url.hash + url.username + url.password !== '')
    return err(`${what}: the issuer is not an https URL without query, fragment and user name`);
  const answer = await firstDocument(egress, authorizationServerMetadataUrls(url), what, signal);
  if (!answer.ok) return answer;
  if (answer.value === undefined) return ok(undefined);
  const metadata = processAuthorizationServerMetadata(issuer, answer.value.body);
  return metadata.ok ? metadata : err(`${what} of ${url.origin} ${metadata.error}`);
}

async function firstDocument(
  egress: Egress,
  urls: readonly URL[],
  what: string,
  signal: AbortSignal,
): Promise<Result<Answer | undefined, string>> {
  for (const url of urls) {
    const answer = await egress.get(url, signal);
    if (!answer.ok) return err(`${what}: ${answer.error}`);
    const { status } = answer.value;
    if (status === 200) return answer;
    if (status >= 300 && status < 400) return err(`${what}: ${url.origin} answered a redirect, which is not followed`);
    if (status < 400 || status >= 500) return err(`${what}: ${url.origin} answered ${status}`);
  }
  return ok(undefined);
}

/** The same server, or its origin or a folder above it on a segment boundary. */
function covers(resource: string, server: URL): boolean {
  const claimed = URL.parse(resource);
  if (claimed === null || claimed.hash !== '' || claimed.origin !== server.origin) return false;
  if (claimed.search !== '' && claimed.search !== server.search) return false;
  const folder = claimed.pathname.replace(/\/$/, '');
  return server.pathname === folder || server.pathname.startsWith(`${folder}/`);
}

function parseObject(body: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(body);
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}
