/**
 * One conditional request for the bundle (RFC 9110, section 13.1.2). Bounded in time and size, no redirect is followed:
 * the URL is the operator's word for where policy comes from, and nobody else's.
 *
 * Error texts are sentences that name the origin only.
 */
import { err, ok, type Result } from '../../policies/result.ts';
import { readText } from '../config/text-file.ts';
import { createEgress } from '../credentials/egress.ts';
import { BUNDLE_MEBIBYTES_MAX } from './format.ts';

export interface Place {
  readonly url: string;
  /** A file of PEM authorities that are trusted instead of the public ones. */
  readonly ca: string | undefined;
}

export interface Download {
  readonly text: string;
  readonly etag: string | undefined;
}

const TIMEOUT_MS = 10_000;
/** A longer one is not sent back. */
const ETAG_LENGTH_MAX = 1024;

/** @param etag Of the bundle that is in force: the server may answer that it is still the one, which is `undefined`. */
export async function download(
  { url, ca }: Place,
  etag: string | undefined,
  signal: AbortSignal,
  timeoutMs: number = TIMEOUT_MS,
): Promise<Result<Download | undefined, string>> {
  const authorities = ca === undefined ? ok(undefined) : await readText(ca);
  if (!authorities.ok) return err(`bundle.ca: ${ca} ${authorities.error}`);
  const place = new URL(url);
  const bounds = { timeoutMs, bodyBytes: BUNDLE_MEBIBYTES_MAX * 1024 * 1024 };
  const egress = createEgress([place], authorities.value === undefined ? undefined : { ca: authorities.value }, bounds);
  const answer = await egress.get(place, signal, {
    accept: 'application/jose',
    ...(etag === undefined ? {} : { 'if-none-match': etag }),
  });
  if (!answer.ok) return answer;
  const { status, body } = answer.value;
  if (status === 304 && etag !== undefined) return ok(undefined);
  if (status >= 300 && status < 400)
    return err(`${place.origin} answered ${status}: redirects are not followed, so the URL must be the final one`);
  if (status !== 200) return err(`${place.origin} answered ${status}`);
  const given = answer.value.etag;
  return ok({ text: body, etag: given && given.length <= ETAG_LENGTH_MAX ? given : undefined });
}
