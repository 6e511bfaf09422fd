/**
 * The targets in turn, round after round: neighbours in time are what is compared, so that a machine which speeds up
 * or slows down does so to all of them.
 */
import { cpus } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import type { Child } from './child.ts';
import type { LoadQuestion, LoadTarget, Measured } from './load.ts';
import type { Round, Run, TargetName } from './report.ts';
import { processorMicros } from './sidecar.ts';

export interface Target {
  readonly name: TargetName;
  readonly load: LoadTarget;
  readonly pid: number;
}

export interface RoundLengths {
  readonly rounds: number;
  readonly warmUpMs: number;
  readonly c1Ms: number;
  readonly c16Ms: number;
  readonly openMs: number;
}

/** Share of the processors in use while the benchmark itself does nothing for `ms`. */
async function othersBusyFor(ms: number): Promise<number> {
  const read = () => {
    const times = cpus().map((cpu) => cpu.times);
    const idle = times.reduce((sum, time) => sum + time.idle, 0);
    return { idle, all: times.reduce((sum, time) => sum + time.idle + time.user + time.sys + time.nice + time.irq, 0) };
  };
  const before = read();
  await delay(ms);
  const after = read();
  const all = after.all - before.all;
  return all === 0 ? 0 : 1 - (after.idle - before.idle) / all;
}

async function runTarget(generator: Child, target: Target, lengths: RoundLengths): Promise<Run> {
  const ask = (question: LoadQuestion) => generator.ask<Measured>(question);
  const c1 = await ask({ kind: 'closed', target: target.load, concurrency: 1, forMs: lengths.c1Ms });
  const before = processorMicros(target.pid);
  const c16 = await ask({ kind: 'closed', target: target.load, concurrency: 16, forMs: lengths.c16Ms });
  const after = processorMicros(target.pid);
  const at1000 = await ask({ kind: 'open', target: target.load, perSecond: 1000, forMs: lengths.openMs });
  const cpuMicros = before === undefined || after === undefined ? undefined : (after - before) / c16.requests;
  return { c1, c16, at1000, cpuMicros };
}

/**
 * Answers the rounds, and for each the share of the processors that others used just before it.
 * @param attempt runs one act under its name and answers `undefined` when it broke
 */
export async function runRounds(
  generator: Child,
  targets: readonly Target[],
  lengths: RoundLengths,
  attempt: <T>(name: string, act: () => Promise<T>) => Promise<T | undefined>,
): Promise<{ rounds: Round[]; othersBusy: number[] }> {
  for (const { name, load: target } of targets) {
    const question: LoadQuestion = { kind: 'closed', target, concurrency: 16, forMs: lengths.warmUpMs };
    await attempt(`warm up ${name}`, () => generator.ask<Measured>(question));
  }
  const rounds: Round[] = [];
  const othersBusy: number[] = [];
  for (let number = 1; number <= lengths.rounds; number++) {
    await delay(200);
    othersBusy.push(await othersBusyFor(500));
    const round: Partial<Record<TargetName, Run>> = {};
    for (const target of targets) {
      const name = `round ${number} of ${lengths.rounds}: ${target.name}`;
      const run = await attempt(name, () => runTarget(generator, target, lengths));
      if (run !== undefined) round[target.name] = run;
    }
    rounds.push(round);
  }
  return { rounds, othersBusy };
}
