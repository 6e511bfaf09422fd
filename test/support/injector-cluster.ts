/**
 * The injector in a cluster that is an API server alone: its manifests as `kubectl kustomize` renders them, replicas
 * with the rights of its own service account, and a Service in front of them that is a listener on loopback.
 */
import assert from 'node:assert/strict';
import { connect, createServer, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { request } from 'undici';
import { parse } from 'yaml';
import { Kubernetes } from '../../injector/kubernetes.ts';
import { injectorYaml } from '../../injector/options.ts';
import { type Raw, rawAt, rawList } from '../../injector/raw-object.ts';
import { type RunningInjector, startInjector } from '../../injector/start.ts';
import type { ApiServer } from './kube-apiserver.ts';
import { collectionOf, kustomize, pathOf } from './manifests.ts';

const POLL_MS = 20;
const WAIT_MS = 20_000;

export interface Replica extends RunningInjector {
  readonly warnings: readonly string[];
  /** Reviews that have come in, by the replica's own metrics. */
  reviews(): Promise<number>;
  metrics(): Promise<string>;
}

export interface InjectorCluster {
  readonly api: ApiServer;
  /** Calls the API server as the injector. */
  asInjector(): Kubernetes;
  startReplica(changes?: Raw): Promise<Replica>;
  /** To these replicas the Service leads from now on; none: connections are refused. */
  route(...replicas: readonly RunningInjector[]): Promise<void>;
  /** Puts the webhook configuration and the Service in place, as the last step of an installation. */
  registerWebhook(): Promise<void>;
  /** Resolves when the API server acts on every change of the webhook configuration that was made before. */
  untilWebhookIsKnown(): Promise<void>;
  close(): Promise<void>;
}

/** Everything of the base but the webhook configuration and the Service. */
export async function installInjector(api: ApiServer): Promise<InjectorCluster> {
  const base = kustomize('base');
  const of = (kind: string) => base.find((object) => object.kind === kind)!;
  // The order in which kubectl applies them too: namespaces first.
  for (const object of base)
    if (object.kind !== 'MutatingWebhookConfiguration' && object.kind !== 'Service') await create(api, object);

  const { value } = await api.call('POST', `${pathOf(of('ServiceAccount'))}/token`, {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenRequest',
    spec: { expirationSeconds: 3600 },
  });
  const token = String(rawAt(value, 'status').token);
  const asInjector = () => new Kubernetes({ ...api.address, token: async () => token });
  const service = await openService();
  const opened: (() => Promise<unknown>)[] = [service.close];

  const webhookPath = pathOf(of('MutatingWebhookConfiguration'));
  return {
    api,
    asInjector,
    startReplica: async (changes = {}) => {
      const yaml = parse(String(rawAt(of('ConfigMap'), 'data')['injector.yaml'])) as Raw;
      const config = injectorYaml.parse({ ...yaml, listen: '127.0.0.1:0', health: '127.0.0.1:0', ...changes });
      const replica = await startReplica(config, asInjector());
      opened.push(() => replica.close());
      return replica;
    },
    route: (...replicas) => service.route(replicas.map(({ webhook }) => webhook.port)),
    registerWebhook: async () => {
      const { spec: _, ...whole } = of('Service');
      const { port } = service;
      // To the API server the name is that of the Service, and the address loopback.
      await create(api, { ...whole, spec: { type: 'ExternalName', externalName: 'localhost', ports: [{ port }] } });
      const configuration = of('MutatingWebhookConfiguration');
      const webhooks = rawList(configuration.webhooks).map((webhook) => ({
        ...webhook,
        clientConfig: { service: { ...rawAt(webhook, 'clientConfig', 'service'), port } },
      }));
      await create(api, { ...configuration, webhooks });
    },
    untilWebhookIsKnown: () => untilWebhookIsKnown(api, webhookPath),
    close: async () => {
      await Promise.all(opened.map((close) => close()));
    },
  };
}

/** Asks again until `isThere` says yes. */
export async function until(what: string, isThere: () => Promise<boolean> | boolean): Promise<void> {
  const end = Date.now() + WAIT_MS;
  while (Date.now() < end) {
    if (await isThere()) return;
    await delay(POLL_MS);
  }
  assert.fail(`${what}: not within ${WAIT_MS / 1000} s`);
}

export async function create(api: ApiServer, object: Raw): Promise<Raw> {
  const { status, value } = await api.call('POST', collectionOf(object), object);
  assert.equal(status, 201, JSON.stringify(value));
  return value;
}

/** Reads, changes and writes until nobody else was faster. */
export async function edit(api: ApiServer, path: string, change: (object: Raw) => Raw): Promise<void> {
  await until(`${path} is changed`, async () => {
    const { value } = await api.call('GET', path);
    const { status, value: said } = await api.call('PUT', path, change(value));
    assert.ok(status === 200 || status === 409, JSON.stringify(said));
    return status === 200;
  });
}

async function startReplica(config: Parameters<typeof startInjector>[0], kubernetes: Kubernetes): Promise<Replica> {
  const warnings: string[] = [];
  const log = { info: () => {}, warn: (message: string) => void warnings.push(message) };
  const started = await startInjector(config, { kubernetes, log, certificatePollMs: 50, lameDuckMs: 200 });
  assert.ok(started.ok, `${started.ok ? '' : started.error} ${warnings.join('; ')}`);
  const running = started.value;
  const metrics = async () => (await request(`http://127.0.0.1:${running.health.port}/metrics`)).body.text();
  let closed: Promise<void> | undefined;
  return {
    ...running,
    warnings,
    metrics,
    reviews: async () =>
      Number(/^mcp_sidecar_injector_review_duration_seconds_count (\d+)$/m.exec(await metrics())![1]),
    // A test may end a replica before the suite ends all of them.
    close: () => {
      closed ??= running.close();
      return closed;
    },
  };
}

/** As kube-proxy does it: a connection goes to one of the replicas, and stays there. */
async function openService() {
  let ports: readonly number[] = [];
  let next = 0;
  const open = new Set<Socket>();
  const server = createServer((from) => {
    const to = ports.length === 0 ? undefined : connect(ports[next++ % ports.length]!, '127.0.0.1');
    if (to === undefined) return from.resetAndDestroy();
    for (const socket of [from, to]) {
      open.add(socket);
      socket
        .on('error', () => {})
        .on('close', () => {
          open.delete(socket);
          from.destroy();
          to.destroy();
        });
    }
    from.pipe(to).pipe(from);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as { port: number }).port,
    /** Connections that are there stay with the replica that they lead to, unless there is none any more. */
    route: async (to: readonly number[]) => {
      ports = to;
      if (to.length === 0) for (const socket of open) socket.destroy();
    },
    close: async () => {
      for (const socket of open) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/**
 * A condition that only a pod of this name fails is added and taken away again: the API server has the last version of
 * the configuration when it asks the webhook about such a pod no longer, or about it again.
 */
async function untilWebhookIsKnown(api: ApiServer, path: string): Promise<void> {
  const PROBE = 'asked-or-not';
  const name = 'probe';
  const isAsked = async () => {
    const pod = {
      metadata: { name: PROBE, annotations: { 'mcp-sidecar.io/inject': 'true' } },
      // The webhook refuses it in its own words, and without the webhook the policy does in its own.
      spec: { hostNetwork: true, serviceAccountName: 'agent', containers: [{ name: 'agent', image: 'agent:1' }] },
    };
    const { value } = await api.call('POST', '/api/v1/namespaces/agents/pods?dryRun=All', pod);
    return String(value.message).includes('admission webhook');
  };
  const withConditions = (object: Raw, change: (conditions: readonly Raw[]) => readonly Raw[]): Raw => ({
    ...object,
    webhooks: rawList(object.webhooks).map((webhook) => ({
      ...webhook,
      matchConditions: change(rawList(webhook.matchConditions)),
    })),
  });
  const expression = `!has(object.metadata.name) || object.metadata.name != '${PROBE}'`;
  await edit(api, path, (object) => withConditions(object, (conditions) => [...conditions, { name, expression }]));
  await until('the API server knows the added condition', async () => !(await isAsked()));
  await edit(api, path, (object) =>
    withConditions(object, (conditions) => conditions.filter((one) => one.name !== name)),
  );
  await until('the API server knows the condition gone', isAsked);
}
