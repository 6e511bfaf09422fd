/** Places: whatever agents do, there are never more taken than there may be, and all come back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Admission, type Place, type PlaceKind } from '../../sidecar/pipeline/admission.ts';
import fc from '../support/fast-check.ts';

const kind = fc.constantFrom<PlaceKind>('inFlight', 'streams', 'leftBehind');
const agent = fc.constantFrom('one', 'two', 'three');
const step = fc.oneof(
  fc.record({ does: fc.constant('enter' as const), kind, agent }),
  fc.record({ does: fc.constantFrom('another' as const, 'leave' as const), at: fc.nat() }),
  fc.record({ does: fc.constant('move' as const), at: fc.nat(), kind }),
);

interface Taken {
  readonly place: Place;
  kind: PlaceKind;
  readonly agent: string;
}

test('as many places as a model of them says, and none over its limit or its agent’s half', () => {
  fc.assert(
    fc.property(
      fc.record({ inFlight: fc.integer({ min: 1, max: 5 }), streams: fc.integer({ min: 1, max: 5 }) }),
      fc.boolean(),
      fc.array(step, { maxLength: 60 }),
      (limits, isShared, steps) => {
        const admission = new Admission(limits, isShared);
        const taken: Taken[] = [];
        const limitOf = (of: PlaceKind) => limits[of === 'leftBehind' ? 'inFlight' : of];
        const hasRoom = (of: PlaceKind, by: string) => {
          const all = taken.filter((one) => one.kind === of);
          const own = all.filter((one) => one.agent === by).length;
          return all.length < limitOf(of) && (!isShared || own < Math.ceil(limitOf(of) / 2));
        };
        const enter = (of: PlaceKind, by: string) => {
          const expected = hasRoom(of, by);
          const entered = admission.enter(of, by);
          assert.equal(entered.ok, expected);
          if (entered.ok) taken.push({ place: entered.value, kind: of, agent: by });
        };
        for (const one of steps) {
          if (one.does === 'enter') {
            enter(one.kind, one.agent);
            continue;
          }
          const index = one.at % Math.max(1, taken.length);
          const held = taken[index];
          if (held === undefined) continue;
          if (one.does === 'another') {
            const expected = hasRoom(held.kind, held.agent);
            const another = held.place.another();
            assert.equal(another.ok, expected);
            if (another.ok) taken.push({ ...held, place: another.value });
          } else if (one.does === 'move') {
            const expected = one.kind === held.kind || hasRoom(one.kind, held.agent);
            assert.equal(held.place.move(one.kind) === undefined, expected);
            if (expected) held.kind = one.kind;
          } else {
            taken.splice(index, 1);
            held.place.leave();
            // Twice is once, and who has left takes nothing any more.
            held.place.leave();
            held.place.move('leftBehind');
          }
          for (const every of ['inFlight', 'streams', 'leftBehind'] as const)
            assert.equal(admission[every], taken.filter((each) => each.kind === every).length);
        }
        for (const { place } of taken) place.leave();
        assert.equal(admission.taken, 0);
      },
    ),
  );
});

test('a place that was taken before its agent was known is then of its share, and stays taken when that is spent', () => {
  const admission = new Admission({ inFlight: 4, streams: 1 }, true);
  const places = [0, 1, 2].map(() => {
    const entered = admission.enter('inFlight');
    assert.ok(entered.ok);
    return entered.value;
  });
  assert.deepEqual(
    places.map((place) => place.enterAs('one')?.kind),
    [undefined, undefined, 'unavailable'],
  );
  assert.equal(admission.inFlight, 3);
  for (const place of places) place.leave();
  assert.equal(admission.taken, 0);
  const again = admission.enter('inFlight', 'one');
  assert.ok(again.ok);
});
