/**
 * A real kube-apiserver with its etcd, in a folder of its own, on loopback: webhooks, matchConditions, admission
 * policies, Pod Security and dry-run are the API server's own. No node and no controller: nothing is ever started.
 *
 * The binaries are those of the folder that KUBEBUILDER_ASSETS names (envtest's convention).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Agent, request } from 'undici';
import { Kubernetes } from '../../injector/kubernetes.ts';
import { freePort } from './free-port.ts';

const START_MS = 90_000;

/** Why the suite cannot run here; `undefined` where it can. */
export function whyNoApiServer(): string | undefined {
  const folder = process.env.KUBEBUILDER_ASSETS;
  if (folder === undefined) return 'KUBEBUILDER_ASSETS names no folder with kube-apiserver and etcd';
  const missing = ['kube-apiserver', 'etcd'].filter((name) => !existsSync(join(folder, name)));
  return missing.length === 0 ? undefined : `KUBEBUILDER_ASSETS has no ${missing.join(' and no ')}`;
}

export interface ApiServer {
  readonly kubernetes: Kubernetes;
  readonly address: { readonly server: string; readonly ca: string; readonly token: () => Promise<string> };
  /** Anything that the typed client has no call for. */
  call(
    method: string,
    path: string,
    body?: unknown,
  ): Promise<{ status: number; value: Record<string, unknown>; warnings: string[] }>;
  close(): Promise<void>;
}

export async function startApiServer(): Promise<ApiServer> {
  const assets = process.env.KUBEBUILDER_ASSETS!;
  const folder = await mkdtemp(join(tmpdir(), 'kube-apiserver-'));
  const children: ChildProcess[] = [];
  const close = async () => {
    for (const child of children.reverse()) {
      if (child.exitCode !== null) continue;
      const ended = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await ended;
    }
    await rm(folder, { recursive: true, force: true });
  };
  try {
    const clientPort = await freePort(3);
    const [peerPort, securePort] = [clientPort + 1, clientPort + 2];
    const token = randomBytes(16).toString('hex');
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const keyFile = join(folder, 'service-account.key');
    await writeFile(keyFile, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
    await writeFile(join(folder, 'tokens.csv'), `${token},admin,admin,system:masters\n`, { mode: 0o600 });
    const start = (name: string, args: readonly string[]) =>
      children.push(spawn(join(assets, name), args, { stdio: 'ignore', cwd: folder }));
    start('etcd', [
      `--data-dir=${join(folder, 'etcd')}`,
      `--listen-client-urls=http://127.0.0.1:${clientPort}`,
      `--advertise-client-urls=http://127.0.0.1:${clientPort}`,
      `--listen-peer-urls=http://127.0.0.1:${peerPort}`,
      `--initial-advertise-peer-urls=http://127.0.0.1:${peerPort}`,
      `--initial-cluster=default=http://127.0.0.1:${peerPort}`,
      '--unsafe-no-fsync',
    ]);
    start('kube-apiserver', [
      `--etcd-servers=http://127.0.0.1:${clientPort}`,
      '--bind-address=127.0.0.1',
      '--advertise-address=127.0.0.1',
      `--secure-port=${securePort}`,
      `--cert-dir=${join(folder, 'certificates')}`,
      '--service-account-issuer=https://kubernetes.default.svc',
      `--service-account-key-file=${keyFile}`,
      `--service-account-signing-key-file=${keyFile}`,
      `--token-auth-file=${join(folder, 'tokens.csv')}`,
      '--authorization-mode=RBAC',
      // As in every cluster whose network runs in pods.
      '--allow-privileged=true',
      '--service-cluster-ip-range=10.0.0.0/24',
    ]);
    const ca = await readWhenThere(join(folder, 'certificates', 'apiserver.crt'));
    const address = { server: `https://127.0.0.1:${securePort}`, ca, token: async () => token };
    const kubernetes = new Kubernetes(address);
    const dispatcher = new Agent({ connect: { ca } });
    await untilReady(kubernetes, children);
    return {
      kubernetes,
      address,
      call: (method, path, body) => call({ server: address.server, dispatcher, token }, method, path, body),
      close: async () => {
        await Promise.all([kubernetes.close(), dispatcher.destroy()]);
        await close();
      },
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function call(
  { server, dispatcher, token }: { readonly server: string; readonly dispatcher: Agent; readonly token: string },
  method: string,
  path: string,
  body?: unknown,
) {
  const answer = await request(`${server}${path}`, {
    method: method as 'GET',
    dispatcher,
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: body === undefined ? null : JSON.stringify(body),
  });
  const { warning } = answer.headers;
  return {
    status: answer.statusCode,
    value: (await answer.body.json()) as Record<string, unknown>,
    warnings: (Array.isArray(warning) ? warning : [warning]).filter((text) => text !== undefined),
  };
}

async function readWhenThere(file: string): Promise<string> {
  const until = Date.now() + START_MS;
  while (Date.now() < until) {
    const text = await readFile(file, 'utf8').catch(() => '');
    if (text.includes('END CERTIFICATE')) return text;
    await delay(50);
  }
  throw new Error('kube-apiserver made no certificate');
}

async function untilReady(kubernetes: Kubernetes, children: readonly ChildProcess[]): Promise<void> {
  const until = Date.now() + START_MS;
  while (Date.now() < until) {
    const ended = children.find(({ exitCode }) => exitCode !== null);
    if (ended !== undefined) throw new Error(`${ended.spawnfile} ended with ${ended.exitCode}`);
    // /readyz answers in text; a namespace that its own controller makes is as good a sign, and JSON.
    const [ready, namespace] = await Promise.all([
      kubernetes.get('/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin'),
      kubernetes.get('/api/v1/namespaces/default'),
    ]);
    if (ready.ok && namespace.ok) return;
    await delay(200);
  }
  throw new Error('kube-apiserver did not become ready');
}
