/**
 * Manifests as people and tools write them: what is asked for is changed and nothing else, or nothing at all.
 */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { groupsInManifest, injectManifest, type ManifestProblem, uninjectManifest } from '../../injector/manifest.ts';
import { isRaw, type Raw, rawAt, rawList } from '../../injector/raw-object.ts';
import { CONFIG_MAP, CONTEXT } from '../support/injector.ts';

const GROUPS = groupsInManifest(JSON.stringify(CONFIG_MAP));

/** One valid pod; `spec` and `annotations` are lines of YAML that are put into it. */
const podText = ({ annotations = '', spec = '', wish = '"true"' } = {}): string => `apiVersion: v1
kind: Pod
metadata:
  name: triage
  annotations:
    mcp-sidecar.io/inject: ${wish}
${annotations}spec:
  serviceAccountName: agent
  containers:
    - name: agent
      image: registry.example/agent:1
${spec}`;

function injected(text: string): string {
  const rewritten = injectManifest('pod.yaml', text, { ...CONTEXT, groups: GROUPS });
  assert.ok(rewritten.ok, rewritten.ok ? '' : JSON.stringify(rewritten.error));
  return rewritten.value.text;
}

function problemsOf(text: string): readonly ManifestProblem[] {
  const rewritten = injectManifest('pod.yaml', text, { ...CONTEXT, groups: GROUPS });
  assert.ok(!rewritten.ok, 'there is no problem');
  return rewritten.error;
}

function removed(text: string): string {
  const rewritten = uninjectManifest('pod.yaml', text);
  assert.ok(rewritten.ok, rewritten.ok ? '' : JSON.stringify(rewritten.error));
  return rewritten.value.text;
}

const kindsOf = (text: string) => {
  const rewritten = injectManifest('pod.yaml', text, { ...CONTEXT, groups: GROUPS });
  assert.ok(rewritten.ok, rewritten.ok ? '' : JSON.stringify(rewritten.error));
  return rewritten.value.notes.map(({ object, kind }) => `${object}: ${kind}`);
};
/** By a reader of YAML 1.2 that shares nothing with the one that is tested. */
const objectsIn = (text: string) =>
  parseAllDocuments(text.replace(/^\uFEFF/, ''))
    .map((document) => document.toJS() as unknown)
    .filter(isRaw);
const sidecarsIn = (pod: Raw | undefined) =>
  rawList(rawAt(pod, 'spec').initContainers).filter(({ name }) => name === 'mcp-sidecar').length;

suite('what was written stays', () => {
  const texts: Record<string, string> = {
    'comments everywhere': `# before\n${podText({ spec: '      # inside\n      env: [] # behind\n' })}\n# after\n`,
    'line ends of Windows': podText({ spec: '      args: [a] # one\n      # two\n' }).replaceAll('\n', '\r\n'),
    'a byte order mark': `\uFEFF---\n${podText()}`,
    'four spaces':
      'kind: Pod\nmetadata:\n    annotations:\n        mcp-sidecar.io/inject: "true"\nspec:\n    serviceAccountName: agent\n    containers:\n        - name: agent\n          image: x\n',
    'lists that are not indented': podText()
      .replace(/^ {4}(- name)/m, '  $1')
      .replace(/^ {6}(image)/m, '    $1'),
    'braces with room': podText({ spec: '      securityContext: { runAsUser: 1000 }\n' }),
    'text in blocks': podText({
      spec: '      args:\n        - |-\n          one\n          ---\n          two\n        - >\n          folded\n          text\n',
    }),
    'quotes of either kind': podText({ spec: `      args: ['one', "two", three]\n` }),
    'numbers, dates and switches as they are spelt': podText({
      spec: '      args: [0644, 0x1f, 22:22, 2026-01-01, yes, n, 1.0, ~]\n',
    }),
    'a marker of its own': `---\n${podText()}`,
    'documents that are nothing': `---\n---\n# nothing\n---\n${podText()}---\n`,
  };
  for (const [name, text] of Object.entries(texts))
    test(name, () => {
      const after = injected(text);
      const pods = objectsIn(after).filter(({ kind }) => kind === 'Pod');
      assert.deepEqual(pods.map(sidecarsIn), [1]);
      assert.equal(injected(after), after, 'twice is once');
      // The library writes folded text on one line.
      const back = removed(after);
      if (name !== 'text in blocks') assert.equal(back, text);
      assert.deepEqual(objectsIn(back), objectsIn(text));
    });

  test('JSON is JSON, and its spelling is ours', () => {
    const text = JSON.stringify(objectsIn(podText())[0], undefined, '\t');
    const after = injected(text);
    assert.equal(sidecarsIn(JSON.parse(after)), 1);
    assert.deepEqual(JSON.parse(removed(after)), JSON.parse(text));
  });
  test('a mapping in braces is YAML, with its comments', () => {
    const text = `{kind: Pod, metadata: {name: p, annotations: {mcp-sidecar.io/inject: "true"}}, spec: {serviceAccountName: agent, containers: [{name: a, image: x}]}} # why\n`;
    assert.match(injected(text), /^\{kind: Pod, .*# why\n$/s);
  });
  test('other documents, byte by byte', () => {
    const others = [
      'kind:   Service # odd\nmetadata: {name:   web}\n',
      `apiVersion: example.com/v1\nkind: Agent\nspec:\n  template:\n    metadata:\n      annotations: {mcp-sidecar.io/inject: "true"}\n    spec: {containers: [{name: a}]}\n`,
      '# only a comment\n',
      'a: !custom   b\n',
      podText({ wish: '"false"', spec: '      args:   [ odd ]\n' }),
    ];
    const text = [...others, podText(), ...others].join('---\n');
    const after = injected(text);
    const parts = after.split(/^---\n/m);
    assert.deepEqual([...parts.slice(0, 5), ...parts.slice(-5)], [...others, ...others]);
  });
  test('a text without pods is the same text', () => {
    for (const text of ['', '\n', '# nothing\n', 'just text', '- a\n- b\n', '1\n', 'null\n'])
      assert.equal(injected(text), text);
  });
});

suite('read as kubectl reads it', () => {
  test('yes is true', () => {
    assert.match(
      problemsOf(podText({ spec: '  hostNetwork: yes\n' }))[0]!.message,
      /^Pod triage: the pod has hostNetwork/,
    );
  });
  for (const wish of ['yes', 'true', '"yes"', 'on', '1'])
    test(`the wish ${wish} is no text that says true or false`, () => {
      assert.match(problemsOf(podText({ wish }))[0]!.message, /inject must be "true" or "false", in quotes/);
    });
  test('a date is text', () => {
    assert.deepEqual(kindsOf(podText({ annotations: '    since: 2026-01-01\n' })), ['Pod triage: injected']);
  });
  test('a mark in a line is no mark', () => {
    assert.deepEqual(kindsOf(podText({ spec: '      args: ["one\u2028--- two"]\n' })), ['Pod triage: injected']);
  });
  const misspelt: Record<string, readonly string[]> = {
    'mcp-sidecar.io/injct': ['the annotation mcp-sidecar.io/injct is not known; did you mean mcp-sidecar.io/inject?'],
    'mcp-sidecar.io/memory-limits': [
      'the annotation mcp-sidecar.io/memory-limits is not known; did you mean mcp-sidecar.io/memory-limit?',
    ],
    'mcp-sidecar.io/something': [
      'the annotation mcp-sidecar.io/something is not known; there are mcp-sidecar.io/inject, mcp-sidecar.io/group, mcp-sidecar.io/exclude-containers, mcp-sidecar.io/image, mcp-sidecar.io/cpu-request, mcp-sidecar.io/cpu-limit, mcp-sidecar.io/memory-request, mcp-sidecar.io/memory-limit, mcp-sidecar.io/log-level, mcp-sidecar.io/port, mcp-sidecar.io/health-port',
    ],
    'mcp-sidecar.io/group': [],
    'example.com/injct': [],
  };
  for (const [annotation, warnings] of Object.entries(misspelt))
    test(`a pod with ${annotation} and no wish has ${warnings.length} warnings`, () => {
      const text = podText().replace('mcp-sidecar.io/inject', annotation);
      const rewritten = injectManifest('pod.yaml', text, { ...CONTEXT, groups: GROUPS });
      assert.ok(rewritten.ok);
      assert.equal(rewritten.value.text, text);
      assert.deepEqual(rewritten.value.notes, [{ file: 'pod.yaml', object: 'Pod triage', kind: 'notAsked', warnings }]);
    });
  test('where the template of each kind is', () => {
    const template = `metadata: {annotations: {mcp-sidecar.io/inject: "true"}}, spec: {serviceAccountName: agent, containers: [{name: a, image: x}]}`;
    for (const kind of ['Deployment', 'StatefulSet', 'DaemonSet', 'ReplicaSet', 'ReplicationController', 'Job'])
      assert.deepEqual(kindsOf(`{kind: ${kind}, metadata: {name: a}, spec: {template: {${template}}}}`), [
        `${kind} a: injected`,
      ]);
    const cron = `{kind: CronJob, metadata: {generateName: a-}, spec: {jobTemplate: {metadata: {annotations: {mcp-sidecar.io/inject: "false"}}, spec: {template: {${template}}}}}}`;
    assert.deepEqual(kindsOf(cron), ['CronJob a-: injected']);
  });
  test('a CronJob is asked by its pods alone', () => {
    const text = `{kind: CronJob, metadata: {annotations: {mcp-sidecar.io/inject: "true"}}, spec: {jobTemplate: {metadata: {annotations: {mcp-sidecar.io/inject: "true"}}, spec: {template: {spec: {containers: [{name: a}]}}}}}}`;
    assert.deepEqual(kindsOf(text), ['CronJob without a name: notAsked']);
  });
  test('lists, and lists in lists', () => {
    const indented = podText()
      .replaceAll(/^(?=.)/gm, '      ')
      .replace('      ', '    - ');
    const text = `kind: List\nitems:\n- kind: List\n  items:\n${indented}- kind: Service\n`;
    assert.deepEqual(kindsOf(text), ['Pod triage: injected']);
    const [list] = objectsIn(injected(text));
    assert.equal(sidecarsIn(rawList(rawList(list!.items)[0]!.items)[0]), 1);
    assert.deepEqual(objectsIn(removed(injected(text))), objectsIn(text));
  });
  test('lists without end are left as they are', () => {
    const text = `${'{kind: List, items: ['.repeat(50)}${']}'.repeat(50)}\n`;
    assert.equal(injected(text), text);
  });
});

suite('a problem has its line, and then nothing is changed', () => {
  const cases: Record<string, [text: string, line: number, words: RegExp]> = {
    'a key twice': [podText({ spec: '      image: other\n' }), 12, /Map keys must be unique/],
    'no YAML': [`${podText()}---\na: [\n`, 14, /./],
    'in the second document': [`${podText()}---\n${podText({ wish: 'yes' })}`, 13, /must be "true" or "false"/],
    'an alias in the place of a list': [
      `kind: Pod\nmetadata:\n  annotations: { mcp-sidecar.io/inject: "true" }\nx: &env [{ name: A }]\nspec:\n  serviceAccountName: agent\n  containers:\n    - name: a\n      image: x\n      env: *env\n`,
      1,
      /spec.containers.0.env is an alias \(\*env\): write it out/,
    ],
    'a list that comes from a merge key': [
      `kind: Pod\nmetadata:\n  annotations: { mcp-sidecar.io/inject: "true" }\nx: &base { env: [{ name: A }] }\nspec:\n  serviceAccountName: agent\n  containers:\n    - <<: *base\n      name: a\n      image: x\n`,
      1,
      /env comes from a merge key \(<<\): write it out/,
    ],
    'an alias without an anchor': [
      podText({ spec: '      args: *nothing\n' }),
      12,
      /\*nothing has no anchor &nothing that ends before it/,
    ],
    'an anchor behind its alias': [
      podText({ spec: '      args: *late\n      command: &late [a]\n' }),
      12,
      /no anchor &late that ends before it/,
    ],
    'an anchor in itself': [
      podText({ spec: '      args: &args [*args]\n' }),
      12,
      /no anchor &args that ends before it/,
    ],
    'aliases that multiply': [
      `a: &a [1, 1, 1, 1]\n${Array.from('bcdefgh', (name, index) => `${name}: &${name} [${`*${'abcdefgh'[index]}, `.repeat(20)}]`).join('\n')}\n`,
      1,
      /its aliases \(\*\) stand for more than 1000 nodes/,
    ],
  };
  for (const [name, [text, line, words]] of Object.entries(cases))
    test(name, () => {
      const [problem] = problemsOf(text);
      assert.equal(problem!.file, 'pod.yaml');
      assert.equal(problem!.line, line, problem!.message);
      assert.match(problem!.message, words);
    });

  test('what another object shares by an anchor is not changed behind its back', () => {
    const text = `kind: List
items:
  - kind: Deployment
    metadata: { name: asks }
    spec:
      template:
        metadata: { annotations: { mcp-sidecar.io/inject: "true" } }
        spec: { serviceAccountName: agent, containers: &containers [{ name: agent, image: x }] }
  - kind: Deployment
    metadata: { name: does-not }
    spec: { template: { spec: { containers: *containers } } }
`;
    assert.match(problemsOf(text)[0]!.message, /anchors \(&\), aliases \(\*\) or merge keys \(<<\)/);
    // A part that is not changed may be shared.
    const labels = podText({ annotations: '  labels: &labels { app: a }\n', spec: '  nodeSelector: *labels\n' });
    assert.match(injected(labels), /labels: &labels \{ app: a \}/);
  });
  test('several problems are told at once', () => {
    const text = [podText({ wish: 'yes' }), podText({ spec: '  hostNetwork: true\n' }), 'a: 1\na: 2\n'].join('---\n');
    assert.deepEqual(
      problemsOf(text).map(({ line }) => line),
      [1, 13, 27],
    );
  });
});

suite('groups among the manifests', () => {
  const group = (name: string, namespace: string) =>
    `---\nkind: ConfigMap\nmetadata:\n  name: mcp-sidecar-${name}\n  namespace: ${namespace}\n  annotations: { mcp-sidecar.io/service-accounts: agent }\ndata:\n  sidecar.yaml: "servers: { github: { url: https://mcp.example/mcp } }"\n`;
  test('are those of the object’s namespace', () => {
    const groups = groupsInManifest(group('here', 'agents') + group('there', 'others'));
    const text = podText().replace('  name: triage\n', '  name: triage\n  namespace: others\n');
    const rewritten = injectManifest('pod.yaml', text, { ...CONTEXT, groups });
    assert.ok(rewritten.ok);
    assert.match(rewritten.value.text, /name: mcp-sidecar-there/);
  });
  test('of a text that cannot be read are none', () => {
    assert.deepEqual(groupsInManifest('a: [\n---\nb: *c\n'), []);
    assert.equal(groupsInManifest(`a: [\n${group('here', 'agents')}`).length, 1);
  });
});

suite('uninject says what to remove by hand where only our names are left', () => {
  const left: Record<string, [text: string, why: RegExp]> = {
    'no status': [injected(podText()).replace(/^ *mcp-sidecar.io\/status: .*\n/m, ''), /since it has no annotation/],
    'a status that is no JSON': [podText({ annotations: '    mcp-sidecar.io/status: x\n' }), /since .* is not JSON/],
    'a status of others': [
      podText({ annotations: '    mcp-sidecar.io/status: "{}"\n' }),
      /since .* was not written by this version/,
    ],
    'an mcp.json alone': [
      podText({ annotations: '    mcp-sidecar.io/mcp.json: "{}"\n' }),
      /since it has no annotation/,
    ],
  };
  for (const [name, [text, why]] of Object.entries(left))
    test(name, () => {
      const rewritten = uninjectManifest('pod.yaml', text);
      assert.ok(!rewritten.ok);
      assert.match(rewritten.error[0]!.message, why);
      assert.match(rewritten.error[0]!.message, /remove by hand containers named mcp-sidecar, volumes and mounts/);
    });
});

test('uninject leaves alone what is not injected, and refuses what it cannot change in its place', () => {
  assert.equal(removed(podText()), podText());
  const moved = `${injected(podText()).replace('volumeMounts:', 'volumeMounts: &mounts')}x: *mounts\n`;
  const rewritten = uninjectManifest('pod.yaml', moved);
  assert.ok(!rewritten.ok);
  assert.match(rewritten.error[0]!.message, /anchors \(&\), aliases/);
});

test('a manifest that was changed by hand after the injection is injected once more', () => {
  const bare = podText({ spec: '      securityContext: { runAsUser: 1000 } # its own\n' });
  const now = (text: string) => text.replace('runAsUser: 1000', 'runAsUser: 1001');
  const stale = now(injected(bare));
  assert.deepEqual(kindsOf(stale), ['Pod triage: updated']);
  assert.equal(injected(stale), injected(now(bare)));
  const withVariable = stale.replace(/^( +)- name: MCP_SERVER_URL$/m, '$1- name: OWN\n$1  value: x\n$&');
  assert.notEqual(withVariable, stale);
  assert.deepEqual(kindsOf(injected(withVariable)), ['Pod triage: present']);
});
