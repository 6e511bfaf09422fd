/**
 * A policy by URL, as a feed: the URL is asked for a newer bundle, and what it answers is judged.
 *
 * Guarantees: what is refused, away, too big or too slow changes nothing: the policy in force stays. A bundle is kept on
 * disk before it comes into force, so that its version counts after a crash too. Requests are spread in time (a tenth
 * of the interval either way), and after a failure come sooner, from ten seconds on, then ever later up to the interval.
 *
 * A bundle that expires while it is in force stays in force: a server of files that is down for long must not stop every
 * agent of a fleet. It is said once as an error and in the audit, and the metrics carry the time of expiry to alarm on.
 * One whose key is no longer pinned stays likewise, but for whatever version the pinned keys sign next.
 */
import type { BundleSource, Environment } from '../config/policy-source.ts';
import type { Look, PolicyFeed, PolicyToUse } from '../policy-reload.ts';
import { download } from './download.ts';
import { keep } from './kept-copy.ts';
import { type OpenedBundle, takeBundle } from './open.ts';
import { type PublicKey, readPublicKeys } from './public-key.ts';
import { isExpired, type VerifiedBundle, verifyBundle } from './verify.ts';

export interface BundleNotice {
  readonly level: 'info' | 'warn' | 'error';
  readonly event:
    | 'policy.unreachable'
    | 'policy.reachable'
    | 'policy.copyUsed'
    | 'policy.copyRefused'
    | 'policy.copyFailed'
    | 'policy.expired'
    | 'policy.unpinned';
  readonly sentence: string;
}

/** What the configuration was loaded with. */
export interface BundleStart {
  readonly first: PolicyToUse;
  readonly opened: OpenedBundle;
}

export interface BundleFeedPorts {
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** From 0 to 1. */
  readonly random: () => number;
  readonly notice: (notice: BundleNotice) => void;
}

/** For the metrics. Times are milliseconds since the epoch. */
export interface BundleFigures {
  readonly version: number;
  /** `undefined`: never. */
  readonly expiresAt: number | undefined;
  /** When the URL last answered with a bundle, or that there is no newer one; `undefined`: not since the start. */
  readonly answeredAt: number | undefined;
}

const RETRY_MS = 10_000;
const RETRIES_MAX = 20;
const SPREAD = 0.1;

export class BundleFeed implements PolicyFeed {
  readonly #source: BundleSource;
  readonly #environment: Environment;
  readonly #ports: BundleFeedPorts;
  #bundle: VerifiedBundle;
  #policy: PolicyToUse;
  #etag: string | undefined;
  #failures: number;
  #answeredAt: number | undefined;
  #hasToldExpiry = false;
  /** A pinned key vouches for what is in force. */
  #isPinned = true;

  private constructor(
    source: BundleSource,
    { first, opened }: BundleStart,
    environment: Environment,
    ports: BundleFeedPorts,
  ) {
    this.#source = source;
    this.#policy = first;
    this.#bundle = opened.bundle;
    this.#etag = opened.etag;
    this.#environment = environment;
    this.#ports = ports;
    const isFresh = opened.insteadOf === undefined;
    this.#failures = isFresh ? 0 : 1;
    this.#answeredAt = isFresh ? ports.now() : undefined;
  }

  /** Keeps the bundle to start with on disk, or says why it is an earlier one. */
  static async open(
    source: BundleSource,
    { first, opened }: BundleStart,
    environment: Environment,
    ports: BundleFeedPorts,
  ): Promise<BundleFeed> {
    const feed = new BundleFeed(source, { first, opened }, environment, ports);
    const { keptProblem, insteadOf, bundle } = opened;
    if (keptProblem !== undefined)
      feed.#tell('warn', 'policy.copyRefused', `${keptProblem}: it does not count, nor does its version`);
    if (insteadOf === undefined) await feed.#keep(bundle);
    else
      feed.#tell(
        'warn',
        'policy.copyUsed',
        `${insteadOf}; the copy kept of version ${bundle.version} is in force, and the URL is asked again`,
      );
    return feed;
  }

  get figures(): BundleFigures {
    const { version, expiresAt } = this.#bundle;
    return {
      version,
      expiresAt: expiresAt === undefined ? undefined : Date.parse(expiresAt),
      answeredAt: this.#answeredAt,
    };
  }

  pauseMs(): number {
    const { pollMs } = this.#source;
    const pauseMs = this.#failures === 0 ? pollMs : Math.min(pollMs, RETRY_MS * 2 ** (this.#failures - 1));
    const spread = pauseMs * (1 - SPREAD + 2 * SPREAD * this.#ports.random());
    const { expiresAt } = this.figures;
    if (expiresAt === undefined || this.#hasToldExpiry) return spread;
    return Math.min(spread, Math.max(0, expiresAt - this.#ports.now()));
  }

  async look(signal: AbortSignal): Promise<Look> {
    const look = await this.#ask(signal);
    if (!signal.aborted) this.#tellExpiry();
    return look;
  }

  async #ask(signal: AbortSignal): Promise<Look> {
    const { keys: files, group, shownUrl } = this.#source;
    const keys = await readPublicKeys(files);
    if (keys.ok) await this.#lookAtPins(keys.value);
    const answer = await download(this.#source, this.#isPinned ? this.#etag : undefined, signal);
    if (signal.aborted) return { kind: 'nothingNew' };
    if (!answer.ok) return this.#failed(answer.error);
    this.#answered();
    if (answer.value === undefined) return { kind: 'good', loaded: this.#policy };

    if (!keys.ok) return { kind: 'refused', problems: `bundle.keys: ${keys.error}` };
    const situation = { group, latest: this.#isPinned ? this.#bundle : undefined, now: this.#ports.now() };
    const taken = await takeBundle(answer.value.text, keys.value, situation, this.#environment);
    if (!taken.ok) return { kind: 'refused', problems: `the bundle at ${shownUrl} ${taken.error}` };
    const { bundle, loaded } = taken.value;
    // Signed anew by another key it is the same policy, and yet a better copy: the old key may be on its way out.
    if (bundle.text !== this.#bundle.text) await this.#keep(bundle);
    if (bundle.digest !== this.#bundle.digest) this.#hasToldExpiry = false;
    this.#bundle = bundle;
    this.#isPinned = true;
    this.#policy = loaded;
    this.#etag = answer.value.etag;
    return { kind: 'good', loaded };
  }

  /** What a key has signed ends with its pin, its version too: a stolen key must not block all versions to come. */
  async #lookAtPins(keys: readonly PublicKey[]): Promise<void> {
    const { ok: isPinned } = await verifyBundle(this.#bundle.text, keys);
    if (this.#isPinned && !isPinned)
      this.#tell(
        'error',
        'policy.unpinned',
        `version ${this.#bundle.version} of the policy is signed by no key that is pinned now: it stays in force until ${this.#source.shownUrl} has one that is, of whatever version, and a restart will refuse it`,
      );
    this.#isPinned = isPinned;
  }

  #failed(sentence: string): Look {
    if (this.#failures === 0)
      this.#tell(
        'warn',
        'policy.unreachable',
        `${sentence}; version ${this.#bundle.version} of the policy stays in force`,
      );
    this.#failures = Math.min(this.#failures + 1, RETRIES_MAX);
    return { kind: 'nothingNew' };
  }

  #answered(): void {
    if (this.#failures > 0)
      this.#tell('info', 'policy.reachable', `${this.#source.shownUrl} answers, and is asked as before`);
    this.#failures = 0;
    this.#answeredAt = this.#ports.now();
  }

  #tellExpiry(): void {
    if (this.#hasToldExpiry || !isExpired(this.#bundle, this.#ports.now())) return;
    this.#hasToldExpiry = true;
    const { version, expiresAt } = this.#bundle;
    this.#tell(
      'error',
      'policy.expired',
      `version ${version} of the policy expired at ${expiresAt} and no newer one is at ${this.#source.shownUrl}: it stays in force, but a restart will refuse it`,
    );
  }

  async #keep(bundle: VerifiedBundle): Promise<void> {
    const kept = await keep(this.#source.kept, bundle);
    if (!kept.ok)
      this.#tell(
        'error',
        'policy.copyFailed',
        `${kept.error}: after a restart neither this policy nor its version will be remembered`,
      );
  }

  #tell(level: BundleNotice['level'], event: BundleNotice['event'], sentence: string): void {
    this.#ports.notice({ level, event, sentence });
  }
}
