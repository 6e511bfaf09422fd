/**
 * How a client proves to a token endpoint who it is: `client_secret_basic`, `client_secret_post` (RFC 6749, section
 * 2.3.1) or `private_key_jwt` (RFC 7523). The secret or key is read for each proof, so a rotated one is used at once.
 * jose is loaded when the first assertion is signed, not before. Error texts never hold a secret.
 */
import { randomUUID } from 'node:crypto';
import { err, ok, type Result } from '../../policies/result.ts';
import type { Secret } from './secret.ts';
import { algorithmOf, readSigningKey } from './signing-key.ts';

export type AuthMethod = 'client_secret_basic' | 'client_secret_post' | 'private_key_jwt';

export interface Client {
  readonly clientId: string;
  readonly clientSecret: Secret | undefined;
  /** PEM (PKCS#8, PKCS#1, SEC1) or a private JWK. */
  readonly privateKey: Secret | undefined;
  /** `kid` of the assertion; a JWK may bring its own. */
  readonly keyId: string | undefined;
  /** `alg` of the assertion; else the JWK's, else by the type of the key (RS256 for RSA). */
  readonly algorithm: string | undefined;
}

export interface Proof {
  readonly headers: Readonly<Record<string, string>>;
  readonly parameters: Readonly<Record<string, string>>;
}

const ASSERTION_SECONDS = 60;

/** `supported` is the authorization server's list; undefined when its metadata was not read. */
export function chooseAuthMethod(client: Client, supported: readonly string[] | undefined): Result<AuthMethod, string> {
  const possible: AuthMethod[] = [];
  if (client.privateKey !== undefined) possible.push('private_key_jwt');
  if (client.clientSecret !== undefined) possible.push('client_secret_basic', 'client_secret_post');
  const chosen = possible.find((method) => supported?.includes(method) ?? true);
  return chosen === undefined
    ? err(`takes none of the ways this client could prove itself (${possible.join(', ')}); configure authMethod`)
    : ok(chosen);
}

/** `audience`: the issuer (RFC 7523bis), or the token endpoint where no issuer is known. `now` in milliseconds. */
export async function proveClient(
  method: AuthMethod,
  client: Client,
  audience: string,
  now: number,
): Promise<Result<Proof, string>> {
  const { clientId } = client;
  if (method === 'private_key_jwt') {
    const assertion = await signAssertion(client, audience, now);
    if (!assertion.ok) return assertion;
    return ok({
      headers: {},
      parameters: {
        client_id: clientId,
        client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
        client_assertion: assertion.value,
      },
    });
  }
  const secret = client.clientSecret?.read() ?? err(`${method} needs clientSecret`);
  if (!secret.ok) return secret;
  if (method === 'client_secret_post')
    return ok({ headers: {}, parameters: { client_id: clientId, client_secret: secret.value } });
  const pair = Buffer.from(`${formEncode(clientId)}:${formEncode(secret.value)}`).toString('base64');
  return ok({ headers: { authorization: `Basic ${pair}` }, parameters: {} });
}

/** RFC 6749, appendix B: without it a `:` or `%` in either half would be read as something else. */
function formEncode(text: string): string {
  return new URLSearchParams([['', text]]).toString().slice(1);
}

async function signAssertion(client: Client, audience: string, now: number): Promise<Result<string, string>> {
  const text = client.privateKey?.read() ?? err('private_key_jwt needs privateKey');
  if (!text.ok) return text;
  const read = readSigningKey(text.value);
  if (read === undefined) return err('privateKey is neither an unencrypted PEM private key nor a private JWK');
  const algorithm = client.algorithm ?? read.algorithm ?? algorithmOf(read.key);
  if (algorithm === undefined) return err('privateKey is of a type that cannot sign a JWT');
  const keyId = client.keyId ?? read.keyId;
  const issuedAt = Math.floor(now / 1000);
  const { SignJWT } = await import('jose');
  try {
    return ok(
      await new SignJWT()
        .setProtectedHeader({ alg: algorithm, ...(keyId === undefined ? {} : { kid: keyId }) })
        .setIssuer(client.clientId)
        .setSubject(client.clientId)
        .setAudience(audience)
        .setJti(randomUUID())
        .setIssuedAt(issuedAt)
        .setExpirationTime(issuedAt + ASSERTION_SECONDS)
        .sign(read.key),
    );
  } catch {
    return err(`privateKey cannot sign with ${algorithm}`);
  }
}
