/**
 * Whether the sidecar fits into resources that are set for the pod as a whole (`spec.resources`, Kubernetes 1.34). PURE.
 *
 * The API server refuses such a pod itself, but does not say that the sidecar is why. What cannot be read here is left to
 * its judgement. It writes a pod's requests out where only its containers have some: then those leave no room for more.
 *
 * Source: kubernetes, pkg/apis/core/validation/validation.go (validatePodResourceConsistency) and
 * component-helpers/resource/helpers.go (AggregateContainerRequests).
 */
import { RESOURCES, type Resource } from './amounts.ts';
import type { Mode } from './container.ts';
import { settingName } from './names.ts';
import { ownPlaces } from './pod.ts';
import { keptQuantity } from './quantity.ts';
import { isRaw, plainText, type Raw, rawAt } from './raw-object.ts';
import type { Settings } from './settings.ts';

/** In thousandths of a core or byte; `undefined` where it cannot be read, and of every sum with such an amount. */
type Amount = bigint | undefined;

const NONE: Amount = 0n;

/** @returns a sentence where the pod has no room for its sidecar. */
export function tightResources(pod: Raw, { requests, limits }: Settings, mode: Mode): string | undefined {
  if (!isRaw(rawAt(pod, 'spec').resources)) return undefined;
  for (const kind of RESOURCES) {
    const wished = requestsTogether(pod, kind, amountOf(requests[kind]), mode);
    const limit = rawAt(pod, 'spec', 'resources', 'limits')[kind];
    const request = rawAt(pod, 'spec', 'resources', 'requests')[kind];
    const [side, room] = request === undefined ? ['limits', limit] : ['requests', request];
    if (isMore(wished, amountOf(room)))
      return `spec.resources.${side}.${kind} of the pod is ${plainText(room)}, and its containers request ${written(wished, kind)} together with the sidecar: raise it to that, or lower ${settingName(`${kind}-request`)}`;
    // Of init containers, and so of native sidecars, no limit is compared.
    if (mode === 'classic' && isMore(amountOf(limits[kind]), amountOf(limit)))
      return `spec.resources.limits.${kind} of the pod is ${plainText(limit)}, and the limit of the sidecar ${limits[kind]}: raise it to that, or lower ${settingName(`${kind}-limit`)}`;
  }
  return undefined;
}

/** What the scheduler counts: all that run at once, or an init container beside the sidecars that started before it. */
function requestsTogether(pod: Raw, kind: Resource, sidecar: Amount, mode: Mode): Amount {
  let lasting = sidecar;
  let started = mode === 'native' ? sidecar : NONE;
  let most = NONE;
  for (const { list, container } of ownPlaces(pod)) {
    const request = requestOf(container, kind);
    const isNativeSidecar = list === 'initContainers' && container.restartPolicy === 'Always';
    if (list === 'containers' || isNativeSidecar) lasting = sumOf(lasting, request);
    if (isNativeSidecar) started = sumOf(started, request);
    else if (list === 'initContainers') most = largerOf(most, sumOf(started, request));
  }
  return largerOf(lasting, most);
}

/** The API server takes the limit for a request that is not there. */
function requestOf(container: Raw, kind: Resource): Amount {
  const amount = rawAt(container, 'resources', 'requests')[kind] ?? rawAt(container, 'resources', 'limits')[kind];
  return amount === undefined ? NONE : amountOf(amount);
}

function amountOf(amount: unknown): Amount {
  return keptQuantity(plainText(amount));
}

function sumOf(one: Amount, other: Amount): Amount {
  return one === undefined || other === undefined ? undefined : one + other;
}

function largerOf(one: Amount, other: Amount): Amount {
  if (one === undefined || other === undefined) return undefined;
  return one > other ? one : other;
}

function isMore(amount: Amount, room: Amount): amount is bigint {
  return amount !== undefined && room !== undefined && amount > room;
}

function written(amount: bigint, kind: Resource): string {
  if (kind === 'cpu') return `${amount}m`;
  const [mebibyte, byte] = [1_000n * 2n ** 20n, 1_000n];
  return amount % mebibyte === 0n ? `${amount / mebibyte}Mi` : String((amount + byte - 1n) / byte);
}
