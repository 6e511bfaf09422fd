/** Identity by uid when a port changes hands while the kernel's table is read. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import * as https from 'node:https';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { platform } from 'node:os';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { ok } from '../../policies/result.ts';
import type { Identification } from '../../sidecar/identity/identify.ts';
import { createUidIdentity } from '../../sidecar/identity/uid.ts';
import { makeCertificate } from '../bench/certificate.ts';
import { freePort } from '../support/free-port.ts';

const VICTIM_UID = 10002;
const skip = platform() !== 'linux' && 'needs Linux';

test('uid: a caller that resets its connection is not taken for whoever connects from its port next', {
  skip,
}, async (context) => {
  let attacker: Socket | undefined;
  let accepted: Socket | undefined;
  const method = createUidIdentity({
    agents: { [VICTIM_UID]: 'victim' },
    lookUpOwner: async () => {
      // More is pipelined than is taken, so that Node no longer reads and cannot see the reset.
      const { _handle: handle } = accepted as unknown as { _handle: { reading: boolean } };
      for (let attempt = 0; handle.reading && attempt < 1000; attempt += 1) await delay(5);
      assert.equal(handle.reading, false);
      const { localPort } = attacker!;
      attacker!.resetAndDestroy();
      await once(attacker!, 'close');
      const victim = connect({
        host: '127.0.0.1',
        port: (server.address() as AddressInfo).port,
        localPort: localPort!,
      });
      context.after(() => victim.destroy());
      await once(victim, 'connect');
      assert.equal(accepted!.destroyed, false, 'Node has not noticed');
      // As the table says now for these two ends.
      return ok(VICTIM_UID);
    },
  });
  assert.ok(method.ok);
  const found = Promise.withResolvers<Identification>();
  const server = createServer(async (request) => {
    if (request.url !== '/attack') return;
    accepted = request.socket;
    found.resolve(await method.value.identify(request));
  });
  context.after(() => {
    server.closeAllConnections();
    server.close();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const localPort = await freePort();
  attacker = connect({ host: '127.0.0.1', port: (server.address() as AddressInfo).port, localPort });
  attacker.write('POST /attack HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}');
  attacker.write(`POST /more HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n${'p'.repeat(300_000)}`);
  assert.deepEqual(await found.promise, {
    kind: 'refused',
    detail: 'the connection ended while its owner was looked up',
  });
});

test('uid: a living connection is known over TLS too', { skip }, async (context) => {
  const method = createUidIdentity({ agents: { [process.getuid?.() ?? -1]: 'triage' } });
  assert.ok(method.ok);
  const { key, certificate } = makeCertificate(new Date());
  const server = https.createServer({ key, cert: certificate }, async (request, response) => {
    response.end((await method.value.identify(request)).kind);
  });
  context.after(() => {
    server.closeAllConnections();
    server.close();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const request = https.get({ host: '127.0.0.1', port, ca: certificate, agent: false });
  const [response] = await once(request, 'response');
  assert.equal((await response.setEncoding('utf8').toArray()).join(''), 'known');
});
