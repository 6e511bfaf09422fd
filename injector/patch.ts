/**
 * A pod → the JSON Patch that gives it its sidecar. PURE, deterministic, and only ever adding to what others wrote.
 *
 * Guarantees: the patch applies to the very object it was made for; carrying it out twice is carrying it out once; a pod
 * that has something of ours which is not what we would have given it is refused, since it could be a forged sidecar. Of a
 * sidecar that is there only the word on who is which agent is ever changed: it is worked out from the pod as it is now.
 * `uninject` takes away exactly what this has put there.
 */
import { err, ok, type Result } from '../policies/result.ts';
import { agentsOf } from './agents.ts';
import { clientFileFor } from './client-file.ts';
import { clientConfig, type Mode, type SidecarParts, sidecarContainer, sidecarVolumes } from './container.ts';
import { findGroup, type Group } from './group.ts';
import { type AddOperation, applyPatch, pointer } from './json-patch.ts';
import { CLIENT_CONFIG, CLIENT_FOLDER, CLIENT_VOLUME, DEFAULT_CONTAINER, SERVER_URL, STATUS } from './names.ts';
import type { InjectorOptions } from './options.ts';
import { annotationsOf, ownPlaces, type Place, serviceAccountOf, shapeProblem } from './pod.ts';
import { isRaw, type Raw, rawAt, rawList, textAt } from './raw-object.ts';
import { updatesFor } from './recognise.ts';
import { type Refusal, type RefusalKind, reasonToRefuse, reasonToSkip, reservedIn } from './refusal.ts';
import { readSettings } from './settings.ts';
import { keyOfCreated, readStatus, type Status, uninject } from './uninject.ts';

export interface InjectionContext {
  readonly options: InjectorOptions;
  readonly mode: Mode;
  /** Every group of the pod's namespace, those that cannot be read too. */
  readonly groups: readonly Result<Group, string>[];
  /** The pod belongs to a Job. */
  readonly isJob: boolean;
}

export type Injection =
  | {
      /** `updated`: it is there, but others have changed since which user is which agent. */
      readonly kind: 'injected' | 'updated';
      readonly operations: readonly AddOperation[];
      readonly group: string;
      readonly warnings: readonly string[];
    }
  /** It is there already, as we would have put it there. */
  | { readonly kind: 'present'; readonly group: string }
  | { readonly kind: 'skipped'; readonly warning: string };

/** @param pod A Pod, or the template of one: `metadata` and `spec` are looked at. */
export function inject(pod: Raw, context: InjectionContext): Result<Injection, Refusal> {
  const shape = shapeProblem(pod);
  if (shape !== undefined) return refuse('shape', shape);
  const warning = reasonToSkip(pod);
  if (warning !== undefined) return ok({ kind: 'skipped', warning });

  const reserved = reservedIn(pod);
  const status = readStatus(pod);
  if (reserved === undefined && status === undefined) return plan(pod, context, undefined);

  // Something of ours is there. It is ours when taking it away and putting it there again leads to the same.
  const found = status?.ok === true ? status.value : undefined;
  const bare = found === undefined ? undefined : uninject(pod);
  if (found === undefined || bare === undefined || reservedIn(bare) !== undefined)
    return notOurs(reserved ?? `an annotation ${STATUS}`);
  const again = plan(bare, { ...context, mode: found.mode }, found);
  if (!again.ok || again.value.kind !== 'injected') return again;
  const { group, warnings } = again.value;
  const operations = updatesFor(pod, applyPatch(bare, again.value.operations));
  if (operations === undefined) return notOurs(reserved ?? `an annotation ${STATUS}`);
  return ok(operations.length === 0 ? { kind: 'present', group } : { kind: 'updated', operations, group, warnings });
}

function refuse(kind: RefusalKind, message: string): Result<never, Refusal> {
  return err({ kind, message });
}

function notOurs(what: string): Result<never, Refusal> {
  return refuse(
    'reserved',
    `the pod already has ${what}, and it is not what this injector would put there: remove it (sidecar uninject), or leave the annotation mcp-sidecar.io/inject away`,
  );
}

/**
 * @param before What an earlier injection says that it did: containers which others have added since are left alone,
 * so is the choice of the default container, and what was free or missing then is a fact of then.
 */
function plan(pod: Raw, context: InjectionContext, before: Status | undefined): Result<Injection, Refusal> {
  const { options, mode, groups, isJob } = context;
  const settings = readSettings(annotationsOf(pod), options);
  if (!settings.ok) return refuse('settings', settings.error);
  const refusal = reasonToRefuse(pod, settings.value, { mode, isJob, options });
  if (refusal !== undefined) return err(refusal);
  const group = findGroup(groups, settings.value.group, serviceAccountOf(pod));
  if (!group.ok) return refuse('group', group.error);

  const known = new Set(before?.containers);
  const isKnown = ({ container }: Place) => before === undefined || known.has(String(container.name));
  const places = ownPlaces(pod).filter(isKnown);
  const agents = agentsOf(pod, places, mode);
  const parts: SidecarParts = {
    group: group.value,
    settings: settings.value,
    options,
    mode,
    agents: agents.byUser,
  };
  const served = places.filter(
    (place) =>
      // Before a classic sidecar runs, init containers have nobody to call.
      (place.list === 'containers' || mode === 'native') &&
      !settings.value.excluded.includes(String(place.container.name)),
  );
  const clientFile = clientFileFor(pod, served, before?.files);
  const warnings = [
    ...agents.warnings,
    ...clientFile.warnings,
    ...settings.value.excluded
      .filter((name) => !places.some(({ container }) => container.name === name))
      .map((name) => `mcp-sidecar: no container is named ${name}, which was to be excluded`),
  ];
  return ok({
    kind: 'injected',
    operations: operationsFor(pod, parts, { places, served, withFile: clientFile.given, warnings }, before),
    group: group.value.name,
    warnings: [
      ...warnings,
      ...(group.value.servers.length > 1
        ? [
            `mcp-sidecar: the group ${group.value.name} has several servers: ${CLIENT_FOLDER}/mcp.json names each, ${SERVER_URL} none of them`,
          ]
        : []),
    ],
  });
}

interface Places {
  /** All containers of the pod's own. */
  readonly places: readonly Place[];
  /** Those that are told where the sidecar is. */
  readonly served: readonly Place[];
  /** Those of them that get mcp.json. */
  readonly withFile: ReadonlySet<Place>;
  /** Why they are not told apart as agents, or go without the file, and whom nobody could exclude. */
  readonly warnings: readonly string[];
}

function operationsFor(
  pod: Raw,
  parts: SidecarParts,
  { places, served, withFile, warnings }: Places,
  before: Status | undefined,
): AddOperation[] {
  const spec = rawAt(pod, 'spec');
  const operations: AddOperation[] = [];
  const created: string[] = [];
  const add = (path: string, value: unknown) => operations.push({ op: 'add', path, value });
  /** Adds items at the end of a list, which may not be there. */
  const append = (list: unknown, path: string, key: string, items: readonly Raw[]) => {
    if (Array.isArray(list)) for (const item of items) add(`${path}/-`, item);
    else if (items.length > 0) {
      add(path, items);
      created.push(keyOfCreated(key, list));
    }
  };

  append(spec.volumes, '/spec/volumes', 'volumes', sidecarVolumes(parts));

  const ownList = parts.mode === 'native' ? 'initContainers' : 'containers';
  const container = sidecarContainer(parts);
  if (Array.isArray(spec[ownList])) add(`/spec/${ownList}/0`, container);
  else {
    add(`/spec/${ownList}`, [container]);
    created.push(keyOfCreated(ownList, spec[ownList]));
  }

  const url = `http://127.0.0.1:${parts.settings.port}/mcp`;
  const environment: string[] = [];
  const files: string[] = [];
  for (const place of served) {
    const { list, index, container: own } = place;
    const name = String(own.name);
    const path = pointer('spec', list, list === ownList ? index + 1 : index);
    if (!rawList(own.env).some((one) => one.name === SERVER_URL)) {
      append(own.env, `${path}/env`, `${name} env`, [{ name: SERVER_URL, value: url }]);
      environment.push(name);
    }
    if (withFile.has(place)) {
      const mount = { name: CLIENT_VOLUME, mountPath: CLIENT_FOLDER, readOnly: true };
      append(own.volumeMounts, `${path}/volumeMounts`, `${name} volumeMounts`, [mount]);
      files.push(name);
    }
  }

  const annotations = new Map<string, string>([[CLIENT_CONFIG, clientConfig(parts)]]);
  const chosen = annotationsOf(pod)[DEFAULT_CONTAINER];
  const first = textAt(rawList(spec.containers)[0] ?? {}, 'name');
  if (
    chosen === undefined &&
    first !== undefined &&
    (before === undefined || before.annotations.includes(DEFAULT_CONTAINER))
  )
    annotations.set(DEFAULT_CONTAINER, first);
  const { metadata } = pod;
  if (!isRaw(metadata)) created.push(keyOfCreated('metadata', metadata));
  else if (!isRaw(metadata.annotations)) created.push(keyOfCreated('annotations', metadata.annotations));
  const status: Status = {
    version: 1,
    mode: parts.mode,
    group: parts.group.name,
    containers: places.map(({ container: own }) => String(own.name)),
    volumes: sidecarVolumes(parts).map((volume) => String(volume.name)),
    environment,
    files,
    annotations: [...annotations.keys()],
    created: before?.created ?? created,
    ...(warnings.length === 0 ? {} : { warnings }),
  };
  annotations.set(STATUS, JSON.stringify(status));
  const members = Object.fromEntries(annotations);
  if (!isRaw(metadata)) add('/metadata', { annotations: members });
  else if (!isRaw(metadata.annotations)) add('/metadata/annotations', members);
  else for (const [name, value] of annotations) add(pointer('metadata', 'annotations', name), value);
  return operations;
}
