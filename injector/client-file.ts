/**
 * Which containers can be given mcp.json, and what is in the way in the others. PURE.
 *
 * Guarantees: where the file is mounted it hides nothing of the container's own, nothing of its own hides the file, and the
 * folder can be made. In most images /var/run leads to /run: the two count as one place.
 */
import { normalize } from 'node:path/posix';
import { CLIENT_FOLDER } from './names.ts';
import type { Place } from './pod.ts';
import { isRaw, plainText, type Raw, rawAt, rawList } from './raw-object.ts';

export interface ClientFile {
  readonly given: ReadonlySet<Place>;
  /** Why the others go without. */
  readonly warnings: readonly string[];
}

const FOLDERS = [CLIENT_FOLDER, CLIENT_FOLDER.replace(/^\/var/, '')];
/** The kubelet mounts these read-only, whatever a mount says. */
const READ_ONLY_KINDS = ['configMap', 'secret', 'downwardAPI', 'projected', 'image'];

/** @param before Names of those that an earlier injection gave it to; what is in the way since came later. */
export function clientFileFor(pod: Raw, served: readonly Place[], before: readonly string[] | undefined): ClientFile {
  const readOnlyVolumes = new Set(
    rawList(rawAt(pod, 'spec').volumes)
      .filter((volume) => Object.entries(volume).some(isReadOnlyKind))
      .map(({ name }) => name),
  );
  const given = new Set<Place>();
  const warnings: string[] = [];
  for (const place of served) {
    const name = String(place.container.name);
    const obstacle = obstacleIn(place.container, readOnlyVolumes);
    if (before === undefined ? obstacle === undefined : before.includes(name)) given.add(place);
    else if (obstacle !== undefined)
      warnings.push(`mcp-sidecar: ${name} does not get ${CLIENT_FOLDER}/mcp.json, since it ${obstacle}`);
  }
  return { given, warnings };
}

function isReadOnlyKind([kind, source]: [string, unknown]): boolean {
  return isRaw(source) && (READ_ONLY_KINDS.includes(kind) || source.readOnly === true);
}

function obstacleIn(container: Raw, readOnlyVolumes: ReadonlySet<unknown>): string | undefined {
  for (const { mountPath, name, readOnly } of rawList(container.volumeMounts)) {
    const path = placeOf(mountPath);
    if (FOLDERS.some((folder) => isWithin(path, folder))) return `mounts ${told(mountPath)}`;
    // In one that can be written the folder is made.
    if (FOLDERS.some((folder) => isWithin(folder, path)) && (readOnly === true || readOnlyVolumes.has(name)))
      return `mounts ${told(mountPath)} read-only`;
  }
  for (const { devicePath } of rawList(container.volumeDevices)) {
    const path = placeOf(devicePath);
    if (FOLDERS.some((folder) => isWithin(path, folder) || isWithin(folder, path)))
      return `has a device at ${told(devicePath)}`;
  }
  return undefined;
}

/** As the kubelet reads a path: from the root, whether it says so or not. */
function placeOf(path: unknown): string {
  return normalize(`/${plainText(path)}/`);
}

function isWithin(place: string, folder: string): boolean {
  return place.startsWith(placeOf(folder));
}

function told(path: unknown): string {
  return JSON.stringify(plainText(path).slice(0, 100));
}
