/**
 * An AdmissionReview (admission.k8s.io/v1) → the reply to it. PURE and deterministic.
 *
 * Guarantees: UID and version come back as they came; a pod is only kept from being made (`allowed: false`) when it asks
 * to be injected and cannot be. What is not the making of a pod is let through as it is.
 *
 * Source: k8s.io/api/admission/v1/types.go. A reply whose UID differs, or whose patch does not apply, fails the pod
 * whatever the webhook's failure policy says.
 */
import { err, ok, type Result } from '../policies/result.ts';
import type { Mode } from './container.ts';
import type { Group } from './group.ts';
import { INJECT, STATUS } from './names.ts';
import type { InjectorOptions } from './options.ts';
import { inject } from './patch.ts';
import { annotationsOf, serviceAccountOf } from './pod.ts';
import { isRaw, plainText, type Raw, rawAt, rawList, textAt } from './raw-object.ts';
import type { RefusalKind } from './refusal.ts';

export interface Cluster {
  readonly options: InjectorOptions;
  readonly mode: Mode;
  /** `undefined`: the groups are not known yet, or no longer. */
  readonly groupsIn: (namespace: string) => readonly Result<Group, string>[] | undefined;
}

/** What became of a review: for metrics, the log and an event on the pod's owner. */
export interface Outcome {
  readonly kind: 'injected' | 'updated' | 'present' | 'skipped' | 'ignored' | 'denied' | 'unavailable';
  /** Of a denial. */
  readonly refusal: RefusalKind | 'groupsUnknown' | undefined;
  readonly namespace: string;
  /** A pod of a controller has no name yet: then what its name will begin with. */
  readonly name: string;
  readonly serviceAccount: string;
  readonly group: string | undefined;
  readonly message: string;
  readonly isDryRun: boolean;
  /** The pod's controller, as its owner reference has it. */
  readonly owner: Raw | undefined;
}

export interface Reviewed {
  /** The whole AdmissionReview to send. */
  readonly reply: Raw;
  readonly outcome: Outcome;
}

const VERSION = 'admission.k8s.io/v1';
/** The API server cuts warnings: 120 characters each are advised, 4096 in all are shown. */
const WARNING_MAX = 256;

/** @returns an error where there is nothing to reply to: no AdmissionReview of version 1 with a request that has a UID. */
export function review(body: unknown, cluster: Cluster): Result<Reviewed, string> {
  if (!isRaw(body) || body.kind !== 'AdmissionReview') return err('the body is not an AdmissionReview');
  if (body.apiVersion !== VERSION)
    return err(`AdmissionReview ${plainText(body.apiVersion).slice(0, 50)} is not known here: only ${VERSION}`);
  const request = rawAt(body, 'request');
  const uid = textAt(request, 'uid');
  if (uid === undefined || uid === '') return err('the AdmissionReview has no request with a uid');
  const { response, outcome } = answer(request, cluster);
  return ok({ reply: { apiVersion: VERSION, kind: 'AdmissionReview', response: { uid, ...response } }, outcome });
}

interface Answer {
  readonly response: Raw;
  readonly outcome: Outcome;
}

function answer(request: Raw, cluster: Cluster): Answer {
  const pod = rawAt(request, 'object');
  const metadata = rawAt(pod, 'metadata');
  // A pod made by a controller has neither a name nor a namespace yet.
  const namespace = textAt(request, 'namespace') ?? textAt(metadata, 'namespace') ?? '';
  const owner = rawList(metadata.ownerReferences).find(({ controller }) => controller === true);
  const outcomeOf = (kind: Outcome['kind'], message: string, more: Partial<Outcome> = {}): Outcome => ({
    kind,
    message,
    refusal: undefined,
    namespace,
    name: textAt(request, 'name') || textAt(metadata, 'name') || (textAt(metadata, 'generateName') ?? ''),
    serviceAccount: serviceAccountOf(pod),
    group: undefined,
    isDryRun: request.dryRun === true,
    owner,
    ...more,
  });
  const allow = (outcome: Outcome, warnings: readonly string[] = [], more: Raw = {}): Answer => ({
    response: { allowed: true, ...(warnings.length === 0 ? {} : { warnings: warnings.map(cut) }), ...more },
    outcome,
  });
  const deny = (outcome: Outcome, code: number): Answer => ({
    response: { allowed: false, status: { code, message: `mcp-sidecar: ${outcome.message}` } },
    outcome,
  });

  const wish = annotationsOf(pod)[INJECT];
  if (!isPodBeingMade(request) || wish === undefined || wish === 'false') return allow(outcomeOf('ignored', ''));
  if (wish !== 'true')
    return deny(
      outcomeOf('denied', `the annotation ${INJECT} must be "true" or "false"`, { refusal: 'settings' }),
      400,
    );

  const excess = excessOf(pod);
  if (excess !== undefined) return deny(outcomeOf('denied', excess, { refusal: 'shape' }), 400);

  const groups = cluster.groupsIn(namespace);
  if (groups === undefined)
    return deny(
      outcomeOf('unavailable', 'the groups of this cluster are not known yet: the pod is tried again', {
        refusal: 'groupsUnknown',
      }),
      503,
    );
  const injected = inject(pod, {
    options: cluster.options,
    mode: cluster.mode,
    groups,
    isJob: owner?.kind === 'Job',
  });
  if (!injected.ok) return deny(outcomeOf('denied', injected.error.message, { refusal: injected.error.kind }), 403);
  const found = injected.value;
  switch (found.kind) {
    case 'skipped':
      return allow(outcomeOf('skipped', found.warning), [found.warning]);
    case 'present':
      return allow(outcomeOf('present', 'the sidecar is there already', { group: found.group }));
    case 'injected':
    case 'updated': {
      const message =
        found.kind === 'injected'
          ? `mcp-sidecar of the group ${found.group}`
          : 'the sidecar is there already, and told anew who is which agent';
      const patch = Buffer.from(JSON.stringify(found.operations)).toString('base64');
      return allow(outcomeOf(found.kind, message, { group: found.group }), found.warnings, {
        patchType: 'JSONPatch',
        patch,
      });
    }
  }
}

const LIST_MAX = 1_000;
const STATUS_MAX = 64 * 1024;

/** Names are looked for in one list for each of another, and a review is anybody's text: seconds a reply otherwise. */
function excessOf(pod: Raw): string | undefined {
  const spec = rawAt(pod, 'spec');
  for (const key of ['containers', 'initContainers', 'ephemeralContainers', 'volumes'])
    if (rawList(spec[key]).length > LIST_MAX) return `the pod has more than ${LIST_MAX} ${key}`;
  const annotations = annotationsOf(pod);
  if (Object.keys(annotations).length > LIST_MAX) return `the pod has more than ${LIST_MAX} annotations`;
  if (plainText(annotations[STATUS]).length > STATUS_MAX)
    return `the annotation ${STATUS} was not written by the injector: it is longer than ${STATUS_MAX / 1024} KiB`;
  return undefined;
}

function isPodBeingMade(request: Raw): boolean {
  const { group, version, resource } = rawAt(request, 'resource');
  return (
    (group ?? '') === '' &&
    version === 'v1' &&
    resource === 'pods' &&
    (request.subResource ?? '') === '' &&
    request.operation === 'CREATE'
  );
}

function cut(warning: string): string {
  return warning.length <= WARNING_MAX ? warning : `${warning.slice(0, WARNING_MAX - 1)}…`;
}
