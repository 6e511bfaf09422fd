/**
 * What a signed policy bundle is: a compact JWS (RFC 7515) whose payload is a policy, with the number of its version and
 * for how long and for whom it is meant. Pure.
 *
 * Times are text in UTC (`2026-03-01T12:00:00Z`), so that a person can read a payload. An unknown member is refused in
 * header and payload alike: nothing in a bundle is ignored.
 */
import * as z from 'zod';

/** RFC 7515, section 4.1.9: what was signed for something else with the same key is no policy. */
export const BUNDLE_TYPE = 'mcp-sidecar-policy+jws';
export const BUNDLE_MEBIBYTES_MAX = 4;

/** Signatures that only the holder of a private key can make (RFC 7518, section 3.1; RFC 8037; RFC 9864). */
export const ALGORITHMS: ReadonlySet<string> = new Set(
  'EdDSA Ed25519 ES256 ES384 ES512 RS256 RS384 RS512 PS256 PS384 PS512'.split(' '),
);

export const headerSchema = z.strictObject({
  alg: z.string(),
  typ: z.string().optional(),
  kid: z.string().max(512).optional(),
});

const time = z.iso.datetime({ error: 'must be a time in UTC, such as 2026-03-01T12:00:00Z' });

export const payloadSchema = z.strictObject({
  /** Grows with every change. */
  version: z.int({ error: 'must be a whole number' }).min(1, 'must be at least 1'),
  /** For people: nothing is decided by it. */
  issuedAt: time,
  expiresAt: time.optional(),
  /** The only group that may use it. Absent: any. */
  group: z.string().min(1).max(63).optional(),
  /** With all that it extends already in it. */
  policy: z.record(z.string(), z.unknown(), { error: 'must be a policy' }),
});

export type Bundle = Readonly<z.output<typeof payloadSchema>>;
