/**
 * Certificates without cert-manager: an authority in a Secret that all replicas share, and a leaf that each makes for
 * itself and keeps in memory. What is to be done is decided in certificate-authority.ts.
 *
 * Replicas agree by the Secret's resourceVersion: of two that write at once the second is refused, and reads again. The
 * webhook configuration's `caBundle` is written only where it differs, and no leaf is served before it is there.
 */
import { err, ok, type Result } from '../policies/result.ts';
import { type KeyPair, makeAuthority, makeLeaf, validityOf } from './certificate.ts';
import {
  AUTHORITY_MS,
  type Authorities,
  type Authority,
  bundleOf,
  isDue,
  LEAF_MS,
  nextStep,
  withNew,
} from './certificate-authority.ts';
import { type CertificatePorts, type CertificateSource, checkKey } from './certificate-source.ts';
import type { Kubernetes, KubernetesFailure } from './kubernetes.ts';
import { isRaw, type Raw, rawAt, rawList, textAt } from './raw-object.ts';

export interface SelfManaged {
  readonly namespace: string;
  /** Names of the Secret, the Service, and the MutatingWebhookConfiguration. */
  readonly secret: string;
  readonly service: string;
  readonly webhook: string;
}

const KEY = 'authorities.json';
const WEBHOOKS = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations';
const ATTEMPTS_MAX = 5;

export class CertificateSecret implements CertificateSource {
  readonly #kubernetes: Kubernetes;
  readonly #names: SelfManaged;
  readonly #ports: CertificatePorts;
  #current: KeyPair | undefined;
  /** The authority that signed the current leaf. */
  #issuer: string | undefined;
  #refused = '';

  constructor(kubernetes: Kubernetes, names: SelfManaged, ports: CertificatePorts) {
    this.#kubernetes = kubernetes;
    this.#names = names;
    this.#ports = ports;
  }

  get current(): KeyPair | undefined {
    return this.#current;
  }

  async refresh(): Promise<void> {
    const authorities = await this.#agree();
    const trusted = authorities.ok ? await this.#publish(bundleOf(authorities.value)) : authorities;
    if (!authorities.ok || !trusted.ok) return this.#refuse(trusted.ok ? 'unknown' : trusted.error);
    this.#refused = '';
    const { current } = authorities.value;
    const validity = this.#current === undefined ? undefined : validityOf(this.#current.certificate);
    const now = this.#ports.now();
    if (validity !== undefined && !isDue(validity, now) && this.#issuer === current.certificate) return;
    const { service, namespace } = this.#names;
    const names = [
      `${service}.${namespace}.svc`,
      `${service}.${namespace}.svc.cluster.local`,
      `${service}.${namespace}`,
    ];
    this.#current = await makeLeaf(current, names, now, LEAF_MS);
    this.#issuer = current.certificate;
    this.#ports.changed(this.#current);
  }

  /** Reads the Secret and takes the step that is due, until what is there needs none. */
  async #agree(): Promise<Result<Authorities, string>> {
    const { namespace, secret } = this.#names;
    const folder = `/api/v1/namespaces/${namespace}/secrets`;
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const read = await this.#kubernetes.get(`${folder}/${secret}`);
      if (!read.ok && read.error.status !== 404)
        return err(`the Secret ${secret} cannot be read: ${wordsOf(read.error)}`);
      const text = read.ok ? textAt(rawAt(read.value, 'data'), KEY) : undefined;
      const found = text === undefined ? undefined : readAuthorities(text);
      if (text !== undefined && found === undefined)
        this.#ports.warn(`${KEY} in the Secret ${secret} cannot be read: a new authority is made in its place`);
      const now = this.#ports.now();
      const step = nextStep(found, now);
      if (step.kind === 'keep') return ok(found!);
      const next = step.kind === 'promote' ? step.authorities : withNew(found, await newAuthority(now), now);
      const object = secretWith(next, this.#names, read.ok ? read.value : undefined);
      const written = read.ok
        ? await this.#kubernetes.replace(`${folder}/${secret}`, object)
        : await this.#kubernetes.create(folder, object);
      if (written.ok) return ok(next);
      // Another replica was faster.
      if (written.error.status !== 409) return err(`the Secret ${secret} cannot be written: ${wordsOf(written.error)}`);
    }
    return err(`the Secret ${secret} is written by others again and again`);
  }

  /** Sees to it that the API server trusts the bundle. */
  async #publish(bundle: string): Promise<Result<void, string>> {
    const path = `${WEBHOOKS}/${this.#names.webhook}`;
    const read = await this.#kubernetes.get(path);
    if (!read.ok) return err(`the webhook configuration ${this.#names.webhook} cannot be read: ${wordsOf(read.error)}`);
    const caBundle = Buffer.from(bundle).toString('base64');
    const operations = rawList(read.value.webhooks).flatMap((webhook, index) => {
      const { service, caBundle: known } = rawAt(webhook, 'clientConfig');
      if (!isRaw(service) || service.name !== this.#names.service || known === caBundle) return [];
      // Whoever changed the list meanwhile makes the test fail, and with it the whole patch.
      return [
        { op: 'test', path: `/webhooks/${index}/name`, value: webhook.name },
        { op: 'add', path: `/webhooks/${index}/clientConfig/caBundle`, value: caBundle },
      ];
    });
    if (operations.length === 0) return ok(undefined);
    const patched = await this.#kubernetes.patch(path, operations);
    return patched.ok
      ? ok(undefined)
      : err(`the caBundle of ${this.#names.webhook} cannot be written: ${wordsOf(patched.error)}`);
  }

  #refuse(why: string): void {
    if (why === this.#refused) return;
    this.#refused = why;
    this.#ports.warn(why);
  }
}

function wordsOf({ status, message }: KubernetesFailure): string {
  return status === 0 ? message : `${status} ${message}`;
}

async function newAuthority(now: number): Promise<Authority> {
  const pair = await makeAuthority('mcp-sidecar-injector', now, AUTHORITY_MS);
  return { ...pair, ...validityOf(pair.certificate)! };
}

function secretWith(authorities: Authorities, { namespace, secret }: SelfManaged, before: Raw | undefined): Raw {
  const text = JSON.stringify(authorities);
  return {
    ...(before ?? { apiVersion: 'v1', kind: 'Secret', metadata: { namespace, name: secret }, type: 'Opaque' }),
    data: { ...rawAt(before, 'data'), [KEY]: Buffer.from(text).toString('base64') },
  };
}

/** What an earlier run has left; `undefined` where it is not that, or nothing to sign with. */
function readAuthorities(base64: string): Authorities | undefined {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(base64, 'base64').toString());
  } catch {
    return undefined;
  }
  if (!isRaw(value)) return undefined;
  const { current, next, nextSince, earlier } = value;
  const isWhole =
    isAuthority(current) &&
    (next === undefined || (isAuthority(next) && Number.isFinite(nextSince))) &&
    Array.isArray(earlier) &&
    earlier.every((one) => isRaw(one) && typeof one.certificate === 'string' && Number.isFinite(one.until));
  return isWhole ? (value as unknown as Authorities) : undefined;
}

function isAuthority(value: unknown): boolean {
  return (
    isRaw(value) &&
    typeof value.certificate === 'string' &&
    typeof value.key === 'string' &&
    checkKey({ certificate: value.certificate, key: value.key }).ok &&
    Number.isFinite(value.from) &&
    Number.isFinite(value.until)
  );
}
