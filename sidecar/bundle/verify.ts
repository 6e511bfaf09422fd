/**
 * The text of a bundle → the bundle, if a pinned key signed it; and whether it may come into force. No I/O and no clock.
 *
 * In this order: the form of a compact JWS, `typ`, the algorithm (asymmetric, and one that the key is for: never what
 * the header alone says), the signature, and only then the payload: its shape, the group, the version, the expiry. Error
 * texts complete «the bundle …» and quote nothing but names of algorithms, keys and groups.
 */
import { createHash } from 'node:crypto';
import { err, ok, type Result } from '../../policies/result.ts';
import { problemsOfIssues, showPath } from '../config/problem.ts';
import { ALGORITHMS, BUNDLE_TYPE, type Bundle, headerSchema, payloadSchema } from './format.ts';
import type { PublicKey } from './public-key.ts';

export interface VerifiedBundle extends Bundle {
  /** As it came, for keeping it. */
  readonly text: string;
  /** SHA-256 of the payload: what two bundles of one version must share. */
  readonly digest: string;
}

interface Parts {
  readonly header: { readonly alg: string; readonly kid?: string | undefined };
  readonly payload: Buffer;
}

/** Whether a pinned key signed it, and it has the shape of a bundle. */
export async function verifyBundle(text: string, keys: readonly PublicKey[]): Promise<Result<VerifiedBundle, string>> {
  const jws = text.trim();
  const parts = takeApart(jws);
  if (!parts.ok) return parts;
  const signed = await checkSignature(jws, parts.value.header, keys);
  if (!signed.ok) return signed;
  const bundle = parsePayload(parts.value.payload);
  if (!bundle.ok) return bundle;
  const digest = createHash('sha256').update(parts.value.payload).digest('hex');
  return ok({ ...bundle.value, text: jws, digest });
}

export interface Situation {
  /** Our own. */
  readonly group: string;
  /** The newest that was in force, also before a restart. */
  readonly latest: Pick<VerifiedBundle, 'version' | 'digest'> | undefined;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

/** Why a bundle that is signed well may not come into force all the same; `undefined` when it may. */
export function refusalOf(bundle: VerifiedBundle, { group, latest, now }: Situation): string | undefined {
  const { version, digest, expiresAt } = bundle;
  if (bundle.group !== undefined && bundle.group !== group)
    return `is for the group ${shown(bundle.group)}, and this is ${group}`;
  if (latest !== undefined && version < latest.version)
    return `has version ${version}, and version ${latest.version} was in force before: to go back, sign the older policy under a higher version`;
  if (latest !== undefined && version === latest.version && digest !== latest.digest)
    return `has version ${version} like the one before it, and differs from that: each change needs a higher version`;
  if (isExpired(bundle, now)) return `(version ${version}) expired at ${expiresAt}`;
  return undefined;
}

export function isExpired({ expiresAt }: Pick<Bundle, 'expiresAt'>, now: number): boolean {
  return expiresAt !== undefined && now >= Date.parse(expiresAt);
}

function takeApart(jws: string): Result<Parts, string> {
  const [, head, payload] = /^([\w-]+)\.([\w-]+)\.[\w-]*$/.exec(jws) ?? [];
  if (head === undefined || payload === undefined)
    return err('is not whole, or not a bundle at all: a compact JWS is three parts with dots between them');
  const header = headerSchema.safeParse(parseJson(Buffer.from(head, 'base64url')));
  if (!header.success) return err('has a header that is not that of a bundle: alg, typ and kid, and nothing else');
  const { alg, typ } = header.data;
  if (typ !== BUNDLE_TYPE) return err(`has not the typ ${BUNDLE_TYPE}: it was signed for something else`);
  if (!ALGORITHMS.has(alg))
    return err(`is signed with ${shown(alg)}, which is refused: only asymmetric signatures (EdDSA, ES, RS, PS) count`);
  return ok({ header: header.data, payload: Buffer.from(payload, 'base64url') });
}

/** `kid` is a hint: it makes a clearer error, and never lets a key count that is not pinned. */
async function checkSignature(
  jws: string,
  { alg, kid }: Parts['header'],
  keys: readonly PublicKey[],
): Promise<Result<undefined, string>> {
  const named = keys.filter(({ ids }) => kid !== undefined && ids.includes(kid));
  const candidates = (named.length > 0 ? named : keys).filter(({ algorithms }) => algorithms.includes(alg));
  if (candidates.length === 0) return err(`is signed with ${alg}, and no pinned key is for that`);
  const { compactVerify } = await import('jose');
  for (const { key, algorithms } of candidates) {
    try {
      await compactVerify(jws, key, { algorithms: [...algorithms] });
      return ok(undefined);
    } catch {
      // Whatever is wrong with it, this key does not vouch for it.
    }
  }
  if (named.length > 0) return err('has a signature that does not fit: it is not what was signed');
  const signer = kid === undefined ? '' : ` (it names the key ${shown(kid)})`;
  return err(`is not signed by a pinned key${signer}, or is not what was signed`);
}

function parsePayload(payload: Buffer): Result<Bundle, string> {
  const value = parseJson(payload);
  if (value === undefined) return err('holds no JSON');
  const parsed = payloadSchema.safeParse(value);
  if (parsed.success) return ok(parsed.data);
  const [problem] = problemsOfIssues(parsed.error.issues, value, payloadSchema);
  return err(
    `has not the shape of one: ${problem!.path.length === 0 ? 'it' : showPath(problem!.path)} ${problem!.message}`,
  );
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    return undefined;
  }
}

/** What a stranger may have written, fit for a log. */
function shown(text: string): string {
  return /^[\w.:=+-]{1,100}$/.test(text) ? text : '(unprintable)';
}
