import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { applyPatch } from '../../injector/json-patch.ts';
import { type InjectionContext, inject } from '../../injector/patch.ts';
import { type Raw, rawAt, rawList } from '../../injector/raw-object.ts';
import { readStatus, uninject } from '../../injector/uninject.ts';
import { CONTAINER, CONTEXT, podWith } from '../support/injector.ts';

type Mode = InjectionContext['mode'];

/** Agents by user id as the sidecar is told of them, and what is said to whoever makes the pod. */
function agentsIn(pod: Raw, mode: Mode = 'native') {
  const result = inject(pod, { ...CONTEXT, mode });
  assert.ok(result.ok && result.value.kind === 'injected', JSON.stringify(result));
  const { operations, warnings } = result.value;
  const after = applyPatch(pod, operations);
  const spec = rawAt(after, 'spec');
  const sidecar = [...rawList(spec.initContainers), ...rawList(spec.containers)].find(
    ({ name }) => name === 'mcp-sidecar',
  );
  const { identify } = JSON.parse(String(rawList(sidecar?.env)[0]?.value));
  return { byUser: identify?.[0].agents as Record<string, string> | undefined, warnings, after };
}

/** @param changes `undefined`: not there. */
const contextOf = (changes: Raw): Raw =>
  JSON.parse(JSON.stringify({ ...rawAt(CONTAINER, 'securityContext'), ...changes }));
const WRITER = { ...CONTAINER, name: 'writer', securityContext: contextOf({ runAsUser: 1001 }) };
/** The agent, and another container with a changed security context. */
const beside = (changes: Raw) =>
  podWith({ containers: [CONTAINER, { ...WRITER, securityContext: contextOf(changes) }] });

suite('agents by user id', () => {
  test('where every container that lasts declares one, and none can get another', () => {
    const { byUser, warnings } = agentsIn(podWith({ containers: [CONTAINER, WRITER] }));
    assert.deepEqual(byUser, { 1000: 'agent', 1001: 'writer' });
    assert.deepEqual(warnings, []);
  });
  test('a shared user id is one agent, and a warning', () => {
    const { byUser, warnings } = agentsIn(beside({ runAsUser: 1000 }));
    assert.deepEqual(byUser, { 1000: 'agent' });
    assert.match(warnings.join(), /writer has the runAsUser of agent/);
  });
  test('nothing is said where none declares one', () => {
    const { byUser, warnings } = agentsIn(podWith({ containers: [{ name: 'agent' }, { name: 'writer' }] }));
    assert.deepEqual([byUser, warnings], [undefined, []]);
  });
  test('a container that is alone has nobody to pose as', () => {
    const alone = { name: 'agent', image: 'x', securityContext: { runAsUser: 0 } };
    assert.deepEqual(agentsIn(podWith({ containers: [alone] })).byUser, { 0: 'agent' });
  });
  test('it is enough to drop SETUID, however it is written', () => {
    for (const drop of [['SETUID'], ['cap_setuid'], ['all']])
      assert.notEqual(agentsIn(beside({ runAsUser: 1001, capabilities: { drop } })).byUser, undefined, drop.join());
  });

  const doubts: Record<string, [changes: Raw, words: RegExp]> = {
    'declares no user': [{ runAsUser: undefined }, /no runAsUser is declared for writer$/],
    'runs as root': [{ runAsUser: 0, runAsNonRoot: false }, /take the user of another: writer \(runs as root\)$/],
    'may gain privileges': [
      { runAsUser: 1001, allowPrivilegeEscalation: true },
      /writer \(lacks allowPrivilegeEscalation: false\)$/,
    ],
    'may gain privileges, by default': [
      { runAsUser: 1001, allowPrivilegeEscalation: undefined },
      /writer \(lacks allowPrivilegeEscalation: false\)$/,
    ],
    'drops other capabilities': [
      { runAsUser: 1001, capabilities: { drop: ['SETGID'] } },
      /writer \(keeps the capability SETUID\)$/,
    ],
    'drops all and adds one again': [
      { runAsUser: 1001, capabilities: { drop: ['ALL'], add: ['cap_setuid'] } },
      /writer \(keeps the capability SETUID\)$/,
    ],
  };
  for (const [what, [changes, words]] of Object.entries(doubts))
    test(`none beside a container that ${what}: the reply and the status say why`, () => {
      const { byUser, warnings, after } = agentsIn(beside(changes));
      assert.equal(byUser, undefined);
      assert.match(warnings.join(), words);
      const status = readStatus(after);
      assert.ok(status?.ok);
      assert.deepEqual(status.value.warnings, warnings);
      const again = inject(after, CONTEXT);
      assert.ok(again.ok && again.value.kind === 'present');
      assert.deepEqual(uninject(after), beside(changes));
    });

  const init = (securityContext: Raw): Raw =>
    podWith({ initContainers: [{ name: 'prepare', image: 'x', securityContext }] });
  test('an init container may pose as an agent where it runs beside the sidecar', () => {
    const root = init({ runAsUser: 0 });
    assert.match(agentsIn(root).warnings.join(), /prepare \(runs as root\)/);
    assert.deepEqual(agentsIn(root, 'classic').byUser, { 1000: 'agent' });
    assert.match(agentsIn(init({})).warnings.join(), /prepare \(may run as root\)/);
    assert.deepEqual(agentsIn(init(contextOf({ runAsUser: undefined }))).byUser, { 1000: 'agent' });
  });
});

suite('once more, when others have changed who runs as which user', () => {
  const STATUS = 'mcp-sidecar.io/status';
  const after = (pod: Raw): Raw => agentsIn(pod).after;
  const withSpec = (pod: Raw, changes: Raw): Raw => ({ ...pod, spec: { ...rawAt(pod, 'spec'), ...changes } });
  /** The pod with changed contexts of its own containers, as a later webhook leaves it. */
  const withContexts = (pod: Raw, changes: Raw): Raw => {
    const containers = rawList(rawAt(pod, 'spec').containers).map((one) => ({
      ...one,
      securityContext: { ...rawAt(one, 'securityContext'), ...changes },
    }));
    return withSpec(pod, { containers });
  };
  const withSidecar = (pod: Raw, change: (sidecar: Raw) => Raw): Raw =>
    withSpec(pod, {
      initContainers: rawList(rawAt(pod, 'spec').initContainers).map((one) =>
        one.name === 'mcp-sidecar' ? change(one) : one,
      ),
    });
  /** The pod with changed members in the variable of its sidecar. */
  const withVariable = (pod: Raw, changes: Raw): Raw =>
    withSidecar(pod, (sidecar) => {
      const [variable] = rawList(sidecar.env);
      return {
        ...sidecar,
        env: [{ ...variable, value: JSON.stringify({ ...JSON.parse(String(variable?.value)), ...changes }) }],
      };
    });
  const withStatus = (pod: Raw, changes: Raw): Raw => {
    const metadata = rawAt(pod, 'metadata');
    const annotations = rawAt(metadata, 'annotations');
    const status = JSON.stringify({ ...JSON.parse(String(annotations[STATUS])), ...changes });
    return { ...pod, metadata: { ...metadata, annotations: { ...annotations, [STATUS]: status } } };
  };
  /** The sidecar's own word is changed, and then it is as if the pod had been so from the beginning. */
  const updated = (pod: Raw, asIf: Raw): void => {
    const result = inject(pod, CONTEXT);
    assert.ok(result.ok && result.value.kind === 'updated', JSON.stringify(result));
    const corrected = applyPatch(pod, result.value.operations);
    assert.deepEqual(corrected, after(asIf));
    assert.deepEqual(result.value.warnings, agentsIn(asIf).warnings);
    const again = inject(corrected, CONTEXT);
    assert.ok(again.ok && again.value.kind === 'present');
    assert.deepEqual(uninject(corrected), asIf);
  };
  const refused = (pod: Raw): void => {
    const result = inject(pod, CONTEXT);
    assert.ok(!result.ok, 'not refused');
    assert.equal(result.error.kind, 'reserved');
  };
  const two = podWith({ containers: [CONTAINER, WRITER] });
  const changes: Record<string, [pod: Raw, change: Raw]> = {
    'a user where there was none': [
      podWith({ containers: [{ ...CONTAINER, securityContext: contextOf({ runAsUser: undefined }) }] }),
      { runAsUser: 1000 },
    ],
    'no more privileges than their own': [
      beside({ runAsUser: 1001, allowPrivilegeEscalation: true }),
      { allowPrivilegeEscalation: false },
    ],
    'more privileges': [two, { allowPrivilegeEscalation: true }],
    'one user for all': [two, { runAsUser: 1000 }],
    root: [two, { runAsUser: 0, runAsNonRoot: false }],
  };
  for (const [what, [pod, change]] of Object.entries(changes))
    test(`they were given ${what}`, () => updated(withContexts(after(pod), change), withContexts(pod, change)));

  test('what a pod presents as its agents is never believed', () => {
    for (const agents of [{ 1000: 'admin' }, { 1000: 'writer', 1001: 'agent' }, {}])
      updated(withVariable(after(two), { identify: [{ type: 'uid', agents }] }), two);
    updated(withVariable(after(two), { identify: undefined }), two);
    updated(withVariable(after(two), { identify: [{ type: 'none' }] }), two);
    updated(withStatus(after(two), { warnings: ['all is well'] }), two);
    const doubted = beside({ runAsUser: 0, runAsNonRoot: false });
    updated(withVariable(after(doubted), { identify: [{ type: 'uid', agents: { 1000: 'agent' } }] }), doubted);
    updated(withStatus(after(doubted), { warnings: undefined }), doubted);
  });

  const forgeries: Record<string, (pod: Raw) => Raw> = {
    'another listener': (pod) => withVariable(pod, { listen: { mcp: ['0.0.0.0:4180'] } }),
    'another state folder': (pod) => withVariable(pod, { state: '/own' }),
    'a member that we never write': (pod) => withVariable(pod, { audit: {} }),
    'no JSON': (pod) => withSidecar(pod, (one) => ({ ...one, env: [{ name: 'MCP_SIDECAR_POD', value: '{' }] })),
    'a variable twice': (pod) =>
      withSidecar(pod, (one) => ({ ...one, env: [...rawList(one.env), ...rawList(one.env)] })),
    'a variable from elsewhere': (pod) =>
      withSidecar(pod, (one) => ({ ...one, env: rawList(one.env).map((own) => ({ ...own, valueFrom: {} })) })),
    'another image, with other agents': (pod) =>
      withSidecar(withVariable(pod, { identify: undefined }), (one) => ({ ...one, image: 'evil:1' })),
    'a status that hides a volume of the node': (pod) => {
      const volumes = rawList(rawAt(pod, 'spec').volumes);
      const hidden = withSpec(pod, { volumes: [...volumes, { name: 'node', hostPath: { path: '/' } }] });
      return withStatus(hidden, { volumes: [...volumes.map(({ name }) => name), 'node'] });
    },
    'a status of other containers': (pod) => withStatus(pod, { containers: ['agent', 'writer', 'nobody'] }),
    'a status with more in it': (pod) => withStatus(pod, { more: 1 }),
    'a second sidecar': (pod) =>
      withSpec(pod, {
        containers: [...rawList(rawAt(pod, 'spec').containers), ...rawList(rawAt(pod, 'spec').initContainers)],
      }),
  };
  for (const [what, forge] of Object.entries(forgeries)) test(`refused is ${what}`, () => refused(forge(after(two))));
});
