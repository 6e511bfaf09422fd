/**
 * Keeps the policy in force up to date with where it comes from. A new policy that does not hold is refused with what is
 * wrong and where, and the last good one stays.
 *
 * How newer policies are noticed is a feed's matter: files that are polled (policy-files.ts), the URL of a signed bundle
 * (bundle/feed.ts); a policy within sidecar.yaml that extends nothing never changes. Looks never overlap.
 */
import { createHash } from 'node:crypto';
import type { LoadedPolicy } from './config/policy-source.ts';
import type { ActivePolicy } from './pipeline/stages/authorize.ts';

export type PolicyToUse = Pick<LoadedPolicy, 'policy' | 'document'>;

/** What a look at the source has shown. */
export type Look =
  | { readonly kind: 'nothingNew' }
  /** Fit to come into force; may be the one that is. */
  | { readonly kind: 'good'; readonly loaded: PolicyToUse }
  /** Every problem with its place, one a line. */
  | { readonly kind: 'refused'; readonly problems: string };

export interface PolicyFeed {
  /** Milliseconds until the next look; `undefined` when there is nothing that could change. */
  pauseMs(): number | undefined;
  look(signal: AbortSignal): Promise<Look>;
}

export interface PolicyReloadPorts {
  readonly onReloaded: (active: ActivePolicy) => void;
  readonly onRefused: (problems: string) => void;
}

export class PolicyReload {
  active: ActivePolicy;
  /** For the metrics: how often a policy came into force, was refused, and when the last one came (ms since the epoch). */
  readonly figures = { loaded: 1, refused: 0, lastSuccessAt: Date.now() };
  readonly #feed: PolicyFeed;
  readonly #ports: PolicyReloadPorts;
  readonly #closing = new AbortController();
  #looking: Promise<void> = Promise.resolve();
  /** What was wrong when it was last looked at, so as to say it once. */
  #refusedFor: string | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(first: PolicyToUse, feed: PolicyFeed, ports: PolicyReloadPorts) {
    this.active = activate(first);
    this.#feed = feed;
    this.#ports = ports;
    this.#schedule();
  }

  /** Gives up a look that is under way. */
  async close(): Promise<void> {
    this.#closing.abort();
    clearTimeout(this.#timer);
    await this.#looking;
  }

  #schedule(): void {
    const pauseMs = this.#feed.pauseMs();
    if (pauseMs === undefined || this.#closing.signal.aborted) return;
    this.#timer = setTimeout(async () => {
      await this.check();
      this.#schedule();
    }, pauseMs);
    this.#timer.unref();
  }

  /** Looks once, after the look that is under way, and takes what is new. */
  check(): Promise<void> {
    this.#looking = this.#looking.then(() => this.#check());
    return this.#looking;
  }

  async #check(): Promise<void> {
    const { signal } = this.#closing;
    if (signal.aborted) return;
    const look = await this.#look(signal);
    if (signal.aborted || look.kind === 'nothingNew') return;
    if (look.kind === 'refused') {
      if (look.problems === this.#refusedFor) return;
      this.#refusedFor = look.problems;
      this.figures.refused += 1;
      this.#ports.onRefused(look.problems);
      return;
    }
    // One that was refused and is as before again is told too: whoever has mended it waits for that.
    const isMended = this.#refusedFor !== undefined;
    this.#refusedFor = undefined;
    const next = activate(look.loaded);
    if (next.version === this.active.version && !isMended) return;
    this.active = next;
    this.figures.loaded += 1;
    this.figures.lastSuccessAt = Date.now();
    this.#ports.onReloaded(next);
  }

  /** A throw is a bug, but one that must not end a process whose last good policy still holds. */
  async #look(signal: AbortSignal): Promise<Look> {
    try {
      return await this.#feed.look(signal);
    } catch (error) {
      const name = error instanceof Error ? error.name : typeof error;
      return { kind: 'refused', problems: `loading the policy failed unexpectedly (${name})` };
    }
  }
}

function activate({ policy, document }: PolicyToUse): ActivePolicy {
  return { policy, version: createHash('sha256').update(JSON.stringify(document)).digest('hex').slice(0, 12) };
}
