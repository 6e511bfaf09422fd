/**
 * From the `auth` of one server in the configuration to the credential that its requests carry.
 */
import type { AuthConfig } from '../config/schema.ts';
import { createClientCredentials } from './client-credentials.ts';
import type { Credential, CredentialPorts } from './credential.ts';
import { createEgress, type EgressTls } from './egress.ts';
import { createSecret } from './secret.ts';
import { createStaticHeaders } from './static-headers.ts';

export type CredentialConfig = Exclude<AuthConfig, { readonly type: 'none' }>;
export type ClientCredentialsConfig = Extract<AuthConfig, { readonly type: 'client_credentials' }>;

export interface CredentialServer {
  readonly name: string;
  /** The server's MCP endpoint. */
  readonly url: string;
  /** PEM texts; used towards its authorization server as well. */
  readonly tls?: EgressTls | undefined;
}

/** `config` and `server` have been checked by the configuration: an invalid URL throws. */
export function createCredential(
  config: CredentialConfig,
  server: CredentialServer,
  ports: CredentialPorts,
): Credential {
  switch (config.type) {
    case 'bearer': {
      const secret = createSecret(config.token, ports.environment);
      return createStaticHeaders([{ name: 'authorization', prefix: 'Bearer ', secret }], ports.now);
    }
    case 'headers': {
      const headers = Object.entries(config.headers).map(([name, reference]) => ({
        name,
        prefix: '',
        secret: createSecret(reference, ports.environment),
      }));
      return createStaticHeaders(headers, ports.now);
    }
    case 'client_credentials':
      return fromClientCredentials(config, server, ports);
  }
}

function fromClientCredentials(
  config: ClientCredentialsConfig,
  server: CredentialServer,
  ports: CredentialPorts,
): Credential {
  const serverUrl = new URL(server.url);
  const tokenEndpoint = config.tokenEndpoint === undefined ? undefined : new URL(config.tokenEndpoint);
  const configured = [serverUrl];
  if (config.issuer !== undefined) configured.push(new URL(config.issuer));
  if (tokenEndpoint !== undefined) configured.push(tokenEndpoint);
  return createClientCredentials(
    {
      serverName: server.name,
      serverUrl,
      client: {
        clientId: config.clientId,
        clientSecret: config.clientSecret && createSecret(config.clientSecret, ports.environment),
        privateKey: config.privateKey && createSecret(config.privateKey, ports.environment),
        keyId: config.keyId,
        algorithm: config.algorithm,
      },
      authMethod: config.authMethod,
      issuer: config.issuer,
      tokenEndpoint,
      scopes: config.scopes,
      resource: config.resource,
    },
    createEgress(configured, server.tls),
    ports,
  );
}
