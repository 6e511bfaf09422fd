/**
 * Whether native sidecars can be used: a question of the kubelets, not of the API server.
 *
 * KEP-753 is on by default since 1.29. Where the nodes may not be listed, the API server's own version decides: kubelets
 * may be three minor versions behind it, so 1.32 is enough. Unknown is classic, which runs everywhere.
 */
import type { Mode } from './container.ts';
import type { Kubernetes } from './kubernetes.ts';
import { rawAt, textAt } from './raw-object.ts';

const KUBELET_MINOR = 29;
const SERVER_MINOR = 32;

export async function detectMode(kubernetes: Kubernetes): Promise<Mode> {
  const versions: string[] = [];
  const nodes = await kubernetes.list('/api/v1/nodes', (node) =>
    versions.push(textAt(rawAt(node, 'status', 'nodeInfo'), 'kubeletVersion') ?? ''),
  );
  if (nodes.ok && versions.length > 0)
    return versions.every((version) => isAtLeast(version, KUBELET_MINOR)) ? 'native' : 'classic';
  const version = await kubernetes.get('/version');
  return version.ok && isAtLeast(textAt(version.value, 'gitVersion') ?? '', SERVER_MINOR) ? 'native' : 'classic';
}

/** `v1.31.2+k3s1` and the like. */
export function isAtLeast(version: string, minor: number): boolean {
  const [, found, own] = /^v?(\d+)\.(\d+)/.exec(version) ?? [];
  return found !== undefined && (Number(found) > 1 || (Number(found) === 1 && Number(own) >= minor));
}
