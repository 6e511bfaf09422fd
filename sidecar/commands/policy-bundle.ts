/**
 * `sidecar policy bundle`: signs a policy, with all that it extends, for the sidecars of a fleet to fetch. A policy that
 * does not compile is not signed.
 *
 * The bundle goes to `--output`, or to standard output; what is in it is told on stderr, or with `--json` on stdout.
 */
import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Bundle } from '../bundle/format.ts';
import { type SignedBundle, signBundle } from '../bundle/sign.ts';
import { loadPolicy, policyPath } from '../config/policy-source.ts';
import { readText } from '../config/text-file.ts';
import { replaceFile } from '../replace-file.ts';
import { tellLines, tellProblems, tellSentence, writeJson } from './output.ts';

export interface PolicyBundleOptions {
  /** A file, a folder or library/<name>. */
  readonly policy: string;
  /** File of the private key, PEM or JWK. */
  readonly key: string;
  readonly version: number;
  /** For so long it may be used, milliseconds; absent: for ever. */
  readonly expires?: number;
  readonly group?: string;
  readonly keyId?: string;
  readonly output?: string;
  readonly json: boolean;
}

export async function policyBundle(options: PolicyBundleOptions, now: () => number = Date.now): Promise<number> {
  const { policy, key, json, output } = options;
  const loaded = await loadPolicy({ kind: 'path', path: policyPath(policy, process.cwd()) });
  if (!loaded.ok) return tellProblems(loaded.error, json);
  const privateKey = await readText(key);
  if (!privateKey.ok) return tellSentence(`${key} ${privateKey.error}`, json);
  await warnOfReaders(key);
  // The document has compiled, so that it is a mapping.
  const document = loaded.value.document as Bundle['policy'];
  const signed = await signBundle(bundleOf(document, options, now()), privateKey.value, options.keyId);
  if (!signed.ok) return tellSentence(`${key}: ${signed.error}`, json);

  const text = `${signed.value.text}\n`;
  if (output !== undefined) {
    const written = await replaceFile(resolve(output), text, 0o644);
    if (!written.ok) return tellSentence(written.error, json);
  }
  if (json)
    writeJson({ ok: true, ...contentOf(signed.value), ...(output === undefined ? { bundle: text } : { output }) });
  else {
    if (output === undefined) process.stdout.write(text);
    tellLines([describe(signed.value, output)]);
  }
  return 0;
}

function bundleOf(policy: Bundle['policy'], { version, expires, group }: PolicyBundleOptions, now: number): Bundle {
  const at = (ms: number) => new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');
  return {
    version,
    issuedAt: at(now),
    ...(expires === undefined ? {} : { expiresAt: at(now + expires) }),
    ...(group === undefined ? {} : { group }),
    policy,
  };
}

/** Whoever reads the key can sign a policy for the whole fleet. */
async function warnOfReaders(key: string): Promise<void> {
  const { mode } = await stat(key);
  if (process.platform !== 'win32' && (mode & 0o077) !== 0)
    tellLines([`warning: ${key} may be read by others than its owner: chmod 600 ${key}`]);
}

function contentOf({ version, issuedAt, expiresAt, group, algorithm, keyId, text }: SignedBundle) {
  return { version, issuedAt, expiresAt, group, algorithm, keyId, bytes: text.length };
}

function describe(signed: SignedBundle, output: string | undefined): string {
  const { version, group, expiresAt, algorithm, keyId } = signed;
  const whom = group === undefined ? 'any group' : `the group ${group}`;
  const until = expiresAt === undefined ? 'without expiry' : `until ${expiresAt}`;
  return `${output ?? 'bundle'}: version ${version} for ${whom}, ${until}, signed with ${algorithm} by the key ${keyId}`;
}
