/**
 * Whether files have changed, by `stat` alone: followed through links, so that a mounted ConfigMap's atomic swap shows.
 */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** What stat says of each path, and of each file in a folder. A path that is not there counts as such. */
export async function fingerprint(paths: readonly string[]): Promise<string> {
  const marks = await Promise.all(
    paths.map(async (path) => {
      try {
        const found = await stat(path);
        if (!found.isDirectory()) return `${path} ${found.ino} ${found.size} ${found.mtimeMs}`;
        const names = (await readdir(path)).sort();
        const inside = await Promise.all(names.map((name) => stat(join(path, name))));
        return inside.map(({ ino, size, mtimeMs }, index) => `${names[index]} ${ino} ${size} ${mtimeMs}`).join('\n');
      } catch (error) {
        return `${path} ${(error as NodeJS.ErrnoException).code}`;
      }
    }),
  );
  return marks.join('\n');
}
