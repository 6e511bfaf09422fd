/**
 * The last good bundle on disk: what a start falls back on when the URL is away, and what remembers the highest version
 * across restarts.
 *
 * It is verified like any other: whoever could write the file can bring nothing but what was signed, and a copy that no
 * pinned key vouches for does not count in any way. So a version that a stolen key has signed ends with that key's pin.
 */
import { ok, type Result } from '../../policies/result.ts';
import { readTextIfThere } from '../config/text-file.ts';
import { replaceFile } from '../replace-file.ts';
import { BUNDLE_MEBIBYTES_MAX } from './format.ts';
import type { PublicKey } from './public-key.ts';
import { type VerifiedBundle, verifyBundle } from './verify.ts';

/** `undefined`: there is none. The error completes «the copy …». */
export async function readKept(
  file: string,
  keys: readonly PublicKey[],
): Promise<Result<VerifiedBundle | undefined, string>> {
  const text = await readTextIfThere(file, BUNDLE_MEBIBYTES_MAX);
  if (!text.ok) return text;
  return text.value === undefined ? ok(undefined) : verifyBundle(text.value, keys);
}

/** The error is a sentence. */
export function keep(file: string, { text }: VerifiedBundle): Promise<Result<undefined, string>> {
  return replaceFile(file, text, 0o600);
}
