/**
 * The injector's figures in Prometheus' text format (0.0.4). A dozen series of fixed names and labels.
 */
import type { Reviewed } from './server.ts';

/** Upper bounds in seconds. The API server waits 5 s. */
const BOUNDS = [0.001, 0.005, 0.025, 0.1, 0.5, 1, 5];

export class InjectorMetrics {
  /** `result`, `reason` → count. */
  readonly #reviews = new Map<string, number>();
  readonly #buckets = BOUNDS.map(() => 0);
  #count = 0;
  #sumSeconds = 0;
  /** Milliseconds since the epoch. */
  certificateUntil: number | undefined = undefined;
  isNative = false;

  reviewed({ outcome, status, durationMs }: Reviewed): void {
    const result = outcome?.kind ?? 'invalid';
    const reason = outcome?.refusal ?? (outcome === undefined ? String(status) : '');
    const labels = `result="${result}",reason="${reason}"`;
    this.#reviews.set(labels, (this.#reviews.get(labels) ?? 0) + 1);
    const seconds = durationMs / 1000;
    this.#count += 1;
    this.#sumSeconds += seconds;
    for (const [index, bound] of BOUNDS.entries()) if (seconds <= bound) this.#buckets[index]! += 1;
  }

  text(groupsKnown: boolean): string {
    const lines = [
      '# HELP mcp_sidecar_injector_reviews_total Admission reviews, by what became of them.',
      '# TYPE mcp_sidecar_injector_reviews_total counter',
      ...[...this.#reviews].sort().map(([labels, count]) => `mcp_sidecar_injector_reviews_total{${labels}} ${count}`),
      '# HELP mcp_sidecar_injector_review_duration_seconds From the head of a review to its reply.',
      '# TYPE mcp_sidecar_injector_review_duration_seconds histogram',
      ...BOUNDS.map((bound, index) => bucket(String(bound), this.#buckets[index]!)),
      bucket('+Inf', this.#count),
      `mcp_sidecar_injector_review_duration_seconds_sum ${this.#sumSeconds}`,
      `mcp_sidecar_injector_review_duration_seconds_count ${this.#count}`,
      '# HELP mcp_sidecar_injector_certificate_expiry_timestamp_seconds When the certificate that is served ends.',
      '# TYPE mcp_sidecar_injector_certificate_expiry_timestamp_seconds gauge',
      ...(this.certificateUntil === undefined
        ? []
        : [`mcp_sidecar_injector_certificate_expiry_timestamp_seconds ${this.certificateUntil / 1000}`]),
      '# HELP mcp_sidecar_injector_groups_known Whether the groups of the cluster are known.',
      '# TYPE mcp_sidecar_injector_groups_known gauge',
      `mcp_sidecar_injector_groups_known ${groupsKnown ? 1 : 0}`,
      '# HELP mcp_sidecar_injector_native Whether sidecars are made as native ones.',
      '# TYPE mcp_sidecar_injector_native gauge',
      `mcp_sidecar_injector_native ${this.isNative ? 1 : 0}`,
    ];
    return `${lines.join('\n')}\n`;
  }
}

function bucket(bound: string, count: number): string {
  return `mcp_sidecar_injector_review_duration_seconds_bucket{le="${bound}"} ${count}`;
}
