/**
 * Puts a Bearer check before an HTTP handler, as a protected MCP server has it: RFC 9728 metadata, a 401 with a
 * challenge that names them, and JWT access tokens judged by signature, issuer, audience and scope.
 */
import type { RequestListener, ServerResponse } from 'node:http';
import { createRemoteJWKSet, jwtVerify } from 'jose';

export interface Protection {
  /** The resource identifier: the URL that clients call. */
  readonly resource: URL;
  readonly issuer: string;
  /** All of these are needed. */
  readonly scopes: readonly string[];
}

export function protect(handler: RequestListener, { resource, issuer, scopes }: Protection): RequestListener {
  const keys = createRemoteJWKSet(new URL('/jwks', issuer));
  const metadataUrl = new URL(`/.well-known/oauth-protected-resource${resource.pathname}`, resource);
  const metadata = JSON.stringify({
    resource: resource.href,
    authorization_servers: [issuer],
    scopes_supported: scopes,
    bearer_methods_supported: ['header'],
  });

  async function isPermitted(authorization: string | undefined): Promise<boolean> {
    const token = /^Bearer ([A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)$/i.exec(authorization ?? '')?.[1];
    if (token === undefined) return false;
    try {
      const { payload } = await jwtVerify(token, keys, {
        issuer,
        audience: resource.href,
        algorithms: ['ES256'],
        typ: 'at+jwt',
      });
      const granted = String(payload.scope ?? '').split(' ');
      return scopes.every((scope) => granted.includes(scope));
    } catch {
      return false;
    }
  }

  return (request, response) => {
    if (request.url === metadataUrl.pathname) {
      response.writeHead(200, { 'content-type': 'application/json' }).end(metadata);
      return;
    }
    isPermitted(request.headers.authorization).then(
      (permitted) => (permitted ? handler(request, response) : challenge(response, metadataUrl, scopes)),
      () => response.writeHead(500).end(),
    );
  };
}

function challenge(response: ServerResponse, metadataUrl: URL, scopes: readonly string[]): void {
  const parameters = [`resource_metadata="${metadataUrl.href}"`, `scope="${scopes.join(' ')}"`];
  response.writeHead(401, { 'www-authenticate': `Bearer ${parameters.join(', ')}` }).end();
}
