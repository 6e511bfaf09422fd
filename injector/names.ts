/**
 * The names that the injector puts into a pod, and the annotations that it reads. All of them are reserved: a pod that
 * brings one along and did not get it from here is refused.
 */
const PREFIX = 'mcp-sidecar.io/';

/** `"true"`: inject. */
export const INJECT = `${PREFIX}inject`;
/** Which group of agents the pod belongs to. Default: the one that names the pod's service account. */
export const GROUP = `${PREFIX}group`;
/** Names of containers, separated by commas, that get neither environment nor file. */
export const EXCLUDE_CONTAINERS = `${PREFIX}exclude-containers`;
/** Written by the injector: what was done, as JSON. */
export const STATUS = `${PREFIX}status`;
/** Written by the injector: the text of mcp.json, which the pod's containers see as a file. */
export const CLIENT_CONFIG = `${PREFIX}mcp.json`;
export const DEFAULT_CONTAINER = 'kubectl.kubernetes.io/default-container';

/** On a group's ConfigMap: who may use it, and which Secrets its sidecar is given; names, separated by commas. */
export const SERVICE_ACCOUNTS = `${PREFIX}service-accounts`;
export const SECRETS = `${PREFIX}secrets`;
export const GROUP_CONFIG_MAP = 'mcp-sidecar-';

export const CONTAINER = 'mcp-sidecar';
/** All of our volumes begin so. */
export const VOLUME = 'mcp-sidecar-';
export const GROUP_VOLUME = `${VOLUME}group`;
export const STATE_VOLUME = `${VOLUME}state`;
export const TOKEN_VOLUME = `${VOLUME}token`;
export const CLIENT_VOLUME = `${VOLUME}client`;
export const SECRET_VOLUME = `${VOLUME}secret-`;

/** What an application's containers get. */
export const SERVER_URL = 'MCP_SERVER_URL';
export const CLIENT_FOLDER = '/var/run/mcp';

export function settingName(setting: string): string {
  return `${PREFIX}${setting}`;
}

/** Back from {@link settingName}. */
export function bareName(annotation: string): string {
  return annotation.slice(PREFIX.length);
}

/** Whether an annotation is one of ours; whoever misspells one wants to know. */
export function isOurs(annotation: string): boolean {
  return annotation.startsWith(PREFIX);
}
