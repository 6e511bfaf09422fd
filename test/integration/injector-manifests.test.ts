/**
 * The chart and the kustomization, rendered by helm and kubectl: that they are the same, that they refuse what makes no
 * sense, that they ask for no more rights than are used, and that an API server takes every object.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { parse } from 'yaml';
import { defaultOptions, injectorYaml, optionsOf } from '../../injector/options.ts';
import { type Raw, rawAt, rawList } from '../../injector/raw-object.ts';
import { create } from '../support/injector-cluster.ts';
import { type ApiServer, startApiServer, whyNoApiServer } from '../support/kube-apiserver.ts';
import { collectionOf, helm, helmTemplate, inChart, kustomize, TEMPLATE, whyMissing } from '../support/manifests.ts';

const CERT_MANAGER = ['--set', 'tls.mode=certManager'];
const SECRET = ['--set', 'tls.mode=secret,tls.secret.name=own,tls.secret.caBundle=PEM'];
const AUTHORITY = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';
const HIGHLY_AVAILABLE = ['--values', inChart('values-ha.yaml')];

const nameOf = ({ kind, metadata }: Raw): string => `${String(kind)} ${String(rawAt({ metadata }, 'metadata').name)}`;
const without = (owner: Raw, key: string): Raw =>
  Object.fromEntries(Object.entries(owner).filter(([name]) => name !== key));
const isOfKind = (kind: string) => (object: Raw) => object.kind === kind;

suite('chart and kustomization', { skip: whyMissing('helm', 'kubectl') ?? false }, () => {
  const pairs: Record<string, readonly string[]> = {
    base: [],
    'overlays/ha': HIGHLY_AVAILABLE,
    'overlays/certmanager': CERT_MANAGER,
  };
  for (const [folder, values] of Object.entries(pairs))
    test(`${folder} is the same as the chart with its values`, () => {
      // helm makes the namespace by a switch of its own.
      const plain = byName(kustomize(folder).filter((object) => object.kind !== 'Namespace'));
      const charted = byName(helmTemplate(...values).map(withoutHelm));
      assert.deepEqual(Object.keys(charted), Object.keys(plain));
      for (const [name, object] of Object.entries(plain)) assert.deepEqual(charted[name], object, name);
    });
  test('the namespace asks for restricted pods', () => {
    const labels = rawAt(kustomize('base').find(isOfKind('Namespace')), 'metadata', 'labels');
    assert.equal(labels['pod-security.kubernetes.io/enforce'], 'restricted');
  });
});

suite('the chart', { skip: whyMissing('helm') ?? false }, () => {
  test('passes helm lint', () => {
    const { status, said } = helm('lint', '--strict');
    assert.equal(status, 0, said);
  });
  test('keeps text that looks like something else', () => {
    const objects = helmTemplate(
      '--set',
      'nodeSelector.own=true,nodeSelector.tier=2',
      '--set-json',
      'nodeSelector={"pool":1000000}',
      '--set-string',
      'webhook.excludedNamespaces={123},priorityClassName=7',
    );
    const { nodeSelector, priorityClassName } = rawAt(objects.find(isOfKind('Deployment')), 'spec', 'template', 'spec');
    assert.deepEqual(nodeSelector, { 'kubernetes.io/os': 'linux', own: 'true', pool: '1000000', tier: '2' });
    assert.equal(priorityClassName, '7');
    const [webhook] = rawList(objects.find(isOfKind('MutatingWebhookConfiguration'))!.webhooks);
    const [among] = rawList(rawAt(webhook, 'namespaceSelector').matchExpressions);
    assert.deepEqual(among!.values, ['kube-system', 'kube-node-lease', 'mcp-sidecar', '123']);
  });
  test('writes a large user as a number', () => {
    const objects = helmTemplate('--set-json', 'sidecar.runAsUser=1000660000');
    const [container] = rawList(rawAt(objects.find(isOfKind('Deployment')), 'spec', 'template', 'spec').containers);
    assert.equal(rawAt(container, 'securityContext').runAsUser, 1_000_660_000);
    assert.match(JSON.stringify(objects.find(isOfKind('ConfigMap'))), /runAsUser: 1000660000\\n/);
    assert.match(
      JSON.stringify(objects.find(isOfKind('ValidatingAdmissionPolicy'))),
      /runAsUser == optional\.of\(1000660000\)/,
    );
  });
  test('takes every way to write an amount that the injector reads', () => {
    for (const amount of ['0.5', '.5', '1', '250m', '1e3', '10E-2', '0.1Gi'])
      helmTemplate('--set-string', `sidecar.requests.cpu=${amount}`);
  });
  test('is rendered the same for any version where there is no cluster', () => {
    const rendered = helmTemplate();
    for (const version of ['1.20.0', '1.29.9', '1.36.0'])
      assert.deepEqual(helmTemplate('--kube-version', version), rendered);
  });
  test('gives the injector the defaults that it has itself, of this version', () => {
    const config = rawAt(helmTemplate().find(isOfKind('ConfigMap')), 'data')['injector.yaml'];
    assert.deepEqual(optionsOf(injectorYaml.parse(parse(String(config)))), defaultOptions());
  });
  test('has a configuration that the injector reads, whatever the values', () => {
    for (const values of [
      ['--set', 'sidecar.runAsUser=omit,sidecar.allowedImages={mirror.example/mcp-sidecar:2}'],
      ['--set-string', 'sidecar.tokenAudience=7'],
      ['--set', 'webhook.port=10250,mode=classic,image.pullPolicy=Always'],
      ['--set', `image.digest=sha256:${'0'.repeat(64)}`],
      ['--set-string', `webhook.clientCa=${AUTHORITY}`],
      SECRET,
    ]) {
      const config = rawAt(helmTemplate(...values).find(isOfKind('ConfigMap')), 'data')['injector.yaml'];
      injectorYaml.parse(parse(String(config)));
    }
  });

  test('mounts the authority of the API server where the injector is told to find it', () => {
    const objects = helmTemplate('--set-string', `webhook.clientCa=${AUTHORITY}`);
    const data = rawAt(objects.find(isOfKind('ConfigMap')), 'data');
    assert.equal(data['client-ca.crt'], AUTHORITY);
    const { clientCa } = injectorYaml.parse(parse(String(data['injector.yaml'])));
    const [container] = rawList(rawAt(objects.find(isOfKind('Deployment')), 'spec', 'template', 'spec').containers);
    const { mountPath } = rawList(container!.volumeMounts).find(({ name }) => name === 'configuration')!;
    assert.equal(clientCa, `${String(mountPath)}/client-ca.crt`);
  });
  test('lets only those reach the webhook who are named, and everybody its probes', () => {
    const from = [{ ipBlock: { cidr: '10.0.0.10/32' } }, { ipBlock: { cidr: '10.0.0.11/32' } }];
    const rules = rawList(
      rawAt(
        helmTemplate('--set-json', `networkPolicy.from=${JSON.stringify(from)}`).find(isOfKind('NetworkPolicy')),
        'spec',
      ).ingress,
    );
    assert.deepEqual(rules, [
      { ports: [{ port: 8443, protocol: 'TCP' }], from },
      { ports: [{ port: 8081, protocol: 'TCP' }] },
    ]);
  });

  test('lets the injector call API servers where they listen', () => {
    const egress = (...values: readonly string[]) =>
      rawAt(helmTemplate(...values).find(isOfKind('NetworkPolicy')), 'spec').egress;
    const to = (...ports: readonly number[]) => [{ ports: ports.map((port) => ({ port, protocol: 'TCP' })) }];
    assert.deepEqual(egress(), to(443, 6443));
    assert.deepEqual(egress('--set', 'networkPolicy.apiServerPorts={8443,16443}'), to(8443, 16_443));
  });

  const refused: Record<string, [values: string, words: RegExp]> = {
    'an unknown key': ['replica=2', /additional properties 'replica' not allowed/],
    'an unknown key further down': ['webhook.timeout=3', /at '\/webhook': additional properties 'timeout' not allowed/],
    'another TLS mode': ['tls.mode=both', /value must be one of 'selfManaged', 'certManager', 'secret'/],
    'a caller that is none': ['networkPolicy.from[0].cidr=10.0.0.1/32', /additional properties 'cidr' not allowed/],
    'API servers without a port': ['networkPolicy.apiServerPorts=', /apiServerPorts/],
    'a port of API servers that is none': ['networkPolicy.apiServerPorts={0}', /apiServerPorts\/0/],
    'a port that needs rights': ['webhook.port=443', /minimum: got 443, want 1,?024/],
    'the port of the probes': ['webhook.port=8081', /webhook.port is 8081, where the injector answers probes/],
    'an amount that is none': ['resources.requests.cpu=foo', /at '\/resources\/requests\/cpu': 'foo' does not match/],
    'an amount of the sidecar that is none': ['sidecar.limits.memory=64MB', /at '\/sidecar\/limits\/memory': '64MB'/],
    'an amount of nothing': ['sidecar.requests.cpu=0m', /at '\/sidecar\/requests\/cpu': '0m' does not match/],
    'a namespace that is none': ['webhook.excludedNamespaces={Own_one}', /excludedNamespaces\/0': 'Own_one' does not/],
    'a label of nodes that is no text': ['nodeSelector.pool.a=b', /at '\/nodeSelector\/pool': got object/],
    'a digest that is none': ['image.digest=latest', /does not match pattern/],
    'a Secret beside an authority of its own': [
      'tls.secret.name=own',
      /tls.secret is set, and tls.mode is selfManaged: there is one way to a certificate/,
    ],
    'an issuer beside an authority of its own': [
      'tls.certManager.issuerRef.name=own',
      /tls.certManager is set, and tls.mode is selfManaged/,
    ],
    'a Secret beside cert-manager': ['tls.mode=certManager,tls.secret.name=own', /tls.mode is certManager/],
    'a Secret without a name': ['tls.mode=secret,tls.secret.caBundle=PEM', /tls.mode secret needs tls.secret.name/],
    'a Secret without an authority': ['tls.mode=secret,tls.secret.name=own', /needs tls.secret.caBundle/],
  };
  for (const [name, [values, words]] of Object.entries(refused))
    test(`refuses ${name}`, () => {
      const { status, said } = helm(...TEMPLATE, '--set', values);
      assert.notEqual(status, 0);
      assert.match(said, words);
    });

  test('asks for no right that is not used', () => {
    for (const values of [[], CERT_MANAGER, SECRET]) {
      const rules = helmTemplate(...values)
        .filter(({ kind }) => kind === 'Role' || kind === 'ClusterRole')
        .flatMap((role) => rawList(role.rules).map((rule) => ({ ...rule, kind: role.kind })));
      const selfManaged = [
        {
          kind: 'ClusterRole',
          apiGroups: ['admissionregistration.k8s.io'],
          resources: ['mutatingwebhookconfigurations'],
          resourceNames: ['mcp-sidecar-injector'],
          verbs: ['get', 'patch'],
        },
        {
          kind: 'Role',
          apiGroups: [''],
          resources: ['secrets'],
          resourceNames: ['mcp-sidecar-injector-tls'],
          verbs: ['get', 'update'],
        },
      ];
      assert.deepEqual(rules, [
        { kind: 'ClusterRole', apiGroups: [''], resources: ['configmaps'], verbs: ['list', 'watch'] },
        { kind: 'ClusterRole', apiGroups: [''], resources: ['nodes'], verbs: ['list'] },
        { kind: 'ClusterRole', apiGroups: [''], resources: ['events'], verbs: ['create'] },
        ...(values.length === 0 ? selfManaged : []),
      ]);
    }
  });
});

suite('before a real API server', { skip: whyNoApiServer() ?? whyMissing('helm', 'kubectl') ?? false }, () => {
  let api: ApiServer;
  before(async () => {
    api = await startApiServer();
    const base = kustomize('base');
    for (const kind of ['Namespace', 'ServiceAccount']) await create(api, base.find(isOfKind(kind))!);
  });
  after(() => api?.close());

  test('the chart refuses a cluster that is too old, and no other', async (context) => {
    const folder = await mkdtemp(join(tmpdir(), 'helm-'));
    context.after(() => rm(folder, { recursive: true }));
    const kubeconfig = join(folder, 'config');
    await writeFile(kubeconfig, JSON.stringify(await kubeconfigOf(api)), { mode: 0o600 });
    const before = (version: string) =>
      helm(...TEMPLATE, '--dry-run=server', '--kubeconfig', kubeconfig, '--kube-version', version);
    for (const old of ['1.29.14', '1.29.14-eks-1', '1.20.0']) {
      const { status, said } = before(old);
      assert.notEqual(status, 0, old);
      assert.match(
        said,
        /Kubernetes is at v1\.\d+\..*: ValidatingAdmissionPolicy and matchConditions are stable since 1\.30/,
      );
    }
    for (const version of ['1.30.0', '1.30.4-gke.1', '1.36.0']) {
      const { status, said } = before(version);
      assert.equal(status, 0, said);
    }
  });

  const variants: Record<string, () => readonly Raw[]> = {
    'the base': () => kustomize('base').filter((object) => object.kind !== 'Namespace'),
    'overlays/ha': () => kustomize('overlays/ha').filter((object) => object.kind !== 'Namespace'),
    'the chart': () => helmTemplate(),
    'the chart for many nodes': () => helmTemplate(...HIGHLY_AVAILABLE),
    'the chart with cert-manager': () => helmTemplate(...CERT_MANAGER),
    'the chart with a user of the cluster’s': () => helmTemplate('--set', 'sidecar.runAsUser=omit'),
    'the chart with callers that are named': () =>
      helmTemplate('--set', 'networkPolicy.from[0].ipBlock.cidr=10.0.0.10/32'),
    'the chart with further images': () => helmTemplate('--set', 'sidecar.allowedImages={mirror.example/sidecar:2}'),
  };
  for (const [name, render] of Object.entries(variants))
    test(`${name}: every object is taken, and the injector’s own pod is restricted`, async () => {
      const objects = render().filter(({ apiVersion }) => !String(apiVersion).startsWith('cert-manager.io/'));
      for (const object of objects.filter(({ kind }) => kind !== 'ServiceAccount')) {
        const path = `${collectionOf(object)}?dryRun=All&fieldValidation=Strict`;
        const { status, value, warnings } = await api.call('POST', path, object);
        assert.equal(status, 201, `${nameOf(object)}: ${String(value.message)}`);
        assert.deepEqual(warnings, [], nameOf(object));
      }
      const template = rawAt(objects.find(isOfKind('Deployment')), 'spec', 'template');
      const pod = { ...template, metadata: { ...rawAt(template, 'metadata'), name: 'injector' } };
      const path = '/api/v1/namespaces/mcp-sidecar/pods?dryRun=All&fieldValidation=Strict';
      const { status, value } = await api.call('POST', path, pod);
      assert.equal(status, 201, String(value.message));
    });
});

async function kubeconfigOf({ address }: ApiServer): Promise<Raw> {
  const name = 'test';
  const data = Buffer.from(address.ca).toString('base64');
  return {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': name,
    contexts: [{ name, context: { cluster: name, user: name } }],
    clusters: [{ name, cluster: { server: address.server, 'certificate-authority-data': data } }],
    users: [{ name, user: { token: await address.token() } }],
  };
}

function byName(objects: readonly Raw[]): Record<string, Raw> {
  const named = objects.map((object): [string, Raw] => [nameOf(object), object]);
  return Object.fromEntries(named.sort(([one], [other]) => (one < other ? -1 : 1)));
}

/** But for the label that says who manages it, and the checksum that restarts pods. */
function withoutHelm(object: Raw): Raw {
  const bare = withoutManager(object);
  const template = rawAt(object, 'spec', 'template');
  if (object.kind !== 'Deployment') return bare;
  const plain = withoutManager(template);
  const metadata = rawAt(plain, 'metadata');
  assert.deepEqual(Object.keys(rawAt(metadata, 'annotations')), ['mcp-sidecar.io/configuration']);
  return {
    ...bare,
    spec: { ...rawAt(bare, 'spec'), template: { ...plain, metadata: without(metadata, 'annotations') } },
  };
}

function withoutManager(object: Raw): Raw {
  const metadata = rawAt(object, 'metadata');
  const labels = rawAt(metadata, 'labels');
  assert.equal(labels['app.kubernetes.io/managed-by'], 'Helm', nameOf(object));
  return { ...object, metadata: { ...metadata, labels: without(labels, 'app.kubernetes.io/managed-by') } };
}
