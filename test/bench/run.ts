/**
 * `npm run bench [-- --json] [--quick]`: what the sidecar costs, beside a bare proxy, nginx and no proxy at all.
 *
 * stdout: with `--json` one JSON object ({@link Report}), otherwise nothing. stderr: progress and a table for people.
 * Exit code 0 also when a figure misses its target (the report says so); 1 when something could not be measured;
 * 2 for wrong use. How it is measured, and what that cannot tell: README.md in this folder.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, release, tmpdir, totalmem, type } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { BareQuestion } from './bare.ts';
import { callHeaders } from './call.ts';
import { type Child, startChild } from './child.ts';
import { measureColdSessions } from './cold-session.ts';
import type { DecisionQuestion } from './decision.ts';
import { findNginx, startNginx } from './nginx.ts';
import type { PolicyDecisions, PolicyDecisionsQuestion } from './policy-decisions.ts';
import { type Report, reportOf, spreadOf } from './report.ts';
import { runRounds, type Target } from './rounds.ts';
import { buildSidecar, type Sidecar, startSidecar } from './sidecar.ts';
import type { SinkCount, SinkQuestion } from './sink.ts';
import { measureStartup } from './startup.ts';
import { measureStreams } from './streams.ts';
import { tableOf } from './table.ts';
import type { UpstreamQuestion } from './upstream.ts';

/** How long everything runs. Both fit their promise (five minutes, one minute) on two cores. */
const lengths = {
  full: {
    rounds: 6,
    warmUpMs: 3000,
    c1Ms: 1500,
    c16Ms: 2500,
    openMs: 3000,
    starts: 7,
    idleMs: 3000,
    sessions: 30,
    decision: { warmUpCalls: 50_000, batches: 9, callsPerBatch: 10_000 },
    policy: { batches: 9, decisionsPerBatch: 8000 },
  },
  quick: {
    rounds: 2,
    warmUpMs: 700,
    c1Ms: 500,
    c16Ms: 800,
    openMs: 1000,
    starts: 3,
    idleMs: 1000,
    sessions: 6,
    decision: { warmUpCalls: 20_000, batches: 5, callsPerBatch: 4000 },
    policy: { batches: 5, decisionsPerBatch: 4000 },
  },
};

const streamCount = 1000;

const broken: string[] = [];
/** What has to be ended, last started first. */
const closers: (() => Promise<void> | void)[] = [];

const say = (text: string) => process.stderr.write(`${text}\n`);
const reasonOf = (error: unknown) => (error instanceof Error ? error.message : String(error));

async function closeAll(): Promise<void> {
  for (const close of closers.splice(0).reverse()) {
    try {
      await close();
    } catch (error) {
      say(reasonOf(error));
    }
  }
}

/** Runs one part; when it breaks the report says so and the other parts go on. */
async function attempt<T>(name: string, act: () => Promise<T>): Promise<T | undefined> {
  say(`… ${name}`);
  try {
    return await act();
  } catch (error) {
    broken.push(`${name}: ${reasonOf(error)}`);
    return undefined;
  }
}

function child(module: string): Child {
  const started = startChild(module);
  closers.push(() => started.stop());
  return started;
}

/** Starts a helper that listens, and answers it with its address. */
async function listening<Question extends UpstreamQuestion | BareQuestion | SinkQuestion>(
  module: string,
  question: Question,
): Promise<Child & { origin: string }> {
  const started = child(module);
  const { origin } = await started.ask<{ origin: string }>(question);
  return { ...started, origin };
}

/** Starts the other targets; one that cannot be started is left out, and `broken` has the reason. */
async function startTargets(
  upstream: Child & { origin: string },
  sidecar: Sidecar | undefined,
  temporary: string,
): Promise<Target[]> {
  const { origin } = upstream;
  const target = (
    name: Target['name'],
    pid: number,
    url: URL,
    headers: Readonly<Record<string, string>> = {},
  ): Target => ({
    name,
    pid,
    load: { origin: url.origin, path: url.pathname, headers: { ...callHeaders, ...headers } },
  });
  const bare = await listening<BareQuestion>('bare.ts', { upstream: origin });
  const binary = findNginx();
  const nginx =
    binary === undefined ? undefined : await attempt('start nginx', () => startNginx(binary, origin, temporary));
  if (nginx !== undefined) closers.push(() => nginx.stop());
  return [
    target('direct', upstream.pid, new URL(`${origin}/mcp`)),
    target('bare', bare.pid, new URL(`${bare.origin}/mcp`)),
    ...(sidecar === undefined ? [] : [target('sidecar', sidecar.pid, sidecar.mcp, sidecar.headers)]),
    ...(nginx === undefined ? [] : [target('nginx', nginx.pid, new URL(`${nginx.origin}/mcp`))]),
  ];
}

async function main(mode: 'full' | 'quick'): Promise<Report> {
  const length = lengths[mode];
  const temporary = mkdtempSync(join(tmpdir(), 'mcp-sidecar-bench-'));
  closers.push(() => rmSync(temporary, { recursive: true, force: true }));
  const compiled = await attempt('compile the sidecar', buildSidecar);
  /** What needs the sidecar is not tried with one of yesterday. */
  const withSidecar = <T>(name: string, act: () => Promise<T>) => (compiled ? attempt(name, act) : undefined);
  const upstream = await listening<UpstreamQuestion>('upstream.ts', { kind: 'listen' });
  const sink = await listening<SinkQuestion>('sink.ts', { kind: 'listen' });
  const otlp = sink.origin;
  const server = { url: `${upstream.origin}/mcp` };

  const decisionMicros = await attempt('decide', async () => {
    const decision = child('decision.ts');
    const micros = await decision.ask<number[]>(length.decision satisfies DecisionQuestion);
    await decision.stop();
    return micros;
  });
  const policy = await attempt('decide by policy', async () => {
    const decisions = child('policy-decisions.ts');
    const measured = await decisions.ask<PolicyDecisions>(length.policy satisfies PolicyDecisionsQuestion);
    await decisions.stop();
    return measured;
  });
  const telemetryOff = await withSidecar('start with telemetry off', () =>
    measureStartup(temporary, { server, otlp: undefined }, length.starts, length.idleMs),
  );
  const telemetryOn = await withSidecar('start with telemetry on', () =>
    measureStartup(temporary, { server, otlp }, length.starts, length.idleMs),
  );
  // A sidecar of its own: what load leaves behind is not what streams weigh.
  const streamsMiB = await withSidecar(`open ${streamCount} streams`, async () => {
    const sidecar = await startSidecar(temporary, { server, otlp });
    try {
      return await measureStreams(sidecar, upstream, streamCount, length.idleMs);
    } finally {
      await sidecar.stop();
    }
  });

  const coldSessions = await withSidecar('cold sessions over TLS and OAuth', () =>
    measureColdSessions(temporary, otlp, length.sessions),
  );
  const sidecar = await withSidecar('start the sidecar with everything on', () =>
    startSidecar(temporary, { server, otlp }),
  );
  if (sidecar !== undefined) closers.push(() => sidecar.stop());
  const targets = await startTargets(upstream, sidecar, temporary);
  const { rounds, othersBusy } = await runRounds(child('load.ts'), targets, length, attempt);
  const { exports } = await sink.ask<SinkCount>({ kind: 'count' } satisfies SinkQuestion);
  if (targets.some(({ name }) => name === 'sidecar') && exports === 0)
    broken.push('telemetry: the sidecar exported nothing, so not everything was on');

  return reportOf({
    at: new Date().toISOString(),
    mode,
    machine: {
      processor: cpus()[0]?.model ?? 'unknown',
      cores: cpus().length,
      memoryMiB: Math.round(totalmem() / 2 ** 20),
      system: `${type()} ${release()}`,
      node: process.version,
      othersBusy: spreadOf(othersBusy)?.median ?? 0,
    },
    rounds,
    skipped: findNginx() === undefined ? { nginx: 'nginx not installed' } : {},
    decisionMicros,
    policy,
    telemetryOff,
    telemetryOn,
    streamsMiB,
    coldSessions,
    broken,
  });
}

function readArguments(): { json: boolean; quick: boolean } | undefined {
  try {
    const { values } = parseArgs({ options: { json: { type: 'boolean' }, quick: { type: 'boolean' } } });
    return { json: values.json === true, quick: values.quick === true };
  } catch (error) {
    say(`${reasonOf(error)}\nUse: npm run bench -- [--json] [--quick]`);
    return undefined;
  }
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => closeAll().finally(() => process.exit(1)));
}
const wanted = readArguments();
if (wanted === undefined) process.exitCode = 2;
else {
  try {
    const report = await main(wanted.quick ? 'quick' : 'full');
    say(`\n${tableOf(report)}`);
    if (wanted.json) process.stdout.write(`${JSON.stringify(report, undefined, 2)}\n`);
    process.exitCode = report.broken.length === 0 ? 0 : 1;
  } finally {
    await closeAll();
  }
}
