/**
 * What of a pod, or of the template of one, an injection has to know. PURE.
 */
import { CONTAINER } from './names.ts';
import { isRawList, plainText, type Raw, rawAt, rawList, textAt } from './raw-object.ts';

/** Where a container stands: `/spec/containers/0`. */
export interface Place {
  readonly list: 'containers' | 'initContainers';
  readonly index: number;
  readonly container: Raw;
}

export function annotationsOf(pod: Raw): Raw {
  return rawAt(pod, 'metadata', 'annotations');
}

export function serviceAccountOf(pod: Raw): string {
  const spec = rawAt(pod, 'spec');
  // An empty name is none, as the API server has it.
  return textAt(spec, 'serviceAccountName') || textAt(spec, 'serviceAccount') || 'default';
}

/** A sentence when the object is not what Kubernetes calls a pod: seen in files only, never behind an API server. */
export function shapeProblem(pod: Raw): string | undefined {
  const spec = rawAt(pod, 'spec');
  for (const list of ['containers', 'initContainers', 'volumes'] as const)
    if (!isRawList(spec[list])) return `spec.${list} must be a list of objects`;
  if (rawList(spec.containers).length === 0) return 'spec.containers names no container';
  for (const { container, list, index } of placesOf(pod)) {
    if (textAt(container, 'name') === undefined) return `spec.${list}[${index}] has no name`;
    if (!isRawList(container.env) || !isRawList(container.volumeMounts))
      return `spec.${list}[${index}]: env and volumeMounts must be lists of objects`;
  }
  for (const [name, value] of Object.entries(annotationsOf(pod)))
    if (typeof value !== 'string') return `the annotation ${name} must be text (in quotes)`;
  return undefined;
}

export function placesOf(pod: Raw): readonly Place[] {
  const spec = rawAt(pod, 'spec');
  return (['initContainers', 'containers'] as const).flatMap((list) =>
    rawList(spec[list]).map((container, index) => ({ list, index, container })),
  );
}

/** Every container but ours. */
export function ownPlaces(pod: Raw): readonly Place[] {
  return placesOf(pod).filter(({ container }) => container.name !== CONTAINER);
}

/** The user a container runs as, where the pod says so. */
export function userOf(pod: Raw, container: Raw): number | undefined {
  const own = rawAt(container, 'securityContext').runAsUser ?? rawAt(pod, 'spec', 'securityContext').runAsUser;
  return typeof own === 'number' ? own : undefined;
}

/** Capabilities that a security context adds or drops, as runtimes read them: `cap_sys_admin` is SYS_ADMIN. */
export function capabilitiesIn(context: Raw, side: 'add' | 'drop'): readonly string[] {
  const listed = rawAt(context, 'capabilities')[side];
  return Array.isArray(listed) ? listed.map((one) => plainText(one).toUpperCase().replace(/^CAP_/, '')) : [];
}

/** Runs beside the agents for the pod's whole life, or is one: a container, or a native sidecar. */
export function isLasting({ list, container }: Place): boolean {
  return list === 'containers' || container.restartPolicy === 'Always';
}
