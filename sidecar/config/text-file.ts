/** Files of text: bounded, of UTF-8, and sentences for what is wrong with one. */
import { type FileHandle, open } from 'node:fs/promises';
import { err, ok, type Result } from '../../policies/result.ts';

/** Reads a file of UTF-8, of at most 1 MiB unless `mebibytesMax` says otherwise; the error is a sentence. */
export async function readText(file: string, mebibytesMax = 1): Promise<Result<string, string>> {
  const bytesMax = mebibytesMax * 1024 * 1024;
  let handle: FileHandle | undefined;
  try {
    handle = await open(file, 'r');
    const status = await handle.stat();
    if (status.isDirectory()) return err('is a folder: name the file in it');
    const buffer = Buffer.alloc(bytesMax + 1);
    let length = 0;
    // A pipe, as <(kustomize build .) is one, gives a little at a time.
    for (let bytesRead = -1; bytesRead !== 0; length += bytesRead)
      ({ bytesRead } = await handle.read(buffer, length, buffer.length - length, null));
    if (length > bytesMax) return err(`is larger than ${mebibytesMax} MiB`);
    return ok(new TextDecoder('utf-8', { fatal: true }).decode(buffer.subarray(0, length)));
  } catch (error) {
    return err(sentenceOfReadError(error as NodeJS.ErrnoException));
  } finally {
    await handle?.close();
  }
}

/** As {@link readText}; `undefined` for a file that is not there. */
export async function readTextIfThere(
  file: string,
  mebibytesMax?: number,
): Promise<Result<string | undefined, string>> {
  const text = await readText(file, mebibytesMax);
  return !text.ok && text.error === NOT_THERE ? ok(undefined) : text;
}

/** The sentence about a file that is not there. */
export const NOT_THERE = 'does not exist';

/** Completes «file …». */
export function sentenceOfReadError(error: NodeJS.ErrnoException): string {
  switch (error.code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return NOT_THERE;
    case 'EACCES':
    case 'EPERM':
      return 'may not be read by this user';
    case 'ERR_ENCODING_INVALID_ENCODED_DATA':
      return 'is not UTF-8 text';
    default:
      return `cannot be read (${error.code ?? error.name})`;
  }
}
