/**
 * The webhook over real TLS: every reply valid, whatever comes, and while certificates and replicas go.
 */
import assert from 'node:assert/strict';
import { connect as connectTcp } from 'node:net';
import { suite, type TestContext, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { Agent, request } from 'undici';
import { makeAuthority, makeLeaf } from '../../injector/certificate.ts';
import type { Raw } from '../../injector/raw-object.ts';
import { admit, type Registered } from '../support/admission-dispatcher.ts';
import { annotated, CONTAINER, CONTEXT, podWith } from '../support/injector.ts';
import { until } from '../support/until.ts';
import { type OpenedWebhook, openWebhook, reviewOf, WEBHOOK_NAME } from '../support/webhook.ts';

async function opened(context: TestContext, groups: typeof CONTEXT.groups | undefined = CONTEXT.groups) {
  const webhook = await openWebhook({ options: CONTEXT.options, mode: 'native', groups });
  context.after(() => webhook.close());
  return webhook;
}

function registered(webhook: OpenedWebhook, changes: Partial<Registered> = {}): Registered {
  return {
    name: 'inject.mcp-sidecar.io',
    failurePolicy: 'Fail',
    reinvocationPolicy: 'IfNeeded',
    timeoutMs: 5_000,
    call: (body) => webhook.send({ body }),
    ...changes,
  };
}

suite('a review', () => {
  test('is answered with its UID, a patch and warnings', async (context) => {
    const webhook = await opened(context);
    const pod = podWith({ containers: [CONTAINER, { name: 'web', image: 'x' }] });
    const reply = await webhook.review(pod, { uid: 'the-uid' });
    assert.equal(reply.uid, 'the-uid');
    assert.equal(reply.patchType, 'JSONPatch');
    assert.match(reply.warnings!.join(), /no runAsUser is declared for web/);
  });
  test('is answered the same each time, in a dry run too', async (context) => {
    const webhook = await opened(context);
    const [one, other, dry] = await Promise.all([
      webhook.review(podWith(), { uid: '1' }),
      webhook.review(podWith(), { uid: '1' }),
      webhook.review(podWith(), { uid: '1', dryRun: true }),
    ]);
    assert.deepEqual(one, other);
    assert.deepEqual(one, dry);
    assert.equal(webhook.seen.at(-1)!.outcome!.isDryRun || webhook.seen.some(({ outcome }) => outcome!.isDryRun), true);
  });
  test('of a pod that is not annotated is none of ours', async (context) => {
    const webhook = await opened(context);
    const { allowed, patch } = await webhook.review(podWith({}, { annotations: {} }));
    assert.deepEqual([allowed, patch], [true, undefined]);
  });
  for (const [name, changes] of [
    ['an update', { operation: 'UPDATE' }],
    ['another resource', { resource: { group: 'apps', version: 'v1', resource: 'deployments' } }],
    ['a subresource', { subResource: 'ephemeralcontainers' }],
  ] as const)
    test(`of ${name} is let through as it is`, async (context) => {
      const webhook = await opened(context);
      const { allowed, patch } = await webhook.review(podWith(), changes);
      assert.deepEqual([allowed, patch], [true, undefined]);
    });
  test('of a pod that cannot be injected says why', async (context) => {
    const webhook = await opened(context);
    const { allowed, status } = await webhook.review(podWith({ hostNetwork: true }));
    assert.equal(allowed, false);
    assert.match(status!.message, /^mcp-sidecar: the pod has hostNetwork/);
    assert.equal(webhook.seen[0]!.outcome!.refusal, 'namespaces');
  });
  test('with an annotation that is neither true nor false says so', async (context) => {
    const webhook = await opened(context);
    const { status } = await webhook.review(annotated({ 'mcp-sidecar.io/inject': 'yes' }));
    assert.match(status!.message, /must be "true" or "false"/);
  });
  test('is to be tried again while the groups are not known', async (context) => {
    const webhook = await openWebhook({ options: CONTEXT.options, mode: 'native', groups: undefined });
    context.after(() => webhook.close());
    const { allowed, status } = await webhook.review(podWith());
    assert.deepEqual([allowed, status!.code], [false, 503]);
  });
});

suite('junk', () => {
  const junk: Record<string, [Parameters<OpenedWebhook['send']>[0], status: number]> = {
    'another path': [{ path: '/', body: '{}' }, 404],
    'another method': [{ method: 'GET' }, 405],
    'another content type': [{ headers: { 'content-type': 'text/plain' }, body: '{}' }, 415],
    'no JSON': [{ body: '{' }, 400],
    nothing: [{ body: '' }, 400],
    'no review': [{ body: '{"kind":"Pod"}' }, 400],
    'a version of before': [
      { body: JSON.stringify({ ...reviewOf(podWith()), apiVersion: 'admission.k8s.io/v1beta1' }) },
      400,
    ],
    'no UID': [{ body: JSON.stringify(reviewOf(podWith(), { uid: '' })) }, 400],
    'too much': [{ body: Buffer.alloc(3 * 1024 * 1024 + 1, ' ') }, 413],
    'a version of nine thousand levels': [
      { body: `{"kind":"AdmissionReview","apiVersion":${'['.repeat(9_000)}${']'.repeat(9_000)}}` },
      400,
    ],
    'a hundred thousand levels': [{ body: `${'['.repeat(100_000)}${']'.repeat(100_000)}` }, 400],
  };
  test('each gets its status, and the next review its reply', async (context) => {
    const webhook = await opened(context);
    for (const [name, [options, status]] of Object.entries(junk)) {
      const answer = await webhook.send(options);
      assert.equal(answer.status, status, name);
      assert.equal(answer.text.includes(' at '), false, 'a stack trace');
    }
    assert.equal((await webhook.review(podWith())).allowed, true);
  });
  test('a fault of our own is told, counted, and of no stack', async (context) => {
    const webhook = await openWebhook({
      options: CONTEXT.options,
      mode: 'native',
      get groups(): never {
        throw new Error('a bug');
      },
    });
    context.after(() => webhook.close());
    const { status, text } = await webhook.send({ body: JSON.stringify(reviewOf(podWith())) });
    assert.deepEqual([status, text], [500, 'the injector failed at this request: please report it\n']);
    assert.deepEqual(
      webhook.seen.map((one) => [one.status, one.outcome]),
      [[500, undefined]],
    );
  });
  test('what is no TLS, and a body that never ends, are ended', async (context) => {
    const webhook = await opened(context);
    const plain = connectTcp(webhook.port, '127.0.0.1');
    const ended = new Promise((resolve) => plain.on('close', resolve).on('error', () => {}));
    plain.write('GET / HTTP/1.1\r\n\r\n');
    await ended;
    const slow = connectTls({
      port: webhook.port,
      host: '127.0.0.1',
      servername: WEBHOOK_NAME,
      ca: webhook.authority.certificate,
    });
    const closed = new Promise((resolve) => slow.on('close', resolve).on('error', () => {}));
    slow.write('POST /inject HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{');
    slow.resume();
    await closed;
    assert.equal((await webhook.review(podWith())).allowed, true);
  });
});

/** A webhook behind ours that adds something, or replaces what is there. */
function later(additions: readonly Raw[]): Registered {
  const operations = additions.map((one) => ({ op: 'add', ...one }));
  return {
    name: 'later',
    failurePolicy: 'Fail',
    reinvocationPolicy: 'Never',
    timeoutMs: 5_000,
    call: async (body) => {
      const { request: asked } = JSON.parse(body);
      const patch = Buffer.from(JSON.stringify(operations)).toString('base64');
      const response = { uid: asked.uid, allowed: true, patchType: 'JSONPatch', patch };
      const review = { apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', response };
      return { status: 200, text: JSON.stringify(review) };
    },
  };
}

suite('before a dispatcher with the API server’s rules', () => {
  const AGENT = '/spec/containers/0';
  const { runAsUser: _, ...userless } = CONTAINER.securityContext as Raw;
  const sidecarUser = { ...(CONTAINER.securityContext as Raw), runAsUser: 65532 };
  const laterOnes: Record<string, [operations: readonly Raw[], again: string, pod?: Raw]> = {
    'adds a container': [[{ path: '/spec/containers/-', value: { name: 'proxy', image: 'x' } }], 'present'],
    'adds a variable': [[{ path: `${AGENT}/env/-`, value: { name: 'AWS_REGION', value: 'eu' } }], 'present'],
    'adds a volume and mounts it': [
      [
        { path: '/spec/volumes/0', value: { name: 'vault', emptyDir: {} } },
        { path: `${AGENT}/volumeMounts/0`, value: { name: 'vault', mountPath: '/vault' } },
      ],
      'present',
    ],
    'adds an init container': [[{ path: '/spec/initContainers/0', value: { name: 'vault', image: 'x' } }], 'present'],
    'sets a user': [
      [{ path: `${AGENT}/securityContext/runAsUser`, value: 1000 }],
      'updated',
      podWith({ containers: [{ ...CONTAINER, securityContext: userless }] }),
    ],
    'sets the sidecar’s user': [[{ path: `${AGENT}/securityContext`, value: sidecarUser }], 'denied'],
    'changes the sidecar': [[{ path: '/spec/initContainers/0/image', value: 'evil:1' }], 'denied'],
  };
  for (const [what, [operations, again, pod = podWith()]] of Object.entries(laterOnes))
    test(`a later webhook ${what}: asked again, the sidecar is ${again}`, async (context) => {
      const webhook = await opened(context);
      const admitted = await admit(pod, [registered(webhook), later(operations)]);
      assert.deepEqual(
        webhook.seen.map(({ outcome }) => outcome!.kind),
        ['injected', again],
      );
      assert.equal(admitted.allowed, again !== 'denied');
      if (!admitted.allowed) return;
      const sidecars = (admitted.pod.spec as { initContainers: Raw[] }).initContainers.filter(
        ({ name }) => name === 'mcp-sidecar',
      );
      assert.equal(sidecars.length, 1);
      const { identify } = JSON.parse((sidecars[0] as unknown as { env: { value: string }[] }).env[0]!.value);
      assert.deepEqual(identify, [{ type: 'uid', agents: { 1000: 'agent' } }]);
    });
  test('a denial holds under Ignore as well', async (context) => {
    const webhook = await opened(context);
    const admitted = await admit(podWith({ hostPID: true }), [registered(webhook, { failurePolicy: 'Ignore' })]);
    assert.equal(admitted.allowed, false);
  });
  test('a replica that is gone is the failure policy’s', async () => {
    const webhook = await openWebhook({ options: CONTEXT.options, mode: 'native', groups: CONTEXT.groups });
    await webhook.close();
    const call = (body: string) =>
      request(`https://127.0.0.1:${webhook.port}/inject`, { method: 'POST', body }).then(() => ({
        status: 200,
        text: '',
      }));
    const closed = await admit(podWith(), [registered(webhook, { call })]);
    assert.equal(closed.allowed, false);
    const open = await admit(podWith(), [registered(webhook, { call, failurePolicy: 'Ignore' })]);
    assert.ok(open.allowed);
    assert.deepEqual(open.failedOpen, ['inject.mcp-sidecar.io']);
  });
});

test('connections are kept longer than the API server keeps them, and ended one by one before the replica ends', async (context) => {
  const webhook = await opened(context);
  const agent = new Agent({ connect: { ca: webhook.authority.certificate, servername: WEBHOOK_NAME } });
  context.after(() => agent.destroy());
  const connectionOf = async () => {
    const { headers, body } = await request(`https://127.0.0.1:${webhook.port}/inject`, {
      method: 'POST',
      dispatcher: agent,
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(reviewOf(podWith())),
    });
    await body.dump();
    return [headers.connection, headers['keep-alive']];
  };
  assert.deepEqual(await connectionOf(), ['keep-alive', 'timeout=120']);
  webhook.webhook.drain();
  assert.deepEqual(await connectionOf(), ['close', undefined]);
});

const SLOWEST_MS = 10_000;

test('1,000 reviews at once: every reply valid', async (context) => {
  const webhook = await opened(context);
  const started = performance.now();
  const pods = Array.from({ length: 1_000 }, (_, index) =>
    podWith({ containers: [{ ...CONTAINER, name: `agent-${index}` }] }),
  );
  const admitted = await Promise.all(pods.map((pod) => admit(pod, [registered(webhook, { timeoutMs: SLOWEST_MS })])));
  const elapsed = performance.now() - started;
  assert.equal(
    admitted.every((one) => one.allowed),
    true,
  );
  const times = webhook.seen.map(({ durationMs }) => durationMs).sort((one, other) => one - other);
  context.diagnostic(
    `1,000 reviews in ${elapsed.toFixed(0)} ms; in the webhook p50 ${times[500]!.toFixed(1)} ms, p99 ${times[990]!.toFixed(1)} ms, longest ${times.at(-1)!.toFixed(1)} ms`,
  );
  assert.equal(webhook.seen.length, 1_000);
});

test('certificates rotate under load, and one of two replicas is killed: no admission fails', async (context) => {
  const replicas = [
    await opened(context),
    await openWebhook({ options: CONTEXT.options, mode: 'native', groups: CONTEXT.groups }),
  ];
  const next = await makeAuthority('next', Date.now(), 3_600_000);
  // As during a rotation of the authority: old and new are trusted.
  const ca = [...replicas.map(({ authority }) => authority.certificate), next.certificate].join('\n');
  const dispatcher = new Agent({ connect: { ca, servername: WEBHOOK_NAME }, pipelining: 0 });
  context.after(() => dispatcher.destroy());
  let alive = replicas.map(({ port }) => port);
  let asked = 0;
  const underWay = new Map(alive.map((port) => [port, 0]));
  // As a Service does: to one that is ready, and a connection that is refused is tried with another.
  const call: Registered['call'] = async (body) => {
    for (const port of alive.toSorted(() => (asked++ % 2) - 0.5)) {
      underWay.set(port, underWay.get(port)! + 1);
      try {
        const answer = await request(`https://127.0.0.1:${port}/inject`, {
          method: 'POST',
          dispatcher,
          body,
          headers: { 'content-type': 'application/json' },
        });
        return { status: answer.statusCode, text: await answer.body.text() };
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ECONNREFUSED') throw error;
      } finally {
        underWay.set(port, underWay.get(port)! - 1);
      }
    }
    throw new Error('no replica');
  };
  let isDone = false;
  const failures: string[] = [];
  let count = 0;
  const load = Array.from({ length: 8 }, async () => {
    while (!isDone && count < 20_000) {
      count++;
      const admitted = await admit(podWith(), [registered(replicas[0]!, { call })]);
      if (!admitted.allowed) failures.push(admitted.message);
    }
  });
  for (let turn = 0; turn < 5; turn++) {
    const leaf = await makeLeaf(turn < 2 ? replicas[0]!.authority : next, [WEBHOOK_NAME], Date.now(), 3_600_000);
    for (const { webhook } of replicas) webhook.use(leaf);
    const target = count + 40;
    await until(() => count >= target, '40 admissions more');
  }
  // Kubernetes takes a replica out of the Service before it is told to end.
  alive = alive.slice(0, 1);
  await until(() => underWay.get(replicas[1]!.port) === 0, 'what is under way there');
  await replicas[1]!.close();
  const target = count + 40;
  await until(() => count >= target, '40 admissions more');
  isDone = true;
  await Promise.all(load);
  context.diagnostic(`${count} admissions, ${failures.length} failed`);
  assert.deepEqual(failures, []);
});
