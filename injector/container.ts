/**
 * The sidecar's container and volumes. PURE.
 *
 * Everything that the API server would fill in is written out: what comes back from it is then what was sent, and a
 * container that is not exactly ours can be told from one that is.
 */
import { POD_VARIABLE } from '../sidecar/config/pod-overrides.ts';
import type { Group } from './group.ts';
import {
  CLIENT_CONFIG,
  CLIENT_VOLUME,
  CONTAINER,
  GROUP_CONFIG_MAP,
  GROUP_VOLUME,
  SECRET_VOLUME,
  STATE_VOLUME,
  TOKEN_VOLUME,
} from './names.ts';
import type { InjectorOptions } from './options.ts';
import type { Raw } from './raw-object.ts';
import type { Settings } from './settings.ts';

/** `native`: an init container that stays (KEP-753). `classic`: one container among the others. */
export type Mode = 'native' | 'classic';

/** Where the sidecar finds what is mounted into it alone. */
const GROUP_FOLDER = '/etc/mcp-sidecar';
const STATE_FOLDER = '/var/lib/mcp-sidecar';
const SECRETS_FOLDER = '/run/secrets/mcp-sidecar';
const TOKEN_FOLDER = '/run/secrets/mcp-sidecar-token';
/** 0644, the API server's own default. */
const DEFAULT_MODE = 420;
const STATE_BYTES = '16Mi';

export interface SidecarParts {
  readonly group: Group;
  readonly settings: Settings;
  readonly options: InjectorOptions;
  readonly mode: Mode;
  /** User id to agent name; empty where the pod does not declare them. */
  readonly agents: Readonly<Record<string, string>>;
}

export function sidecarContainer({ group, settings, options, mode, agents }: SidecarParts): Raw {
  const { image, requests, limits, logLevel, healthPort } = settings;
  return {
    name: CONTAINER,
    image,
    imagePullPolicy: options.imagePullPolicy,
    args: [
      'run',
      '--config',
      `${GROUP_FOLDER}/sidecar.yaml`,
      ...(logLevel === undefined ? [] : ['--log-level', logLevel]),
    ],
    env: [{ name: POD_VARIABLE, value: JSON.stringify(podOverrides(settings, agents)) }],
    ports: [{ name: 'mcp-health', containerPort: healthPort, protocol: 'TCP' }],
    resources: { requests: { ...requests }, limits: { ...limits } },
    securityContext: securityContext(options.runAsUser),
    volumeMounts: [
      { name: GROUP_VOLUME, mountPath: GROUP_FOLDER, readOnly: true },
      { name: STATE_VOLUME, mountPath: STATE_FOLDER },
      { name: TOKEN_VOLUME, mountPath: TOKEN_FOLDER, readOnly: true },
      ...group.secrets.map((secret, index) => ({
        name: `${SECRET_VOLUME}${index}`,
        mountPath: `${SECRETS_FOLDER}/${secret}`,
        readOnly: true,
      })),
    ],
    // The containers behind a native sidecar wait for this one; a minute is time enough on a busy node.
    startupProbe: probe('/livez', healthPort, 1, 60),
    livenessProbe: probe('/livez', healthPort, 10, 3),
    readinessProbe: probe('/readyz', healthPort, 5, 2),
    terminationMessagePath: '/dev/termination-log',
    terminationMessagePolicy: 'FallbackToLogsOnError',
    ...(mode === 'native' ? { restartPolicy: 'Always' } : {}),
  };
}

/** What only the pod knows, over what its group's sidecar.yaml says. Read by `sidecar run`. */
function podOverrides({ port, healthPort }: Settings, agents: Readonly<Record<string, string>>): Raw {
  return {
    listen: {
      mcp: [`127.0.0.1:${port}`, `[::1]:${port}`],
      admin: `127.0.0.1:${port + 1}`,
      health: `*:${healthPort}`,
    },
    state: STATE_FOLDER,
    ...(Object.keys(agents).length === 0 ? {} : { identify: [{ type: 'uid', agents }] }),
  };
}

/** The Pod Security level `restricted`, every line of it on the container, whatever the pod says. */
function securityContext(user: number | undefined): Raw {
  return {
    ...(user === undefined ? {} : { runAsUser: user, runAsGroup: user }),
    runAsNonRoot: true,
    privileged: false,
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ['ALL'] },
    seccompProfile: { type: 'RuntimeDefault' },
  };
}

function probe(path: string, port: number, periodSeconds: number, failureThreshold: number): Raw {
  return {
    httpGet: { path, port, scheme: 'HTTP' },
    timeoutSeconds: 3,
    periodSeconds,
    successThreshold: 1,
    failureThreshold,
  };
}

export function sidecarVolumes({ group, options }: SidecarParts): readonly Raw[] {
  return [
    {
      name: GROUP_VOLUME,
      configMap: { name: `${GROUP_CONFIG_MAP}${group.name}`, defaultMode: DEFAULT_MODE },
    },
    { name: STATE_VOLUME, emptyDir: { medium: 'Memory', sizeLimit: STATE_BYTES } },
    {
      name: TOKEN_VOLUME,
      projected: {
        sources: [
          {
            serviceAccountToken: {
              audience: options.tokenAudience,
              expirationSeconds: options.tokenSeconds,
              path: 'token',
            },
          },
        ],
        defaultMode: DEFAULT_MODE,
      },
    },
    ...group.secrets.map((secretName, index) => ({
      name: `${SECRET_VOLUME}${index}`,
      secret: { secretName, defaultMode: DEFAULT_MODE },
    })),
    {
      name: CLIENT_VOLUME,
      downwardAPI: {
        items: [
          { path: 'mcp.json', fieldRef: { apiVersion: 'v1', fieldPath: `metadata.annotations['${CLIENT_CONFIG}']` } },
        ],
        defaultMode: DEFAULT_MODE,
      },
    },
  ];
}

/** mcp.json as MCP clients read it: each server at its own path. */
export function clientConfig({ group, settings }: SidecarParts): string {
  const servers = group.servers.map((name) => [
    name,
    { type: 'http', url: `http://127.0.0.1:${settings.port}/servers/${name}/mcp` },
  ]);
  return JSON.stringify({ mcpServers: Object.fromEntries(servers) });
}
