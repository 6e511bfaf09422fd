import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { readGroup } from '../../injector/group.ts';
import { applyPatch } from '../../injector/json-patch.ts';
import { type InjectionContext, inject } from '../../injector/patch.ts';
import { type Raw, rawAt, rawList } from '../../injector/raw-object.ts';
import { readStatus, uninject } from '../../injector/uninject.ts';
import {
  annotated,
  CONFIG_MAP,
  CONTAINER,
  CONTEXT,
  podWith,
  restrictedFaults,
  schemaFaults,
} from '../support/injector.ts';

function injected(
  pod: Raw,
  changes: Partial<InjectionContext> = {},
): Raw & { readonly spec: { readonly [key: string]: Raw[] } } {
  const result = inject(pod, { ...CONTEXT, ...changes });
  assert.ok(result.ok, result.ok ? '' : result.error.message);
  assert.equal(result.value.kind, 'injected');
  return applyPatch(pod, result.value.kind === 'injected' ? result.value.operations : []) as never;
}
const mounting = (mountPath: string, more: Raw = {}): Raw => ({ volumeMounts: [{ name: 'own', mountPath, ...more }] });
const second = (containers: Raw[]) => podWith({ containers: [CONTAINER, ...containers] });
const sidecarOf = (pod: { readonly spec: { readonly [key: string]: Raw[] } }) =>
  [...(pod.spec.initContainers ?? []), ...pod.spec.containers!].find(({ name }) => name === 'mcp-sidecar')!;

suite('the sidecar', () => {
  test('native: first of the init containers, to stay, behind a startup probe', () => {
    const own = { name: 'migrate', image: 'x' };
    const pod = injected(podWith({ initContainers: [own] }));
    assert.deepEqual(
      pod.spec.initContainers!.map(({ name }) => name),
      ['mcp-sidecar', 'migrate'],
    );
    const { restartPolicy, startupProbe } = pod.spec.initContainers![0]!;
    assert.equal(restartPolicy, 'Always');
    assert.ok(startupProbe);
  });
  test('classic: first of the containers', () => {
    const pod = injected(podWith(), { mode: 'classic' });
    assert.deepEqual(
      pod.spec.containers!.map(({ name }) => name),
      ['mcp-sidecar', 'agent'],
    );
    assert.equal('restartPolicy' in pod.spec.containers![0]!, false);
  });
  for (const mode of ['native', 'classic'] as const)
    test(`${mode}: valid by the API server's schema and for the level restricted`, () => {
      const pod = injected(podWith(), { mode });
      assert.deepEqual(schemaFaults(pod), []);
      assert.deepEqual(restrictedFaults(pod, 'mcp-sidecar'), []);
      assert.deepEqual(restrictedFaults(pod, 'agent'), []);
    });
  test('the user can be left to the cluster', () => {
    const pod = injected(podWith(), { options: { ...CONTEXT.options, runAsUser: undefined } });
    const { runAsUser, runAsNonRoot } = sidecarOf(pod).securityContext as Raw;
    assert.deepEqual([runAsUser, runAsNonRoot], [undefined, true]);
  });
  test('annotations change what may be changed', () => {
    const pod = injected(
      annotated({
        'mcp-sidecar.io/cpu-request': '100m',
        'mcp-sidecar.io/cpu-limit': '2',
        'mcp-sidecar.io/memory-request': '64Mi',
        'mcp-sidecar.io/memory-limit': '1Gi',
        'mcp-sidecar.io/log-level': 'debug',
        'mcp-sidecar.io/port': '5000',
        'mcp-sidecar.io/health-port': '6000',
      }),
    );
    const sidecar = sidecarOf(pod);
    assert.deepEqual(sidecar.resources, {
      requests: { cpu: '100m', memory: '64Mi' },
      limits: { cpu: '2', memory: '1Gi' },
    });
    assert.deepEqual((sidecar.args as string[]).slice(-2), ['--log-level', 'debug']);
    const [{ value }] = sidecar.env as [{ value: string }];
    assert.deepEqual(JSON.parse(value).listen, {
      mcp: ['127.0.0.1:5000', '[::1]:5000'],
      admin: '127.0.0.1:5001',
      health: '*:6000',
    });
    assert.deepEqual(pod.spec.containers![0]!.env, [{ name: 'MCP_SERVER_URL', value: 'http://127.0.0.1:5000/mcp' }]);
  });
  test('the least that it may be given', () => {
    const amounts = { 'memory-request': '16Mi', 'memory-limit': '16Mi', 'cpu-request': '100n', 'cpu-limit': '1m' };
    const own = Object.entries(amounts).map(([setting, value]) => [`mcp-sidecar.io/${setting}`, value]);
    const { requests, limits } = sidecarOf(injected(annotated(Object.fromEntries(own)))).resources as Raw;
    assert.deepEqual(requests, { cpu: '100n', memory: '16Mi' });
    assert.deepEqual(limits, { cpu: '1m', memory: '16Mi' });
  });
  test('another image where the operator allows it', () => {
    const options = { ...CONTEXT.options, allowedImages: ['mirror.example/mcp-sidecar:2'] };
    const pod = injected(annotated({ 'mcp-sidecar.io/image': 'mirror.example/mcp-sidecar:2' }), { options });
    assert.equal(sidecarOf(pod).image, 'mirror.example/mcp-sidecar:2');
  });
  test('secrets, token and configuration are mounted into it alone', () => {
    const pod = injected(second([{ name: 'web', image: 'x' }]));
    const mounts = (container: Raw) => ((container.volumeMounts ?? []) as Raw[]).map(({ name }) => name);
    assert.deepEqual(mounts(sidecarOf(pod)), [
      'mcp-sidecar-group',
      'mcp-sidecar-state',
      'mcp-sidecar-token',
      'mcp-sidecar-secret-0',
    ]);
    for (const container of pod.spec.containers!) assert.deepEqual(mounts(container), ['mcp-sidecar-client']);
    const token = pod.spec.volumes!.find(({ name }) => name === 'mcp-sidecar-token');
    assert.deepEqual((token as { projected: { sources: unknown[] } }).projected.sources, [
      { serviceAccountToken: { audience: 'mcp-sidecar', expirationSeconds: 3600, path: 'token' } },
    ]);
  });
});

suite('the pod’s own containers', () => {
  test('those excluded get nothing', () => {
    const pod = podWith(
      { containers: [CONTAINER, { name: 'web', image: 'x' }] },
      { annotations: { 'mcp-sidecar.io/inject': 'true', 'mcp-sidecar.io/exclude-containers': 'web' } },
    );
    assert.deepEqual(injected(pod).spec.containers![1], { name: 'web', image: 'x' });
  });
  test('a name to exclude that no container has is told, also by the status', () => {
    const pod = annotated({ 'mcp-sidecar.io/exclude-containers': 'agent, nobody' });
    const words = ['mcp-sidecar: no container is named nobody, which was to be excluded'];
    const result = inject(pod, CONTEXT);
    assert.ok(result.ok && result.value.kind === 'injected');
    assert.deepEqual(result.value.warnings, words);
    const after = injected(pod);
    const { annotations } = after.metadata as unknown as { annotations: Record<string, string> };
    assert.deepEqual(JSON.parse(annotations['mcp-sidecar.io/status']!).warnings, words);
    const later = { ...after, spec: { ...after.spec, containers: [...after.spec.containers!, { name: 'nobody' }] } };
    for (const one of [after, later]) {
      const again = inject(one, CONTEXT);
      assert.ok(again.ok && again.value.kind === 'present');
    }
  });
  test('names that are taken stay as they are', () => {
    const own = {
      ...CONTAINER,
      env: [{ name: 'MCP_SERVER_URL', value: 'https://elsewhere.example' }],
      volumeMounts: [{ name: 'own', mountPath: '/var/run/mcp/' }],
    };
    const pod = injected(podWith({ containers: [own], volumes: [{ name: 'own', emptyDir: {} }] }));
    assert.deepEqual(pod.spec.containers, [own]);
  });
  const inTheWay: Record<string, [container: Raw, words: RegExp | undefined]> = {
    'a mount at our folder': [mounting('/var/run/mcp'), /since it mounts "\/var\/run\/mcp"$/],
    'one below it': [mounting('/var/run/mcp/cache'), /since it mounts "\/var\/run\/mcp\/cache"$/],
    'one at the same place under /run': [mounting('/run/mcp'), /since it mounts "\/run\/mcp"$/],
    'one below that': [mounting('/run/mcp/cache/'), /since it mounts/],
    'one that goes round about': [mounting('/var//lib/../run/./mcp/'), /since it mounts/],
    'one that does not begin at the root': [mounting('var/run/mcp'), /since it mounts/],
    'a read-only one above it': [mounting('/var/run', { readOnly: true }), /since it mounts "\/var\/run" read-only$/],
    'a volume above it that is never written': [mounting('/run', { name: 'fixed' }), /mounts "\/run" read-only$/],
    'a claim above it that is read-only': [mounting('/', { name: 'claim' }), /mounts "\/" read-only$/],
    'a device at it': [
      { volumeDevices: [{ name: 'disk', devicePath: '/var/run/mcp' }] },
      /has a device at "\/var\/run\/mcp"$/,
    ],
    'a device above it': [{ volumeDevices: [{ name: 'disk', devicePath: '/run' }] }, /has a device at/],
    'a device below it': [{ volumeDevices: [{ name: 'disk', devicePath: '/run/mcp/disk' }] }, /has a device at/],
    'no mount that can be written above it': [mounting('/var/run'), undefined],
    'no mount beside it': [mounting('/var/run/mcp-other', { readOnly: true }), undefined],
    'no device beside it': [{ volumeDevices: [{ name: 'disk', devicePath: '/dev/mcp' }] }, undefined],
  };
  for (const [what, [more, words]] of Object.entries(inTheWay))
    test(`mcp.json is in the way of ${what}`, () => {
      const own = { ...CONTAINER, ...more };
      const volumes = [
        { name: 'own', emptyDir: {} },
        { name: 'fixed', configMap: { name: 'x' } },
        { name: 'claim', persistentVolumeClaim: { claimName: 'x', readOnly: true } },
      ];
      const bare = podWith({
        containers: [own, { name: 'web', image: 'x', securityContext: CONTAINER.securityContext }],
        volumes,
      });
      const result = inject(bare, CONTEXT);
      assert.ok(result.ok && result.value.kind === 'injected');
      const pod = applyPatch(bare, result.value.operations);
      const [agent, web] = rawList(rawAt(pod, 'spec').containers);
      const isGiven = (container: Raw | undefined) =>
        rawList(container?.volumeMounts).some(({ name }) => name === 'mcp-sidecar-client');
      const isTold = ({ env }: Raw) => rawList(env).some(({ name }) => name === 'MCP_SERVER_URL');
      assert.deepEqual([isGiven(agent), isTold(agent!), isGiven(web)], [words === undefined, true, true]);
      const about = result.value.warnings.filter((warning) => warning.includes('mcp.json'));
      assert.equal(about.length, words === undefined ? 0 : 1);
      if (words !== undefined) assert.match(about[0]!, words);
      const status = readStatus(pod);
      assert.ok(status?.ok);
      assert.deepEqual(
        (status.value.warnings ?? []).filter((warning) => warning.includes('mcp.json')),
        about,
      );
      const again = inject(pod, CONTEXT);
      assert.ok(again.ok && again.value.kind === 'present');
      assert.deepEqual(uninject(pod), bare);
    });
  for (const [mode, isServed] of [
    ['native', true],
    ['classic', false],
  ] as const)
    test(`init containers beside a ${mode} sidecar ${isServed ? 'are' : 'are not'} told of it`, () => {
      const pod = injected(podWith({ initContainers: [{ name: 'first', image: 'x' }] }), { mode });
      const init = pod.spec.initContainers!.find(({ name }) => name === 'first')!;
      assert.equal('env' in init, isServed);
    });
  test('the default container is set where nobody has', () => {
    const annotations = (pod: Raw) => (pod.metadata as Raw).annotations as Raw;
    const key = 'kubectl.kubernetes.io/default-container';
    assert.equal(annotations(injected(podWith()))[key], 'agent');
    assert.equal(annotations(injected(annotated({ [key]: 'other' })))[key], 'other');
  });
});

suite('refused, each with one sentence', () => {
  const cases: Record<string, readonly [pod: Raw, words: RegExp, changes?: Partial<InjectionContext>]> = {
    hostNetwork: [podWith({ hostNetwork: true }), /hostNetwork/],
    hostPID: [podWith({ hostPID: true }), /hostPID/],
    shareProcessNamespace: [podWith({ shareProcessNamespace: true }), /shareProcessNamespace/],
    'a privileged container': [
      second([{ name: 'web', securityContext: { privileged: true } }]),
      /web\) that is privileged/,
    ],
    'a container that may trace': [
      second([{ name: 'web', securityContext: { capabilities: { add: ['SYS_PTRACE'] } } }]),
      /web\) that has the capability SYS_PTRACE/,
    ],
    'a capability behind one without a name': [
      second([{ name: 'web', securityContext: { capabilities: { add: ['', 'SYS_PTRACE'] } } }]),
      /has the capability without a name/,
    ],
    ...Object.fromEntries(
      ['all', 'sys_ptrace', 'CAP_SYS_ADMIN', 'cap_bpf', 'DAC_READ_SEARCH', 'SYS_MODULE', 'FUTURE'].map((capability) => [
        `a container with the capability ${capability}`,
        [
          second([{ name: 'web', securityContext: { capabilities: { add: ['CHOWN', capability] } } }]),
          new RegExp(`has the capability ${capability.toUpperCase().replace('CAP_', '')}:`),
        ] as const,
      ]),
    ),
    'a volume of the node, mounted or not': [
      podWith({ volumes: [{ name: 'logs', hostPath: { path: '/var/log' } }] }),
      /a hostPath volume \(logs\): on the node/,
    ],
    'the sidecar’s own user': [
      second([{ name: 'web', securityContext: { runAsUser: 65532 } }]),
      /web runs as user 65532, which is the sidecar's/,
    ],
    'the sidecar’s own user, by the pod': [
      podWith({ securityContext: { runAsUser: 65532 }, containers: [{ name: 'agent' }] }),
      /runs as user 65532/,
    ],
    'a port of the sidecar': [second([{ name: 'web', ports: [{ containerPort: 4182 }] }]), /web has port 4182/],
    'a classic sidecar in a Job': [podWith(), /Job would never complete/, { mode: 'classic', isJob: true }],
    'a service account without a group': [
      podWith({ serviceAccountName: 'other' }),
      /no group of this namespace names the service account other/,
    ],
    ...Object.fromEntries(
      (
        [
          ['an empty service account', { serviceAccountName: '' }, 'default'],
          ['an empty service account beside its older name', { serviceAccountName: '', serviceAccount: 'old' }, 'old'],
        ] as const
      ).map(([name, spec, account]) => [
        name,
        [podWith(spec), new RegExp(`names the service account ${account}:`)] as const,
      ]),
    ),
    'a group of others': [
      podWith(
        { serviceAccountName: 'other' },
        { annotations: { 'mcp-sidecar.io/inject': 'true', 'mcp-sidecar.io/group': 'support' } },
      ),
      /the service account other may not use the group support/,
    ],
    'a group that is not there': [annotated({ 'mcp-sidecar.io/group': 'sales' }), /there is no group sales/],
    'a group that cannot be read': [
      podWith(),
      /the ConfigMap mcp-sidecar-support has no key sidecar.yaml/,
      { groups: [readGroup({ ...CONFIG_MAP, data: {} })] },
    ],
    'an unknown setting': [annotated({ 'mcp-sidecar.io/cpu': '1' }), /mcp-sidecar.io\/cpu is not known/],
    'a bad quantity': [annotated({ 'mcp-sidecar.io/cpu-limit': 'much' }), /cpu-limit is "much": it must be a quantity/],
    ...Object.fromEntries(
      (
        [
          ['memory-limit', '10m', 'at least 16Mi'],
          ['memory-request', '16777215', 'at least 16Mi'],
          ['cpu-limit', '999u', 'at least 1m'],
          ['cpu-limit', '0', 'a quantity'],
        ] as const
      ).map(([setting, value, wanted]) => [
        `too little: ${setting} ${value}`,
        [
          annotated({ [`mcp-sidecar.io/${setting}`]: value }),
          new RegExp(`^the annotation mcp-sidecar.io/${setting} is "${value}": it must be ${wanted}`),
        ] as const,
      ]),
    ),
    'a request beyond the limit by a billionth': [
      annotated({ 'mcp-sidecar.io/cpu-request': '1.000000001' }),
      /cpu request \(1.000000001\) is more than its limit \(1\)/,
    ],
    'a request beyond the limit': [
      annotated({ 'mcp-sidecar.io/cpu-request': '2' }),
      /cpu request \(2\) is more than its limit \(1\)/,
    ],
    'a bad port': [annotated({ 'mcp-sidecar.io/port': '80' }), /port is "80": it must be a port from 1024/],
    'one port for two': [annotated({ 'mcp-sidecar.io/health-port': '4181' }), /health-port must be neither/],
    'an image of one’s own': [
      annotated({ 'mcp-sidecar.io/image': 'evil:1' }),
      /image is "evil:1": it must be an image that the operator/,
    ],
    'a name to exclude that no container can have': [
      annotated({ 'mcp-sidecar.io/exclude-containers': 'agent, web;proxy' }),
      /exclude-containers is "web;proxy": it must be names of containers with commas between them/,
    ],
    'a bad log level': [annotated({ 'mcp-sidecar.io/log-level': 'loud' }), /log-level is "loud"/],
    'a container of our name': [
      second([{ name: 'mcp-sidecar', image: 'evil:1' }]),
      /already has a container named mcp-sidecar/,
    ],
    'a volume of our name': [
      podWith({ volumes: [{ name: 'mcp-sidecar-group', emptyDir: {} }] }),
      /already has a volume named mcp-sidecar-group/,
    ],
    'an mcp.json of one’s own': [
      annotated({ 'mcp-sidecar.io/mcp.json': '{}' }),
      /already has an annotation mcp-sidecar.io\/mcp.json/,
    ],
    'a status of one’s own': [
      annotated({ 'mcp-sidecar.io/status': '{}' }),
      /already has an annotation mcp-sidecar.io\/status/,
    ],
    'no containers': [podWith({ containers: [] }), /names no container/],
    'containers that are none': [podWith({ containers: 'x' }), /spec.containers must be a list of objects/],
  };
  for (const [name, [pod, words, changes]] of Object.entries(cases))
    test(name, () => {
      const result = inject(pod, { ...CONTEXT, ...changes });
      assert.ok(!result.ok);
      assert.match(result.error.message, words);
    });
});

test('too many privileges are a reason of its own for the metrics', () => {
  const kindOf = (pod: Raw) => {
    const result = inject(pod, CONTEXT);
    return result.ok ? undefined : result.error.kind;
  };
  assert.equal(kindOf(second([{ name: 'web', securityContext: { privileged: true } }])), 'privileges');
  assert.equal(kindOf(podWith({ volumes: [{ name: 'node', hostPath: { path: '/' } }] })), 'privileges');
  assert.equal(kindOf(podWith({ hostPID: true })), 'namespaces');
});

suite('resources of the pod as a whole', () => {
  /** The sidecar requests 50m and 128Mi, and has limits of 1 and 256Mi. */
  const withResources = (resources: Raw, own: Raw = {}, spec: Raw = {}) =>
    podWith({ resources, containers: [{ ...CONTAINER, resources: own }], ...spec });
  const init = (cpu: string, more: Raw = {}): Raw => ({
    name: 'first',
    image: 'x',
    resources: { requests: { cpu } },
    ...more,
  });
  const cases: Record<string, readonly [pod: Raw, words: RegExp | undefined, mode?: 'native' | 'classic']> = {
    'with room to the last thousandth': [
      withResources({ requests: { cpu: '0.13' } }, { requests: { cpu: '80m' } }),
      undefined,
    ],
    'to the last byte': [withResources({ requests: { memory: '134217729' } }, { requests: { memory: 1 } }), undefined],
    'a byte short': [
      withResources({ requests: { memory: '128Mi' } }, { requests: { memory: 1 } }),
      /^spec.resources.requests.memory of the pod is 128Mi, and its containers request 134217729 together with the sidecar/,
    ],
    'a thousandth short': [
      withResources({ requests: { cpu: '129m' } }, { requests: { cpu: '80m' } }),
      /requests.cpu of the pod is 129m, and its containers request 130m .* raise it to that, or lower mcp-sidecar.io\/cpu-request$/,
    ],
    'short beside a classic sidecar': [
      withResources({ requests: { cpu: '129m' } }, { requests: { cpu: '80m' } }),
      /request 130m/,
      'classic',
    ],
    'short, by a limit that stands for a request': [
      withResources({ requests: { memory: '200Mi' } }, { limits: { memory: '100Mi' } }),
      /request 228Mi/,
    ],
    'short, by limits that stand for requests': [
      withResources({ limits: { memory: '200Mi' } }, { requests: { memory: '100Mi' } }),
      /limits.memory of the pod is 200Mi/,
    ],
    'short beside an init container': [
      withResources({ requests: { cpu: '100m' } }, {}, { initContainers: [init('60m')] }),
      /request 110m/,
    ],
    'with room, since a classic sidecar starts later': [
      withResources({ requests: { cpu: '100m' } }, {}, { initContainers: [init('60m')] }),
      undefined,
      'classic',
    ],
    'short beside another native sidecar': [
      withResources(
        { requests: { cpu: '130m' } },
        { requests: { cpu: '30m' } },
        { initContainers: [init('60m', { restartPolicy: 'Always' })] },
      ),
      /request 140m/,
    ],
    'short beside an init container behind two native sidecars': [
      withResources(
        { requests: { cpu: '209m' } },
        {},
        {
          initContainers: [init('60m', { restartPolicy: 'Always' }), init('100m', { name: 'second' })],
        },
      ),
      /request 210m/,
    ],
    'with a limit below that of a native sidecar': [withResources({ limits: { cpu: '500m' } }), undefined],
    'with a limit below that of a classic sidecar': [
      withResources({ limits: { cpu: '500m' } }),
      /limits.cpu of the pod is 500m, and the limit of the sidecar 1:/,
      'classic',
    ],
    'that cannot be read': [withResources({ requests: { cpu: 'much' } }), undefined],
    'beside requests that cannot be read': [
      withResources({ requests: { cpu: '1m' } }, { requests: { cpu: 'much' } }),
      undefined,
    ],
    'that say nothing of what the sidecar needs': [withResources({ limits: { 'hugepages-2Mi': '2Mi' } }), undefined],
  };
  for (const [what, [pod, words, mode = 'native']] of Object.entries(cases))
    test(`${words === undefined ? 'allowed' : 'refused'}: ${what}`, () => {
      const result = inject(pod, { ...CONTEXT, mode });
      assert.equal(result.ok, words === undefined, result.ok ? '' : result.error.message);
      if (result.ok) return;
      assert.equal(result.error.kind, 'resources');
      assert.match(result.error.message, words!);
    });
});

test('what a runtime grants by itself may be added', () => {
  const add = 'audit_write CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID';
  const capabilities = { add: [...add.split(' '), 'SYS_CHROOT', 'CAP_NET_RAW'] };
  injected(second([{ name: 'web', securityContext: { capabilities } }]));
});

suite('passed over, with a warning', () => {
  const cases: Record<string, Raw> = {
    'Windows by os': podWith({ os: { name: 'windows' } }),
    'Windows by node': podWith({ nodeSelector: { 'kubernetes.io/os': 'windows' } }),
    'the mirror of a static pod': annotated({ 'kubernetes.io/config.mirror': 'x' }),
  };
  for (const [name, pod] of Object.entries(cases))
    test(name, () => {
      const result = inject(pod, CONTEXT);
      assert.ok(result.ok && result.value.kind === 'skipped');
    });
});

/** The pod with more in a list of its agent. */
function withFirst(pod: Raw, list: string, item: Raw): Raw {
  const spec = rawAt(pod, 'spec');
  const containers = rawList(spec.containers).map((one) =>
    one.name === CONTAINER.name ? { ...one, [list]: [...rawList(one[list]), item] } : one,
  );
  return { ...pod, spec: { ...spec, containers } };
}
const withMore = (pod: Raw, key: string, item: Raw): Raw => {
  const spec = rawAt(pod, 'spec');
  return { ...pod, spec: { ...spec, [key]: [...rawList(spec[key]), item] } };
};
const LATER: Record<string, (pod: Raw) => Raw> = {
  'a variable': (pod) => withFirst(pod, 'env', { name: 'AWS_REGION', value: 'eu' }),
  'a mount': (pod) => withFirst(pod, 'volumeMounts', { name: 'vault', mountPath: '/vault' }),
  'a volume': (pod) => withMore(pod, 'volumes', { name: 'vault', emptyDir: {} }),
  'an init container': (pod) => withMore(pod, 'initContainers', { name: 'vault', image: 'x' }),
  'an annotation': (pod) => {
    const metadata = rawAt(pod, 'metadata');
    return {
      ...pod,
      metadata: { ...metadata, annotations: { ...rawAt(metadata, 'annotations'), 'vault/status': 'x' } },
    };
  },
};

suite('once more', () => {
  const again = (pod: Raw) => inject(pod, CONTEXT);
  const present = (pod: Raw) => {
    const result = again(pod);
    assert.ok(result.ok, result.ok ? '' : result.error.message);
    assert.equal(result.value.kind, 'present');
  };
  test('what is there stays', () => present(injected(podWith())));
  test('also beside a container that another webhook has added since', () => {
    const pod = injected(podWith());
    present({
      ...pod,
      spec: {
        ...pod.spec,
        containers: [...pod.spec.containers!, { name: 'istio-proxy', securityContext: { runAsUser: 1337 } }],
      },
    });
  });
  // Each adds to a list that was not there before ours.
  for (const [what, change] of Object.entries(LATER))
    for (const mode of ['native', 'classic'] as const)
      test(`also when a later webhook adds ${what} (${mode}); taken away, that is left`, () => {
        const pod = change(injected(podWith(), { mode }));
        present(pod);
        assert.deepEqual(uninject(pod), change(podWith()));
      });
  test('also when what was free is taken since', () =>
    present(withFirst(injected(podWith()), 'volumeMounts', { name: 'own', mountPath: '/var/run/mcp/cache' })));
  test('a status that says less was given than was is refused', () => {
    const pod = injected(podWith());
    const annotations = { ...rawAt(pod, 'metadata', 'annotations') };
    const status = { ...JSON.parse(String(annotations['mcp-sidecar.io/status'])), files: [] };
    const forged = { ...annotations, 'mcp-sidecar.io/status': JSON.stringify(status) };
    const result = again({ ...pod, metadata: { ...rawAt(pod, 'metadata'), annotations: forged } });
    assert.equal(result.ok, false);
  });
  test('also when a LimitRange has added storage', () => {
    const pod = injected(podWith());
    const sidecar = sidecarOf(pod);
    const { requests, limits } = sidecar.resources as { requests: Raw; limits: Raw };
    const more = { 'ephemeral-storage': '64Mi' };
    const resources = { requests: { ...requests, ...more }, limits: { ...limits, ...more } };
    present({ ...pod, spec: { ...pod.spec, initContainers: [{ ...sidecar, resources }] } });
  });
  // As the API server writes them.
  const spelt: readonly [setting: string, written: string, back: string][] = [
    ['cpu-limit', '0.7', '700m'],
    ['cpu-limit', '1.4', '1400m'],
    ['cpu-request', '0.35', '350m'],
    ['cpu-request', '0.0001', '1m'],
    ['cpu-limit', '1e1', '10'],
    ['memory-limit', '1.1Gi', '1181116006400m'],
    ['memory-limit', '2048Ti', '2Pi'],
    ['memory-limit', '0.3G', '300M'],
    ['memory-limit', '10E', '9223372036854775807'],
  ];
  for (const [setting, written, back] of spelt)
    test(`also when the API server writes ${written} as ${back}`, () => {
      const pod = injected(annotated({ [`mcp-sidecar.io/${setting}`]: written }));
      const sidecar = sidecarOf(pod);
      const [kind, side] = setting.split('-') as [string, string];
      const resources = structuredClone(sidecar.resources) as Record<string, Record<string, string>>;
      assert.equal(resources[`${side}s`]![kind], written);
      resources[`${side}s`]![kind] = back;
      present({ ...pod, spec: { ...pod.spec, initContainers: [{ ...sidecar, resources }] } });
    });
  test('also when the API server has mounted its token', () => {
    const pod = injected(podWith());
    const sidecar = sidecarOf(pod);
    const token = {
      name: 'kube-api-access-x',
      mountPath: '/var/run/secrets/kubernetes.io/serviceaccount',
      readOnly: true,
    };
    const back = { ...sidecar, volumeMounts: [...(sidecar.volumeMounts as Raw[]), token] };
    present({ ...pod, spec: { ...pod.spec, initContainers: [back] } });
  });
  const forgeries: Record<string, (sidecar: Raw) => Raw> = {
    'another image': (sidecar) => ({ ...sidecar, image: 'evil:1' }),
    'a command': (sidecar) => ({ ...sidecar, command: ['sh'] }),
    'another variable': (sidecar) => ({
      ...sidecar,
      env: [...(sidecar.env as Raw[]), { name: 'NODE_OPTIONS', value: '--require=/x' }],
    }),
    'another mount': (sidecar) => ({
      ...sidecar,
      volumeMounts: [...(sidecar.volumeMounts as Raw[]), { name: 'own', mountPath: '/app' }],
    }),
    'no read-only root': (sidecar) => ({
      ...sidecar,
      securityContext: { ...(sidecar.securityContext as Raw), readOnlyRootFilesystem: false },
    }),
    'a device of the node': (sidecar) => {
      const { requests, limits } = sidecar.resources as { requests: Raw; limits: Raw };
      return { ...sidecar, resources: { requests, limits: { ...limits, 'example.com/device': '1' } } };
    },
    'a larger limit': (sidecar) => ({
      ...sidecar,
      resources: { ...(sidecar.resources as Raw), limits: { cpu: '8', memory: '256Mi' } },
    }),
  };
  for (const [name, forge] of Object.entries(forgeries))
    test(`a forged sidecar is refused: ${name}`, () => {
      const pod = injected(podWith());
      const result = again({ ...pod, spec: { ...pod.spec, initContainers: [forge(sidecarOf(pod))] } });
      assert.ok(!result.ok);
      assert.equal(result.error.kind, 'reserved');
    });
  test('an mcp.json that the status does not speak of is refused', () => {
    const pod = injected(podWith());
    const metadata = pod.metadata as Raw & { readonly annotations: Raw };
    const status = JSON.parse(String(metadata.annotations['mcp-sidecar.io/status']));
    const annotations = {
      ...metadata.annotations,
      'mcp-sidecar.io/status': JSON.stringify({ ...status, annotations: [] }),
    };
    const result = again({ ...pod, metadata: { ...metadata, annotations } });
    assert.ok(!result.ok);
    assert.equal(result.error.kind, 'reserved');
  });
  test('a container that mounts the sidecar’s secret is refused', () => {
    const pod = injected(podWith());
    const thief = { name: 'thief', volumeMounts: [{ name: 'mcp-sidecar-secret-0', mountPath: '/stolen' }] };
    const result = again({ ...pod, spec: { ...pod.spec, containers: [...pod.spec.containers!, thief] } });
    assert.ok(!result.ok);
    assert.equal(result.error.kind, 'reserved');
  });
  test('taken away, the pod is what it was', () => {
    for (const mode of ['native', 'classic'] as const)
      assert.deepEqual(uninject(injected(podWith(), { mode })), podWith());
  });
});
