/**
 * Signed policy bundles for tests, good and bad, with keys made at run time; and a server that answers with them.
 */
import { createHmac, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { once } from 'node:events';
import * as http from 'node:http';
import * as https from 'node:https';
import type { AddressInfo } from 'node:net';
import { CompactSign } from 'jose';

export interface Signer {
  readonly algorithm: string;
  readonly privateKey: KeyObject;
  readonly privatePem: string;
  readonly publicPem: string;
}

const CURVES: Readonly<Record<string, string>> = { ES256: 'P-256', ES384: 'P-384', ES512: 'P-521' };

/** @param algorithm EdDSA, ES256/384/512, RS… or PS…. */
export function makeSigner(algorithm = 'EdDSA', modulusLength = 2048): Signer {
  const namedCurve = CURVES[algorithm];
  const { privateKey } =
    algorithm === 'EdDSA'
      ? generateKeyPairSync('ed25519')
      : namedCurve === undefined
        ? generateKeyPairSync('rsa', { modulusLength })
        : generateKeyPairSync('ec', { namedCurve });
  return {
    algorithm,
    privateKey,
    privatePem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    publicPem: createPublicKey(privateKey).export({ type: 'spki', format: 'pem' }).toString(),
  };
}

export const TYP = 'mcp-sidecar-policy+jws';
export const PAYLOAD = {
  version: 7,
  issuedAt: '2026-01-01T00:00:00Z',
  policy: { version: 1, rules: [{ name: 'all', allow: [{ server: '*', tools: ['*'] }] }] },
};

/** A policy that allows just these tools. */
export function allowing(...tools: string[]) {
  return { version: 1, rules: [{ name: 'some tools', allow: [{ server: '*', tools }] }] };
}

/** The valid bundle, but for what `payload` and `header` change; a text or bytes as `payload` are signed as they are. */
export function signBundle(
  { algorithm, privateKey }: Signer,
  payload: object | string = {},
  header: object = {},
): Promise<string> {
  const bytes = Buffer.from(typeof payload === 'string' ? payload : JSON.stringify({ ...PAYLOAD, ...payload }));
  const protectedHeader = { alg: algorithm, typ: TYP, ...header } as { alg: string };
  return new CompactSign(bytes).setProtectedHeader(protectedHeader).sign(privateKey);
}

/** What no library would make: any header, and `secret` for an HMAC or nothing for no signature at all. */
export function forge(header: object, payload: object, secret?: string): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part(header)}.${part(payload)}`;
  const signature = secret === undefined ? '' : createHmac('sha256', secret).update(signed).digest('base64url');
  return `${signed}.${signature}`;
}

export interface BundleServer {
  readonly url: string;
  readonly seen: http.IncomingMessage[];
  answer: http.RequestListener;
  /** Answers with this from now on, and with 304 to whom has it. */
  publish(bundle: string): void;
  /** Nobody listens any more, until `open`. */
  close(): Promise<void>;
  /** On the same port again. */
  open(): Promise<void>;
}

/** @param tls PEM texts; without them it is plain http. */
export async function startBundleServer(tls?: { key: string; certificate: string }): Promise<BundleServer> {
  const seen: http.IncomingMessage[] = [];
  const listener: http.RequestListener = (request, response) => {
    seen.push(request);
    server.answer(request, response);
  };
  const serving =
    tls === undefined
      ? http.createServer(listener)
      : https.createServer({ key: tls.key, cert: tls.certificate }, listener);
  const listen = async (port: number) => {
    serving.listen(port, '127.0.0.1');
    await once(serving, 'listening');
    return (serving.address() as AddressInfo).port;
  };
  const port = await listen(0);
  let published = 0;
  const server: BundleServer = {
    url: `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}/support.jws`,
    seen,
    answer: (_request, response) => response.writeHead(404).end(),
    publish(bundle) {
      published += 1;
      const etag = `"${published}"`;
      server.answer = (request, response) => {
        if (request.headers['if-none-match'] === etag) response.writeHead(304, { etag }).end();
        else response.writeHead(200, { etag }).end(bundle);
      };
    },
    async close() {
      if (!serving.listening) return;
      const closed = once(serving, 'close');
      serving.close();
      serving.closeAllConnections();
      await closed;
    },
    async open() {
      await listen(port);
    },
  };
  return server;
}
