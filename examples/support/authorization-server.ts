/**
 * A real OAuth authorization server (oidc-provider) on loopback, for examples and tests: the grant client_credentials,
 * every way a machine client proves itself, resource indicators (RFC 8707), and access tokens as JWT for one resource.
 * Keys are made at start; nothing is kept when it closes. Not for production.
 */
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { exportJWK, generateKeyPair, type JWK } from 'jose';
import { errors, Provider } from 'oidc-provider';

export type ClientRegistration = { readonly clientId: string } & (
  | { readonly method: 'client_secret_basic' | 'client_secret_post'; readonly secret: string }
  | { readonly method: 'private_key_jwt'; readonly publicKey: JWK }
);

export interface AuthorizationServerOptions {
  readonly clients: readonly ClientRegistration[];
  /** Resource indicators that tokens may be had for. */
  readonly resources: readonly string[];
  readonly scopes: readonly string[];
  /** Default 3600. */
  readonly tokenSeconds?: number;
  /** Default 0: any free port. */
  readonly port?: number;
}

export interface AuthorizationServer {
  readonly issuer: string;
  readonly port: number;
  /** Requests to the token endpoint so far. */
  readonly tokenRequests: () => number;
  close(): Promise<void>;
}

export async function startAuthorizationServer(options: AuthorizationServerOptions): Promise<AuthorizationServer> {
  const server = createServer();
  server.listen(options.port ?? 0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const issuer = `http://127.0.0.1:${port}`;

  const handle = new Provider(issuer, await configuration(options)).callback();
  let tokenRequests = 0;
  server.on('request', (request, response) => {
    if (request.url === '/token') tokenRequests += 1;
    handle(request, response);
  });
  return { issuer, port, tokenRequests: () => tokenRequests, close: () => close(server) };
}

async function configuration({ clients, resources, scopes, tokenSeconds = 3600 }: AuthorizationServerOptions) {
  const { privateKey } = await generateKeyPair('ES256', { extractable: true });
  return {
    clients: clients.map((client) => ({
      client_id: client.clientId,
      token_endpoint_auth_method: client.method,
      ...(client.method === 'private_key_jwt'
        ? { jwks: { keys: [{ ...client.publicKey, use: 'sig' }] } }
        : { client_secret: client.secret }),
      grant_types: ['client_credentials'],
      response_types: [],
      redirect_uris: [],
      id_token_signed_response_alg: 'ES256',
    })),
    jwks: { keys: [{ ...(await exportJWK(privateKey)), alg: 'ES256', use: 'sig', kid: 'access-tokens' }] },
    clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt'],
    scopes,
    ttl: { ClientCredentials: tokenSeconds },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => undefined,
        getResourceServerInfo: (_context: unknown, resource: string) => {
          if (!resources.includes(resource)) throw new errors.InvalidTarget();
          return {
            audience: resource,
            scope: scopes.join(' '),
            accessTokenFormat: 'jwt',
            accessTokenTTL: tokenSeconds,
            jwt: { sign: { alg: 'ES256' } },
          };
        },
      },
    },
  };
}

function close(server: Server): Promise<void> {
  return new Promise((done) => {
    server.close(() => done());
    server.closeAllConnections();
  });
}
