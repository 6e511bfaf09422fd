/**
 * The webhook over real TLS, with a certificate of its own authority, and an API server's way of asking it.
 */
import { randomUUID } from 'node:crypto';
import { Agent, request } from 'undici';
import { type KeyPair, makeAuthority, makeLeaf } from '../../injector/certificate.ts';
import type { Mode } from '../../injector/container.ts';
import type { Group } from '../../injector/group.ts';
import type { InjectorOptions } from '../../injector/options.ts';
import type { Raw } from '../../injector/raw-object.ts';
import { type Reviewed, Webhook } from '../../injector/server.ts';
import type { Result } from '../../policies/result.ts';

export const WEBHOOK_NAME = 'mcp-sidecar-injector.mcp-sidecar.svc';
const HOUR_MS = 3_600_000;

export interface Reply {
  readonly uid: string;
  readonly allowed: boolean;
  readonly patch?: string;
  readonly patchType?: string;
  readonly warnings?: readonly string[];
  readonly status?: { readonly code: number; readonly message: string };
}

export interface OpenedWebhook {
  readonly port: number;
  readonly authority: KeyPair;
  readonly seen: Reviewed[];
  readonly webhook: Webhook;
  /** The reply to the making of a pod. */
  review(pod: Raw, changes?: Raw): Promise<Reply>;
  /** Any request. */
  send(options: {
    readonly method?: string;
    readonly path?: string;
    readonly headers?: Readonly<Record<string, string>>;
    readonly body?: string | Buffer;
    /** Who is trusted; default: the webhook's own authority. */
    readonly ca?: string;
  }): Promise<{ readonly status: number; readonly type: string; readonly text: string }>;
  close(): Promise<void>;
}

export function reviewOf(pod: Raw, changes: Raw = {}): Raw {
  return {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: randomUUID(),
      kind: { group: '', version: 'v1', kind: 'Pod' },
      resource: { group: '', version: 'v1', resource: 'pods' },
      namespace: 'agents',
      operation: 'CREATE',
      userInfo: { username: 'system:serviceaccount:kube-system:replicaset-controller' },
      dryRun: false,
      object: pod,
      oldObject: null,
      ...changes,
    },
  };
}

export async function openWebhook(cluster: {
  readonly options: InjectorOptions;
  readonly mode: Mode;
  readonly groups: readonly Result<Group, string>[] | undefined;
  /** PEM. */
  readonly clientCa?: string;
}): Promise<OpenedWebhook> {
  const authority = await makeAuthority('test', Date.now(), HOUR_MS);
  const leaf = await makeLeaf(authority, [WEBHOOK_NAME], Date.now(), HOUR_MS);
  const seen: Reviewed[] = [];
  const webhook = new Webhook(leaf, cluster.clientCa, {
    cluster: () => ({ options: cluster.options, mode: cluster.mode, groupsIn: () => cluster.groups }),
    reviewed: (reviewed) => seen.push(reviewed),
    now: () => performance.now(),
  });
  const listening = await webhook.listen({ host: '127.0.0.1', port: 0 });
  if (!listening.ok) throw new Error(listening.error);
  const { port } = listening.value;
  const agents = new Map<string, Agent>();
  const agentFor = (ca: string) => {
    const agent = agents.get(ca) ?? new Agent({ connect: { ca, servername: WEBHOOK_NAME }, connections: 64 });
    agents.set(ca, agent);
    return agent;
  };
  const opened: OpenedWebhook = {
    port,
    authority,
    seen,
    webhook,
    review: async (pod, changes) => {
      const asked = reviewOf(pod, changes);
      const { status, text } = await opened.send({ body: JSON.stringify(asked) });
      if (status !== 200) throw new Error(`${status}: ${text}`);
      return (JSON.parse(text) as { response: Reply }).response;
    },
    send: async ({ method = 'POST', path = '/inject?timeout=5s', headers, body, ca = authority.certificate }) => {
      const answer = await request(`https://127.0.0.1:${port}${path}`, {
        method: method as 'POST',
        dispatcher: agentFor(ca),
        headers: { 'content-type': 'application/json', ...headers },
        body: body ?? null,
      });
      return {
        status: answer.statusCode,
        type: String(answer.headers['content-type']),
        text: await answer.body.text(),
      };
    },
    close: async () => {
      await Promise.all([...agents.values()].map((agent) => agent.destroy()));
      await webhook.close(1_000);
    },
  };
  return opened;
}
