/**
 * Reviews of pods that nobody has, made so that a reply takes long: refused before they are looked at.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Raw } from '../../injector/raw-object.ts';
import { review } from '../../injector/review.ts';
import { annotated, CONTAINER, CONTEXT, podWith } from '../support/injector.ts';
import { reviewOf } from '../support/webhook.ts';

const names = (count: number) => Array.from({ length: count }, (_, index) => `n${index}`);
const named = (count: number) => names(count).map((name) => ({ name }));
const status = (list: readonly string[]) =>
  JSON.stringify({
    version: 1,
    mode: 'native',
    group: 'support',
    containers: [],
    volumes: list,
    environment: list,
    files: list,
    annotations: list,
    created: list,
  });

function replyTo(pod: Raw) {
  const reviewed = review(reviewOf(pod), { ...CONTEXT, groupsIn: () => CONTEXT.groups });
  assert.ok(reviewed.ok);
  return reviewed.value.outcome;
}

const refused: Record<string, [Raw, RegExp]> = {
  containers: [podWith({ containers: named(1_001) }), /^the pod has more than 1000 containers$/],
  'init containers': [podWith({ initContainers: named(150_000) }), /more than 1000 initContainers/],
  'debugging containers': [podWith({ ephemeralContainers: named(1_001) }), /more than 1000 ephemeralContainers/],
  volumes: [podWith({ volumes: named(150_000) }), /more than 1000 volumes/],
  annotations: [annotated(Object.fromEntries(names(1_001).map((name) => [name, '']))), /more than 1000 annotations/],
  'names in a forged status': [
    annotated({ 'mcp-sidecar.io/status': status(names(50_000)) }),
    /mcp-sidecar.io\/status was not written by the injector: it is longer than 64 KiB/,
  ],
  'excluded containers': [
    annotated({ 'mcp-sidecar.io/exclude-containers': names(101).join() }),
    /exclude-containers names more than 100 containers/,
  ],
};
for (const [name, [pod, words]] of Object.entries(refused))
  test(`too many ${name}`, () => {
    const { kind, message } = replyTo(pod);
    assert.equal(kind, 'denied');
    assert.match(message, words);
  });

/** JSON that is read, but of which no text can be made. */
const deep: unknown = JSON.parse(`${'['.repeat(9_000)}${']'.repeat(9_000)}`);
const sidecar = { name: 'mcp-sidecar', resources: { limits: { cpu: deep } } };
const ours = { 'mcp-sidecar.io/status': status([]) };
const nested: Record<string, [Raw, RegExp]> = {
  'the status annotation': [annotated({ 'mcp-sidecar.io/status': deep }), /mcp-sidecar.io\/status must be text/],
  'an amount of the sidecar': [
    podWith({ initContainers: [sidecar] }, { annotations: { 'mcp-sidecar.io/inject': 'true', ...ours } }),
    /not what this injector would put there/,
  ],
  'a capability': [
    podWith({ containers: [{ ...CONTAINER, securityContext: { capabilities: { add: [deep] } } }] }),
    /has the capability without a name/,
  ],
  'the name of a hostPath volume': [podWith({ volumes: [{ name: deep, hostPath: {} }] }), /a hostPath volume/],
  'the name of a volume beside a sidecar': [
    podWith(
      { initContainers: [sidecar], volumes: [{ name: deep }] },
      { annotations: { 'mcp-sidecar.io/inject': 'true', ...ours } },
    ),
    /not what this injector would put there/,
  ],
  'the name of a mount': [
    podWith(
      { initContainers: [sidecar], containers: [{ ...CONTAINER, volumeMounts: [{ name: deep }] }] },
      { annotations: { 'mcp-sidecar.io/inject': 'true', ...ours } },
    ),
    /not what this injector would put there/,
  ],
};
for (const [name, [pod, words]] of Object.entries(nested))
  test(`thousands of lists in each other as ${name}`, () => {
    const { kind, message } = replyTo(pod);
    assert.equal(kind, 'denied');
    assert.match(message, words);
  });
test('thousands of lists in each other as the version of the review', () => {
  const reviewed = review({ ...reviewOf(podWith()), apiVersion: deep }, { ...CONTEXT, groupsIn: () => CONTEXT.groups });
  assert.ok(!reviewed.ok);
  assert.match(reviewed.error, /only admission.k8s.io\/v1/);
});

test('many, and not too many', () => {
  const containers = [CONTAINER, ...named(999)];
  assert.equal(replyTo(podWith({ containers, volumes: named(1_000) })).kind, 'injected');
});
