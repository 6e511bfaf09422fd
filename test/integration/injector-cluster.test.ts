/**
 * The injector before a real API server: what the API server makes of its webhook, its patches and its policy.
 */
import assert from 'node:assert/strict';
import { after, suite, test } from 'node:test';
import { Kubernetes } from '../../injector/kubernetes.ts';
import { injectorYaml } from '../../injector/options.ts';
import { type RunningInjector, startInjector } from '../../injector/start.ts';
import { type ApiServer, startApiServer, whyNoApiServer } from '../support/kube-apiserver.ts';

const NAMES = {
  namespace: 'mcp-sidecar',
  secret: 'injector-tls',
  service: 'injector',
  webhook: 'mcp-sidecar-injector',
};

suite('a real API server', { skip: whyNoApiServer() ?? false }, async () => {
  if (whyNoApiServer() !== undefined) return;
  const api = await startApiServer();
  after(() => api.close());
  const injector = await startWithWebhook(api);
  after(() => injector.close());

  test('an annotated pod gets its sidecar once, and passes the Pod Security level restricted', async () => {
    const made = await api.call('POST', '/api/v1/namespaces/agents/pods', pod('triage'));
    assert.equal(made.status, 201);
    const again = await api.call('POST', '/api/v1/namespaces/agents/pods', {
      ...made.value,
      metadata: { ...(made.value.metadata as object), name: 'two', resourceVersion: undefined, uid: undefined },
    });
    assert.equal(again.status, 201);
  });
});

async function startWithWebhook(api: ApiServer): Promise<RunningInjector> {
  const create = async (path: string, object: unknown) => {
    const made = await api.call('POST', path, object);
    assert.equal(made.status, 201, JSON.stringify(made.value));
  };
  for (const [name, labels] of [
    ['mcp-sidecar', {}],
    ['agents', { 'pod-security.kubernetes.io/enforce': 'restricted' }],
  ] as const)
    await create('/api/v1/namespaces', { metadata: { name, labels } });
  await create('/api/v1/namespaces/agents/serviceaccounts', { metadata: { name: 'agent' } });
  await create('/api/v1/namespaces/agents/configmaps', {
    metadata: { name: 'mcp-sidecar-support', annotations: { 'mcp-sidecar.io/service-accounts': 'agent' } },
    data: { 'sidecar.yaml': 'servers: { github: { url: "https://mcp.example/mcp" } }\npolicy: ./policy.yaml\n' },
  });
  await create('/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations', webhookConfiguration(1));
  const config = injectorYaml.parse({
    listen: '127.0.0.1:0',
    health: '127.0.0.1:0',
    tls: { selfManaged: NAMES },
    mode: 'native',
  });
  const log = { info: () => {}, warn: () => {} };
  const started = await startInjector(config, { kubernetes: new Kubernetes(api.address), log, certificatePollMs: 500, lameDuckMs: 0 });
  assert.ok(started.ok, started.ok ? '' : started.error);
  const { port } = started.value.webhook;
  const path = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/mcp-sidecar-injector';
  await create('/api/v1/namespaces/mcp-sidecar/services', {
    metadata: { name: 'injector' },
    // To the API server the name is that of the service, and the address loopback.
    spec: { type: 'ExternalName', externalName: 'localhost', ports: [{ port }] },
  });
  const { value } = await api.call('GET', path);
  const webhooks = value.webhooks as { clientConfig: { service: { port: number } } }[];
  webhooks[0]!.clientConfig.service.port = port;
  const patched = await api.call('PUT', path, value);
  assert.equal(patched.status, 200, JSON.stringify(patched.value));
  return started.value;
}

function webhookConfiguration(port: number) {
  return {
    metadata: { name: 'mcp-sidecar-injector' },
    webhooks: [
      {
        name: 'inject.mcp-sidecar.io',
        admissionReviewVersions: ['v1'],
        sideEffects: 'NoneOnDryRun',
        timeoutSeconds: 5,
        failurePolicy: 'Fail',
        reinvocationPolicy: 'IfNeeded',
        matchConditions: [
          {
            name: 'annotated',
            expression:
              "has(object.metadata.annotations) && 'mcp-sidecar.io/inject' in object.metadata.annotations && object.metadata.annotations['mcp-sidecar.io/inject'] == 'true'",
          },
        ],
        rules: [
          { apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'], scope: 'Namespaced' },
        ],
        clientConfig: { service: { namespace: 'mcp-sidecar', name: 'injector', path: '/inject', port } },
      },
    ],
  };
}

function pod(name: string) {
  return {
    metadata: { name, annotations: { 'mcp-sidecar.io/inject': 'true' } },
    spec: {
      serviceAccountName: 'agent',
      containers: [
        {
          name: 'agent',
          image: 'agent:1',
          securityContext: {
            runAsUser: 1000,
            runAsNonRoot: true,
            allowPrivilegeEscalation: false,
            capabilities: { drop: ['ALL'] },
            seccompProfile: { type: 'RuntimeDefault' },
          },
        },
      ],
    },
  };
}
