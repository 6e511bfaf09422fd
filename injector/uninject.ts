/**
 * Takes away what an injection has put into a pod, by the status annotation that says what that was. PURE.
 *
 * `uninject(applyPatch(pod, inject(pod)))` is `pod`, for every pod; what others have added since is left.
 */
import { err, ok, type Result } from '../policies/result.ts';
import type { Mode } from './container.ts';
import { CLIENT_VOLUME, CONTAINER, SERVER_URL, STATUS } from './names.ts';
import { annotationsOf } from './pod.ts';
import { isRaw, plainText, type Raw, rawAt, rawList } from './raw-object.ts';

/** The annotation `mcp-sidecar.io/status`. */
export interface Status {
  readonly version: 1;
  readonly mode: Mode;
  readonly group: string;
  /** The pod's own containers, as they were. */
  readonly containers: readonly string[];
  /** Names of our volumes. */
  readonly volumes: readonly string[];
  /** Containers that were given the variable, and those that were given the file. */
  readonly environment: readonly string[];
  readonly files: readonly string[];
  /** Annotations that were added, beside this one. */
  readonly annotations: readonly string[];
  /** Lists and objects that were not there: `volumes`, `initContainers`, `annotations`, `<container> env`, …; see {@link keyOfCreated}. */
  readonly created: readonly string[];
  /** What a reply warns of: a controller that makes the pod shows nobody the warnings of its reply. */
  readonly warnings?: readonly string[];
}

/** How the status names something that was not there before; a file may have had a `null` in its place. */
export function keyOfCreated(key: string, before: unknown): string {
  return before === null ? `${key}: null` : key;
}

/** `undefined`: the pod has no such annotation. */
export function readStatus(pod: Raw): Result<Status, string> | undefined {
  const text = annotationsOf(pod)[STATUS];
  if (text === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(plainText(text));
  } catch {
    return err(`the annotation ${STATUS} is not JSON`);
  }
  const status = value as Status;
  const isList = (list: unknown) => Array.isArray(list) && list.every((item) => typeof item === 'string');
  const isWhole =
    isRaw(value) &&
    value.version === 1 &&
    (value.mode === 'native' || value.mode === 'classic') &&
    typeof value.group === 'string' &&
    [status.containers, status.volumes, status.environment, status.files, status.annotations, status.created].every(
      isList,
    );
  return isWhole ? ok(status) : err(`the annotation ${STATUS} was not written by this version of the injector`);
}

/** The pod as it was; the same object where nothing of ours is in it, or where its status cannot be read. */
export function uninject(pod: Raw): Raw {
  const status = readStatus(pod);
  if (status === undefined || !status.ok) return pod;
  const { volumes, environment, files, annotations, created } = status.value;
  /** Puts back what was in the place of something that the injection made. */
  const unmake = (owner: Raw, key: string, made: string): Raw | undefined => {
    if (created.includes(made)) return without(owner, key);
    return created.includes(keyOfCreated(made, null)) ? { ...owner, [key]: null } : undefined;
  };
  /** What is left of a list, and nothing of one that is empty now and was not there before. */
  const rest = (owner: Raw, key: string, made: string, isOurs: (item: Raw) => boolean): Raw => {
    if (!Array.isArray(owner[key])) return owner;
    const items = rawList(owner[key]).filter((item) => !isOurs(item));
    return (items.length === 0 ? unmake(owner, key, made) : undefined) ?? { ...owner, [key]: items };
  };
  const restore = (container: Raw): Raw => {
    const name = plainText(container.name);
    let own = container;
    if (environment.includes(name)) own = rest(own, 'env', `${name} env`, (variable) => variable.name === SERVER_URL);
    if (files.includes(name))
      own = rest(own, 'volumeMounts', `${name} volumeMounts`, (mount) => mount.name === CLIENT_VOLUME);
    return own;
  };

  let spec = rest(rawAt(pod, 'spec'), 'volumes', 'volumes', ({ name }) => volumes.includes(plainText(name)));
  for (const list of ['initContainers', 'containers'] as const) {
    spec = rest(spec, list, list, ({ name }) => name === CONTAINER);
    if (Array.isArray(spec[list])) spec = { ...spec, [list]: rawList(spec[list]).map(restore) };
  }

  const added = new Set([...annotations, STATUS]);
  const left = Object.fromEntries(Object.entries(annotationsOf(pod)).filter(([name]) => !added.has(name)));
  const bare = { ...pod, spec };
  const isEmpty = Object.keys(left).length === 0;
  const metadata = rawAt(pod, 'metadata');
  const withoutAnnotations = isEmpty ? unmake(metadata, 'annotations', 'annotations') : undefined;
  const isAlone = isEmpty && Object.keys(metadata).length === 1;
  return (
    (isAlone ? unmake(bare, 'metadata', 'metadata') : undefined) ?? {
      ...bare,
      metadata: withoutAnnotations ?? { ...metadata, annotations: left },
    }
  );
}

function without(owner: Raw, key: string): Raw {
  return Object.fromEntries(Object.entries(owner).filter(([name]) => name !== key));
}
