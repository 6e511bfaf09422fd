/**
 * Whether what a pod has of ours is what an injection would put there, and what brings it up to date. PURE.
 *
 * Guarantees: a container, volume, mount or annotation that is not as we would have made it is not ours. Only who is which
 * agent may differ, since a later webhook may have set the users: and then what the pod presents is replaced, never believed.
 */
import { POD_VARIABLE } from '../sidecar/config/pod-overrides.ts';
import { type AddOperation, pointer } from './json-patch.ts';
import { CLIENT_CONFIG, CONTAINER, STATUS, VOLUME } from './names.ts';
import { annotationsOf, ownPlaces, placesOf } from './pod.ts';
import { keptQuantity } from './quantity.ts';
import { isRaw, isSameJson, plainText, type Raw, rawAt, rawList } from './raw-object.ts';

/** Service account tokens of the cluster itself are mounted into every container, ours too, by the API server. */
const SERVICE_ACCOUNT_FOLDER = '/var/run/secrets/kubernetes.io/serviceaccount';

/**
 * @param wanted The pod as we would have made it.
 * @returns what makes ours in `pod` that of `wanted`, nothing where it is; `undefined`: it is not ours.
 */
export function updatesFor(pod: Raw, wanted: Raw): readonly AddOperation[] | undefined {
  if (!isSameJson(tracesIn(pod), tracesIn(wanted))) return undefined;
  const [found, made] = [pod, wanted].map((one) => placesOf(one).find(({ container }) => container.name === CONTAINER));
  if (found === undefined || made === undefined) return undefined;
  const updates: AddOperation[] = [];
  const update = (path: string, before: unknown, value: unknown) => {
    // To add a member that is there is to replace it (RFC 6902, 4.1).
    if (before !== value) updates.push({ op: 'add', path, value });
  };
  const [isValue, shouldBe] = [found, made].map(({ container }) => rawList(container.env)[0]?.value);
  update(pointer('spec', found.list, found.index, 'env', 0, 'value'), isValue, shouldBe);
  update(pointer('metadata', 'annotations', STATUS), annotationsOf(pod)[STATUS], annotationsOf(wanted)[STATUS]);
  return updates;
}

/** Everything of ours in a pod, but for who is which agent, and the warnings, which say why they are not told apart. */
function tracesIn(pod: Raw): Raw {
  return {
    containers: placesOf(pod)
      .filter(({ container }) => container.name === CONTAINER)
      .map(({ list, container }) => [list, comparable(container)]),
    volumes: rawList(rawAt(pod, 'spec').volumes).filter(({ name }) => plainText(name).startsWith(VOLUME)),
    clientConfig: annotationsOf(pod)[CLIENT_CONFIG],
    status: withoutMember(annotationsOf(pod)[STATUS], 'warnings'),
    mounts: ownPlaces(pod).flatMap(({ container }) =>
      rawList(container.volumeMounts).filter(({ name }) => plainText(name).startsWith(VOLUME)),
    ),
  };
}

/**
 * The container but for what the API server adds to every one (a LimitRange: ephemeral-storage), and with exact
 * quantities: it writes 0.7 as 700m.
 */
function comparable({ resizePolicy: _, ...container }: Raw): Raw {
  const amounts = (side: string) =>
    Object.entries(rawAt(container, 'resources', side))
      .filter(([name]) => name !== 'ephemeral-storage')
      .map(([name, amount]) => [name, keptQuantity(plainText(amount))]);
  return {
    ...container,
    env: rawList(container.env).map((variable) =>
      variable.name === POD_VARIABLE ? { ...variable, value: withoutMember(variable.value, 'identify') } : variable,
    ),
    resources: [amounts('requests'), amounts('limits')],
    volumeMounts: rawList(container.volumeMounts).filter(({ mountPath }) => mountPath !== SERVICE_ACCOUNT_FOLDER),
  };
}

/** JSON text as what it says, but for one member; what is no object in JSON stays as it is. */
function withoutMember(text: unknown, member: string): unknown {
  let value: unknown;
  try {
    value = JSON.parse(plainText(text));
  } catch {
    return text;
  }
  return isRaw(value) ? Object.fromEntries(Object.entries(value).filter(([key]) => key !== member)) : text;
}
