/**
 * Puts a whole file in the place of another in one step: a reader, and a crash, leave the old one or the new one.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { err, ok, type Result } from '../policies/result.ts';

/** Makes missing folders, for this user alone. The error is a sentence that names the file. */
export async function replaceFile(file: string, text: string, mode: number): Promise<Result<undefined, string>> {
  // Beside it: a rename is only one step within a file system.
  const temporary = `${file}.${randomUUID()}`;
  try {
    await mkdir(dirname(file), { recursive: true, mode: 0o700 });
    const handle = await open(temporary, 'wx', mode);
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
