/**
 * Spent quota in this process, kept over restarts by a file.
 *
 * The arithmetic is policies/quota.ts; here are its clock and its file. The clock is the wall's at start and goes on by
 * the monotonic one: setting the machine's time mints nothing, and what was saved means the same after a restart.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Charge } from '../../policies/charge.ts';
import {
  createQuotaState,
  progress,
  type QuotaState,
  type Reservation,
  release,
  reserve,
  settle,
} from '../../policies/quota.ts';
import { restore, snapshot } from '../../policies/quota-snapshot.ts';
import type { StateFile } from './state-file.ts';
import type { QuotaStore } from './store.ts';

/** What was spent within so long before a crash may be forgotten. */
const SAVE_MS = 1_000;
/** Longer where there is much to save: it takes no more than this share of the time. */
const SAVE_SHARE = 1 / 20;
/** Written between two looks at what else is to do: 2 ms where every counter is full. */
const COUNTERS_PER_TURN = 64;

export interface MemoryStorePorts {
  /** Milliseconds since the epoch, by a clock that is not set while it runs. */
  readonly now: () => number;
  /** Opens the file in which it is kept, when the first call is counted; `undefined`: it is not kept. */
  readonly openFile: () => Promise<StateFile | undefined>;
  readonly warn: (message: string) => void;
}

/** A wall clock that nobody sets. */
export function anchoredClock(wall: () => number, monotonic: () => number): () => number {
  const offset = wall() - monotonic();
  return () => monotonic() + offset;
}

export function createMemoryStore({ now, openFile, warn }: MemoryStorePorts): QuotaStore<Reservation> {
  let state: QuotaState | undefined;
  let file: StateFile | undefined;
  let opening: Promise<QuotaState> | undefined;
  let timer: NodeJS.Timeout | undefined;
  let saving: Promise<void> = Promise.resolve();
  let pauseMs = SAVE_MS;

  const open = async (): Promise<QuotaState> => {
    file = await openFile();
    state = (file === undefined ? undefined : await load(file, now(), warn)) ?? createQuotaState();
    return state;
  };
  const write = async () => {
    const startedAt = now();
    await file?.write(await textOf(state!));
    pauseMs = Math.max(SAVE_MS, (now() - startedAt) / SAVE_SHARE);
  };
  const save = () => {
    timer = undefined;
    saving = saving.then(write);
    return saving;
  };
  /** Off the path, and once for all that changes until then. */
  const changed = () => {
    if (file !== undefined) timer ??= setTimeout(save, pauseMs).unref();
  };
  const reserveIn = (opened: QuotaState, charges: readonly Charge[]) => {
    const reserved = reserve(opened, charges, now());
    if (reserved.ok) changed();
    return reserved;
  };
  return {
    reserve: (charges) => {
      if (state !== undefined) return reserveIn(state, charges);
      opening ??= open();
      return opening.then((opened) => reserveIn(opened, charges));
    },
    progress: (reservation, tokens) => {
      changed();
      return { over: progress(state!, reservation, tokens, now()) };
    },
    settle: (reservation, tokens) => {
      changed();
      return settle(state!, reservation, tokens, now());
    },
    release: (reservation) => {
      changed();
      release(state!, reservation, now());
    },
    close: async () => {
      await opening;
      const isDirty = timer !== undefined;
      clearTimeout(timer);
      if (isDirty) await save();
      await saving;
      await file?.close();
      file = undefined;
    },
  };
}

/** A snapshot as JSON, made in turns with everything else. */
async function textOf(state: QuotaState): Promise<string> {
  const { counters, ...head } = snapshot(state);
  const texts: string[] = [];
  for (const counter of counters) {
    texts.push(JSON.stringify(counter));
    if (texts.length % COUNTERS_PER_TURN === 0) await nextTurn();
  }
  return `${JSON.stringify(head).slice(0, -1)},"counters":[${texts.join(',\n')}]}\n`;
}

async function load(file: StateFile, now: number, warn: (message: string) => void): Promise<QuotaState | undefined> {
  const text = await file.read();
  if (text === undefined) return undefined;
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch {
    // Told below, like every other text that is no snapshot.
  }
  const restored = restore(data, now);
  if (restored === undefined) warn(`${file.path} holds no spent quota that can be read: every quota begins anew`);
  else if (restored.dropped > 0) warn(`${file.path}: ${restored.dropped} counters cannot be read, and begin anew`);
  return restored?.state;
}
