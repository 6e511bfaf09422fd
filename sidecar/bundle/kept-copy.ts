/**
 * The last good bundle on disk: what a start falls back on when the URL is away, and what remembers the highest version
 * across restarts.
 *
 * It is verified like any other: whoever could write the file can bring nothing but what was signed, and a copy that no
 * pinned key vouches for does not count in any way. So a version that a stolen key has signed ends with that key's pin.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { err, ok, type Result } from '../../policies/result.ts';
import { readText } from '../config/yaml-document.ts';
import { BUNDLE_MEBIBYTES_MAX } from './format.ts';
import type { PublicKey } from './public-key.ts';
import { type VerifiedBundle, verifyBundle } from './verify.ts';

/** `undefined`: there is none. The error completes «the copy …». */
export async function readKept(
  file: string,
  keys: readonly PublicKey[],
): Promise<Result<VerifiedBundle | undefined, string>> {
  const text = await readText(file, BUNDLE_MEBIBYTES_MAX);
  if (!text.ok) return text.error === 'does not exist' ? ok(undefined) : text;
  return verifyBundle(text.value, keys);
}

/** In one step and for good: a crash leaves the old one or the new one. The error is a sentence. */
export async function keep(file: string, text: string): Promise<Result<undefined, string>> {
  const temporary = `${file}.${randomUUID()}`;
  try {
    await mkdir(dirname(file), { recursive: true, mode: 0o700 });
    const handle = await open(temporary, 'wx', 0o600);
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
    return ok(undefined);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    return err(`${file} cannot be written (${(error as NodeJS.ErrnoException).code ?? 'unknown error'})`);
  }
}
