/**
 * With `clientCa` the injector hears nobody but who shows a certificate of that authority, as the API server does where
 * it is told to; probes are asked for none.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Agent, request } from 'undici';
import { type KeyPair, makeAuthority, makeLeaf } from '../../injector/certificate.ts';
import { Kubernetes } from '../../injector/kubernetes.ts';
import { injectorYaml } from '../../injector/options.ts';
import type { Raw } from '../../injector/raw-object.ts';
import { startInjector } from '../../injector/start.ts';
import { makeCertificate } from '../bench/certificate.ts';
import { CONFIG_MAP, CONTEXT, podWith } from '../support/injector.ts';
import { openWebhook, reviewOf, WEBHOOK_NAME } from '../support/webhook.ts';

const HOUR_MS = 3_600_000;

test('a review comes from who shows a certificate, before and after that of the webhook is renewed', async (context) => {
  const [caller, stranger] = [makeCertificate(new Date()), makeCertificate(new Date())];
  const webhook = await openWebhook({
    options: CONTEXT.options,
    mode: 'native',
    groups: CONTEXT.groups,
    clientCa: caller.certificate,
  });
  context.after(() => webhook.close());
  const ask = asker(context, webhook.port, webhook.authority.certificate);
  for (let turn = 0; turn < 2; turn++) {
    assert.deepEqual(await ask(caller), { status: 200, isAllowed: true });
    assert.equal(await ask(stranger), undefined);
    assert.equal(await ask(undefined), undefined);
    webhook.webhook.use(await makeLeaf(webhook.authority, [WEBHOOK_NAME], Date.now(), HOUR_MS));
  }
  assert.equal(webhook.seen.length, 2);
});

test('injector.yaml names the file', async (context) => {
  const caller = makeCertificate(new Date());
  const folder = await folderWith(context, { 'client-ca.crt': `the API servers\n${caller.certificate}` });
  const authority = await writeCertificate(folder);
  const started = await start(context, folder, join(folder, 'client-ca.crt'));
  assert.ok(started.ok, started.ok ? '' : started.error);
  context.after(() => started.value.close());
  const ready = await request(`http://127.0.0.1:${started.value.health.port}/livez`);
  assert.equal(await ready.body.text(), 'alive\n');
  const ask = asker(context, started.value.webhook.port, authority.certificate);
  assert.deepEqual(await ask(caller), { status: 200, isAllowed: true });
  assert.equal(await ask(undefined), undefined);
});

const useless: Record<string, [text: string | undefined, words: RegExp]> = {
  'is not there': [undefined, /^clientCa: .*client-ca\.crt does not exist$/],
  'is empty': ['', /^clientCa: .*client-ca\.crt has no certificates \(PEM\)/],
  'has a broken certificate': [
    '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n',
    /client-ca\.crt has no certificates \(PEM\), or one that cannot be read$/,
  ],
};
for (const [name, [text, words]] of Object.entries(useless))
  test(`nothing starts where the file ${name}`, async (context) => {
    const folder = await folderWith(context, text === undefined ? {} : { 'client-ca.crt': text });
    await writeCertificate(folder);
    const started = await start(context, folder, join(folder, 'client-ca.crt'));
    assert.match(started.ok ? 'started' : started.error, words);
  });

async function folderWith(context: TestContext, files: Readonly<Record<string, string>>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'injector-'));
  context.after(() => rm(folder, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
  return folder;
}

/** The webhook's own. @returns its authority. */
async function writeCertificate(folder: string): Promise<KeyPair> {
  const authority = await makeAuthority('test', Date.now(), HOUR_MS);
  const { certificate, key } = await makeLeaf(authority, [WEBHOOK_NAME], Date.now(), HOUR_MS);
  await writeFile(join(folder, 'tls.crt'), certificate);
  await writeFile(join(folder, 'tls.key'), key, { mode: 0o600 });
  return authority;
}

/** Before an API that has one group, and a watch in which nothing happens. */
async function start(context: TestContext, folder: string, clientCa: string) {
  const api = createServer((asked, response) => {
    response.writeHead(200, { 'content-type': 'application/json' });
    if (asked.url!.includes('watch=1')) return response.flushHeaders();
    response.end(JSON.stringify({ metadata: { resourceVersion: '1' }, items: [CONFIG_MAP] }));
  });
  await new Promise<void>((resolve) => api.listen(0, '127.0.0.1', resolve));
  context.after(() => {
    api.closeAllConnections();
    return new Promise((resolve) => api.close(resolve));
  });
  const { port } = api.address() as { port: number };
  const config = injectorYaml.parse({
    listen: '127.0.0.1:0',
    health: '127.0.0.1:0',
    tls: { folder },
    mode: 'native',
    clientCa,
  });
  return startInjector(config, {
    kubernetes: new Kubernetes({ server: `http://127.0.0.1:${port}`, ca: '', token: async () => 'token' }),
    log: { info: () => {}, warn: () => {} },
    certificatePollMs: HOUR_MS,
    lameDuckMs: 0,
  });
}

/** Asks with a certificate of one's own, on a connection of its own; `undefined`: one was not heard. */
function asker(context: TestContext, port: number, ca: string) {
  return async (caller: { readonly key: string; readonly certificate: string } | undefined) => {
    const own = caller === undefined ? {} : { key: caller.key, cert: caller.certificate };
    const dispatcher = new Agent({ connect: { ca, servername: WEBHOOK_NAME, ...own } });
    context.after(() => dispatcher.destroy());
    try {
      const { statusCode: status, body } = await request(`https://127.0.0.1:${port}/inject`, {
        method: 'POST',
        dispatcher,
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(reviewOf(podWith())),
      });
      const { response } = (await body.json()) as { readonly response: Raw };
      return { status, isAllowed: response.allowed };
    } catch {
      return undefined;
    }
  };
}
