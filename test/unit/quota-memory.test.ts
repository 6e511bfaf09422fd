/**
 * Spent quota in this process: when it is written, by which clock, and what a file that is not as it should be costs.
 */
import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import type { Charge } from '../../policies/charge.ts';
import { anchoredClock, createMemoryStore } from '../../sidecar/quota/memory.ts';
import { StateFile } from '../../sidecar/quota/state-file.ts';

const CALL: Charge = {
  quota: 'two',
  dimension: 'calls',
  key: 'k',
  surplusKey: 's',
  agent: 'a',
  limit: 2,
  windowMs: 3_600_000,
  period: undefined,
  base: 1,
  perToken: 0,
  cost: 1,
  warnAt: 0.8,
};
const NOW = Date.parse('2026-11-21T12:00:00Z');

interface Options {
  readonly pid?: number;
  readonly alive?: readonly number[];
  readonly now?: () => number;
  readonly folder?: string;
}

/** Stores of several processes over one folder. */
async function setUp(context: TestContext) {
  const root = await mkdtemp(join(tmpdir(), 'quota-'));
  context.after(() => rm(root, { recursive: true, force: true }));
  const said: string[] = [];
  const warn = (text: string) => void said.push(text);
  const folder = join(root, 'state');
  const store = ({ pid = 11, alive = [], now = () => NOW, folder: own = folder }: Options = {}) =>
    createMemoryStore({
      now,
      warn,
      openFile: () => StateFile.open(own, 'quota.json', { warn, pid, isAlive: (other) => alive.includes(other) }),
    });
  return { root, folder, file: join(folder, 'quota.json'), said, store };
}

/** How many calls of 3 are granted. */
async function spend(store: ReturnType<typeof createMemoryStore>, count = 3): Promise<number> {
  let granted = 0;
  for (let call = 0; call < count; call++) if ((await store.reserve([CALL])).ok) granted++;
  return granted;
}

describe('spent quota in this process', () => {
  it('touches no disk before the first call is counted', async (context) => {
    const { folder, store } = await setUp(context);
    await store().close();
    await assert.rejects(stat(folder), { code: 'ENOENT' });
  });

  it('is written at the end, for this user only, and read at the next start', async (context) => {
    const { folder, file, said, store } = await setUp(context);
    const first = store();
    assert.equal(await spend(first), 2);
    await first.close();
    assert.equal((await stat(folder)).mode & 0o777, 0o700);
    assert.equal((await stat(file)).mode & 0o777, 0o600);
    assert.deepEqual(await readdir(folder), ['quota.json'], 'no lock and nothing half written is left');
    assert.equal(await spend(store()), 0);
    assert.deepEqual(said, []);
  });

  it('is written while it runs, once for what changes within a second', async (context) => {
    context.mock.timers.enable({ apis: ['setTimeout'] });
    const written: string[] = [];
    const { promise: isWritten, resolve } = Promise.withResolvers<void>();
    const file = {
      path: 'quota.json',
      read: async () => undefined,
      write: async (text: string) => {
        written.push(text);
        resolve();
      },
      close: async () => {},
    } as unknown as StateFile;
    const store = createMemoryStore({ now: () => NOW, warn: assert.fail, openFile: async () => file });
    assert.equal(await spend(store, 2), 2);
    context.mock.timers.tick(999);
    assert.equal(written.length, 0);
    context.mock.timers.tick(1);
    await isWritten;
    assert.equal(written.length, 1);
    assert.deepEqual(JSON.parse(written[0]!).counters[0].grants[0][1], 2);
    context.mock.timers.tick(60_000);
    await store.close();
    assert.equal(written.length, 1, 'nothing has changed since');
  });

  it('is written whole where there are more counters than one turn takes', async (context) => {
    const { file, store } = await setUp(context);
    const first = store();
    for (let call = 0; call < 200; call++) await first.reserve([{ ...CALL, key: `k${call}` }]);
    await first.close();
    assert.equal(JSON.parse(await readFile(file, 'utf8')).counters.length, 200);
  });

  it('of calls that come before the file is read is counted with what the file holds', async (context) => {
    const { store } = await setUp(context);
    const first = store();
    assert.equal(await spend(first, 1), 1);
    await first.close();
    const second = store();
    const together = await Promise.all([1, 2, 3].map(() => second.reserve([CALL])));
    assert.equal(together.filter(({ ok }) => ok).length, 1);
  });

  it('means the same after a restart with the clock set back', async (context) => {
    const { store } = await setUp(context);
    const first = store();
    assert.equal(await spend(first), 2);
    await first.close();
    const earlier = NOW - 90 * 86_400_000;
    let now = earlier;
    const second = store({ now: () => now });
    assert.equal(await spend(second), 0);
    now += 3_660_000;
    assert.equal(await spend(second), 2);
  });

  const BROKEN: Record<string, string> = {
    'no JSON': '{ "version": 1,',
    'no snapshot': '{}',
    'nothing at all': '',
    'another version': '{"version":9,"clock":0,"counters":[]}',
  };
  for (const [name, text] of Object.entries(BROKEN))
    it(`begins anew, and says so, when the file is ${name}`, async (context) => {
      const { file, said, store } = await setUp(context);
      const first = store();
      await spend(first, 1);
      await first.close();
      await writeFile(file, text);
      const second = store();
      assert.equal(await spend(second), 2);
      assert.match(said.join('\n'), /^.*quota\.json holds no spent quota that can be read: every quota begins anew$/);
      await second.close();
      assert.equal(await spend(store()), 0, 'and what is written then is whole');
    });

  it('keeps the counters that can be read, and says how many cannot', async (context) => {
    const { file, said, store } = await setUp(context);
    const first = store();
    await spend(first);
    await first.close();
    const saved = JSON.parse(await readFile(file, 'utf8'));
    saved.counters.push({ key: 5 }, null);
    await writeFile(file, JSON.stringify(saved));
    assert.equal(await spend(store()), 0);
    assert.match(said.join('\n'), /2 counters cannot be read/);
  });

  it('goes on, and says it once, where it cannot be written', async (context) => {
    const { folder, root, file, said, store } = await setUp(context);
    await writeFile(join(root, 'plain'), '');
    const below = store({ folder: join(root, 'plain') });
    assert.equal(await spend(below), 2);
    await below.close();
    assert.equal(said.length, 1);
    assert.match(said[0]!, /plain.*: what is spent does not survive a restart$/);

    said.length = 0;
    const opened = await StateFile.open(folder, 'quota.json', {
      warn: (text) => said.push(text),
      pid: 1,
      isAlive: () => false,
    });
    await rm(folder, { recursive: true });
    await writeFile(folder, '');
    await opened!.write('one');
    await opened!.write('two');
    assert.equal(said.length, 1);
    assert.match(said[0]!, /quota\.json cannot be written \(E(?:NOTDIR|EXIST)\): what is spent does not survive/);
    assert.ok(said[0]!.includes(file));
  });
});

describe('a folder of two sidecars', () => {
  it('is kept by the first, and the later one says so and counts by itself', async (context) => {
    const { file, said, store } = await setUp(context);
    const first = store({ pid: 11 });
    assert.equal(await spend(first), 2);
    const second = store({ pid: 12, alive: [11] });
    assert.equal(await spend(second), 2);
    assert.match(said.join('\n'), /quota\.json belongs to another sidecar \(process 11\)/);
    await second.close();
    await first.close();
    assert.equal(JSON.parse(await readFile(file, 'utf8')).counters[0].grants[0][1], 2);
  });

  const LEFT: Record<string, string> = {
    'that has ended': '99',
    'with our own id': '12',
    'that nobody wrote': '',
    rubbish: 'x',
  };
  for (const [name, holder] of Object.entries(LEFT))
    it(`is taken over from a lock ${name}`, async (context) => {
      const { folder, file, said, store } = await setUp(context);
      await store().close();
      const first = store();
      await spend(first, 1);
      await first.close();
      await writeFile(`${file}.lock`, holder);
      const second = store({ pid: 12, alive: [12] });
      assert.equal(await spend(second), 1);
      await second.close();
      assert.deepEqual([said, await readdir(folder)], [[], ['quota.json']]);
    });

  it('is found by many at once, and taken by one', async (context) => {
    const { folder, file, said } = await setUp(context);
    const open = (pid: number) =>
      StateFile.open(folder, 'quota.json', {
        warn: (text) => void said.push(text),
        pid,
        isAlive: (other) => other < 99,
      });
    for (const left of [undefined, '99', '99', 'x']) {
      said.length = 0;
      if (left !== undefined) await writeFile(`${file}.lock`, left);
      const owners = (await Promise.all([1, 2, 3, 4, 5].map(open))).filter((one) => one !== undefined);
      assert.equal(owners.length, 1);
      assert.equal(said.length, 4);
      await owners[0]!.close();
      assert.deepEqual(await readdir(folder), []);
    }
  });

  it('is free again for the next start when one was killed while it took it', async (context) => {
    const { folder, file, said, store } = await setUp(context);
    await (await StateFile.open(folder, 'quota.json', { warn: assert.fail, pid: 1, isAlive: () => false }))!.close();
    await writeFile(`${file}.lock.next`, '99');
    const second = store({ pid: 12 });
    assert.equal(await spend(second, 1), 1);
    await second.close();
    assert.match(said.join('\n'), /another sidecar \(process 99\)/);
    const third = store({ pid: 12 });
    await spend(third, 1);
    await third.close();
    assert.deepEqual([said.length, await readdir(folder)], [1, ['quota.json']]);
  });
});

describe('the clock', () => {
  it('is the wall’s at start, and goes on by the monotonic one', () => {
    let wall = NOW;
    let monotonic = 500;
    const clock = anchoredClock(
      () => wall,
      () => monotonic,
    );
    assert.equal(clock(), NOW);
    monotonic += 1500;
    wall -= 86_400_000;
    assert.equal(clock(), NOW + 1500);
  });
});
