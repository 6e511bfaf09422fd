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
