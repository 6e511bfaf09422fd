/**
 * A group of agents as the cluster has it: a ConfigMap `mcp-sidecar-<group>` in the pod's namespace. PURE.
 *
 * The ConfigMap, and not the pod, says which service accounts may use it: an annotation alone never picks a credential.
 */
import { err, ok, type Result } from '../policies/result.ts';
import { parseYaml } from '../sidecar/config/yaml-document.ts';
import { GROUP, GROUP_CONFIG_MAP, SECRETS, SERVICE_ACCOUNTS } from './names.ts';
import { type Raw, rawAt, textAt } from './raw-object.ts';

export interface Group {
  readonly name: string;
  readonly serviceAccounts: readonly string[];
  /** Secrets that its sidecar is given, each as a folder of files. */
  readonly secrets: readonly string[];
  /** Names in its sidecar.yaml, for mcp.json. */
  readonly servers: readonly string[];
}

const SERVER_NAME = /^[a-z0-9][a-z0-9-]{0,62}$/;
/** RFC 1123 subdomain, as the names of Secrets and service accounts are. */
const SUBDOMAIN = /^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/;
const SECRETS_MAX = 32;
/** Whoever may write a ConfigMap anywhere gives the injector its text to read: that is not to take long. */
const CONFIG_BYTES_MAX = 64 * 1024;

export function isGroupName(configMap: string): boolean {
  return configMap.startsWith(GROUP_CONFIG_MAP) && configMap.length > GROUP_CONFIG_MAP.length;
}

/** @returns an error that names the ConfigMap and what is wrong with it. */
export function readGroup(configMap: Raw): Result<Group, string> {
  const metadata = rawAt(configMap, 'metadata');
  const configMapName = textAt(metadata, 'name') ?? '';
  const refuse = (problem: string) => err(`the ConfigMap ${configMapName} ${problem}`);
  if (!isGroupName(configMapName)) return refuse(`is no group: its name must begin with ${GROUP_CONFIG_MAP}`);

  const annotations = rawAt(metadata, 'annotations');
  const serviceAccounts = namesIn(textAt(annotations, SERVICE_ACCOUNTS));
  const secrets = namesIn(textAt(annotations, SECRETS));
  // The names themselves are not told: whoever reads the refusal may be of another namespace.
  for (const [annotation, names] of [
    [SERVICE_ACCOUNTS, serviceAccounts],
    [SECRETS, secrets],
  ] as const)
    if (!names.every((name) => SUBDOMAIN.test(name)))
      return refuse(`has in ${annotation} what is no name of Kubernetes`);
  if (secrets.length > SECRETS_MAX) return refuse(`names more than ${SECRETS_MAX} Secrets`);

  const text = textAt(rawAt(configMap, 'data'), 'sidecar.yaml');
  if (text === undefined) return refuse('has no key sidecar.yaml');
  if (Buffer.byteLength(text) > CONFIG_BYTES_MAX)
    return refuse(`has a sidecar.yaml larger than ${CONFIG_BYTES_MAX / 1024} KiB, which the injector does not read`);
  const servers = serversIn(text);
  if (servers === undefined) return refuse('has a sidecar.yaml that is not YAML with servers: sidecar check says more');
  return ok({ name: configMapName.slice(GROUP_CONFIG_MAP.length), serviceAccounts, secrets, servers });
}

/** The group that a pod asks for, where its service account may have it; otherwise why not. */
export function findGroup(
  groups: readonly Result<Group, string>[],
  wanted: string | undefined,
  serviceAccount: string,
): Result<Group, string> {
  const usable = groups.flatMap((group) => (group.ok ? [group.value] : []));
  const faults = groups.flatMap((group) => (group.ok ? [] : [group.error]));
  if (wanted === undefined) {
    const [only, ...more] = usable.filter(({ serviceAccounts }) => serviceAccounts.includes(serviceAccount));
    if (only === undefined)
      return err(
        [
          `no group of this namespace names the service account ${serviceAccount}: a group is a ConfigMap ` +
            `${GROUP_CONFIG_MAP}<group> with the annotation ${SERVICE_ACCOUNTS}`,
          ...faults,
        ].join('; '),
      );
    if (more.length === 0) return ok(only);
    const names = [only, ...more].map(({ name }) => name).sort();
    return err(
      `the service account ${serviceAccount} may use several groups (${names.join(', ')}): say which with ${GROUP}`,
    );
  }
  const found = usable.find(({ name }) => name === wanted);
  if (found === undefined) {
    const fault = faults.find((text) => text.startsWith(`the ConfigMap ${GROUP_CONFIG_MAP}${wanted} `));
    return err(
      fault ?? `there is no group ${wanted}: the ConfigMap ${GROUP_CONFIG_MAP}${wanted} is not in this namespace`,
    );
  }
  if (found.serviceAccounts.includes(serviceAccount)) return ok(found);
  return err(
    `the service account ${serviceAccount} may not use the group ${wanted}: the ConfigMap ${GROUP_CONFIG_MAP}${wanted} does not name it in ${SERVICE_ACCOUNTS}`,
  );
}

function namesIn(text: string | undefined): string[] {
  return (text ?? '')
    .split(',')
    .map((name) => name.trim())
    .filter(Boolean);
}

function serversIn(text: string): readonly string[] | undefined {
  const document = parseYaml(text, 'sidecar.yaml');
  const servers = document.ok ? Object.keys(rawAt(document.value.value, 'servers')) : [];
  return servers.length > 0 && servers.every((name) => SERVER_NAME.test(name)) ? servers : undefined;
}
