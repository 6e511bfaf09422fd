/**
 * The injector before a real API server, installed as `kubectl kustomize` renders it and with the rights of its own
 * service account: what the API server makes of its webhook, its patches, its policy and its certificates.
 */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { connect } from 'node:tls';
import type { Authorities } from '../../injector/certificate-authority.ts';
import { applyPatch } from '../../injector/json-patch.ts';
import { detectMode } from '../../injector/native-support.ts';
import { inject } from '../../injector/patch.ts';
import { type Raw, rawAt, rawList } from '../../injector/raw-object.ts';
import { CONFIG_MAP, CONTAINER, CONTEXT, podWith } from '../support/injector.ts';
import {
  create,
  edit,
  type InjectorCluster,
  installInjector,
  type Replica,
  until,
} from '../support/injector-cluster.ts';
import { type ApiServer, startApiServer, whyNoApiServer } from '../support/kube-apiserver.ts';
import { helmTemplate, pathOf, whyMissing } from '../support/manifests.ts';

const PODS = '/api/v1/namespaces/agents/pods';
/** Of a namespace without any level of Pod Security. */
const LENIENT_PODS = '/api/v1/namespaces/lenient/pods';
const SECRET = '/api/v1/namespaces/mcp-sidecar/secrets/mcp-sidecar-injector-tls';
const WEBHOOK = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/mcp-sidecar-injector';
const NODES = '/api/v1/nodes';
const SERVER_NAME = 'mcp-sidecar-injector.mcp-sidecar.svc';

/** @param annotations `null`: none at all. */
const named = (name: string, annotations: Raw | null = { 'mcp-sidecar.io/inject': 'true' }, spec: Raw = {}) =>
  podWith(spec, { name, annotations: annotations ?? undefined });

/** The pod as the injector makes it. */
function injected(pod: Raw, mode: 'native' | 'classic' = 'native'): Raw {
  const result = inject(pod, { ...CONTEXT, mode });
  assert.ok(result.ok && result.value.kind === 'injected');
  return applyPatch(pod, result.value.operations);
}

/** @param more Over a container that is good for every level. */
function withContainer(pod: Raw, list: string, more: Raw): Raw {
  const spec = rawAt(pod, 'spec');
  return { ...pod, spec: { ...spec, [list]: [...rawList(spec[list]), { ...CONTAINER, name: 'added', ...more }] } };
}

function annotatedWith(pod: Raw, changes: Raw): Raw {
  const metadata = rawAt(pod, 'metadata');
  return { ...pod, metadata: { ...metadata, annotations: { ...rawAt(metadata, 'annotations'), ...changes } } };
}

function withSidecar(pod: Raw, change: (sidecar: Raw) => Raw): Raw {
  const spec = rawAt(pod, 'spec');
  const changed = Object.fromEntries(
    ['initContainers', 'containers'].map((list) => [
      list,
      rawList(spec[list]).map((one) => (one.name === 'mcp-sidecar' ? change(one) : one)),
    ]),
  );
  return { ...pod, spec: { ...spec, ...changed } };
}

function withMount(container: Raw, mount: Raw): Raw {
  return { ...container, volumeMounts: [...rawList(container.volumeMounts), mount] };
}

/** A volume of the pod is another one under the same name, or a further one. */
function withVolume(pod: Raw, name: string, source: Raw): Raw {
  const spec = rawAt(pod, 'spec');
  const volumes = rawList(spec.volumes);
  const isThere = volumes.some((volume) => volume.name === name);
  const added = { name, ...source };
  const changed = isThere ? volumes.map((one) => (one.name === name ? added : one)) : [...volumes, added];
  return { ...pod, spec: { ...spec, volumes: changed } };
}

/** The sidecar's, before any log level. */
const ARGS = ['run', '--config', '/etc/mcp-sidecar/sidecar.yaml'];

suite('a real API server', { skip: whyNoApiServer() ?? whyMissing('kubectl') ?? false }, () => {
  let api: ApiServer;
  let cluster: InjectorCluster;
  const make = (pod: Raw, query = '') => api.call('POST', `${PODS}${query}`, pod);
  const messageOf = async (pod: Raw) => String((await make(pod, '?dryRun=All')).value.message);

  before(async () => {
    api = await startApiServer();
    const labels = { 'pod-security.kubernetes.io/enforce': 'restricted' };
    await create(api, { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'agents', labels } });
    for (const name of ['agent', 'other'])
      await create(api, { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace: 'agents' } });
    await create(api, { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'lenient' } });
    await create(api, { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'agent', namespace: 'lenient' } });
    await create(api, CONFIG_MAP);
    // It asked for a sidecar when nobody could give it one.
    await make(named('from-before'));
    const mighty = { securityContext: { privileged: true } };
    await api.call('POST', LENIENT_PODS, withContainer(injected(named('mighty-before')), 'containers', mighty));
    cluster = await installInjector(api);
  });
  after(async () => {
    await cluster?.close();
    await api?.close();
  });

  suite('the policy alone, before any webhook', () => {
    /** The same pod with its sidecar changed. */
    const forged = (change: (sidecar: Raw) => Raw): Raw => withSidecar(injected(named('forged')), change);

    // A policy is in force a moment after it has been made.
    before(() =>
      until('the policy is in force', async () => (await make(named('bare'), '?dryRun=All')).status !== 201),
    );

    test('what the injector makes passes it, and the level restricted', async () => {
      for (const mode of ['native', 'classic'] as const) {
        const { status, value, warnings } = await make(injected(named(`by-hand-${mode}`), mode));
        assert.equal(status, 201, JSON.stringify(value));
        assert.deepEqual(warnings, []);
      }
    });

    const denied: Record<string, [pod: () => Raw, words: RegExp]> = {
      'a pod without its sidecar': [() => named('bare'), /asks for the MCP sidecar and does not have it/],
      'a wish that is neither yes nor no': [
        () => named('unclear', { 'mcp-sidecar.io/inject': 'yes' }),
        /must be "true" or "false"/,
      ],
      'another image': [
        () => forged((sidecar) => ({ ...sidecar, image: 'evil:1' })),
        /an image that the injector does not use/,
      ],
      'an init container that ends': [
        () =>
          forged(
            ({ restartPolicy: _, startupProbe: __, livenessProbe: ___, readinessProbe: ____, ...sidecar }) => sidecar,
          ),
        /without restartPolicy Always/,
      ],
      'a command': [
        () => forged((sidecar) => ({ ...sidecar, command: ['sh'] })),
        /has what the injector does not give it: command$/,
      ],
      'a folder, a terminal and a hook of its own': [
        () =>
          forged((sidecar) => ({
            ...sidecar,
            workingDir: '/mnt',
            tty: true,
            stdin: true,
            lifecycle: { postStart: { exec: { command: ['sh'] } } },
          })),
        // In no order.
        /does not give it: (?:(?:workingDir|tty|stdin|lifecycle)(?:, |$)){4}/,
      ],
      'variables from elsewhere': [
        () => forged((sidecar) => ({ ...sidecar, envFrom: [{ configMapRef: { name: 'own' } }] })),
        /does not give it: envFrom$/,
      ],
      'a rule that ends a classic one': [
        () => withSidecar(injected(named('forged'), 'classic'), (sidecar) => ({ ...sidecar, restartPolicy: 'Never' })),
        /does not give it: restartPolicy$/,
      ],
      'another configuration': [
        () => forged((sidecar) => ({ ...sidecar, args: ['run', '--config', '/app/sidecar.yaml'] })),
        /does not run what/,
      ],
      'a second configuration': [
        () => forged((sidecar) => ({ ...sidecar, args: [...ARGS, '--config', '/var/lib/mcp-sidecar/evil.yaml'] })),
        /does not run what/,
      ],
      'a log level that the pod has not asked for': [
        () => forged((sidecar) => ({ ...sidecar, args: [...ARGS, '--log-level', 'error'] })),
        /does not run what/,
      ],
      'a log level that is none': [
        () =>
          annotatedWith(
            forged((sidecar) => ({ ...sidecar, args: [...ARGS, '--log-level', '--json'] })),
            { 'mcp-sidecar.io/log-level': '--json' },
          ),
        /does not run what/,
      ],
      'no arguments': [() => forged(({ args: _, ...sidecar }) => sidecar), /does not run what/],
      ...Object.fromEntries(
        ['startupProbe', 'livenessProbe', 'readinessProbe'].flatMap((name): [string, [() => Raw, RegExp]][] => [
          [
            `${name} that runs a program`,
            [
              () =>
                forged((sidecar) => {
                  const { httpGet: _, ...times } = rawAt(sidecar, name);
                  return { ...sidecar, [name]: { ...times, exec: { command: ['sh'] } } };
                }),
              /does not have the probes/,
            ],
          ],
          [
            `${name} of another port`,
            [
              () =>
                forged((sidecar) => {
                  const probe = rawAt(sidecar, name);
                  return { ...sidecar, [name]: { ...probe, httpGet: { ...rawAt(probe, 'httpGet'), port: 8080 } } };
                }),
              /does not have the probes/,
            ],
          ],
          [`no ${name}`, [() => forged(({ [name]: _, ...sidecar }) => sidecar), /does not have the probes/]],
        ]),
      ),
      'a port of the node': [
        () =>
          forged((sidecar) => ({
            ...sidecar,
            ports: rawList(sidecar.ports).map((port) => ({ ...port, hostPort: 4182 })),
          })),
        /has ports that/,
      ],
      'another port': [
        () =>
          forged((sidecar) => ({
            ...sidecar,
            ports: [...rawList(sidecar.ports), { name: 'own', containerPort: 9000, protocol: 'TCP' }],
          })),
        /has ports that/,
      ],
      'no requests and limits': [() => forged((sidecar) => ({ ...sidecar, resources: {} })), /requests and limits/],
      'no limit of memory': [
        () =>
          forged((sidecar) => ({
            ...sidecar,
            resources: { ...rawAt(sidecar, 'resources'), limits: { cpu: '1' } },
          })),
        /requests and limits/,
      ],
      'a device of the node': [
        () =>
          forged((sidecar) => {
            const { requests, limits } = rawAt(sidecar, 'resources') as { requests: Raw; limits: Raw };
            return { ...sidecar, resources: { requests, limits: { ...limits, 'example.com/device': '1' } } };
          }),
        /requests and limits/,
      ],
      'last words elsewhere': [
        () => forged((sidecar) => ({ ...sidecar, terminationMessagePath: '/app/words' })),
        /last words/,
      ],
      'no annotation of the port that it has': [
        () => {
          const pod = injected(named('forged', { 'mcp-sidecar.io/inject': 'true', 'mcp-sidecar.io/port': '5000' }));
          return annotatedWith(pod, { 'mcp-sidecar.io/port': undefined });
        },
        /variables/,
      ],
      'another variable': [
        () =>
          forged((sidecar) => ({
            ...sidecar,
            env: [...rawList(sidecar.env), { name: 'NODE_OPTIONS', value: '-r /x' }],
          })),
        /variables that/,
      ],
      'MCP beyond loopback': [
        () =>
          forged((sidecar) => ({
            ...sidecar,
            env: rawList(sidecar.env).map(({ name, value }) => ({
              name,
              value: String(value).replace('127.0.0.1', '0.0.0.0'),
            })),
          })),
        /variables that/,
      ],
      'a mount of its own': [
        () =>
          withVolume(
            forged((sidecar) => withMount(sidecar, { name: 'own', mountPath: '/own' })),
            'own',
            { emptyDir: {} },
          ),
        /mounts something else/,
      ],
      'a mount of its own with a name of ours, over the program': [
        () =>
          withVolume(
            forged((sidecar) => withMount(sidecar, { name: 'mcp-sidecar-evil', mountPath: '/app' })),
            'mcp-sidecar-evil',
            { emptyDir: {} },
          ),
        /the volumes of mcp-sidecar are not those/,
      ],
      'a mount of ours elsewhere': [
        () => forged((sidecar) => withMount(sidecar, { name: 'mcp-sidecar-client', mountPath: '/app' })),
        /mounts something else/,
      ],
      'a part of the group’s volume': [
        () =>
          forged((sidecar) => ({
            ...sidecar,
            volumeMounts: rawList(sidecar.volumeMounts).map((mount) =>
              mount.name === 'mcp-sidecar-group' ? { ...mount, subPath: 'own' } : mount,
            ),
          })),
        /mounts something else/,
      ],
      'no group': [
        () =>
          forged((sidecar) => ({
            ...sidecar,
            volumeMounts: rawList(sidecar.volumeMounts).filter(({ name }) => name !== 'mcp-sidecar-group'),
          })),
        /mounts something else/,
      ],
      ...Object.fromEntries(
        Object.entries<[volume: string, source: Raw]>({
          'a configuration of its own': ['group', { emptyDir: {} }],
          'a configuration that is no group’s': ['group', { configMap: { name: 'own', defaultMode: 420 } }],
          'a configuration that need not be there': [
            'group',
            { configMap: { name: 'mcp-sidecar-support', defaultMode: 420, optional: true } },
          ],
          'another token': ['token', { secret: { secretName: 'own', defaultMode: 420 } }],
          'a state that somebody else has written': ['state', { persistentVolumeClaim: { claimName: 'own' } }],
          'a secret that is none': ['secret-0', { configMap: { name: 'own', defaultMode: 420 } }],
        }).map(([name, [volume, source]]): [string, [() => Raw, RegExp]] => [
          name,
          [() => withVolume(injected(named('forged')), `mcp-sidecar-${volume}`, source), /the volumes of mcp-sidecar/],
        ]),
      ),
      'another Secret where the group’s is expected': [
        () =>
          withVolume(injected(named('forged')), 'mcp-sidecar-secret-0', {
            secret: { secretName: 'own', defaultMode: 420 },
          }),
        /mounts something else/,
      ],
      'another group than that of the annotation': [
        () =>
          annotatedWith(injected(named('forged', { 'mcp-sidecar.io/inject': 'true' })), {
            'mcp-sidecar.io/group': 'other',
          }),
        /the volumes of mcp-sidecar/,
      ],
      'a root that can be written': [
        () =>
          forged((sidecar) => ({
            ...sidecar,
            securityContext: { ...rawAt(sidecar, 'securityContext'), readOnlyRootFilesystem: false },
          })),
        /the security context/,
      ],
      ...Object.fromEntries(
        Object.entries<Raw>({
          'system calls without a filter': { seccompProfile: { type: 'Unconfined' } },
          'a user of an agent’s': { runAsUser: 1001 },
          'another group of users': { runAsGroup: 1001 },
          'a domain of SELinux': { seLinuxOptions: { type: 'spc_t' } },
          'a capability': { capabilities: { drop: ['ALL'], add: ['NET_BIND_SERVICE'] } },
        }).map(([name, more]): [string, [() => Raw, RegExp]] => [
          name,
          [
            () =>
              forged((sidecar) => ({ ...sidecar, securityContext: { ...rawAt(sidecar, 'securityContext'), ...more } })),
            /the security context/,
          ],
        ]),
      ),
      'a container that mounts the sidecar’s secret': [
        () => {
          const pod = injected(named('thief'));
          const spec = rawAt(pod, 'spec');
          const thief = {
            ...CONTAINER,
            name: 'thief',
            volumeMounts: [{ name: 'mcp-sidecar-secret-0', mountPath: '/stolen' }],
          };
          return { ...pod, spec: { ...spec, containers: [...rawList(spec.containers), thief] } };
        },
        /mounts what only mcp-sidecar may see/,
      ],
      'processes that are shared': [
        () => {
          const pod = injected(named('shared'));
          return { ...pod, spec: { ...rawAt(pod, 'spec'), shareProcessNamespace: true } };
        },
        /share neither network nor processes/,
      ],
    };
    for (const [name, [pod, words]] of Object.entries(denied))
      test(`denies ${name}`, async () => {
        // Where no level of Pod Security comes before the policy.
        const { value } = await api.call('POST', `${LENIENT_PODS}?dryRun=All`, pod());
        assert.match(String(value.message), /ValidatingAdmissionPolicy 'mcp-sidecar-injector'.* denied/);
        assert.match(String(value.message), words);
      });

    const AGENT_OF_ITS_OWN = {
      ...CONTAINER,
      name: 'second',
      securityContext: { ...rawAt(CONTAINER, 'securityContext'), runAsUser: 1002 },
    };
    const admitted: Record<string, [annotations: Raw, spec?: Raw]> = {
      'a log level': [{ 'mcp-sidecar.io/log-level': 'debug' }],
      'other ports': [{ 'mcp-sidecar.io/port': '05000', 'mcp-sidecar.io/health-port': '6000' }],
      'amounts of its own': [{ 'mcp-sidecar.io/cpu-request': '0.1', 'mcp-sidecar.io/memory-limit': '1e9' }],
      'the group by name': [{ 'mcp-sidecar.io/group': 'support' }],
      'agents that are told apart': [{}, { containers: [CONTAINER, AGENT_OF_ITS_OWN] }],
      'no token of the API server’s': [{}, { automountServiceAccountToken: false }],
      'volumes of its own': [{}, { volumes: [{ name: 'own', emptyDir: {} }] }],
    };
    for (const [name, [annotations, spec]] of Object.entries(admitted))
      test(`admits what the injector makes of ${name}`, async () => {
        for (const mode of ['native', 'classic'] as const) {
          const pod = named('admitted', { 'mcp-sidecar.io/inject': 'true', ...annotations }, spec);
          const { status, value } = await make(injected(pod, mode), '?dryRun=All');
          assert.equal(status, 201, JSON.stringify(value));
        }
      });

    const withImage = (pod: Raw, container: string, image: string): Raw => {
      const spec = rawAt(pod, 'spec');
      const changed = (list: unknown) => rawList(list).map((one) => (one.name === container ? { ...one, image } : one));
      return {
        ...pod,
        spec: { ...spec, containers: changed(spec.containers), initContainers: changed(spec.initContainers) },
      };
    };
    test('denies a new image for a sidecar that runs, also when the annotation goes with it', async () => {
      const { value: pod } = await api.call('GET', `${PODS}/by-hand-native`);
      const { annotations: _, ...metadata } = rawAt(pod, 'metadata');
      for (const changed of [
        withImage(pod, 'mcp-sidecar', 'evil:1'),
        { ...withImage(pod, 'mcp-sidecar', 'evil:1'), metadata },
      ]) {
        const { value } = await api.call('PUT', `${PODS}/by-hand-native`, changed);
        assert.match(String(value.message), /an image that the injector does not use/);
      }
    });
    for (const name of ['inject', 'status', 'mcp.json'])
      test(`denies an update that takes the annotation ${name} from a sidecar that runs, or changes it`, async () => {
        for (const value of [undefined, 'false']) {
          const { value: pod } = await api.call('GET', `${PODS}/by-hand-native`);
          const changed = annotatedWith(pod, { [`mcp-sidecar.io/${name}`]: value });
          const { value: said } = await api.call('PUT', `${PODS}/by-hand-native`, changed);
          assert.match(String(said.message), /keeps the annotations that say so/);
        }
      });
    test('denies a new image also for a sidecar without annotation, native or not, and lets others have one', async () => {
      for (const [name, mode] of [
        ['unasked-native', 'native'],
        ['unasked-classic', 'classic'],
      ] as const) {
        const { spec } = injected(named(name), mode);
        const { status, value: pod } = await make({ ...named(name, null), spec });
        assert.equal(status, 201, JSON.stringify(pod));
        const ours = await api.call('PUT', `${PODS}/${name}`, withImage(pod, 'mcp-sidecar', 'evil:1'));
        assert.match(String(ours.value.message), /an image that the injector does not use/);
        const own = await api.call('PUT', `${PODS}/${name}?dryRun=All`, withImage(pod, 'agent', 'agent:2'));
        assert.equal(own.status, 200, JSON.stringify(own.value));
      }
    });
    test('looks at the whole of a pod that begins to ask with a sidecar of its own', async () => {
      const { spec } = forged((sidecar) => ({ ...sidecar, image: 'evil:1' }));
      const { status, value: pod } = await make({ ...named('late', { 'mcp-sidecar.io/inject': 'false' }), spec });
      assert.equal(status, 201, JSON.stringify(pod));
      const asking = annotatedWith(pod, { 'mcp-sidecar.io/inject': 'true' });
      const { value } = await api.call('PUT', `${PODS}/late`, asking);
      assert.match(String(value.message), /an image that the injector does not use/);
    });
    /** Whatever level of Pod Security there is, or none. */
    const mighty: Record<string, [more: Raw, words: RegExp]> = {
      'is privileged': [{ securityContext: { privileged: true } }, /is privileged or adds a capability/],
      'may trace': [{ securityContext: { capabilities: { add: ['chown', 'cap_sys_ptrace'] } } }, /adds a capability/],
      'may do all': [{ securityContext: { capabilities: { add: ['all'] } } }, /adds a capability/],
      'has the sidecar’s user': [{ securityContext: { runAsUser: 65532 } }, /runs as the user of mcp-sidecar/],
    };
    /** As OpenShift does it: the sidecar has the user of all others. */
    const withUser = (pod: Raw, runAsUser: number): Raw => {
      const spec = rawAt(pod, 'spec');
      const initContainers = rawList(spec.initContainers).map((one) => ({
        ...one,
        securityContext: { ...rawAt(one, 'securityContext'), runAsUser },
      }));
      return { ...pod, spec: { ...spec, initContainers } };
    };
    suite('in a namespace without a level', () => {
      before(async () => {
        const { status, value } = await api.call('POST', LENIENT_PODS, injected(named('running')));
        assert.equal(status, 201, JSON.stringify(value));
      });
      for (const [what, [more, words]] of Object.entries(mighty)) {
        for (const list of ['containers', 'initContainers'])
          test(`denies one of the ${list} that ${what}`, async () => {
            const pod = withContainer(injected(named('mighty')), list, more);
            assert.match(String((await api.call('POST', `${LENIENT_PODS}?dryRun=All`, pod)).value.message), words);
          });
        test(`denies a debugging container that ${what}`, async () => {
          const path = `${LENIENT_PODS}/running`;
          const pod = withContainer((await api.call('GET', path)).value, 'ephemeralContainers', more);
          assert.match(String((await api.call('PUT', `${path}/ephemeralcontainers`, pod)).value.message), words);
        });
      }
      test('denies a volume of the node', async () => {
        const bare = injected(named('node'));
        const spec = rawAt(bare, 'spec');
        const pod = {
          ...bare,
          spec: { ...spec, volumes: [...rawList(spec.volumes), { name: 'node', hostPath: { path: '/' } }] },
        };
        const { value } = await api.call('POST', `${LENIENT_PODS}?dryRun=All`, pod);
        assert.match(String(value.message), /a hostPath volume leads to the node's files/);
      });
      test('lets through what runtimes grant by themselves', async () => {
        const ordinary = { securityContext: { capabilities: { add: ['NET_RAW', 'cap_setuid'] } } };
        const pod = withContainer(injected(named('ordinary')), 'containers', ordinary);
        const { status, value } = await api.call('POST', `${LENIENT_PODS}?dryRun=All`, pod);
        assert.equal(status, 201, JSON.stringify(value));
      });
      test('freezes no pod of before the policy: its own image may change, and finalizers may go', async () => {
        const path = `${LENIENT_PODS}/mighty-before`;
        await edit(api, path, (pod) => withImage(pod, 'added', 'agent:2'));
        for (const finalizers of [['example.com/own'], []])
          await edit(api, path, (pod) => ({ ...pod, metadata: { ...rawAt(pod, 'metadata'), finalizers } }));
      });
      test('is within the work that the API server allows, also for a large pod', async () => {
        const times = <T>(count: number, make: (index: number) => T) =>
          Array.from({ length: count }, (_, i) => make(i));
        const volumes = times(50, (index) => ({ name: `volume-${index}`, emptyDir: {} }));
        const large = (name: string): Raw => ({
          ...CONTAINER,
          name,
          env: times(50, (index) => ({ name: `VARIABLE_${index}`, value: 'x'.repeat(100) })),
          volumeMounts: volumes.map((volume) => ({ name: volume.name, mountPath: `/mnt/${volume.name}` })),
          securityContext: { capabilities: { add: times(14, () => 'CAP_NET_BIND_SERVICE') } },
        });
        const containers = [CONTAINER, ...times(60, (index) => large(`large-${index}`))];
        const made = await api.call('POST', LENIENT_PODS, injected(named('large', undefined, { containers, volumes })));
        assert.equal(made.status, 201, String(made.value.message));
        const path = `${LENIENT_PODS}/large`;
        const ephemeralContainers = times(60, (index) => large(`debugger-${index}`));
        const debugged = { ...made.value, spec: { ...rawAt(made.value, 'spec'), ephemeralContainers } };
        const { status, value } = await api.call('PUT', `${path}/ephemeralcontainers`, debugged);
        assert.equal(status, 200, String(value.message));
        const updated = await api.call('PUT', path, withImage(value, 'agent', 'agent:2'));
        assert.equal(updated.status, 200, String(updated.value.message));
      });
      test('compares no users where the cluster has chosen them', {
        skip: whyMissing('helm') ?? false,
      }, async (context) => {
        const bare = named('by-cluster');
        const result = inject(bare, { ...CONTEXT, options: { ...CONTEXT.options, runAsUser: undefined } });
        assert.ok(result.ok && result.value.kind === 'injected');
        const pod = withUser(applyPatch(bare, result.value.operations), 1000);
        const say = () => api.call('POST', `${LENIENT_PODS}?dryRun=All`, pod);
        assert.match(String((await say()).value.message), /the security context/);

        const isPolicy = ({ kind }: Raw) => kind === 'ValidatingAdmissionPolicy';
        const ofInjector = helmTemplate('--set', 'sidecar.runAsUser=omit').find(isPolicy)!;
        const { value: before } = await api.call('GET', pathOf(ofInjector));
        context.after(async () => {
          await edit(api, pathOf(ofInjector), (policy) => ({ ...policy, spec: before.spec }));
          await until('the user counts again', async () => (await say()).status !== 201);
        });
        await edit(api, pathOf(ofInjector), (policy) => ({ ...policy, spec: ofInjector.spec }));
        await until('the pod is admitted', async () => (await say()).status === 201);
      });
    });
    test('denies debugging containers that reach the sidecar, and lets others through, one after the other', async () => {
      const path = `${PODS}/by-hand-native`;
      const put = async (more: Raw) =>
        api.call(
          'PUT',
          `${path}/ephemeralcontainers`,
          withContainer((await api.call('GET', path)).value, 'ephemeralContainers', more),
        );
      const denied: [more: Raw, words: RegExp][] = [
        [{ volumeMounts: [{ name: 'mcp-sidecar-secret-0', mountPath: '/stolen' }] }, /mounts what only mcp-sidecar/],
        [{ targetContainerName: 'mcp-sidecar' }, /would see the processes of mcp-sidecar/],
      ];
      for (const [more, words] of denied) assert.match(String((await put(more)).value.message), words);
      for (const more of [{ name: 'first' }, { name: 'second', targetContainerName: 'agent' }]) {
        const { status, value } = await put(more);
        assert.equal(status, 200, JSON.stringify(value));
      }
    });
    for (const name of ['by-hand-classic', 'from-before'])
      test(`lets a pod that runs be labelled and freed of its finalizers: ${name}`, async () => {
        for (const changes of [{ finalizers: ['example.com/own'] }, { labels: { a: 'b' } }, { finalizers: [] }])
          await edit(api, `${PODS}/${name}`, (pod) => ({
            ...pod,
            metadata: { ...rawAt(pod, 'metadata'), ...changes },
          }));
      });
    test('lets nobody ask for a sidecar when it is too late', async () => {
      const { value: plain } = await make(named('plain', {}));
      const annotations = { 'mcp-sidecar.io/inject': 'true' };
      const asked = { ...plain, metadata: { ...rawAt(plain, 'metadata'), annotations } };
      const { value } = await api.call('PUT', `${PODS}/plain`, asked);
      assert.match(String(value.message), /asks for the MCP sidecar and does not have it/);
    });
  });

  suite('with its webhook', () => {
    let replicas: readonly Replica[];
    const reviews = async () =>
      (await Promise.all(replicas.map((one) => one.reviews()))).reduce((sum, one) => sum + one, 0);
    const sidecarsOf = (pod: Raw) =>
      [...rawList(rawAt(pod, 'spec').initContainers), ...rawList(rawAt(pod, 'spec').containers)].filter(
        ({ name }) => name === 'mcp-sidecar',
      );
    const authorities = async (): Promise<Authorities> => {
      const { value } = await api.call('GET', SECRET);
      return JSON.parse(Buffer.from(String(rawAt(value, 'data')['authorities.json']), 'base64').toString());
    };
    const bundle = async (): Promise<string> => {
      const { value } = await api.call('GET', WEBHOOK);
      return Buffer.from(String(rawAt(rawList(value.webhooks)[0], 'clientConfig').caBundle), 'base64').toString();
    };
    const bundleOf = (...certificates: string[]) => certificates.map((one) => `${one}\n`).join('');
    const countIn = (pem: string) => pem.split('BEGIN CERTIFICATE').length - 1;

    before(async () => {
      await cluster.registerWebhook();
      // Both at once, before an empty Secret.
      replicas = await Promise.all([cluster.startReplica(), cluster.startReplica()]);
      await cluster.route(...replicas);
      await cluster.untilWebhookIsKnown();
    });

    test('two replicas have agreed on one authority, with no more rights than their own', async () => {
      const { current, next } = await authorities();
      assert.equal(next, undefined);
      assert.equal(await bundle(), bundleOf(current.certificate));
      for (const { webhook, warnings } of replicas) {
        assert.equal(await isTrusted(webhook.port, current.certificate), true);
        assert.doesNotMatch(warnings.join(), /cannot/);
      }
    });

    test('an annotated pod gets its sidecar, and nothing more when it is made of what came back', async () => {
      const made = await make(named('triage'));
      assert.equal(made.status, 201, JSON.stringify(made.value));
      const [sidecar, ...more] = sidecarsOf(made.value);
      assert.deepEqual([sidecar?.restartPolicy, more], ['Always', []]);
      const again = await make({
        ...made.value,
        metadata: { ...rawAt(named('again'), 'metadata'), annotations: rawAt(made.value, 'metadata').annotations },
      });
      assert.equal(again.status, 201, JSON.stringify(again.value));
      assert.deepEqual(rawAt(again.value, 'spec'), rawAt(made.value, 'spec'));
      assert.match(
        await replicas[0]!.metrics().then(async (text) => text + (await replicas[1]!.metrics())),
        /result="present"/,
      );
    });

    test('a pod that others have changed since keeps its sidecar, which is told anew who is which agent', async () => {
      const { value } = await make(named('changed'), '?dryRun=All');
      const spec = rawAt(value, 'spec');
      const containers = rawList(spec.containers).map((own) => ({
        ...own,
        env: [{ name: 'AWS_REGION', value: 'eu' }, ...rawList(own.env)],
        securityContext: { ...rawAt(own, 'securityContext'), runAsUser: 1001 },
      }));
      const { annotations } = rawAt(value, 'metadata');
      const presented = { ...named('changed'), spec: { ...spec, containers } };
      const made = await make({ ...presented, metadata: { ...rawAt(presented, 'metadata'), annotations } });
      assert.equal(made.status, 201, JSON.stringify(made.value));
      const [sidecar, ...more] = sidecarsOf(made.value);
      const { identify } = JSON.parse(String(rawList(sidecar?.env)[0]?.value));
      assert.deepEqual([identify, more], [[{ type: 'uid', agents: { 1001: 'agent' } }], []]);
      assert.deepEqual(rawAt(made.value, 'spec').containers, containers);
    });

    test('a device where mcp.json would be is no obstacle to the pod', async () => {
      const disk = { name: 'disk', persistentVolumeClaim: { claimName: 'disk' } };
      const own = { ...CONTAINER, volumeDevices: [{ name: 'disk', devicePath: '/var/run/mcp' }] };
      const { status, value, warnings } = await make(
        named('device', undefined, { containers: [own], volumes: [disk] }),
        '?dryRun=All',
      );
      assert.equal(status, 201, JSON.stringify(value));
      assert.match(warnings.join(), /agent does not get \/var\/run\/mcp\/mcp.json, since it has a device/);
    });

    test('resources of the pod as a whole: where the webhook sees room, the API server does too', async () => {
      const said = async (spec: Raw) => {
        const { status, value } = await make(named('whole', undefined, spec), '?dryRun=All');
        return status === 201 ? 'made' : String(value.message);
      };
      const container = (resources: Raw): Raw => ({ ...CONTAINER, resources });
      const own = { requests: { cpu: '80m', memory: '1Mi' } };
      const first = { ...container({ requests: { cpu: '90m' } }), name: 'first' };
      const made: Raw[] = [
        { resources: { requests: { cpu: '130m', memory: '129Mi' } }, containers: [container(own)] },
        { resources: { limits: { cpu: '130m', memory: '129Mi' } }, containers: [container({})] },
        { resources: { requests: { cpu: '140m' } }, containers: [container({})], initContainers: [first] },
      ];
      for (const spec of made) assert.equal(await said(spec), 'made');
      const refused: [spec: Raw, words: RegExp][] = [
        [
          { resources: { requests: { cpu: '129m', memory: '129Mi' } }, containers: [container(own)] },
          /mcp-sidecar: spec.resources.requests.cpu of the pod is 129m, and its containers request 130m/,
        ],
        // The API server takes the containers' requests for the pod's before the webhook is asked.
        [
          { resources: { limits: { cpu: '2' } }, containers: [container(own)] },
          /mcp-sidecar: spec.resources.requests.cpu of the pod is 80m, and its containers request 130m/,
        ],
        [
          { resources: { requests: { cpu: '139m' } }, containers: [container({})], initContainers: [first] },
          /mcp-sidecar: spec.resources.requests.cpu of the pod is 139m, and its containers request 140m/,
        ],
      ];
      for (const [spec, words] of refused) assert.match(await said(spec), words);
    });
    const amounts: readonly [setting: string, written: string, back: string][] = [
      ['cpu-limit', '0.7', '700m'],
      ['cpu-request', '0.0001', '1m'],
      ['memory-limit', '1.1Gi', '1181116006400m'],
      ['memory-limit', '2048Ti', '2Pi'],
    ];
    for (const [setting, written, back] of amounts)
      test(`a sidecar with ${written}, which comes back as ${back}, is known again`, async () => {
        const asked = { 'mcp-sidecar.io/inject': 'true', [`mcp-sidecar.io/${setting}`]: written };
        const { status, value } = await make(named(`amount-${back.toLowerCase()}`, asked));
        assert.equal(status, 201, JSON.stringify(value));
        const [kind, side] = setting.split('-') as [string, string];
        assert.equal(rawAt(sidecarsOf(value)[0], 'resources', `${side}s`)[kind], back);
        const { annotations } = rawAt(value, 'metadata');
        const again = await make({
          ...value,
          metadata: { ...rawAt(named(`again-${back.toLowerCase()}`), 'metadata'), annotations },
        });
        assert.equal(again.status, 201, JSON.stringify(again.value));
      });

    test('warnings come through', async () => {
      const { warnings } = await make(
        named('excluding', { 'mcp-sidecar.io/inject': 'true', 'mcp-sidecar.io/exclude-containers': 'nobody' }),
      );
      assert.match(warnings.join(), /no container is named nobody/);
    });

    test('what a LimitRange adds to every container makes nothing forged of the sidecar', async (context) => {
      const range = await create(api, {
        apiVersion: 'v1',
        kind: 'LimitRange',
        metadata: { name: 'storage', namespace: 'agents' },
        spec: { limits: [{ type: 'Container', default: { 'ephemeral-storage': '64Mi' } }] },
      });
      context.after(() => api.call('DELETE', pathOf(range)));
      await until('the range counts', async () => {
        const { value } = await make(named('plain-in-range', null), '?dryRun=All');
        return 'ephemeral-storage' in rawAt(rawList(rawAt(value, 'spec').containers)[0], 'resources', 'limits');
      });
      const { status, value } = await make(named('in-range'), '?dryRun=All');
      assert.equal(status, 201, JSON.stringify(value));
      const [sidecar] = sidecarsOf(value);
      assert.equal(rawAt(sidecar, 'resources', 'limits')['ephemeral-storage'], '64Mi');
    });

    const unasked: Record<string, Raw | null> = {
      'no annotations': null,
      'empty annotations': {},
      'an annotation of others': { 'example.com/a': 'true' },
      'the annotation false': { 'mcp-sidecar.io/inject': 'false' },
    };
    test('pods that do not ask never reach the webhook', async () => {
      const before = await reviews();
      for (const [name, annotations] of Object.entries(unasked)) {
        const { status, value } = await make(named(`a-${name.replaceAll(' ', '-')}`, annotations));
        assert.equal(status, 201, JSON.stringify(value));
        assert.deepEqual(sidecarsOf(value), []);
      }
      assert.equal(await reviews(), before);
    });

    test('with no injector they start, and a pod that asks is refused', async (context) => {
      context.after(() => cluster.route(...replicas));
      await cluster.route();
      for (const annotations of Object.values(unasked))
        assert.equal((await make(named('while-down', annotations), '?dryRun=All')).status, 201);
      const { status, value } = await make(named('while-down'));
      assert.equal(status, 500);
      assert.match(String(value.message), /failed calling webhook "inject.mcp-sidecar.io"/);
    });

    test('its own namespace and kube-system never wait for it', async (context) => {
      context.after(() => cluster.route(...replicas));
      await cluster.route();
      for (const namespace of ['mcp-sidecar', 'kube-system']) {
        await create(api, { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'agent', namespace } });
        const { status } = await api.call('POST', `/api/v1/namespaces/${namespace}/pods?dryRun=All`, named('own'));
        assert.equal(status, 201);
      }
    });

    test('a refusal is told, also by an event on the owner; a dry run leaves nothing', async () => {
      const owner = await create(api, replicaSet());
      const { uid } = rawAt(owner, 'metadata');
      const owned = (spec: Raw) => {
        const reference = { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'triage', uid, controller: true };
        return podWith(spec, { name: undefined, generateName: 'triage-', ownerReferences: [reference] });
      };
      const dry = await make(owned({}), '?dryRun=All');
      assert.equal(sidecarsOf(dry.value).length, 1, JSON.stringify(dry.value));
      const refused = await make(owned({ hostNetwork: true }));
      assert.match(String(refused.value.message), /denied the request: mcp-sidecar: the pod has hostNetwork/);
      assert.equal((await make(owned({}))).status, 201);
      const told = async () => {
        const { value } = await api.call('GET', '/api/v1/namespaces/agents/events');
        return rawList(value.items).filter((event) => rawAt(event, 'involvedObject').uid === uid);
      };
      await until('both events are there', async () => (await told()).length >= 2);
      const events = await told();
      assert.deepEqual(events.map(({ type, reason }) => `${type} ${reason}`).sort(), [
        'Normal SidecarInjected',
        'Warning SidecarDenied',
      ]);
      const { value } = await api.call('GET', PODS);
      assert.equal(
        rawList(value.items).some((pod) => rawAt(pod, 'metadata').name === rawAt(dry.value, 'metadata').name),
        false,
      );
    });

    test('a group is followed as it changes and goes', async (context) => {
      const other = named('of-other', undefined, { serviceAccountName: 'other' });
      assert.match(await messageOf(other), /no group of this namespace names the service account other/);
      const started = performance.now();
      const path = '/api/v1/namespaces/agents/configmaps/mcp-sidecar-others';
      const group = (accounts: string): Raw => ({
        ...CONFIG_MAP,
        metadata: {
          name: 'mcp-sidecar-others',
          namespace: 'agents',
          annotations: { 'mcp-sidecar.io/service-accounts': accounts },
        },
      });
      // Each replica has a watch of its own.
      const everywhere = async (words: RegExp | undefined) => {
        for (const replica of replicas) {
          await cluster.route();
          await cluster.route(replica);
          await until(`${words ?? 'admitted'}`, async () => {
            const { status, value } = await make(other, '?dryRun=All');
            return words === undefined ? status === 201 : words.test(String(value.message));
          });
        }
        await cluster.route(...replicas);
      };
      await create(api, group('other'));
      await everywhere(undefined);
      await edit(api, path, () => group('nobody'));
      await everywhere(/no group of this namespace/);
      await edit(api, path, () => ({ ...group('other'), data: {} }));
      await everywhere(/mcp-sidecar-others has no key sidecar.yaml/);
      assert.equal((await api.call('DELETE', path)).status, 200);
      await everywhere(/no group of this namespace names the service account other[^;]*$/);
      context.diagnostic(`four changes in ${(performance.now() - started).toFixed(0)} ms`);
    });

    test('native where every kubelet can, and classic beside one that cannot', async (context) => {
      const kubernetes = cluster.asInjector();
      context.after(() => kubernetes.close());
      const addNode = async (name: string, kubeletVersion: string) => {
        const node = await create(api, { apiVersion: 'v1', kind: 'Node', metadata: { name } });
        const status = { ...rawAt(node, 'status'), nodeInfo: { ...NODE_INFO, kubeletVersion } };
        assert.equal((await api.call('PUT', `${NODES}/${name}/status`, { ...node, status })).status, 200);
        context.after(() => api.call('DELETE', `${NODES}/${name}`));
      };
      assert.equal(await detectMode(kubernetes), 'native', 'by the version of the API server');
      await addNode('new', 'v1.29.0+k3s1');
      assert.equal(await detectMode(kubernetes), 'native');
      await addNode('old', 'v1.28.15');
      assert.equal(await detectMode(kubernetes), 'classic');

      context.after(() => cluster.route(...replicas));
      const replica = await cluster.startReplica();
      await cluster.route();
      await cluster.route(replica);
      const { status, value } = await make(named('classic'));
      assert.equal(status, 201, JSON.stringify(value));
      assert.equal(rawList(rawAt(value, 'spec').containers)[0]!.name, 'mcp-sidecar');
      await replica.close();
    });

    test('the authority is replaced and a replica ends under load, and no admission fails', async (context) => {
      const before = await authorities();
      const failures: string[] = [];
      let count = 0;
      let isDone = false;
      const load = Array.from({ length: 4 }, async () => {
        while (!isDone && count < 50_000) {
          const { status, value } = await make(named(`load-${count++}`), '?dryRun=All');
          if (status !== 201) failures.push(String(value.message));
        }
      });
      const endLoad = () => {
        isDone = true;
        return Promise.all(load);
      };
      context.after(endLoad);
      const untilMore = async () => {
        const target = count + 50;
        await until('50 admissions more', () => count >= target);
      };
      const change = (step: (found: Authorities) => Authorities) =>
        edit(api, SECRET, (secret) => {
          const found = JSON.parse(Buffer.from(String(rawAt(secret, 'data')['authorities.json']), 'base64').toString());
          const text = JSON.stringify(step(found));
          return { ...secret, data: { 'authorities.json': Buffer.from(text).toString('base64') } };
        });

      // As though the authority were three hundred days old: the next one is made, and trusted beside it.
      await change(({ current, ...rest }) => ({
        ...rest,
        current: { ...current, from: current.from - 300 * DAY_MS, until: current.until - 300 * DAY_MS },
      }));
      await until('both are trusted', async () => countIn(await bundle()) === 2);
      const between = await authorities();
      assert.equal(between.current.certificate, before.current.certificate);
      for (const { webhook } of replicas) assert.equal(await isTrusted(webhook.port, before.current.certificate), true);
      // As though the ten minutes were over in which the API servers learn of it.
      await cluster.untilWebhookIsKnown();
      await change((found) => ({ ...found, nextSince: 0 }));
      const signsLeaves = (certificate: string) => async () =>
        (await Promise.all(replicas.map(({ webhook }) => isTrusted(webhook.port, certificate)))).every(Boolean);
      await until('the next one signs', signsLeaves(between.next!.certificate));
      await untilMore();
      const promoted = await authorities();
      assert.equal(promoted.current.certificate, between.next!.certificate);
      assert.deepEqual(
        promoted.earlier.map(({ certificate }) => certificate),
        [before.current.certificate],
      );
      assert.equal(await bundle(), bundleOf(promoted.current.certificate, before.current.certificate));
      assert.match(await replicas[0]!.metrics(), /certificate_expiry_timestamp_seconds \d{10}/);

      await cluster.route(replicas[0]!);
      await replicas[1]!.close();
      await untilMore();
      await endLoad();
      context.diagnostic(`${count} admissions, ${failures.length} failed`);
      assert.deepEqual(failures, []);
    });
  });
});

const DAY_MS = 86_400_000;

const NODE_INFO = Object.fromEntries(
  [
    'machineID',
    'systemUUID',
    'bootID',
    'kernelVersion',
    'osImage',
    'containerRuntimeVersion',
    'kubeProxyVersion',
    'operatingSystem',
    'architecture',
  ].map((key) => [key, 'x']),
);

function replicaSet(): Raw {
  const matchLabels = { app: 'triage' };
  return {
    apiVersion: 'apps/v1',
    kind: 'ReplicaSet',
    metadata: { name: 'triage', namespace: 'agents' },
    spec: {
      replicas: 1,
      selector: { matchLabels },
      template: { metadata: { labels: matchLabels }, spec: { containers: [CONTAINER] } },
    },
  };
}

/** Whether the certificate that is served leads to this authority. */
function isTrusted(port: number, ca: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1', servername: SERVER_NAME, ca, rejectUnauthorized: false }, () => {
      resolve(socket.authorized);
      socket.destroy();
    });
    socket.on('error', () => resolve(false));
  });
}
