/**
 * The composition root: a configuration becomes a running sidecar.
 *
 * `buildPipeline` is the whole data plane on one screen. Everything else here opens what the stages need, and closes
 * it again in the right order.
 */
import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { amountOf } from '../policies/budget.ts';
import type { Usage } from '../policies/charge.ts';
import type { CompiledPolicy } from '../policies/policy.ts';
import { err, ok, type Result } from '../policies/result.ts';
import { type AdminServer, createAdminServer } from './admin/server.ts';
import type { BundleFeed, BundleFigures, BundleStart } from './bundle/feed.ts';
import type { Loaded } from './config/assemble.ts';
import { packageVersion } from './config/package-folder.ts';
import type { BundleSource, Environment } from './config/policy-source.ts';
import { formatProblems } from './config/problem.ts';
import { showAddress } from './config/quantity.ts';
import type { Config } from './config/schema.ts';
import { withoutEndpoint } from './config/virtual-endpoint.ts';
import type { Credential } from './credentials/credential.ts';
import { createIdentities, type Identities } from './identity/create.ts';
import { openListeners } from './listeners.ts';
import { LockReload } from './lock-reload.ts';
import { Admission } from './pipeline/admission.ts';
import { AnswerCache } from './pipeline/answer-cache.ts';
import { ArgumentSchemas } from './pipeline/argument-schema.ts';
import { type Next, type Stack, stack } from './pipeline/compose.ts';
import { challengeFor, guardPorts } from './pipeline/endpoints.ts';
import { Exchange, type Permitted } from './pipeline/exchange.ts';
import { LateAnswers } from './pipeline/late-answers.ts';
import { createMemoryPressure } from './pipeline/memory-pressure.ts';
import { argumentsJson } from './pipeline/recorded-arguments.ts';
import { HttpReply } from './pipeline/reply.ts';
import { createSessions } from './pipeline/sessions.ts';
import { admit } from './pipeline/stages/admit.ts';
import { authorize } from './pipeline/stages/authorize.ts';
import { cache } from './pipeline/stages/cache.ts';
import { credential } from './pipeline/stages/credential.ts';
import { forward } from './pipeline/stages/forward.ts';
import { guard } from './pipeline/stages/guard.ts';
import { identify } from './pipeline/stages/identify.ts';
import { inspect } from './pipeline/stages/inspect.ts';
import { observe } from './pipeline/stages/observe.ts';
import { continueTrace, parse, recoverId } from './pipeline/stages/parse.ts';
import { quota } from './pipeline/stages/quota.ts';
import { rescue } from './pipeline/stages/rescue.ts';
import { type Breakers, route } from './pipeline/stages/route.ts';
import { PolicyFiles } from './policy-files.ts';
import { PolicyReload } from './policy-reload.ts';
import { anchoredClock, createMemoryStore } from './quota/memory.ts';
import { isProcessAlive, StateFile } from './quota/state-file.ts';
import type { QuotaStore } from './quota/store.ts';
import { TokenCounter } from './quota/tokens.ts';
import { Audit } from './telemetry/audit.ts';
import type { AuditEvent } from './telemetry/audit-line.ts';
import type { ExchangeObserver } from './telemetry/finished.ts';
import type { Log } from './telemetry/log.ts';
import { type MetricSources, Metrics, observeSources } from './telemetry/metrics.ts';
import { RefusedConnections } from './telemetry/refused-connections.ts';
import { Tracing } from './telemetry/tracing.ts';
import { Catalog } from './upstream/catalog.ts';
import { createUpstreams, type Upstreams } from './upstream/create.ts';
import { listTools } from './upstream/list-tools.ts';
import { ToolPins } from './upstream/tool-pins.ts';

export interface RunningSidecar {
  /** Where agents reach `/mcp`, one for each listener. */
  readonly mcp: readonly string[];
  /** Base URL of probes and metrics. */
  readonly admin: string;
  /** Writes what the audit still holds. */
  flushAudit(): Promise<void>;
  /** Looks at the files of policy and pins now rather than within a second. */
  reloadPolicy(): Promise<void>;
  /** Drains: ready off, streams ended, requests under way finished (up to `drain.grace`), children and sockets gone. */
  close(): Promise<void>;
}

/** What the stages share. */
export interface House {
  readonly config: Config;
  readonly log: Log;
  readonly admission: Admission;
  readonly audit: Audit;
  readonly observers: readonly ExchangeObserver[];
  readonly policy: PolicyReload;
  readonly pins: ToolPins;
  readonly identities: Identities;
  readonly upstreams: Upstreams['byName'];
  readonly credentials: ReadonlyMap<string, Credential>;
  readonly breakers: Breakers;
  readonly quotas: QuotaStore;
  /** Says `drain` once. */
  readonly drain: EventTarget;
}

/**
 * The data plane, outermost stage first. The order is a contract (DESIGN.md section 3) with a golden test.
 */
export function buildPipeline(house: House): Stack<Exchange, never> {
  const { config, policy, pins, credentials } = house;
  const { limits } = config;
  const catalog = new Catalog({
    list: async (server) => {
      const listed = await listTools(house.upstreams.get(server)!, credentials.get(server));
      if (!listed.ok) return listed;
      const { tools } = listed.value;
      for (const tool of tools) pins.judge(server, tool);
      pins.listed(server, new Set(tools.map((tool) => (tool as { name?: unknown } | null)?.name)));
      return ok(tools);
    },
    now: monotonic,
    log: house.log,
  });
  const sessions = createSessions();
  const answers = new AnswerCache(config.cache, monotonic);
  pins.onReplaced(() => {
    for (const server of house.upstreams.keys()) {
      answers.forget(server);
      catalog.changed(server);
    }
  });
  const warnOfSpent = (usage: Usage, exchange: Permitted) => warnOfQuota(house.audit, usage, exchange);
  const late = new LateAnswers({ store: house.quotas, now: Date.now, warn: warnOfSpent });
  const tracing = { enabled: config.telemetry !== undefined, sampleRatio: config.telemetry?.sampleRatio ?? 0 };
  const observing = observe({
    group: config.group,
    observers: house.observers,
    now: monotonic,
    newTrace: () => continueTrace({}, tracing),
    argumentsJson,
  });
  const rescuing = rescue({ log: house.log, newErrorId, recoverId });

  return (
    stack<Exchange>()
      // Outermost: one record, whatever happens below.
      .push('observe', observing)
      // Above all that can fail, so that no stage needs to know how a refusal looks.
      .push('rescue', rescuing)
      // Before anything that costs: an overloaded sidecar must say so cheaply.
      .push(
        'admit',
        admit(house.admission, {
          memoryPressure: createMemoryPressure(monotonic),
          auditFailing: () => house.audit.failing(),
        }),
      )
      // By the head alone: a rebinding page must not even learn who is known here.
      .push('guard', guard(guardPorts({ ...house, policy: () => policy.active.policy })))
      // Before the body: a stranger can make us read no more than a small body for its id.
      .push('identify', identify({ methods: house.identities.methods, challenge: challengeFor(config) }))
      // The only parse. What could be read in two ways ends here.
      .push(
        'parse',
        parse({
          limits: {
            bodyBytes: limits.body,
            depth: limits.depth,
            batch: limits.batch,
            batchAnswerBytes: limits.response,
          },
          sessions,
          tracing,
          perElement: (inner) => (element) =>
            observing(element, (observed) => rescuing(observed, inner as Next<Exchange>)),
        }),
      )
      // Needs caller and message; everything below needs its permit.
      .push(
        'authorize',
        authorize({
          schemas: new ArgumentSchemas(),
          group: config.group,
          policy: () => policy.active,
          catalog,
          pins,
          now: Date.now,
        }),
      )
      // A refused call costs nothing; an allowed one is paid for before the server sees it.
      .push(
        'quota',
        quota({
          store: house.quotas,
          tokens: new TokenCounter(monotonic),
          late,
          now: Date.now,
          warn: warnOfSpent,
        }),
      )
      // What the agent may have and has paid for may come from memory.
      .push('cache', cache(answers))
      // The only place that tries again: all that must be fresh for each try is below.
      .push(
        'route',
        route({ breaker: breakerOptions(config), breakers: house.breakers, credentials, catalog, now: monotonic }),
      )
      // Each try carries the token of its moment, and nothing of the agent's own.
      .push('credential', credential(credentials))
      // Sends what the permit holds.
      .push('forward', forward({ now: monotonic, leftBehindMs: config.timeouts.total }))
      // Sees every byte that goes back.
      .push(
        'inspect',
        inspect({
          limits: { eventBytes: limits.event, wholeBytes: limits.response },
          sessions,
          catalog,
          pins,
          late,
          changed: (server) => answers.forget(server),
          onDrain: (listener) => {
            // The server may have taken until now to open the stream.
            if (house.admission.draining) listener();
            house.drain.addEventListener('drain', listener, { once: true });
            return () => house.drain.removeEventListener('drain', listener);
          },
          newErrorId,
        }),
      )
  );
}

/** Problems come back as a sentence that says what to do. What was opened before one is closed again. */
export async function startSidecar(
  loaded: Loaded,
  { log }: { readonly log: Log },
): Promise<Result<RunningSidecar, string>> {
  const { config } = loaded;
  /** Closed last to first. */
  const opened: (() => Promise<void> | void)[] = [];
  const closeAll = async () => {
    for (const close of opened.splice(0).reverse()) await close();
  };
  const fail = async (message: string): Promise<Result<never, string>> => {
    await closeAll();
    return err(message);
  };

  const audit = await Audit.open({
    path: config.audit.path,
    onFailure: config.audit.onFailure,
    flushMs: config.audit.flush,
    log,
    now: Date.now,
  });
  if (!audit.ok) return err(audit.error);
  opened.push(() => audit.value.close());

  const identities = createIdentities(config.identify, config.group, loaded.environment);
  if (!identities.ok) return fail(identities.error);
  const upstreams = await createUpstreams(config, loaded.environment, { log, now: monotonic });
  if (!upstreams.ok) return fail(upstreams.error);
  opened.push(() => upstreams.value.close(CHILDREN_GRACE_MS));
  const { reload: policy, bundle } = await startPolicy(loaded, audit.value, log);
  opened.push(() => policy.close());
  const pins = await startPins(loaded, audit.value, log);
  if (!pins.ok) return fail(pins.error);
  opened.push(() => pins.value.reload.close());

  const version = packageVersion();
  const metrics = new Metrics(version);
  const tracing = createTracing(config, version, metrics, log);
  opened.push(() => tracing?.shutdown(TRACING_GRACE_MS));

  const quotas = await openQuotas(loaded, log);
  opened.push(() => quotas.store.close());
  const admission = new Admission(config.limits, sharesPlaces(config));
  const breakers: Breakers = new Map();
  const drain = new EventTarget();
  const handle = buildPipeline({
    config,
    log,
    admission,
    audit: audit.value,
    observers: tracing === undefined ? [audit.value, metrics] : [audit.value, metrics, tracing],
    policy,
    pins: pins.value.pins,
    identities: identities.value,
    upstreams: upstreams.value.byName,
    credentials: upstreams.value.credentials,
    breakers,
    quotas: quotas.store,
    drain,
  }).build();
  const onRequest = (request: IncomingMessage, response: ServerResponse) => {
    void handle(new Exchange(request, new HttpReply(request, response), Date.now(), monotonic()));
  };

  const refused = new RefusedConnections((event) => audit.value.record(event), monotonic);
  opened.push(() => refused.flush());
  const listeners = await openListeners(config, identities.value, onRequest, refused, log);
  if (!listeners.ok) return fail(listeners.error);
  opened.push(() => {
    for (const listener of listeners.value) listener.destroy();
  });
  observeSources(metrics.registry, {
    inFlight: () => admission.inFlight,
    streams: () => admission.streams,
    breakers: function* () {
      for (const [server, { kind }] of breakers) yield [server, kind];
    },
    credentialRefreshes: function* () {
      for (const [server, { ok, error }] of upstreams.value.refreshes) {
        yield [server, 'ok', ok];
        yield [server, 'error', error];
      }
    },
    audit: () => audit.value.figures(),
    policy: () => policy.figures,
    bundle,
    quotaStore: quotas.figures,
    drifts: () => pins.value.pins.figures(),
    refusedConnections: () => refused.totals,
  });
  const adminOptions = {
    probes: [
      { name: 'draining', failing: () => (admission.draining ? 'the sidecar is shutting down' : undefined) },
      { name: 'audit', failing: () => audit.value.failing() },
    ],
    metricsText: () => metrics.text(),
  };
  const admin = await createAdminServer({ ...adminOptions, listen: config.listen.admin, key: 'listen.admin' });
  if (!admin.ok) return fail(admin.error);
  opened.push(() => admin.value.close());
  if (config.listen.health !== undefined) {
    const health = await createAdminServer({ ...adminOptions, listen: config.listen.health, key: 'listen.health' });
    if (!health.ok) return fail(health.error);
    opened.push(() => health.value.close());
  }
  // Loading the exporters holds the event loop for a moment: not while probes and first callers wait. Until then spans queue.
  const startTracing = setTimeout(() => void tracing?.start(), TRACING_DELAY_MS).unref();
  opened.push(() => clearTimeout(startTracing));
  audit.value.record({
    event: 'sidecar.started',
    group: config.group,
    policy: policy.active.version,
    bundleVersion: bundle?.().version,
  });

  return ok({
    mcp: listeners.value.map(({ url }) => url),
    admin: adminUrl(admin.value),
    flushAudit: () => audit.value.flush(),
    reloadPolicy: async () => {
      await Promise.all([policy.check(), pins.value.reload.check()]);
    },
    close: async () => {
      if (admission.draining) return;
      admission.draining = true;
      for (const listener of listeners.value) listener.stop();
      drain.dispatchEvent(new Event('drain'));
      const finished = admission
        .whenIdle()
        .then(() => Promise.all(listeners.value.map((listener) => listener.flushed())));
      await Promise.race([finished, delay(config.drain.grace, undefined, { ref: false })]);
      audit.value.record({ event: 'sidecar.stopped', unfinished: admission.taken });
      await closeAll();
    },
  });
}

const TRACING_DELAY_MS = 500;
/** Spans that wait get this long to be sent. */
const TRACING_GRACE_MS = 2_000;

/** Without `telemetry` nothing of OpenTelemetry is loaded: the exporters are imported by `Tracing.start`. */
function createTracing({ telemetry, group }: Config, version: string, metrics: Metrics, log: Log): Tracing | undefined {
  if (telemetry === undefined) return undefined;
  return new Tracing({
    endpoint: telemetry.otlp,
    group,
    version,
    metrics: telemetry.metrics ? metrics : undefined,
    log,
    now: Date.now,
    environment: process.env,
  });
}

interface OpenQuotas {
  readonly store: QuotaStore;
  /** Only of a store that may be away. */
  readonly figures: MetricSources['quotaStore'];
}

async function openQuotas({ config, environment }: Loaded, log: Log): Promise<OpenQuotas> {
  const now = anchoredClock(Date.now, monotonic);
  const { quotaStore, group, state } = config;
  if (quotaStore !== 'memory') {
    const { openRedisStore } = await import('./quota/open-redis.ts');
    const store = openRedisStore(quotaStore, { group, environment, now, random: Math.random, log });
    return { store, figures: () => store.figures };
  }
  const openFile = () =>
    StateFile.open(state, 'quota.json', { warn: log.warn, pid: process.pid, isAlive: isProcessAlive });
  return { store: createMemoryStore({ now, openFile, warn: log.warn }), figures: undefined };
}

/** For whoever watches the audit: the wall is near. */
function warnOfQuota(
  audit: Audit,
  { quota: name, dimension, used, limit }: Usage,
  { subject, route }: Permitted,
): void {
  const isMoney = dimension === 'cost';
  audit.record({
    event: 'quota.warning',
    quota: name,
    dimension,
    used: isMoney ? amountOf(used) : used,
    limit: isMoney ? amountOf(limit) : limit,
    agent: subject.agent.name,
    server: route.server,
  });
}

/** Children get this long to end by themselves. */
const CHILDREN_GRACE_MS = 2_000;

interface RunningPolicy {
  readonly reload: PolicyReload;
  /** Absent unless the policy comes from a URL. */
  readonly bundle: (() => BundleFigures) | undefined;
}

async function startPolicy(loaded: Loaded, audit: Audit, log: Log): Promise<RunningPolicy> {
  const { policy, policyDocument: document, policySource: source, environment } = loaded;
  const first = { policy, document };
  const feed =
    source.kind === 'bundle'
      ? await openBundleFeed(source, { first, opened: loaded.bundle! }, environment, { audit, log })
      : undefined;
  const bundle = feed && (() => feed.figures);
  const warnOfVirtual = (policy: CompiledPolicy) => {
    for (const sentence of withoutEndpoint(policy, (server) => Object.hasOwn(loaded.config.servers, server)))
      log.warn(sentence);
  };
  warnOfVirtual(policy);
  const reload = new PolicyReload(first, feed ?? (await PolicyFiles.open(loaded, source, environment)), {
    onReloaded: ({ policy, version }) => {
      const bundleVersion = bundle?.().version;
      log.info('the policy was reloaded', { version, ...(bundleVersion === undefined ? {} : { bundleVersion }) });
      warnOfVirtual(policy);
      audit.record({ event: 'policy.reloaded', policy: version, bundleVersion });
    },
    onRefused: (problems) => {
      log.error(`the changed policy is refused, and the last good one stays in force:\n${problems}`);
      audit.record({ event: 'policy.refused', reason: problems });
    },
  });
  return { reload, bundle };
}

async function openBundleFeed(
  source: BundleSource,
  start: BundleStart,
  environment: Environment,
  { audit, log }: { readonly audit: Audit; readonly log: Log },
): Promise<BundleFeed> {
  const { BundleFeed } = await import('./bundle/feed.ts');
  return BundleFeed.open(source, start, environment, {
    now: Date.now,
    random: Math.random,
    notice: ({ level, event, sentence }) => {
      log[level](sentence);
      audit.record({ event, reason: sentence });
    },
  });
}

async function startPins(
  { config, lock }: Loaded,
  audit: Audit,
  log: Log,
): Promise<Result<{ readonly pins: ToolPins; readonly reload: LockReload }, string>> {
  if (!lock.ok) return err(formatProblems(lock.error));
  const record = (event: AuditEvent) => audit.record(event);
  const pins = new ToolPins(lock.value, { settings: config.pins, record, log });
  if (lock.value !== undefined) log.info('tools are pinned', { file: config.pins.file, servers: lock.value.size });
  return ok({ pins, reload: await LockReload.start(config.pins, { pins, record, log }) });
}

function sharesPlaces({ identify }: Config): boolean {
  return identify.reduce((count, { agents }) => count + Object.keys(agents).length, 0) > 1;
}

function breakerOptions({ breaker }: Config) {
  return { failures: breaker.failures, openMs: breaker.open, openMaxMs: breaker.openMax };
}

function monotonic(): number {
  return performance.now();
}

function newErrorId(): string {
  return randomBytes(8).toString('hex');
}

function adminUrl({ address }: AdminServer): string {
  return `http://${showAddress(address)}`;
}
