/**
 * The bundle to start with: the one at the URL, or, where that cannot be had or is refused, the last good one on disk.
 * Writes nothing: `sidecar check` opens a bundle too.
 *
 * A copy that has expired is not started with. Whoever sets `expiresAt` says how long the policy may be used without a
 * word from them, and a start is the moment to keep to that: nothing runs yet that could be stopped by it. (In force, an
 * expired bundle stays: feed.ts.)
 */
import { compilePolicy } from '../../policies/compile.ts';
import { err, ok, type Result } from '../../policies/result.ts';
import type { BundleSource, Environment, LoadedPolicy } from '../config/policy-source.ts';
import { type Problem, showPath } from '../config/problem.ts';
import { download } from './download.ts';
import { readKept } from './kept-copy.ts';
import { type PublicKey, readPublicKeys } from './public-key.ts';
import { refusalOf, type Situation, type VerifiedBundle, verifyBundle } from './verify.ts';

export interface OpenedBundle {
  readonly bundle: VerifiedBundle;
  /** Absent with a copy from disk. */
  readonly etag: string | undefined;
  /** Why it is the copy from disk and not the one at the URL. */
  readonly insteadOf: string | undefined;
  /** Why the copy on disk does not count. */
  readonly keptProblem: string | undefined;
}

export interface TakenBundle {
  readonly bundle: VerifiedBundle;
  readonly loaded: LoadedPolicy;
}

/** All that a bundle must pass to come into force. The error completes «the bundle …» and may have several lines. */
export async function takeBundle(
  text: string,
  keys: readonly PublicKey[],
  situation: Situation,
  environment: Environment,
): Promise<Result<TakenBundle, string>> {
  const verified = await verifyBundle(text, keys);
  if (!verified.ok) return verified;
  const bundle = verified.value;
  const refusal = refusalOf(bundle, situation);
  if (refusal !== undefined) return err(refusal);
  const compiled = compilePolicy(bundle.policy, { env: environment });
  if (!compiled.ok) {
    const problems = compiled.error.map(({ path, message }) => `\n  ${showPath(['policy', ...path])}: ${message}`);
    return err(`(version ${bundle.version}) holds a policy that does not compile:${problems.join('')}`);
  }
  const locate: LoadedPolicy['locate'] = ({ path, message }) => ({
    file: undefined,
    line: undefined,
    column: undefined,
    path: showPath(['policy', ...path]),
    message,
  });
  return ok({ bundle, loaded: { policy: compiled.value, document: bundle.policy, locate, watch: [] } });
}

export async function openBundle(
  source: BundleSource,
  environment: Environment,
  now: () => number = Date.now,
): Promise<Result<LoadedPolicy, Problem[]>> {
  const fail = (message: string, ...path: string[]) => err([source.locate({ path, at: 'value', message })]);
  const keys = await readPublicKeys(source.keys);
  if (!keys.ok) return fail(keys.error, 'bundle', 'keys');
  const read = await readKept(source.kept, keys.value);
  const keptProblem = read.ok ? undefined : `the copy at ${source.kept} ${read.error}`;
  // What another group has left there says nothing about ours.
  const kept = read.ok && (read.value?.group ?? source.group) === source.group ? read.value : undefined;
  const take = (text: string) =>
    takeBundle(text, keys.value, { group: source.group, latest: kept, now: now() }, environment);

  const fresh = await download(source, undefined, new AbortController().signal);
  // Asked without an ETag, a server has nothing to leave out.
  const taken = fresh.ok ? await take(fresh.value!.text) : fresh;
  const etag = fresh.ok ? fresh.value?.etag : undefined;
  if (taken.ok) return ok(opened(taken.value, { etag, insteadOf: undefined, keptProblem }));
  const insteadOf = fresh.ok ? `the bundle at ${source.shownUrl} ${taken.error}` : taken.error;

  const fallback = kept === undefined ? undefined : await take(kept.text);
  if (fallback?.ok) return ok(opened(fallback.value, { etag: undefined, insteadOf, keptProblem }));
  const without = fallback === undefined ? keptProblem : `the copy at ${source.kept} ${fallback.error}`;
  return fail(`${insteadOf}; and ${without ?? `no copy of an earlier one lies at ${source.kept}`}`, 'policy');
}

function opened({ bundle, loaded }: TakenBundle, rest: Omit<OpenedBundle, 'bundle'>): LoadedPolicy {
  return { ...loaded, bundle: { bundle, ...rest } };
}
