/**
 * A helper process of the benchmark and how the orchestrator talks with it: one question, one answer, over Node's
 * own IPC channel. A helper ends by itself when the orchestrator has gone.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';

export interface Child {
  readonly pid: number;
  /** Rejects when the helper answers with an error, ends, or stays silent for `timeoutMs`. */
  ask<Answer>(question: unknown, timeoutMs?: number): Promise<Answer>;
  stop(): Promise<void>;
}

type Reply = { readonly sequence: number; readonly answer?: unknown; readonly error?: string };

/** Starts `./<module>` of this folder as a process of its own. Its stdout goes to stderr: stdout is for the report. */
export function startChild(module: string): Child {
  const child = fork(new URL(module, import.meta.url), { stdio: ['ignore', 2, 2, 'ipc'] });
  const waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  let sequence = 0;
  const fail = (error: Error) => {
    for (const waiter of waiting.values()) waiter.reject(error);
    waiting.clear();
  };
  child.on('message', (reply: Reply) => {
    const waiter = waiting.get(reply.sequence);
    waiting.delete(reply.sequence);
    if (reply.error === undefined) waiter?.resolve(reply.answer);
    else waiter?.reject(new Error(`${module}: ${reply.error}`));
  });
  child.on('error', fail);
  child.on('exit', (code, signal) => fail(new Error(`${module} ended early (${signal ?? `exit code ${code}`})`)));
  if (child.pid === undefined) throw new Error(`${module} could not be started`);
  return {
    pid: child.pid,
    ask<Answer>(question: unknown, timeoutMs = 60_000) {
      const own = sequence++;
      const { promise, resolve, reject } = Promise.withResolvers<unknown>();
      const timer = setTimeout(() => reject(new Error(`${module} gave no answer in ${timeoutMs} ms`)), timeoutMs);
      waiting.set(own, { resolve, reject });
      child.send({ sequence: own, question });
      return promise.finally(() => {
        clearTimeout(timer);
        waiting.delete(own);
      }) as Promise<Answer>;
    },
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    },
  };
}

/** The helper's side: answers every question of the orchestrator, one by one or at the same time. */
export function answerParent<Question>(answer: (question: Question) => unknown): void {
  process.on('message', async ({ sequence, question }: { sequence: number; question: Question }) => {
    const reply: Reply = await Promise.resolve()
      .then(() => answer(question))
      .then(
        (value) => ({ sequence, answer: value }),
        (error: unknown) => ({ sequence, error: error instanceof Error ? error.message : String(error) }),
      );
    if (process.connected) process.send?.(reply);
  });
  process.on('disconnect', () => process.exit());
}
