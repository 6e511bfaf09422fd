/**
 * Tells in the pod's owner (its ReplicaSet, Job, …) what became of the pod: there `kubectl describe` shows it, while a
 * pod that was denied is nowhere to be seen. Never in a dry run, never waited for, and never more than a few at a time.
 *
 * What is told of is what a review says, and unless client certificates are asked for (`clientCa`) anybody who reaches
 * the webhook may have written it: an owner that is none is passed over, and a namespace is told ten events a minute.
 */
import type { Kubernetes } from './kubernetes.ts';
import { type Raw, textAt } from './raw-object.ts';
import type { Outcome } from './review.ts';

const WAITING_MAX = 100;
const MESSAGE_MAX = 1024;
const PERIOD_MS = 60_000;
const EVENTS_MAX = 10;
/** The rest is kept for what went wrong. */
const INJECTED_MAX = 5;
/** Told in one period; of the others nothing is kept. */
const NAMESPACES_MAX = 200;
/** RFC 1123 label: nothing that leads elsewhere in a path. */
const NAMESPACE = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const OWNER_TEXT_MAX = 253;

export class OwnerEvents {
  readonly #kubernetes: Kubernetes;
  readonly #now: () => number;
  #waiting = 0;
  #count = 0;
  #last: Promise<unknown> = Promise.resolve();
  #periodStart = 0;
  /** Of this period, by namespace. */
  readonly #told = new Map<string, number>();

  constructor(kubernetes: Kubernetes, now: () => number) {
    this.#kubernetes = kubernetes;
    this.#now = now;
  }

  tell(outcome: Outcome): void {
    const { namespace, isDryRun } = outcome;
    const owner = ownerOf(outcome.owner);
    if (owner === undefined || !NAMESPACE.test(namespace) || isDryRun || !TOLD.has(outcome.kind)) return;
    if (this.#waiting >= WAITING_MAX || !this.#mayTell(outcome)) return;
    this.#waiting += 1;
    const event = this.#eventOf(outcome, owner);
    this.#last = this.#last
      .then(() => this.#kubernetes.create(`/api/v1/namespaces/${namespace}/events`, event))
      .finally(() => {
        this.#waiting -= 1;
      });
  }

  /** Those that wait are sent. */
  async flush(): Promise<void> {
    await this.#last;
  }

  #mayTell({ namespace, kind }: Outcome): boolean {
    const now = this.#now();
    // The clock may have been set back.
    if (Math.abs(now - this.#periodStart) >= PERIOD_MS) {
      this.#periodStart = now;
      this.#told.clear();
    }
    const told = this.#told.get(namespace) ?? 0;
    if (told >= (kind === 'injected' ? INJECTED_MAX : EVENTS_MAX)) return false;
    if (told === 0 && this.#told.size >= NAMESPACES_MAX) return false;
    this.#told.set(namespace, told + 1);
    return true;
  }

  #eventOf({ kind, message, namespace }: Outcome, owner: Raw) {
    const time = new Date(this.#now()).toISOString();
    this.#count += 1;
    return {
      apiVersion: 'v1',
      kind: 'Event',
      metadata: { namespace, name: `mcp-sidecar.${this.#now().toString(16)}${this.#count.toString(16)}` },
      involvedObject: { ...owner, namespace },
      type: kind === 'injected' ? 'Normal' : 'Warning',
      reason: REASONS[kind] ?? 'Ignored',
      message: message.slice(0, MESSAGE_MAX),
      source: { component: 'mcp-sidecar-injector' },
      firstTimestamp: time,
      lastTimestamp: time,
      count: 1,
    };
  }
}

/** @returns what an owner reference must have, and `undefined` where it does not. */
function ownerOf(reference: Raw | undefined): Raw | undefined {
  const texts = ['apiVersion', 'kind', 'name', 'uid'].map((key) => [key, textAt(reference ?? {}, key) ?? ''] as const);
  const isWhole = texts.every(([, text]) => text !== '' && text.length <= OWNER_TEXT_MAX);
  return isWhole ? Object.fromEntries(texts) : undefined;
}

const REASONS: Readonly<Partial<Record<Outcome['kind'], string>>> = {
  injected: 'SidecarInjected',
  skipped: 'SidecarSkipped',
  denied: 'SidecarDenied',
  unavailable: 'SidecarDenied',
};
const TOLD = new Set(Object.keys(REASONS));
