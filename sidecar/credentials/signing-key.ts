/**
 * A private key as people keep it → what signs a JWS, and the algorithm that fits it. Pure: reads no files.
 */
import { createPrivateKey, type KeyObject } from 'node:crypto';

export interface SigningKey {
  readonly key: KeyObject;
  readonly algorithm: string | undefined;
  readonly keyId: string | undefined;
}

/** PEM (PKCS#8, PKCS#1, SEC1; not encrypted) or a private JWK; `undefined` for anything else. */
export function readSigningKey(text: string): SigningKey | undefined {
  try {
    if (!text.trimStart().startsWith('{'))
      return { key: createPrivateKey(text), algorithm: undefined, keyId: undefined };
    const jwk = JSON.parse(text) as Record<string, unknown>;
    const { alg, kid } = jwk;
    return {
      key: createPrivateKey({ key: jwk as never, format: 'jwk' }),
      algorithm: typeof alg === 'string' ? alg : undefined,
      keyId: typeof kid === 'string' ? kid : undefined,
    };
  } catch {
    return undefined;
  }
}

/** The `alg` that a key signs with when nobody says (RFC 7518, RFC 8037). Of a public key too. */
export function algorithmOf(key: KeyObject): string | undefined {
  switch (key.asymmetricKeyType) {
    case 'rsa':
      return 'RS256';
    case 'rsa-pss':
      return 'PS256';
    case 'ed25519':
      return 'EdDSA';
    case 'ec':
      return { prime256v1: 'ES256', secp384r1: 'ES384', secp521r1: 'ES512' }[
        key.asymmetricKeyDetails?.namedCurve ?? ''
      ];
    default:
      return undefined;
  }
}
