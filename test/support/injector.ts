/**
 * One valid pod, one group and the context that fits them: each test changes one thing.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Validator } from '@cfworker/json-schema';
import { parse } from 'yaml';
import { readGroup } from '../../injector/group.ts';
import { defaultOptions } from '../../injector/options.ts';
import type { InjectionContext } from '../../injector/patch.ts';
import type { Raw } from '../../injector/raw-object.ts';

export const CONFIG_MAP: Raw = {
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: {
    name: 'mcp-sidecar-support',
    namespace: 'agents',
    annotations: { 'mcp-sidecar.io/service-accounts': 'agent', 'mcp-sidecar.io/secrets': 'github-oauth' },
  },
  data: {
    'sidecar.yaml': 'servers: { github: { url: "https://mcp.example/mcp" } }\npolicy: ./policy.yaml\n',
    'policy.yaml': 'version: 1\n',
  },
};

export const CONTEXT: InjectionContext = {
  options: defaultOptions(),
  mode: 'native',
  groups: [readGroup(CONFIG_MAP)],
  isJob: false,
};

/** Good for the Pod Security level `restricted`. */
export const CONTAINER: Raw = {
  name: 'agent',
  image: 'registry.example/agent:1',
  securityContext: {
    runAsUser: 1000,
    runAsNonRoot: true,
    allowPrivilegeEscalation: false,
    capabilities: { drop: ['ALL'] },
    seccompProfile: { type: 'RuntimeDefault' },
  },
};

export function podWith(spec: Raw = {}, metadata: Raw = {}): Raw {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'triage', annotations: { 'mcp-sidecar.io/inject': 'true' }, ...metadata },
    spec: { serviceAccountName: 'agent', containers: [CONTAINER], ...spec },
  };
}

export function annotated(annotations: Raw): Raw {
  return podWith({}, { annotations: { 'mcp-sidecar.io/inject': 'true', ...annotations } });
}

const schema = parse(readFileSync(join(import.meta.dirname, 'pod-openapi.yaml'), 'utf8'));
const validator = new Validator(schema, '2020-12', false);

/** What the API server's own schema has against a pod. */
export function schemaFaults(pod: Raw): string[] {
  return validator
    .validate(pod)
    .errors.filter(({ keyword }) => !['properties', '$ref', 'items'].includes(keyword))
    .map(({ instanceLocation, error }) => `${instanceLocation}: ${error}`);
}

/**
 * What the Pod Security level `restricted` has against the containers with this name.
 *
 * Source: kubernetes/pod-security-admission, policy/: those of its checks that look at a container or a pod.
 */
export function restrictedFaults(pod: Raw, name: string): string[] {
  const spec = pod.spec as Raw & { readonly securityContext?: Raw };
  const faults: string[] = [];
  for (const key of ['hostNetwork', 'hostPID', 'hostIPC']) if (spec[key] === true) faults.push(key);
  for (const volume of (spec.volumes ?? []) as Raw[]) {
    const kinds = Object.keys(volume).filter((key) => key !== 'name');
    const allowed = [
      'configMap',
      'csi',
      'downwardAPI',
      'emptyDir',
      'ephemeral',
      'persistentVolumeClaim',
      'projected',
      'secret',
    ];
    if (!kinds.every((kind) => allowed.includes(kind))) faults.push(`volume ${String(volume.name)}`);
  }
  const containers = [...((spec.initContainers ?? []) as Raw[]), ...(spec.containers as Raw[])];
  for (const container of containers.filter((one) => one.name === name)) {
    const own = (container.securityContext ?? {}) as Raw & {
      capabilities?: { add?: string[]; drop?: string[] };
      seccompProfile?: { type?: string };
      seLinuxOptions?: Raw;
      procMount?: string;
    };
    const pod = spec.securityContext ?? {};
    if (own.privileged === true) faults.push('privileged');
    if (own.allowPrivilegeEscalation !== false) faults.push('allowPrivilegeEscalation');
    if ((own.runAsNonRoot ?? pod.runAsNonRoot) !== true) faults.push('runAsNonRoot');
    if ((own.runAsUser ?? pod.runAsUser) === 0) faults.push('runAsUser');
    if (!own.capabilities?.drop?.includes('ALL')) faults.push('capabilities.drop');
    if (own.capabilities?.add?.some((one) => one !== 'NET_BIND_SERVICE')) faults.push('capabilities.add');
    if (!['RuntimeDefault', 'Localhost'].includes(own.seccompProfile?.type ?? '')) faults.push('seccompProfile');
    if (own.procMount !== undefined && own.procMount !== 'Default') faults.push('procMount');
    if (own.seLinuxOptions !== undefined) faults.push('seLinuxOptions');
    for (const { hostPort } of (container.ports ?? []) as { hostPort?: number }[])
      if (hostPort !== undefined && hostPort !== 0) faults.push('hostPort');
    for (const key of ['startupProbe', 'livenessProbe', 'readinessProbe']) {
      const probe = container[key] as { httpGet?: Raw; tcpSocket?: Raw } | undefined;
      if (probe?.httpGet?.host !== undefined || probe?.tcpSocket?.host !== undefined) faults.push(`${key}.host`);
    }
  }
  return faults;
}
