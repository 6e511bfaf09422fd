/**
 * The pinned keys: files that the operator names, PEM (SPKI) or a JWK each, read anew whenever a bundle is judged, so
 * that a rotated key counts without a restart.
 *
 * Only public halves of asymmetric keys are taken. A private key is refused although its public half could be had from
 * it: it does not belong where bundles are only checked.
 */
import { createPublicKey, type KeyObject } from 'node:crypto';
import { err, ok, type Result } from '../../policies/result.ts';
import { readText } from '../config/text-file.ts';
import { algorithmOf } from '../credentials/signing-key.ts';
import { ALGORITHMS } from './format.ts';

export interface PublicKey {
  readonly key: KeyObject;
  readonly algorithms: readonly string[];
  /** By what a bundle may name it: its thumbprint (RFC 7638), and the `kid` of its JWK. */
  readonly ids: readonly string[];
}

const RSA_BITS_MIN = 2048;

/** The error is a sentence that names the file. */
export async function readPublicKeys(files: readonly string[]): Promise<Result<readonly PublicKey[], string>> {
  const keys: PublicKey[] = [];
  for (const file of files) {
    const text = await readText(file);
    const key = text.ok ? await parsePublicKey(text.value) : text;
    if (!key.ok) return err(`${file} ${key.error}`);
    keys.push(key.value);
  }
  return ok(keys);
}

/** The error completes «this file …». */
export async function parsePublicKey(text: string): Promise<Result<PublicKey, string>> {
  const read = readKey(text.trim());
  if (!read.ok) return read;
  const { key, algorithm, id } = read.value;
  const algorithms = algorithmsOf(key).filter((one) => algorithm === undefined || one === algorithm);
  if (algorithms.length === 0)
    return err('is of no kind that a bundle can be signed with: Ed25519, P-256, P-384, P-521 or RSA');
  if ((key.asymmetricKeyDetails?.modulusLength ?? RSA_BITS_MIN) < RSA_BITS_MIN)
    return err(`is an RSA key of less than ${RSA_BITS_MIN} bits`);
  const thumbprint = await thumbprintOf(key);
  return ok({ key, algorithms, ids: id === undefined ? [thumbprint] : [thumbprint, id] });
}

/** RFC 7638, SHA-256. The same for the private key and its public half. */
export async function thumbprintOf(key: KeyObject): Promise<string> {
  const { calculateJwkThumbprint } = await import('jose');
  const publicHalf = key.type === 'private' ? createPublicKey(key) : key;
  return calculateJwkThumbprint(publicHalf.export({ format: 'jwk' }) as Parameters<typeof calculateJwkThumbprint>[0]);
}

interface ReadKey {
  readonly key: KeyObject;
  readonly algorithm: string | undefined;
  readonly id: string | undefined;
}

function readKey(text: string): Result<ReadKey, string> {
  const isPrivate = 'holds a private key: name its public half here, and keep the private one with whoever signs';
  const neither = 'is neither a public key in PEM (-----BEGIN PUBLIC KEY-----) nor a public JWK';
  try {
    if (text.includes('PRIVATE KEY-----')) return err(isPrivate);
    if (text.startsWith('-----BEGIN PUBLIC KEY-----'))
      return ok({ key: createPublicKey(text), algorithm: undefined, id: undefined });
    if (!text.startsWith('{')) return err(neither);
    const jwk = JSON.parse(text) as Readonly<Record<string, unknown>>;
    if ('d' in jwk || 'k' in jwk) return err(isPrivate);
    return ok({
      key: createPublicKey({ key: jwk as never, format: 'jwk' }),
      algorithm: typeof jwk.alg === 'string' ? jwk.alg : undefined,
      id: typeof jwk.kid === 'string' ? jwk.kid : undefined,
    });
  } catch {
    return err(neither);
  }
}

/** RSA keys and Ed25519 keys go by several names of algorithms, and do not say by which. */
function algorithmsOf(key: KeyObject): readonly string[] {
  const usual = algorithmOf(key);
  if (usual === undefined) return [];
  if (usual === 'EdDSA') return ['EdDSA', 'Ed25519'];
  const families: Readonly<Record<string, RegExp>> = { RS256: /^[RP]S/, PS256: /^PS/ };
  const family = families[usual];
  return family === undefined ? [usual] : [...ALGORITHMS].filter((one) => family.test(one));
}
