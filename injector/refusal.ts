/**
 * Why a pod is not injected. PURE. A refusal keeps the pod from being made; something passed over only warns.
 */

import type { Mode } from './container.ts';
import { CLIENT_CONFIG, CONTAINER, VOLUME } from './names.ts';
import type { InjectorOptions } from './options.ts';
import { annotationsOf, capabilitiesIn, ownPlaces, userOf } from './pod.ts';
import { tightResources } from './pod-resources.ts';
import { isRaw, plainText, type Raw, rawAt, rawList } from './raw-object.ts';
import type { Settings } from './settings.ts';

/** For metrics: one word a reason. */
export type RefusalKind =
  | 'shape'
  | 'settings'
  | 'group'
  | 'namespaces'
  | 'privileges'
  | 'user'
  | 'ports'
  | 'resources'
  | 'job'
  | 'reserved';

export interface Refusal {
  readonly kind: RefusalKind;
  readonly message: string;
}

/** Pods that are let through without a sidecar, with a warning to whoever makes them. */
export function reasonToSkip(pod: Raw): string | undefined {
  const spec = rawAt(pod, 'spec');
  if (rawAt(spec, 'os').name === 'windows' || rawAt(spec, 'nodeSelector')['kubernetes.io/os'] === 'windows')
    return 'mcp-sidecar is not injected: there is no image for Windows';
  // The kubelet's own copy of a static pod; what the API server says of it changes nothing.
  if (Object.hasOwn(annotationsOf(pod), 'kubernetes.io/config.mirror'))
    return 'mcp-sidecar is not injected: this is the mirror of a static pod, which no webhook can change';
  return undefined;
}

/** What would hand the group's credentials to others than its sidecar, or leave the pod unable to start or to end. */
export function reasonToRefuse(
  pod: Raw,
  settings: Settings,
  { mode, isJob, options }: { readonly mode: Mode; readonly isJob: boolean; readonly options: InjectorOptions },
): Refusal | undefined {
  const spec = rawAt(pod, 'spec');
  if (spec.hostNetwork === true)
    return namespaces('hostNetwork: everybody on the node could use the group through its loopback');
  if (spec.hostPID === true) return namespaces('hostPID: its processes could read the memory of the sidecar');
  if (spec.shareProcessNamespace === true)
    return namespaces('shareProcessNamespace: its containers could read the files and memory of the sidecar');
  if (isJob && mode === 'classic')
    return {
      kind: 'job',
      message:
        'a Job would never complete beside a classic sidecar: it needs native sidecars (every kubelet at 1.29 or later)',
    };
  const refusal = tooMighty(pod) ?? nodeVolume(pod) ?? sameUser(pod, options) ?? samePort(pod, settings);
  if (refusal !== undefined) return refusal;
  const message = tightResources(pod, settings, mode);
  return message === undefined ? undefined : { kind: 'resources', message };
}

function namespaces(why: string): Refusal {
  return { kind: 'namespaces', message: `the pod has ${why}` };
}

/**
 * What runtimes grant by themselves. Any other capability may read another's memory, bend its traffic or leave the
 * container, those too that Linux does not have yet.
 */
const ORDINARY = new Set([
  'AUDIT_WRITE',
  'CHOWN',
  'DAC_OVERRIDE',
  'FOWNER',
  'FSETID',
  'KILL',
  'MKNOD',
  'NET_BIND_SERVICE',
  'NET_RAW',
  'SETFCAP',
  'SETGID',
  'SETPCAP',
  'SETUID',
  'SYS_CHROOT',
]);

function tooMighty(pod: Raw): Refusal | undefined {
  for (const { container } of ownPlaces(pod)) {
    const context = rawAt(container, 'securityContext');
    const capability = capabilitiesIn(context, 'add').find((one) => !ORDINARY.has(one));
    const what =
      context.privileged === true
        ? 'is privileged'
        : capability === undefined
          ? undefined
          : `has the capability ${capability || 'without a name'}`;
    if (what !== undefined)
      return {
        kind: 'privileges',
        message: `the pod has a container (${String(container.name)}) that ${what}: it could take the credentials from the sidecar`,
      };
  }
  return undefined;
}

/** Under /var/lib/kubelet lies what is mounted into each pod of the node: not every path that leads there can be told. */
function nodeVolume(pod: Raw): Refusal | undefined {
  const volume = rawList(rawAt(pod, 'spec').volumes).find(({ hostPath }) => isRaw(hostPath));
  return (
    volume && {
      kind: 'privileges',
      message: `the pod has a hostPath volume (${plainText(volume.name)}): on the node lie the credentials of every pod, choose another kind of volume`,
    }
  );
}

/** Same user, same rights over the process: it could be traced, and its environment read. */
function sameUser(pod: Raw, { runAsUser }: InjectorOptions): Refusal | undefined {
  if (runAsUser === undefined) return undefined;
  for (const { container } of ownPlaces(pod))
    if (userOf(pod, container) === runAsUser)
      return {
        kind: 'user',
        message: `the container ${String(container.name)} runs as user ${runAsUser}, which is the sidecar's: choose another runAsUser`,
      };
  return undefined;
}

function samePort(pod: Raw, { port, healthPort }: Settings): Refusal | undefined {
  const ours = new Set<unknown>([port, port + 1, healthPort]);
  for (const { container } of ownPlaces(pod))
    for (const { containerPort } of rawList(container.ports))
      if (ours.has(containerPort))
        return {
          kind: 'ports',
          message: `the container ${String(container.name)} has port ${String(containerPort)}, which the sidecar needs: choose others with the annotations mcp-sidecar.io/port and mcp-sidecar.io/health-port`,
        };
  return undefined;
}

/** Something in the pod has a name that only we give: also a mount, which would find our volume once that is there. */
export function reservedIn(pod: Raw): string | undefined {
  const spec = rawAt(pod, 'spec');
  for (const list of ['containers', 'initContainers', 'ephemeralContainers'])
    if (rawList(spec[list]).some(({ name }) => name === CONTAINER)) return `a container named ${CONTAINER}`;
  const isOurs = (name: unknown) => typeof name === 'string' && name.startsWith(VOLUME);
  const volume = rawList(spec.volumes).find(({ name }) => isOurs(name));
  if (volume !== undefined) return `a volume named ${String(volume.name)}`;
  for (const { container } of ownPlaces(pod)) {
    const mount = rawList(container.volumeMounts).find(({ name }) => isOurs(name));
    if (mount !== undefined) return `a container (${String(container.name)}) that mounts ${String(mount.name)}`;
  }
  return Object.hasOwn(annotationsOf(pod), CLIENT_CONFIG) ? `an annotation ${CLIENT_CONFIG}` : undefined;
}
