/**
 * Whoever reaches the webhook and is no API server: uploads that never end, connections that say nothing. The next
 * review gets its reply all the same.
 */
import assert from 'node:assert/strict';
import { createServer } from 'node:https';
import { suite, type TestContext, test } from 'node:test';
import { connect, type TLSSocket } from 'node:tls';
import { makeAuthority, makeLeaf } from '../../injector/certificate.ts';
import { Connections } from '../../injector/connections.ts';
import { CONTEXT, podWith } from '../support/injector.ts';
import { openWebhook, WEBHOOK_NAME } from '../support/webhook.ts';

const MIB = 1024 * 1024;
const HOUR_MS = 3_600_000;

interface Client {
  readonly socket: TLSSocket;
  /** Everything it was sent, once it is closed. */
  readonly closed: Promise<string>;
  /** What comes next. */
  readonly next: () => Promise<string>;
}

async function connectTo(context: TestContext, port: number, ca: string): Promise<Client> {
  const socket = connect({ port, host: '127.0.0.1', servername: WEBHOOK_NAME, ca });
  context.after(() => socket.destroy());
  let said = '';
  socket.setEncoding('utf8').on('error', () => {});
  const closed = new Promise<string>((resolve) => socket.once('close', () => resolve(said)));
  socket.on('data', (text: string) => {
    said += text;
  });
  await new Promise((resolve) => socket.once('secureConnect', resolve));
  return { socket, closed, next: () => new Promise((resolve) => socket.once('data', resolve)) };
}

suite('the webhook', () => {
  const opened = async (context: TestContext) => {
    const webhook = await openWebhook({ options: CONTEXT.options, mode: 'native', groups: CONTEXT.groups });
    context.after(() => webhook.close());
    return { webhook, client: () => connectTo(context, webhook.port, webhook.authority.certificate) };
  };
  const head = (length: number) =>
    `POST /inject HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n\r\n`;

  test('refuses the largest of more than it has room for, and reviews a pod beside them', async (context) => {
    const { webhook, client } = await opened(context);
    const uploads = await Promise.all(Array.from({ length: 9 }, client));
    for (const { socket } of uploads) {
      socket.write(head(3 * MIB));
      // None of them ends.
      socket.write(Buffer.alloc(3 * MIB - 1, ' '));
    }
    await Promise.race(uploads.map(({ closed }) => closed));
    assert.equal((await webhook.review(podWith())).allowed, true);
    // Whoever still sends may not come to read why it is refused.
    const told = (await Promise.all(uploads.map(({ closed }) => closed))).filter((said) => said.includes(' 503 '));
    for (const said of told) assert.match(said, /\r\nretry-after: 1\r\n[\s\S]*too many bodies are under way/);
    const refused = webhook.seen.filter(({ status }) => status === 503).length;
    assert.ok(refused > 0 && refused < 3, `${refused}: there is room for most of them`);
    assert.equal((await webhook.review(podWith())).allowed, true);
  });
  test('refuses what says that it is too large before a byte of it has come', async (context) => {
    const { client } = await opened(context);
    const { socket, closed } = await client();
    socket.write(head(3 * MIB + 1));
    assert.match(await closed, /^HTTP\/1\.1 413 /);
  });
  test('keeps no connection of whoever asks for no review', async (context) => {
    const { client } = await opened(context);
    for (const request of ['GET / HTTP/1.1\r\nhost: x\r\n\r\n', `${head(2)}{}`]) {
      const { socket, closed } = await client();
      socket.write(request);
      assert.match(await closed, /^HTTP\/1\.1 40[04] [\s\S]*\r\nconnection: close\r\n/i);
    }
  });
});

suite('where there are as many connections as there may be', () => {
  const REQUEST = 'GET / HTTP/1.1\r\nhost: x\r\n\r\n';
  const opened = async (context: TestContext) => {
    const authority = await makeAuthority('test', Date.now(), HOUR_MS);
    const { certificate: cert, key } = await makeLeaf(authority, [WEBHOOK_NAME], Date.now(), HOUR_MS);
    const server = createServer({ cert, key }, (request, response) => {
      connections.touch(request.socket);
      response.end('answered');
    });
    const connections = new Connections(server, 3);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    context.after(() => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    });
    const { port } = server.address() as { port: number };
    return () => connectTo(context, port, authority.certificate);
  };
  const ask = async ({ socket, next }: Client) => {
    const answer = next();
    socket.write(REQUEST);
    assert.match(await answer, /^HTTP\/1\.1 200 /);
  };

  test('a new one takes the place of the one unused for longest', async (context) => {
    const client = await opened(context);
    const [first, second, third] = [await client(), await client(), await client()];
    // The order of use is no longer that of coming.
    for (const one of [second, third, first]) await ask(one);
    const fourth = await client();
    await second.closed;
    for (const one of [first, third, fourth]) await ask(one);
  });
  test('those that have closed by themselves take no place', async (context) => {
    const client = await opened(context);
    const stays = await client();
    for (let count = 0; count < 6; count++) {
      const goes = await client();
      await ask(goes);
      goes.socket.end();
      await goes.closed;
    }
    await ask(stays);
  });
});
