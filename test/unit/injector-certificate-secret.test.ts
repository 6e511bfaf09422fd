/**
 * What a real API server cannot be made to show of the authority in a Secret: replicas that write at the same moment,
 * and Secrets that are broken. The API here is a store with resource versions, and nothing else.
 */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';
import { suite, type TestContext, test } from 'node:test';
import { createSecureContext } from 'node:tls';
import { type KeyPair, makeAuthority, validityOf } from '../../injector/certificate.ts';
import type { Authorities } from '../../injector/certificate-authority.ts';
import { CertificateSecret } from '../../injector/certificate-secret.ts';
import { applyPatch } from '../../injector/json-patch.ts';
import { Kubernetes } from '../../injector/kubernetes.ts';
import { isSameJson, type Raw, rawAt, rawList } from '../../injector/raw-object.ts';

const NAMES = { namespace: 'mcp-sidecar', secret: 'tls', service: 'injector', webhook: 'injector' };
const SECRETS = '/api/v1/namespaces/mcp-sidecar/secrets';
const SECRET = `${SECRETS}/tls`;
const WEBHOOK = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/injector';
const NOW = Date.UTC(2026, 0, 1);
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

const EMPTY: Raw = { metadata: { name: 'tls' }, type: 'Opaque' };
const CONFIGURATION: Raw = {
  metadata: { name: 'injector' },
  webhooks: [
    { name: 'other', clientConfig: { service: { name: 'other' }, caBundle: 'theirs' } },
    { name: 'inject.mcp-sidecar.io', clientConfig: { service: { name: 'injector' } } },
  ],
};

suite('an authority in a Secret', () => {
  test('is made, published and served from an empty Secret, and nothing else is touched', async (context) => {
    const api = await openApi(context, { data: { theirs: 'eA==' }, ...EMPTY });
    const replica = api.replica();
    await replica.source.refresh();
    const { current, next, earlier } = api.authorities();
    assert.deepEqual([next, earlier], [undefined, []]);
    assert.equal(api.bundle(), `${current.certificate}\n`);
    assert.equal(rawAt(api.objects.get(SECRET), 'data').theirs, 'eA==');
    assert.equal(rawAt(rawList(api.objects.get(WEBHOOK)!.webhooks)[0], 'clientConfig').caBundle, 'theirs');
    assert.deepEqual(validityOf(replica.source.current!.certificate)!.until, NOW + DAY_MS);
    assert.ok(createSecureContext({ cert: replica.source.current!.certificate, key: replica.source.current!.key }));
    const { length } = api.writes;
    await replica.source.refresh();
    assert.equal(api.writes.length, length);
    assert.equal(replica.changes.length, 1);
  });
  test('is made where there is no Secret', async (context) => {
    const api = await openApi(context, undefined);
    await api.replica().source.refresh();
    assert.equal(api.bundle(), `${api.authorities().current.certificate}\n`);
  });
  test('is one for replicas that start at once: the second to write reads again', async (context) => {
    for (const secret of [EMPTY, undefined]) {
      const api = await openApi(context, secret);
      // Nobody writes before both have read.
      let reads = 0;
      const bothHaveRead = new Promise<void>((resolve) => {
        api.beforeAnswer = async (method, path) => {
          if (method === 'GET' && path === SECRET && ++reads === 2) resolve();
          if (method !== 'GET' && path.startsWith(SECRETS)) await bothHaveRead;
        };
      });
      const replicas = [api.replica(), api.replica()];
      await Promise.all(replicas.map(({ source }) => source.refresh()));
      assert.deepEqual(
        api.writes.filter(({ path }) => path.startsWith(SECRETS)).map(({ status }) => status),
        [200, 409],
      );
      assert.equal(api.bundle(), `${api.authorities().current.certificate}\n`);
      for (const { source, warnings } of replicas) {
        assert.equal(api.isOfCurrent(source.current!), true);
        assert.deepEqual(warnings, []);
      }
    }
  });
  test('is given up for this time where others write again and again', async (context) => {
    const api = await openApi(context, EMPTY);
    const { source, warnings } = api.replica();
    api.beforeAnswer = async (method, path) => {
      if (method === 'PUT' && path === SECRET) api.touch();
    };
    await source.refresh();
    assert.equal(source.current, undefined);
    assert.deepEqual(warnings, ['the Secret tls is written by others again and again']);
    api.beforeAnswer = async () => {};
    await source.refresh();
    assert.equal(api.isOfCurrent(source.current!), true);
  });

  const broken: Record<string, (whole: Authorities) => unknown> = {
    'no JSON': () => undefined,
    'another object': () => ({ current: 'x', earlier: [] }),
    'the key of another': (whole) => ({ ...whole, current: { ...whole.current, key: OTHER.key } }),
    'no times': ({ current: { from: _, until: __, ...current }, ...whole }) => ({ ...whole, current }),
    'a next one of no time': (whole) => ({ ...whole, next: whole.current }),
    'earlier ones that are none': (whole) => ({ ...whole, earlier: [{ certificate: 1 }] }),
  };
  for (const [name, breakIt] of Object.entries(broken))
    test(`is made anew, with a warning, where the Secret has ${name}`, async (context) => {
      const api = await openApi(context, EMPTY);
      const { source, warnings } = api.replica();
      await source.refresh();
      const before = api.authorities();
      api.put(JSON.stringify(breakIt(before)) ?? '{');
      await source.refresh();
      assert.notEqual(api.authorities().current.certificate, before.current.certificate);
      assert.equal(api.isOfCurrent(source.current!), true);
      assert.match(warnings.join(), /authorities.json in the Secret tls cannot be read/);
      assert.equal(warnings.join().includes('PRIVATE KEY'), false);
    });

  test('whose leaf grows old gives another in time', async (context) => {
    const api = await openApi(context, EMPTY);
    const { source, changes, clock } = api.replica();
    for (const [afterMs, leaves] of [
      [0, 1],
      [15 * HOUR_MS, 1],
      [2 * HOUR_MS, 2],
    ] as const) {
      clock.now += afterMs;
      await source.refresh();
      assert.equal(changes.length, leaves);
    }
  });

  test('that cannot be read leaves the last leaf serving, and says so once', async (context) => {
    const api = await openApi(context, EMPTY);
    const { source, warnings } = api.replica();
    await source.refresh();
    const { current } = source;
    api.refuse = (method, path) => (method === 'GET' && path === SECRET ? 403 : undefined);
    await source.refresh();
    await source.refresh();
    assert.equal(source.current, current);
    assert.deepEqual(warnings, ['the Secret tls cannot be read: 403 refused by the test']);
  });

  test('is not used before the API server has been told whom to trust', async (context) => {
    const api = await openApi(context, EMPTY);
    const { source, warnings } = api.replica();
    for (const method of ['GET', 'PATCH']) {
      api.refuse = (asked, path) => (asked === method && path === WEBHOOK ? 403 : undefined);
      await source.refresh();
      assert.equal(source.current, undefined);
    }
    assert.deepEqual(warnings, [
      'the webhook configuration injector cannot be read: 403 refused by the test',
      'the caBundle of injector cannot be written: 403 refused by the test',
    ]);
    api.refuse = () => undefined;
    await source.refresh();
    assert.ok(source.current);
  });

  test('is published where the list of webhooks changes at the same moment, by the next look', async (context) => {
    const api = await openApi(context, EMPTY);
    const { source } = api.replica();
    api.beforeAnswer = async (method, path) => {
      const webhooks = rawList(CONFIGURATION.webhooks).toReversed();
      if (method === 'PATCH' && path === WEBHOOK) api.objects.set(WEBHOOK, { ...CONFIGURATION, webhooks });
    };
    await source.refresh();
    assert.equal(source.current, undefined);
    api.beforeAnswer = async () => {};
    await source.refresh();
    assert.equal(api.bundle(), `${api.authorities().current.certificate}\n`);
    assert.ok(source.current);
  });
});

const OTHER = await makeAuthority('other', NOW, DAY_MS);

async function openApi(context: TestContext, secret: Raw | undefined) {
  const objects = new Map<string, Raw>([[WEBHOOK, CONFIGURATION]]);
  if (secret !== undefined) objects.set(SECRET, { ...secret, metadata: { name: 'tls', resourceVersion: '1' } });
  const writes: { readonly path: string; readonly status: number }[] = [];
  let version = 1;
  const store = (path: string, object: Raw): Raw => {
    version += 1;
    const stored = { ...object, metadata: { ...rawAt(object, 'metadata'), resourceVersion: String(version) } };
    objects.set(path, stored);
    return stored;
  };
  const answer = (method: string, path: string, body: string): [status: number, value: Raw] => {
    const refused = api.refuse(method, path);
    const found = objects.get(path);
    const fail = (status: number, message: string): [number, Raw] => [status, { message }];
    if (refused !== undefined) return fail(refused, 'refused by the test');
    if (method === 'POST') return objects.has(SECRET) ? fail(409, 'it exists') : [200, store(SECRET, JSON.parse(body))];
    if (found === undefined) return fail(404, 'not found');
    if (method === 'GET') return [200, found];
    if (method === 'PUT')
      return isSameJson(rawAt(JSON.parse(body), 'metadata').resourceVersion, rawAt(found, 'metadata').resourceVersion)
        ? [200, store(path, JSON.parse(body))]
        : fail(409, 'it has changed');
    const [check, ...additions] = JSON.parse(body);
    const [, , index] = String(check.path).split('/');
    const { name } = rawList(found.webhooks)[Number(index)]!;
    return name === check.value ? [200, store(path, applyPatch(found, additions))] : fail(422, 'the test failed');
  };
  const server = createServer(async (request, response) => {
    const method = request.method!;
    const path = request.url!;
    const body = await text(request);
    await api.beforeAnswer(method, path);
    const [status, value] = answer(method, path, body);
    if (method !== 'GET') writes.push({ path, status });
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  context.after(() => server.close());
  const { port } = server.address() as { port: number };
  const kubernetes = new Kubernetes({ server: `http://127.0.0.1:${port}`, ca: '', token: async () => 'token' });
  context.after(() => kubernetes.close());

  const api = {
    objects,
    writes,
    beforeAnswer: async (_method: string, _path: string): Promise<void> => {},
    refuse: (_method: string, _path: string): number | undefined => undefined,
    touch: () => store(SECRET, objects.get(SECRET)!),
    put: (content: string) =>
      store(SECRET, { ...EMPTY, data: { 'authorities.json': Buffer.from(content).toString('base64') } }),
    authorities: (): Authorities =>
      JSON.parse(
        Buffer.from(String(rawAt(objects.get(SECRET), 'data')['authorities.json']), 'base64').toString(),
      ) as Authorities,
    bundle: (): string => {
      const webhook = rawList(objects.get(WEBHOOK)!.webhooks).find(({ name }) => name === 'inject.mcp-sidecar.io');
      return Buffer.from(String(rawAt(webhook, 'clientConfig').caBundle), 'base64').toString();
    },
    isOfCurrent: ({ certificate }: KeyPair): boolean =>
      new X509Certificate(certificate).verify(new X509Certificate(api.authorities().current.certificate).publicKey),
    replica: () => {
      const changes: KeyPair[] = [];
      const warnings: string[] = [];
      const clock = { now: NOW };
      const source = new CertificateSecret(kubernetes, NAMES, {
        changed: (pair) => changes.push(pair),
        warn: (message) => warnings.push(message),
        now: () => clock.now,
      });
      return { source, changes, warnings, clock };
    },
  };
  return api;
}
