/**
 * Events are written on the word of a review, which anybody may have forged: bounded, and only where an owner is one.
 */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { json } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { OwnerEvents } from '../../injector/events.ts';
import { Kubernetes } from '../../injector/kubernetes.ts';
import type { Raw } from '../../injector/raw-object.ts';
import type { Outcome } from '../../injector/review.ts';

const OWNER: Raw = {
  apiVersion: 'apps/v1',
  kind: 'ReplicaSet',
  name: 'triage-6d4b75cb6d',
  uid: 'a-uid',
  controller: true,
};
const DENIED: Outcome = {
  kind: 'denied',
  refusal: 'namespaces',
  namespace: 'agents',
  name: 'triage-6d4b75cb6d-',
  serviceAccount: 'agent',
  group: undefined,
  message: 'the pod has hostNetwork',
  isDryRun: false,
  owner: OWNER,
};

test('what became of a pod is told on its owner', async (context) => {
  const api = await openApi(context);
  api.events.tell(DENIED);
  await api.events.flush();
  const [{ path, body }] = api.written as [{ path: string; body: Raw }];
  assert.equal(path, '/api/v1/namespaces/agents/events');
  assert.deepEqual(body.involvedObject, {
    apiVersion: 'apps/v1',
    kind: 'ReplicaSet',
    name: 'triage-6d4b75cb6d',
    uid: 'a-uid',
    namespace: 'agents',
  });
  assert.deepEqual([body.reason, body.type, body.message], ['SidecarDenied', 'Warning', 'the pod has hostNetwork']);
});

const nothing: Record<string, Partial<Outcome>> = {
  'in a dry run': { isDryRun: true },
  'of what is none of ours': { kind: 'ignored' },
  'without an owner': { owner: undefined },
  'of an owner without a name': { owner: { ...OWNER, name: '' } },
  'of an owner whose UID is no text': { owner: { ...OWNER, uid: { a: 1 } } },
  'of an owner with an endless name': { owner: { ...OWNER, name: 'x'.repeat(254) } },
  'in a namespace that leads elsewhere': { namespace: '..' },
  'without a namespace': { namespace: '' },
};
for (const [name, changes] of Object.entries(nothing))
  test(`nothing is told ${name}`, async (context) => {
    const api = await openApi(context);
    api.events.tell({ ...DENIED, ...changes });
    await api.events.flush();
    assert.deepEqual(api.written, []);
  });

test('a namespace is told ten events a minute, whatever others are told', async (context) => {
  const api = await openApi(context);
  for (let count = 0; count < 30; count++) api.events.tell(DENIED);
  api.events.tell({ ...DENIED, namespace: 'others' });
  await api.events.flush();
  const of = (namespace: string) => api.written.filter(({ path }) => path.includes(`/${namespace}/`)).length;
  assert.deepEqual([of('agents'), of('others')], [10, 1]);
  api.clock.time += 59_999;
  api.events.tell(DENIED);
  await api.events.flush();
  assert.equal(of('agents'), 10);
  api.clock.time += 1;
  api.events.tell(DENIED);
  await api.events.flush();
  assert.equal(of('agents'), 11);
});

test('many that are injected leave room for those that are not', async (context) => {
  const api = await openApi(context);
  for (let count = 0; count < 30; count++) api.events.tell({ ...DENIED, kind: 'injected', refusal: undefined });
  for (let count = 0; count < 30; count++) api.events.tell(DENIED);
  await api.events.flush();
  const reasons = api.written.map(({ body }) => body.reason);
  assert.deepEqual(reasons, [...Array(5).fill('SidecarInjected'), ...Array(5).fill('SidecarDenied')]);
});

test('invented namespaces are told no more than a bounded number in all', async (context) => {
  const api = await openApi(context);
  for (let count = 0; count < 500; count++) {
    api.events.tell({ ...DENIED, namespace: `invented-${count}` });
    if (count % 50 === 49) await api.events.flush();
  }
  assert.equal(api.written.length, 200);
});

async function openApi(context: TestContext) {
  const written: { path: string; body: Raw }[] = [];
  const server = createServer(async (request, response) => {
    written.push({ path: request.url!, body: (await json(request)) as Raw });
    response.writeHead(201, { 'content-type': 'application/json' }).end('{}');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const kubernetes = new Kubernetes({ server: `http://127.0.0.1:${port}`, ca: '', token: async () => 'token' });
  context.after(async () => {
    await kubernetes.close();
    await new Promise((resolve) => server.close(resolve));
  });
  const clock = { time: Date.UTC(2026, 0, 1) };
  return { written, clock, events: new OwnerEvents(kubernetes, () => clock.time) };
}
