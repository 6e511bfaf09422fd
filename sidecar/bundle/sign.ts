/**
 * A policy → the text of a signed bundle. It is verified again before it is handed out: what is made here is what a
 * sidecar takes that pins the public half of the key.
 */
import { createPublicKey } from 'node:crypto';
import { err, ok, type Result } from '../../policies/result.ts';
import { algorithmOf, readSigningKey } from '../credentials/signing-key.ts';
import { BUNDLE_MEBIBYTES_MAX, BUNDLE_TYPE, type Bundle } from './format.ts';
import { parsePublicKey, thumbprintOf } from './public-key.ts';
import { type VerifiedBundle, verifyBundle } from './verify.ts';

export interface SignedBundle extends VerifiedBundle {
  readonly algorithm: string;
  readonly keyId: string;
}

/**
 * The error is a sentence.
 *
 * @param privateKey PEM or JWK.
 * @param keyId `kid`. Default: that of the JWK, or the thumbprint of the key (RFC 7638).
 */
export async function signBundle(
  bundle: Bundle,
  privateKey: string,
  keyId: string | undefined,
): Promise<Result<SignedBundle, string>> {
  const read = readSigningKey(privateKey);
  if (read === undefined) return err('the key is neither an unencrypted PEM private key nor a private JWK');
  const publicKey = await parsePublicKey(createPublicKey(read.key).export({ type: 'spki', format: 'pem' }).toString());
  if (!publicKey.ok) return err(`the key ${publicKey.error}`);
  const algorithm = read.algorithm ?? algorithmOf(read.key)!;
  if (!publicKey.value.algorithms.includes(algorithm)) return err(`the key is not one that signs with its alg`);

  const { CompactSign } = await import('jose');
  const kid = keyId ?? read.keyId ?? (await thumbprintOf(read.key));
  const text = await new CompactSign(new TextEncoder().encode(JSON.stringify(bundle)))
    .setProtectedHeader({ alg: algorithm, typ: BUNDLE_TYPE, kid })
    .sign(read.key);
  if (text.length > BUNDLE_MEBIBYTES_MAX * 1024 * 1024)
    return err(`the bundle is larger than the ${BUNDLE_MEBIBYTES_MAX} MiB that a sidecar takes`);
  const verified = await verifyBundle(text, [publicKey.value]);
  return verified.ok ? ok({ ...verified.value, algorithm, keyId: kid }) : err(`the bundle ${verified.error}`);
}
