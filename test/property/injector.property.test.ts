/**
 * Injection over generated pods: whatever is in them, the patch applies, nothing of theirs is lost, twice is once, and
 * taking it away again leads back.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { applyPatch } from '../../injector/json-patch.ts';
import { inject } from '../../injector/patch.ts';
import { isRaw, type Raw } from '../../injector/raw-object.ts';
import { review } from '../../injector/review.ts';
import { uninject } from '../../injector/uninject.ts';
import fc from '../support/fast-check.ts';
import { CONTEXT, restrictedFaults, schemaFaults } from '../support/injector.ts';

const label = fc.stringMatching(/^[a-z][a-z0-9]{0,8}$/);
/** Fields that no schema of today knows, with keys that JSON Pointer must escape. */
const unknown = fc.dictionary(fc.stringMatching(/^x[a-z~/.]{0,6}$/), fc.jsonValue({ maxDepth: 2 }), { maxKeys: 2 });
const optional = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });
const defined = (value: Raw): Raw => Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined));

const environment = fc.array(fc.record({ name: fc.oneof(label, fc.constant('MCP_SERVER_URL')), value: fc.string() }), {
  maxLength: 2,
});
const mounts = fc.array(
  fc.record({
    name: label,
    mountPath: fc.constantFrom('/data', '/var/run/mcp', '/var/run/mcp/', '/run/mcp/x', '/var/run'),
  }),
  { maxLength: 2 },
);
/** Half of them keep to their user: then agents are told apart now and then. */
const securityContext = fc
  .record({
    runAsUser: fc.integer({ min: 0, max: 60_000 }),
    allowPrivilegeEscalation: fc.constantFrom(false, false, false, true, undefined),
    capabilities: fc.constantFrom<Raw | undefined>({ drop: ['ALL'] }, { drop: ['SETUID'], add: ['CHOWN'] }, undefined),
  })
  .map(defined);
const container = (more: fc.Arbitrary<Raw>) =>
  fc
    .record({
      image: label,
      env: optional(environment),
      volumeMounts: optional(mounts),
      securityContext: optional(securityContext),
      more,
    })
    .map(({ more: extra, ...rest }) => defined({ ...rest, ...extra }));
const containers = (more: fc.Arbitrary<Raw>, minLength: number) =>
  fc.array(container(more), { minLength, maxLength: 3 });

/** @param more Further fields, in the pod and in each container. */
const podOf = (more: fc.Arbitrary<Raw>): fc.Arbitrary<Raw> =>
  generatedPod(more)
    // As JSON comes: no objects without a prototype.
    .map((pod) => JSON.parse(JSON.stringify(pod)) as Raw);
const generatedPod = (more: fc.Arbitrary<Raw>) =>
  fc
    .record({
      containers: containers(more, 1),
      initContainers: optional(containers(more, 0)),
      volumes: optional(fc.array(fc.record({ name: label, emptyDir: fc.constant({}) }), { maxLength: 2 })),
      annotations: optional(
        fc.dictionary(fc.stringMatching(/^[a-z]{1,5}(\/[a-z.~]{0,5}[a-z])?$/), fc.string(), { maxKeys: 2 }),
      ),
      labels: optional(fc.dictionary(label, label, { maxKeys: 1 })),
      more,
    })
    .map(({ containers: own, initContainers, volumes, annotations, labels, more: extra }): Raw => {
      // Names are unique in a pod.
      const named = (list: readonly Raw[], prefix: string) =>
        list.map((one, index) => ({ name: `${prefix}${index}`, ...one }));
      return {
        apiVersion: 'v1',
        kind: 'Pod',
        ...extra,
        metadata: defined({ name: 'p', labels, annotations }),
        spec: defined({
          serviceAccountName: 'agent',
          ...extra,
          containers: named(own, 'c'),
          initContainers: initContainers === undefined ? undefined : named(initContainers, 'i'),
          volumes,
        }),
      };
    });
const mode = fc.constantFrom('native' as const, 'classic' as const);

/** Everything of `before` is in `after`, at its place; lists may have more. */
function keeps(before: unknown, after: unknown): boolean {
  if (Array.isArray(before)) {
    if (!Array.isArray(after)) return false;
    let from = 0;
    return before.every((item) => {
      const at = after.findIndex((other, index) => index >= from && keeps(item, other));
      from = at + 1;
      return at >= 0;
    });
  }
  if (isRaw(before))
    return (
      isRaw(after) && Object.keys(before).every((key) => Object.hasOwn(after, key) && keeps(before[key], after[key]))
    );
  return Object.is(before, after);
}

test('the patch applies, only adds, is done once, and can be undone', () => {
  fc.assert(
    fc.property(podOf(unknown), mode, (pod, chosen) => {
      const context = { ...CONTEXT, mode: chosen };
      const result = inject(pod, context);
      assert.ok(result.ok && result.value.kind === 'injected', JSON.stringify(result));
      const after = applyPatch(pod, result.value.operations);
      assert.ok(keeps(pod, after), 'something of the pod is lost');
      assert.deepEqual(uninject(after), pod);
      const again = inject(after, context);
      assert.ok(again.ok && again.value.kind === 'present', JSON.stringify(again));
      assert.deepEqual(inject(pod, context), result, 'not deterministic');
      assert.equal(
        result.value.operations.every(({ op }) => op === 'add'),
        true,
      );
    }),
    { numRuns: 300 },
  );
});

test('what a later webhook adds, to whichever lists, refuses no pod, and is left when ours is taken away', () => {
  const additions = fc.record({
    environment: fc.boolean(),
    mount: fc.boolean(),
    volume: fc.boolean(),
    init: fc.boolean(),
    container: fc.boolean(),
  });
  fc.assert(
    fc.property(podOf(fc.constant({})), mode, additions, (pod, chosen, added) => {
      const more = (owner: Raw, key: string, isAdded: boolean, item: Raw): Raw =>
        isAdded ? { ...owner, [key]: [...((owner[key] ?? []) as Raw[]), item] } : owner;
      const change = (one: Raw): Raw => {
        const spec = one.spec as Raw & { readonly containers: readonly Raw[] };
        const containers = spec.containers.map((own) => {
          if (own.name === 'mcp-sidecar') return own;
          const told = more(own, 'env', added.environment, { name: 'LATER', value: 'x' });
          return more(told, 'volumeMounts', added.mount, { name: 'later', mountPath: '/later' });
        });
        const withVolume = more({ ...spec, containers }, 'volumes', added.volume, { name: 'later', emptyDir: {} });
        const withInit = more(withVolume, 'initContainers', added.init, { name: 'later-init', image: 'x' });
        return { ...one, spec: more(withInit, 'containers', added.container, { name: 'later', image: 'x' }) };
      };
      const context = { ...CONTEXT, mode: chosen };
      const result = inject(pod, context);
      assert.ok(result.ok && result.value.kind === 'injected');
      const after = change(applyPatch(pod, result.value.operations));
      const again = inject(after, context);
      assert.ok(again.ok && again.value.kind === 'present', JSON.stringify(again));
      assert.deepEqual(uninject(after), change(pod));
    }),
    { numRuns: 150 },
  );
});

test('a valid pod stays valid, and its sidecar fits the level restricted', () => {
  fc.assert(
    fc.property(podOf(fc.constant({})), mode, (pod, chosen) => {
      assert.deepEqual(schemaFaults(pod), []);
      const result = inject(pod, { ...CONTEXT, mode: chosen });
      assert.ok(result.ok && result.value.kind === 'injected');
      const after = applyPatch(pod, result.value.operations);
      assert.deepEqual(schemaFaults(after), []);
      assert.deepEqual(restrictedFaults(after, 'mcp-sidecar'), []);
      // What the schema does not say: names are unique, and a mount has its volume.
      const spec = after.spec as { readonly [key: string]: Raw[] };
      const names = [...(spec.initContainers ?? []), ...spec.containers!].map(({ name }) => name);
      assert.equal(new Set(names).size, names.length);
      const volumes = new Set((spec.volumes ?? []).map(({ name }) => name));
      for (const { volumeMounts } of [...(spec.initContainers ?? []), ...spec.containers!])
        for (const { name } of (volumeMounts ?? []) as Raw[])
          assert.ok(volumes.has(name) || !String(name).startsWith('mcp-sidecar'), String(name));
    }),
    { numRuns: 150 },
  );
});

test('a field that the schema does not know is found, so that the test above can fail', () => {
  assert.notDeepEqual(
    schemaFaults({ apiVersion: 'v1', kind: 'Pod', spec: { containers: [{ name: 'a', imagePolicy: 'x' }] } }),
    [],
  );
});

test('any JSON is reviewed without a throw, and a reply has the UID that came', () => {
  const cluster = { options: CONTEXT.options, mode: 'native' as const, groupsIn: () => CONTEXT.groups };
  const body = fc.oneof(
    fc.jsonValue(),
    fc.record({
      apiVersion: fc.constantFrom('admission.k8s.io/v1', 'admission.k8s.io/v1beta1'),
      kind: fc.constant('AdmissionReview'),
      request: fc.oneof(
        fc.jsonValue(),
        fc.record({
          uid: fc.oneof(fc.uuid(), fc.jsonValue()),
          operation: fc.constant('CREATE'),
          resource: fc.constant({ group: '', version: 'v1', resource: 'pods' }),
          object: fc.oneof(
            fc.jsonValue(),
            podOf(unknown),
            fc.jsonValue().map((spec) => ({ metadata: { annotations: { 'mcp-sidecar.io/inject': 'true' } }, spec })),
            fc.jsonValue().map((list) => ({
              metadata: { annotations: { 'mcp-sidecar.io/inject': 'true' } },
              spec: { containers: list, initContainers: list, volumes: list, securityContext: list },
            })),
          ),
        }),
      ),
    }),
  );
  fc.assert(
    fc.property(body, (value) => {
      const reviewed = review(value, cluster);
      if (!reviewed.ok) return;
      const { response } = reviewed.value.reply as { response: { uid: unknown; allowed: unknown } };
      assert.equal(response.uid, (value as unknown as { request: { uid: unknown } }).request.uid);
      assert.equal(typeof response.allowed, 'boolean');
    }),
    { numRuns: 500 },
  );
});
