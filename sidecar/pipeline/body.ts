/**
 * Reads a request body, bounded while it arrives rather than after.
 */
import type { IncomingMessage } from 'node:http';
import { err, ok, type Result } from '../../policies/result.ts';

export type BodyFailure = 'tooLarge' | 'aborted' | 'noRoom';

/** Bytes of all bodies that are being read at a time: many slow ones must not fill the memory. */
const READING_BYTES_MAX = 64 * 1024 * 1024;
let readingBytes = 0;

export function readBody(request: IncomingMessage, bytesMax: number): Promise<Result<Buffer, BodyFailure>> {
  return new Promise((resolve) => {
    // A declared length is refused before a byte of it is read.
    if (Number(request.headers['content-length'] ?? 0) > bytesMax) {
      resolve(err('tooLarge'));
      return;
    }
    let chunks: Buffer[] | undefined;
    let only: Buffer | undefined;
    let length = 0;

    const finish = (result: Result<Buffer, BodyFailure>) => {
      readingBytes -= length;
      request.off('data', onData);
      request.off('end', onEnd);
      request.off('close', onClose);
      resolve(result);
    };
    const onData = (chunk: Buffer) => {
      length += chunk.length;
      readingBytes += chunk.length;
      if (length > bytesMax || readingBytes > READING_BYTES_MAX) {
        request.pause();
        finish(err(length > bytesMax ? 'tooLarge' : 'noRoom'));
      } else if (only === undefined) {
        only = chunk;
      } else {
        chunks ??= [only];
        chunks.push(chunk);
      }
    };
    const onEnd = () => finish(ok(chunks === undefined ? (only ?? Buffer.alloc(0)) : Buffer.concat(chunks, length)));
    const onClose = () => finish(err('aborted'));
    request.on('data', onData);
    request.on('end', onEnd);
    request.on('close', onClose);
  });
}
