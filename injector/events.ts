/**
 * Tells in the pod's owner (its ReplicaSet, Job, …) what became of the pod: there `kubectl describe` shows it, while a
 * pod that was denied is nowhere to be seen. Never in a dry run, never waited for, and never more than a few at a time.
 */
import type { Kubernetes } from './kubernetes.ts';
import type { Outcome } from './review.ts';

const WAITING_MAX = 100;
const MESSAGE_MAX = 1024;

export class OwnerEvents {
  readonly #kubernetes: Kubernetes;
  readonly #now: () => number;
  #waiting = 0;
  #count = 0;
  #last: Promise<unknown> = Promise.resolve();

  constructor(kubernetes: Kubernetes, now: () => number) {
    this.#kubernetes = kubernetes;
    this.#now = now;
  }

  tell(outcome: Outcome): void {
    const { owner, namespace, isDryRun } = outcome;
    if (owner === undefined || namespace === '' || isDryRun || !TOLD.has(outcome.kind)) return;
    if (this.#waiting >= WAITING_MAX) return;
    this.#waiting += 1;
    const event = this.#eventOf(outcome);
    this.#last = this.#last
      .then(() => this.#kubernetes.create(`/api/v1/namespaces/${encodeURIComponent(namespace)}/events`, event))
      .finally(() => {
        this.#waiting -= 1;
      });
  }

  /** Those that wait are sent. */
  async flush(): Promise<void> {
    await this.#last;
  }

  #eventOf({ kind, message, namespace, owner }: Outcome) {
    const time = new Date(this.#now()).toISOString();
    this.#count += 1;
    return {
      apiVersion: 'v1',
      kind: 'Event',
      metadata: { namespace, name: `mcp-sidecar.${this.#now().toString(16)}${this.#count.toString(16)}` },
      involvedObject: {
        apiVersion: owner?.apiVersion,
        kind: owner?.kind,
        name: owner?.name,
        uid: owner?.uid,
        namespace,
      },
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

const REASONS: Readonly<Partial<Record<Outcome['kind'], string>>> = {
  injected: 'SidecarInjected',
  skipped: 'SidecarSkipped',
  denied: 'SidecarDenied',
  unavailable: 'SidecarDenied',
};
const TOLD = new Set(Object.keys(REASONS));
