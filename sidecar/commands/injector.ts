/**
 * `sidecar injector`: the mutating admission webhook, until it is told to stop.
 */
import { inClusterAddress, Kubernetes } from '../../injector/kubernetes.ts';
import { loadInjectorConfig } from '../../injector/options.ts';
import { startInjector } from '../../injector/start.ts';
import { createLogger, type LogLevel } from '../telemetry/log.ts';
import { tellProblems, tellSentence } from './output.ts';

export interface InjectorCommandOptions {
  readonly config: string;
  readonly logLevel: LogLevel;
}

/** cert-manager renews weeks before the end; a poll within seconds makes a swap by hand pleasant too. */
const CERTIFICATE_POLL_MS = 10_000;

/** A pod is told to end before every node has heard that it is no longer part of its Service. */
const LAME_DUCK_MS = 5_000;

export async function injector({ config, logLevel }: InjectorCommandOptions): Promise<number> {
  const loaded = await loadInjectorConfig(config);
  if (!loaded.ok) return tellProblems(loaded.error, false);
  const address = await inClusterAddress(process.env);
  if (!address.ok) return tellSentence(address.error, false);
  const told = new Promise<void>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve());
  });
  const log = createLogger({
    level: logLevel,
    json: !process.stderr.isTTY,
    write: (line) => process.stderr.write(line),
    now: Date.now,
  });
  const started = await startInjector(loaded.value, {
    kubernetes: new Kubernetes(address.value),
    log,
    certificatePollMs: CERTIFICATE_POLL_MS,
    lameDuckMs: LAME_DUCK_MS,
  });
  if (!started.ok) {
    tellSentence(started.error, false);
    return 1;
  }
  const { webhook, health } = started.value;
  log.info('the injector listens', {
    webhook: `${webhook.host} ${webhook.port}`,
    health: `${health.host} ${health.port}`,
  });
  await told;
  await started.value.close();
  return 0;
}
