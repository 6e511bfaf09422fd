/**
 * Answers that come another way than as the reply: which call each is charged to, how often, and when it is withheld.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Charge } from '../../policies/charge.ts';
import type { Answered, Permitted } from '../../sidecar/pipeline/exchange.ts';
import { LateAnswers } from '../../sidecar/pipeline/late-answers.ts';
import { createMemoryStore } from '../../sidecar/quota/memory.ts';

const TOKENS: Charge = {
  quota: 'tokens',
  dimension: 'tokens',
  key: 'k',
  surplusKey: 's',
  agent: 'a',
  limit: 100,
  windowMs: 3_600_000,
  period: undefined,
  base: 0,
  perToken: 1,
  cost: 0,
  warnAt: 0.8,
};
const QUOTA = { name: 'tokens', kind: 'quota', hard: true, onLimit: 'refuse', bounds: [{ windowMs: 60_000 }] };
const CALLS: Charge = {
  ...TOKENS,
  quota: 'calls',
  dimension: 'calls',
  key: 'c',
  limit: 1,
  base: 1,
  perToken: 0,
  cost: 1,
};

interface Options {
  readonly era?: 'legacy' | 'modern';
  readonly session?: string | undefined;
  readonly server?: string;
  readonly quota?: object;
  readonly audit?: boolean;
  readonly id?: number | string;
}

function exchange({ era = 'legacy', server = 'main', quota, audit = false, id = 7, ...rest }: Options = {}) {
  return {
    era,
    route: { server },
    upstreamSessionId: 'session' in rest ? rest.session : 'one',
    message: { id, method: 'tools/call' },
    policy: { audit, quotas: [{ ...QUOTA, ...quota }] },
  } as unknown as Permitted & Answered;
}

function setUp() {
  const store = createMemoryStore({ now: () => 0, openFile: async () => undefined, warn: () => {} });
  const warned: number[] = [];
  const late = new LateAnswers({ store, now: () => 0, warn: ({ used }) => warned.push(used) });
  const charge = async (id: unknown, tokens: number, options?: Options) => {
    const reason = await late.charge(exchange(options), id, tokens);
    return reason?.kind === 'quota' ? reason.quota : reason;
  };
  return { store, late, warned, charge };
}

describe('a late answer', () => {
  it('is charged its tokens, each time, and withheld when they are too much', async () => {
    const { late, charge, warned } = setUp();
    late.expect(exchange(), [TOKENS]);
    assert.equal(await charge(7, 60), undefined);
    assert.deepEqual(warned, []);
    assert.equal(await charge(7, 40), undefined);
    assert.deepEqual(warned, [100]);
    assert.equal(await charge(7, 1), 'tokens');
    assert.equal(await charge(7, 1), 'tokens', 'also when nothing is left');
  });

  it('costs no more than its tokens', async () => {
    const { store, late, charge } = setUp();
    late.expect(exchange(), [CALLS, { ...TOKENS, base: 50, cost: 80 }]);
    assert.equal(await charge(7, 100), undefined);
    assert.equal((await store.reserve([CALLS])).ok, true);
  });

  it('belongs to the call of its id, session and server', async () => {
    const { late, charge } = setUp();
    late.expect(exchange(), [TOKENS]);
    for (const [id, options] of [
      ['7', {}],
      [8, {}],
      [7, { session: 'other' }],
      [7, { session: undefined }],
      [7, { server: 'other' }],
      [7, { era: 'modern' }],
    ] as const)
      assert.equal(await charge(id, 1000, options), undefined);
    assert.equal(await charge(7, 1000), 'tokens');
  });

  it('is found by an id of any length, of which a digest is kept', async () => {
    const { late, charge } = setUp();
    const id = 'x'.repeat(10_000);
    late.expect(exchange({ id }), [TOKENS]);
    assert.equal(await charge(`${id}y`, 1000), undefined);
    assert.equal(await charge(id, 1000), 'tokens');
  });

  it('is withheld only by a hard quota of a policy that enforces', async () => {
    for (const options of [{ quota: { hard: false } }, { quota: { name: 'other' } }, { audit: true }]) {
      const { store, late, charge } = setUp();
      late.expect(exchange(options), [TOKENS]);
      assert.equal(await charge(7, 1000), undefined);
      assert.equal((await store.reserve([{ ...TOKENS, cost: 1 }])).ok, false, 'and charged all the same');
    }
  });

  it('is told to the model where the quota of its call says so', async () => {
    const { late } = setUp();
    late.expect(exchange({ quota: { onLimit: 'toolError' } }), [TOKENS]);
    const reason = await late.charge(exchange(), 7, 1000);
    assert.deepEqual(reason, {
      kind: 'quota',
      what: 'quota',
      quota: 'tokens',
      retryAfterMs: 60_000,
      asToolError: true,
    });
  });

  it('is no longer expected once its call was answered, or never where there is no session', async () => {
    const { late, charge } = setUp();
    late.expect(exchange(), [TOKENS])!();
    assert.equal(await charge(7, 1000), undefined);
    assert.equal(late.expect(exchange({ session: undefined }), [TOKENS]), undefined);
  });

  it('stays expected when its id is used for another call that is answered', async () => {
    const { late, charge } = setUp();
    late.expect(exchange(), [TOKENS]);
    late.expect(exchange(), [TOKENS])?.();
    assert.equal(await charge(7, 1000), 'tokens');
  });

  it('is expected for the latest 4096 calls', async () => {
    const { late, charge } = setUp();
    for (let id = 0; id <= 4096; id++) late.expect(exchange({ id }), [TOKENS]);
    assert.equal(await charge(0, 1000), undefined);
    assert.equal(await charge(1, 1000), 'tokens');
  });
});
