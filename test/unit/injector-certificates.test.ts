/**
 * When an authority is made, promoted and forgotten, by a table of times and by many replicas that look at any time.
 */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import {
  AUTHORITY_MS,
  type Authorities,
  type Authority,
  bundleOf,
  isDue,
  LEAF_MS,
  nextStep,
  withNew,
} from '../../injector/certificate-authority.ts';
import fc from '../support/fast-check.ts';

const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;
/** A year that begins at 0: it is due from 2/3 of it on. */
const DUE = (AUTHORITY_MS * 2) / 3;

const authority = (certificate: string, from = 0, until = from + AUTHORITY_MS): Authority => ({
  certificate,
  key: `the key of ${certificate}`,
  from,
  until,
});
const only = (current = authority('one')): Authorities => ({
  current,
  next: undefined,
  nextSince: undefined,
  earlier: [],
});
const both = (since: number): Authorities => ({ ...only(), next: authority('two', since), nextSince: since });

suite('the step that is due', () => {
  const cases: Record<string, [found: Authorities | undefined, now: number, kind: string]> = {
    'nothing is there': [undefined, 0, 'make'],
    'a new one': [only(), 1, 'keep'],
    'before two thirds of its time': [only(), DUE - 1, 'keep'],
    'at two thirds of its time': [only(), DUE, 'make'],
    'after its end': [only(), AUTHORITY_MS, 'make'],
    'the next one is not known everywhere yet': [both(DUE), DUE + 10 * MINUTE_MS - 1, 'keep'],
    'the next one is known everywhere': [both(DUE), DUE + 10 * MINUTE_MS, 'promote'],
    'the current one ends before the next is known everywhere': [both(AUTHORITY_MS - 1), AUTHORITY_MS, 'promote'],
    'a clock that goes wrong': [both(DUE), 0, 'keep'],
  };
  for (const [name, [found, now, kind]] of Object.entries(cases))
    test(`${name}: ${kind}`, () => assert.equal(nextStep(found, now).kind, kind));

  test('what is promoted signs, and what it follows is trusted until its end', () => {
    const now = DUE + 10 * MINUTE_MS;
    const earlier = [
      { certificate: 'alive', until: now + 1 },
      { certificate: 'ended', until: now },
    ];
    const step = nextStep({ ...both(DUE), earlier }, now);
    assert.ok(step.kind === 'promote');
    assert.deepEqual(step.authorities, {
      current: authority('two', DUE),
      next: undefined,
      nextSince: undefined,
      earlier: [
        { certificate: 'one', until: AUTHORITY_MS },
        { certificate: 'alive', until: now + 1 },
      ],
    });
  });
  test('what has ended is trusted no longer', () => {
    const step = nextStep(both(AUTHORITY_MS - 1), AUTHORITY_MS);
    assert.ok(step.kind === 'promote');
    assert.deepEqual(step.authorities.earlier, []);
  });
});

suite('a new authority', () => {
  test('stands beside the one that signs', () => {
    assert.deepEqual(withNew(only(), authority('two', DUE), DUE), both(DUE));
  });
  for (const [name, found] of Object.entries({ 'there is none': undefined, 'it has ended': only() }))
    test(`signs at once where ${name}`, () => {
      const made = authority('two', AUTHORITY_MS);
      assert.deepEqual(withNew(found, made, AUTHORITY_MS), only(made));
    });
  test('is trusted from the start, and so are those before it', () => {
    const earlier = [{ certificate: 'zero\n', until: AUTHORITY_MS }];
    assert.equal(bundleOf({ ...both(DUE), earlier }), 'one\ntwo\nzero\n');
  });
});

test('a leaf is due at two thirds of its day', () => {
  const leaf = { from: 0, until: LEAF_MS };
  assert.deepEqual([isDue(leaf, 16 * 60 * MINUTE_MS - 1), isDue(leaf, 16 * 60 * MINUTE_MS)], [false, true]);
});

test('property: no replica ever shows a leaf whose authority was not trusted ten minutes before', () => {
  const looks = fc.array(
    fc.record({ replica: fc.integer({ min: 0, max: 2 }), afterMs: fc.integer({ min: 1, max: 2 * MINUTE_MS }) }),
    { minLength: 100, maxLength: 400 },
  );
  // Near the ends of an authority's time, where something happens.
  const start = fc.constantFrom(0, DUE - 3 * MINUTE_MS, 2 * DUE - 20 * MINUTE_MS);
  fc.assert(
    fc.property(start, looks, (from, schedule) => {
      let secret: Authorities | undefined;
      let made = 0;
      const trustedSince = new Map<string, number>();
      const look = (now: number): string => {
        for (;;) {
          const step = nextStep(secret, now);
          if (step.kind === 'keep') break;
          secret = step.kind === 'promote' ? step.authorities : withNew(secret, authority(`no. ${made++}`, now), now);
        }
        const bundle = bundleOf(secret!).trim().split('\n');
        for (const one of bundle) if (!trustedSince.has(one)) trustedSince.set(one, now);
        for (const one of trustedSince.keys()) if (!bundle.includes(one)) trustedSince.delete(one);
        return secret!.current.certificate;
      };
      const first = look(0);
      const shown = [first, first, first];
      // Looked at each day until it becomes interesting.
      let now = 0;
      for (; now < from; now += Math.min(DAY_MS, from - now)) shown.fill(look(now));
      for (const { replica, afterMs } of schedule) {
        now += afterMs;
        const before = shown[replica];
        const issuer = look(now);
        shown[replica] = issuer;
        if (issuer !== before) assert.ok(now - trustedSince.get(issuer)! >= 10 * MINUTE_MS, `${issuer} is too new`);
        for (const one of shown) assert.ok(trustedSince.has(one), `${one} is shown and not trusted`);
      }
    }),
  );
});
