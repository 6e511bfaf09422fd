/**
 * What the API server does with a mutating webhook, as far as the outcome of a pod depends on it: for tests of many
 * requests at once, killed replicas and rotations, which need no etcd.
 *
 * Source: kubernetes, staging/src/k8s.io/apiserver/pkg/admission/plugin/webhook/mutating/dispatcher.go and
 * pkg/admission/plugin/webhook/request/admissionreview.go. Its rules:
 * - a reply must be an AdmissionReview of the version asked in, with the UID asked with;
 * - transport errors, statuses other than 200 and undecodable replies are the failure policy's; a reply that says no,
 *   and a patch that does not apply, are not: they refuse the pod also under `Ignore`;
 * - a webhook with `reinvocationPolicy: IfNeeded` is asked once more when a later one has changed the pod.
 */
import { randomUUID } from 'node:crypto';
import { applyPatch } from '../../injector/json-patch.ts';
import { isRaw, isSameJson, type Raw } from '../../injector/raw-object.ts';
import { reviewOf } from './webhook.ts';

export interface Registered {
  readonly name: string;
  readonly failurePolicy: 'Fail' | 'Ignore';
  readonly reinvocationPolicy: 'Never' | 'IfNeeded';
  readonly timeoutMs: number;
  /** Rejects on a transport error. */
  readonly call: (body: string, signal: AbortSignal) => Promise<{ readonly status: number; readonly text: string }>;
}

export type Admitted =
  | {
      readonly allowed: true;
      readonly pod: Raw;
      readonly warnings: readonly string[];
      readonly failedOpen: readonly string[];
    }
  | { readonly allowed: false; readonly message: string };

class Refused extends Error {}
/** What the failure policy decides about. */
class CallFailed extends Error {}

export async function admit(pod: Raw, webhooks: readonly Registered[], changes: Raw = {}): Promise<Admitted> {
  let current = pod;
  const warnings: string[] = [];
  const failedOpen: string[] = [];
  const seenBy = new Map<string, Raw>();
  try {
    for (const round of [1, 2])
      for (const webhook of webhooks) {
        const before = seenBy.get(webhook.name);
        const isDue = round === 1 || (webhook.reinvocationPolicy === 'IfNeeded' && !isSameJson(before, current));
        if (!isDue) continue;
        try {
          const { patch, warnings: said } = await ask(webhook, current, changes);
          warnings.push(...said);
          current = carryOut(current, patch);
        } catch (error) {
          if (!(error instanceof CallFailed)) throw error;
          if (webhook.failurePolicy === 'Fail')
            throw new Refused(`failed calling webhook "${webhook.name}": ${error.message}`);
          failedOpen.push(webhook.name);
        }
        seenBy.set(webhook.name, current);
      }
    return { allowed: true, pod: current, warnings, failedOpen };
  } catch (error) {
    if (error instanceof Refused) return { allowed: false, message: error.message };
    throw error;
  }
}

async function ask(webhook: Registered, pod: Raw, changes: Raw): Promise<{ patch: unknown; warnings: string[] }> {
  const uid = randomUUID();
  const signal = AbortSignal.timeout(webhook.timeoutMs);
  const answer = await webhook
    .call(JSON.stringify(reviewOf(pod, { uid, ...changes })), signal)
    .catch((error: unknown) => Promise.reject(new CallFailed(error instanceof Error ? error.message : 'no answer')));
  if (answer.status !== 200) throw new CallFailed(`unexpected status ${answer.status}`);
  let review: unknown;
  try {
    review = JSON.parse(answer.text);
  } catch {
    throw new CallFailed('the reply is not JSON');
  }
  if (
    !isRaw(review) ||
    review.kind !== 'AdmissionReview' ||
    review.apiVersion !== 'admission.k8s.io/v1' ||
    !isRaw(review.response)
  )
    throw new CallFailed('the reply is no AdmissionReview');
  const { response } = review;
  if (response.uid !== uid) throw new CallFailed('the reply has another UID');
  if (typeof response.allowed !== 'boolean') throw new CallFailed('the reply does not say allowed');
  if (!response.allowed) throw new Refused(`admission webhook "${webhook.name}" denied the request`);
  if ((response.patch === undefined) !== (response.patchType === undefined))
    throw new CallFailed('patch and patchType go together');
  if (response.patchType !== undefined && response.patchType !== 'JSONPatch')
    throw new CallFailed('an unknown patchType');
  const warnings = Array.isArray(response.warnings) ? response.warnings.map(String) : [];
  if (response.patch === undefined) return { patch: [], warnings };
  try {
    return { patch: JSON.parse(Buffer.from(String(response.patch), 'base64').toString()), warnings };
  } catch {
    throw new CallFailed('the patch cannot be decoded');
  }
}

function carryOut(pod: Raw, patch: unknown): Raw {
  try {
    return applyPatch(pod, patch as Parameters<typeof applyPatch>[1]);
  } catch (error) {
    throw new Refused(`the patch does not apply: ${error instanceof Error ? error.message : ''}`);
  }
}
