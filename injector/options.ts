/**
 * What an operator decides once for a cluster, with its defaults. The webhook and the command line read the same.
 */
import { packageVersion } from '../sidecar/config/package-folder.ts';

export interface ResourceAmounts {
  readonly cpu: string;
  readonly memory: string;
}

export interface InjectorOptions {
  /** The sidecar's image. */
  readonly image: string;
  /** Further images that a pod's annotation may ask for, exactly. Whoever chooses the image is given the credentials. */
  readonly allowedImages: readonly string[];
  readonly imagePullPolicy: 'Always' | 'IfNotPresent' | 'Never';
  /** User and group of the sidecar; `undefined`: whatever the cluster gives (OpenShift). */
  readonly runAsUser: number | undefined;
  readonly requests: ResourceAmounts;
  readonly limits: ResourceAmounts;
  /** Of the projected service account token. */
  readonly tokenAudience: string;
  /** 600 to 86400; the kubelet renews it at four fifths. */
  readonly tokenSeconds: number;
}

export function defaultOptions(): InjectorOptions {
  return {
    image: `ghcr.io/mcp-sidecar/mcp-sidecar:${packageVersion()}`,
    allowedImages: [],
    imagePullPolicy: 'IfNotPresent',
    runAsUser: 65532,
    requests: { cpu: '50m', memory: '128Mi' },
    limits: { cpu: '1', memory: '256Mi' },
    tokenAudience: 'mcp-sidecar',
    tokenSeconds: 3600,
  };
}
