/**
 * The grant `client_credentials` (RFC 6749, section 4.4) with resource indicators (RFC 8707): the machine credential of
 * an agent group for one server.
 *
 * Where the token endpoint comes from, first that applies: `tokenEndpoint`; the metadata of `issuer`; the server's own
 * word (its challenge's `resource_metadata`, else its well-known metadata, else, as in 2025-03-26, its origin). The
 * first issuer that a server's word leads to is kept until a restart: a server cannot talk the sidecar into sending its
 * secret to another one later. Configure `issuer` to not take its word even once.
 *
 * A server of which nothing is known yet is called without a token once, so that its 401 can say where to ask.
 */
import { err, ok, type Result } from '../../policies/result.ts';
import { readBearerChallenge } from './challenge.ts';
import { type AuthMethod, type Client, chooseAuthMethod, proveClient } from './client-authentication.ts';
import type { Credential, CredentialFailure, CredentialPorts } from './credential.ts';
import {
  type AuthorizationServerMetadata,
  canonicalResource,
  requestAuthorizationServerMetadata,
  requestResourceMetadata,
} from './discovery.ts';
import type { Egress } from './egress.ts';
import { createTokenCache, type Lease } from './token-cache.ts';
import { processTokenResponse } from './token-response.ts';

export interface ClientCredentialsOptions {
  /** The server's name in the configuration, for texts. */
  readonly serverName: string;
  readonly serverUrl: URL;
  readonly client: Client;
  /** Default: private_key_jwt when there is a key, else what the authorization server's metadata takes, basic first. */
  readonly authMethod: AuthMethod | undefined;
  readonly issuer: string | undefined;
  readonly tokenEndpoint: URL | undefined;
  /** Default: the `scope` of the server's challenge, else none. `scopes_supported` is never asked for as a whole. */
  readonly scopes: readonly string[] | undefined;
  /** Default: the `resource` of the server's metadata, else its URL without fragment and trailing slash. */
  readonly resource: string | undefined;
}

/** For discovery and token request together; each request has its own, shorter limit. */
const ACQUISITION_MS_MAX = 15_000;
/** How long a server is called without a token while it has not said where to get one. */
const UNCHALLENGED_MS = 30_000;

/** Where to ask, and for what. */
interface Place {
  readonly tokenEndpoint: URL;
  /** Undefined when only `tokenEndpoint` is configured. */
  readonly issuer: string | undefined;
  readonly authMethods: readonly string[] | undefined;
  readonly resource: string;
}

export function createClientCredentials(
  options: ClientCredentialsOptions,
  egress: Egress,
  ports: CredentialPorts,
): Credential {
  const { client, serverName, serverUrl } = options;
  let place: Place | undefined;
  let pinnedIssuer: string | undefined;
  let challenged = false;
  let learnedMetadataUrl: string | undefined;
  let learnedScope: string | undefined;

  const cache = createTokenCache(acquire, {
    ...ports,
    log: (level, message) => ports.log(level, `server ${serverName}: ${message}`),
  });

  async function acquire(closed: AbortSignal): Promise<Result<Lease, CredentialFailure>> {
    const signal = AbortSignal.any([closed, AbortSignal.timeout(ACQUISITION_MS_MAX)]);
    const askedBy = learnedMetadataUrl;
    const found = place === undefined ? await locate(signal) : ok(place);
    if (!found.ok) return fail('discovery', found.error);
    if (found.value === undefined) return ok({ headers: {}, lifetimeMs: UNCHALLENGED_MS });
    // Unless a challenge has named another place meanwhile.
    if (learnedMetadataUrl === askedBy) place = found.value;
    const token = await requestToken(found.value, signal);
    // The authorization server may have moved its endpoint or its ways: look again next time.
    if (!token.ok) place = undefined;
    return token;
  }

  /** `undefined`: nobody has said yet where to ask. */
  async function locate(signal: AbortSignal): Promise<Result<Place | undefined, string>> {
    const resource = options.resource ?? canonicalResource(serverUrl);
    const { issuer, tokenEndpoint } = options;
    if (tokenEndpoint !== undefined) return ok({ tokenEndpoint, issuer, authMethods: undefined, resource });
    if (issuer !== undefined) {
      const metadata = await requestAuthorizationServerMetadata(egress, issuer, signal);
      if (!metadata.ok) return metadata;
      return metadata.value === undefined
        ? err(`the issuer ${issuer} publishes no metadata; configure tokenEndpoint`)
        : ok({ ...metadata.value, resource });
    }
    return locateByServer(resource, signal);
  }

  async function locateByServer(resource: string, signal: AbortSignal): Promise<Result<Place | undefined, string>> {
    const learned = learnedMetadataUrl === undefined ? undefined : URL.parse(learnedMetadataUrl);
    if (learned === null) return err('the challenge of the server has a resource_metadata that is not a URL');
    const described = await requestResourceMetadata(egress, serverUrl, learned, signal);
    if (!described.ok) return described;
    const issuers = described.value?.authorizationServers ?? [serverUrl.origin];
    const issuer = issuers.find((one) => one === pinnedIssuer) ?? issuers[0]!;
    const metadata = await requestAuthorizationServerMetadata(egress, issuer, signal);
    if (!metadata.ok) return metadata;
    if (metadata.value !== undefined) {
      if (!pin(metadata.value))
        return err(
          'the server names another authorization server than before; if that is right, restart or set issuer',
        );
      return ok({ ...metadata.value, resource: options.resource ?? described.value?.resource ?? resource });
    }
    if (described.value !== undefined) return err('the authorization server of this server publishes no metadata');
    return challenged
      ? err('the server does not say which authorization server to ask; configure issuer')
      : ok(undefined);
  }

  /** False when another issuer is there already. */
  function pin({ issuer, tokenEndpoint }: AuthorizationServerMetadata): boolean {
    if (pinnedIssuer === undefined) {
      const advice = "on the server's word; set auth.issuer to fix it";
      ports.log('info', `server ${serverName}: tokens come from ${tokenEndpoint.origin}, ${advice}`);
    }
    pinnedIssuer ??= issuer;
    return pinnedIssuer === issuer;
  }

  async function requestToken(at: Place, signal: AbortSignal): Promise<Result<Lease, CredentialFailure>> {
    const where = `token endpoint at ${at.tokenEndpoint.origin}`;
    const method = options.authMethod === undefined ? chooseAuthMethod(client, at.authMethods) : ok(options.authMethod);
    if (!method.ok) return fail('refused', `${where} ${method.error}`);
    const proof = await proveClient(method.value, client, at.issuer ?? at.tokenEndpoint.href, ports.now());
    if (!proof.ok) return fail('secretMissing', proof.error);

    const form = new URLSearchParams({ grant_type: 'client_credentials', resource: at.resource });
    const scope = options.scopes?.join(' ') ?? learnedScope;
    if (scope) form.set('scope', scope);
    for (const [name, value] of Object.entries(proof.value.parameters)) form.set(name, value);
    const answer = await egress.post(at.tokenEndpoint, proof.value.headers, form, signal);
    if (!answer.ok) return fail('tokenEndpoint', `token endpoint: ${answer.error}`);
    const token = processTokenResponse(answer.value);
    if (!token.ok) return err({ ...token.error, detail: `${where} ${token.error.detail}` });
    const { accessToken, lifetimeMs } = token.value;
    return ok({ headers: { authorization: `Bearer ${accessToken}` }, lifetimeMs });
  }

  /** What the challenge says is believed only as far as discovery lets it; true when it is news. */
  function learn(text: string | undefined): boolean {
    challenged = true;
    const challenge = text === undefined ? undefined : readBearerChallenge(text);
    const metadataUrl = challenge?.resourceMetadata ?? learnedMetadataUrl;
    const scope = challenge?.scope ?? learnedScope;
    const newPlace = metadataUrl !== learnedMetadataUrl;
    const newScope = scope !== learnedScope;
    learnedMetadataUrl = metadataUrl;
    learnedScope = scope;
    if (newPlace && options.issuer === undefined && options.tokenEndpoint === undefined) place = undefined;
    return newPlace || (newScope && options.scopes === undefined);
  }

  return {
    headers: () => cache.headers(),
    rejected: (used, challenge) => cache.reject(used, learn(challenge)),
    close: () => cache.close(),
  };
}

function fail(kind: CredentialFailure['kind'], detail: string): Result<never, CredentialFailure> {
  return err({ kind, detail, retryAfterMs: 0 });
}
