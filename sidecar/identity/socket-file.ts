/**
 * Makes room for a unix socket: the file that a dead process left behind is removed, anything else is left alone.
 */
import { lstat, unlink } from 'node:fs/promises';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { err, ok, type Result } from '../../policies/result.ts';

/** `sun_path` holds 108 bytes on Linux and 104 on macOS, the closing zero included (unix(7)). */
const PATH_BYTES_MAX = 103;
/** A living listener answers a local connect at once. */
const ANSWER_MS = 1000;

/** An error, as a sentence, when something at `path` stands in the way. */
export async function removeStaleSocket(path: string): Promise<Result<void, string>> {
  if (Buffer.byteLength(path) > PATH_BYTES_MAX) {
    return err(`the socket path ${path} is longer than ${PATH_BYTES_MAX} bytes: choose a shorter one`);
  }
  try {
    const folder = await lookAt(dirname(path));
    if (folder === undefined) return err(`the folder of the socket ${path} does not exist: create it first`);
    const found = await lookAt(path);
    if (found === undefined) return ok(undefined);
    if (!found.isSocket()) return err(`${path} exists and is not a socket: it is left alone, choose another path`);
    const answer = await knock(path);
    if (answer !== 'ECONNREFUSED') return err(inTheWay(path, answer));
    // Somebody else may have cleaned up and started listening while we knocked: then the file is another one.
    const still = await lookAt(path);
    if (still !== undefined && still.ino === found.ino && still.dev === found.dev) await unlink(path);
    return ok(undefined);
  } catch (error) {
    return err(`the socket ${path} cannot be prepared (${(error as NodeJS.ErrnoException).code ?? 'unknown error'})`);
  }
}

function inTheWay(path: string, answer: string): string {
  return answer === 'connected'
    ? `another process listens on ${path}: stop it, or choose another path`
    : `the socket ${path} exists and cannot be tested (${answer}): remove it if no process uses it`;
}

function lookAt(path: string) {
  return lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
}

function knock(path: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ path, timeout: ANSWER_MS });
    const answer = (what: string) => {
      socket.destroy();
      resolve(what);
    };
    socket.once('connect', () => answer('connected'));
    socket.once('timeout', () => answer('no answer'));
    socket.on('error', (error: NodeJS.ErrnoException) => answer(error.code ?? 'unknown error'));
  });
}
