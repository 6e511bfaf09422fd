/**
 * The injector as a whole: certificate, groups and mode first, then the webhook; all of it closed in reverse.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { err, ok, type Result } from '../policies/result.ts';
import { readText } from '../sidecar/config/text-file.ts';
import { type KeyPair, validityOf } from './certificate.ts';
import { CertificateFolder } from './certificate-folder.ts';
import { CertificateSecret } from './certificate-secret.ts';
import { type CertificatePorts, type CertificateSource, checkAuthorities } from './certificate-source.ts';
import type { Mode } from './container.ts';
import { OwnerEvents } from './events.ts';
import { GroupWatch } from './group-watch.ts';
import type { Kubernetes } from './kubernetes.ts';
import { InjectorMetrics } from './metrics.ts';
import { detectMode } from './native-support.ts';
import { type InjectorConfig, optionsOf } from './options.ts';
import { type Address, openHealth, type Reviewed, Webhook } from './server.ts';

export interface InjectorPorts {
  readonly kubernetes: Kubernetes;
  readonly log: {
    info(message: string, fields?: Readonly<Record<string, string | number>>): void;
    warn(message: string, fields?: Readonly<Record<string, string | number>>): void;
  };
  /** How often the certificate is looked at. */
  readonly certificatePollMs: number;
  /** For so long reviews are still answered when the end is near: until no API server sends any more. */
  readonly lameDuckMs: number;
}

export interface RunningInjector {
  readonly webhook: Address;
  readonly health: Address;
  /** Looks at the certificate now. */
  refreshCertificate(): Promise<void>;
  /** Reviews under way are answered. */
  close(): Promise<void>;
}

/** Nodes come and go, and are upgraded; nobody needs a mode within seconds. */
const MODE_POLL_MS = 5 * 60_000;
const START_ATTEMPTS = 60;
const START_RETRY_MS = 1_000;
const CLOSE_GRACE_MS = 5_000;

/** @returns once reviews are answered, or an error where that is not possible. */
export async function startInjector(
  config: InjectorConfig,
  { kubernetes, log, certificatePollMs, lameDuckMs }: InjectorPorts,
): Promise<Result<RunningInjector, string>> {
  const metrics = new InjectorMetrics();
  const opened: (() => Promise<void> | void)[] = [];
  const closeAll = async () => {
    for (const close of opened.splice(0).reverse()) await close();
  };
  const fail = async (message: string): Promise<Result<never, string>> => {
    await closeAll();
    return err(message);
  };
  opened.push(() => kubernetes.close());

  const clientCa = await readClientCa(config.clientCa);
  if (!clientCa.ok) return fail(`clientCa: ${config.clientCa} ${clientCa.error}`);

  const groups = new GroupWatch(kubernetes, { warn: log.warn });
  groups.start();
  opened.push(() => groups.close());

  let webhook: Webhook | undefined;
  let isListening = false;
  const health = await openHealth(config.health, {
    missing: () => [
      ...(isListening ? [] : ['there is no certificate yet']),
      ...(groups.isReady ? [] : ['the groups are not known yet']),
    ],
    metricsText: () => metrics.text(groups.isReady),
  });
  if (!health.ok) return fail(`health: ${health.error}`);
  opened.push(() => health.value.close());

  const source = createSource(config, kubernetes, {
    changed: (pair) => {
      metrics.certificateUntil = validityOf(pair.certificate)?.until;
      webhook?.use(pair);
      log.info('a certificate is in use', { until: new Date(metrics.certificateUntil ?? 0).toISOString() });
    },
    warn: log.warn,
    now: Date.now,
  });
  const pair = await firstCertificate(source);
  if (pair === undefined) return fail('there is no certificate to serve: see the warnings above');
  opened.push(repeat(certificatePollMs, () => source.refresh()));

  let mode: Mode = config.mode === 'auto' ? await detectMode(kubernetes) : config.mode;
  metrics.isNative = mode === 'native';
  if (config.mode === 'auto')
    opened.push(
      repeat(MODE_POLL_MS, async () => {
        mode = await detectMode(kubernetes);
        metrics.isNative = mode === 'native';
      }),
    );

  const events = new OwnerEvents(kubernetes, Date.now);
  opened.push(() => events.flush());
  const options = optionsOf(config);
  const server = new Webhook(pair, clientCa.value, {
    cluster: () => ({ options, mode, groupsIn: (namespace) => groups.groupsIn(namespace) }),
    reviewed: (reviewed) => {
      metrics.reviewed(reviewed);
      if (reviewed.outcome !== undefined) events.tell(reviewed.outcome);
      logReview(reviewed, log);
    },
    now: () => performance.now(),
  });
  const listening = await server.listen(config.listen);
  if (!listening.ok) return fail(`listen: ${listening.error}`);
  webhook = server;
  isListening = true;
  opened.push(() => server.close(CLOSE_GRACE_MS));
  return ok({
    webhook: listening.value,
    health: health.value.address,
    refreshCertificate: () => source.refresh(),
    close: async () => {
      isListening = false;
      server.drain();
      await delay(lameDuckMs);
      await closeAll();
    },
  });
}

async function readClientCa(file: string | undefined): Promise<Result<string | undefined, string>> {
  if (file === undefined) return ok(undefined);
  const read = await readText(file);
  return read.ok ? checkAuthorities(read.value) : read;
}

function createSource({ tls }: InjectorConfig, kubernetes: Kubernetes, ports: CertificatePorts): CertificateSource {
  return 'folder' in tls
    ? new CertificateFolder(tls.folder, ports)
    : new CertificateSecret(kubernetes, tls.selfManaged, ports);
}

/** cert-manager may be a moment behind us, and the API server too. */
async function firstCertificate(source: CertificateSource): Promise<KeyPair | undefined> {
  for (let attempt = 0; attempt < START_ATTEMPTS; attempt++) {
    await source.refresh();
    if (source.current !== undefined) return source.current;
    await delay(START_RETRY_MS);
  }
  return undefined;
}

/** @returns what ends it. */
function repeat(everyMs: number, act: () => Promise<void>): () => void {
  let timer: NodeJS.Timeout | undefined;
  let isEnded = false;
  const schedule = () => {
    timer = setTimeout(() => void act().finally(() => !isEnded && schedule()), everyMs).unref();
  };
  schedule();
  return () => {
    isEnded = true;
    clearTimeout(timer);
  };
}

function logReview({ outcome, status, durationMs }: Reviewed, log: InjectorPorts['log']): void {
  if (outcome === undefined) {
    log.warn('a request that is no review', { status });
    return;
  }
  const { kind, namespace, name, serviceAccount, group, message } = outcome;
  if (kind === 'ignored') return;
  const fields = {
    result: kind,
    namespace,
    pod: name,
    serviceAccount,
    ...(group === undefined ? {} : { group }),
    durationMs: Math.round(durationMs),
  };
  if (kind === 'denied' || kind === 'unavailable') log.warn(message, fields);
  else log.info(message, fields);
}
