/** What counts as a difference between two runs of the suite. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ABSENT, compareRuns } from '../conformance/compare.ts';
import type { Check, Requirements } from '../conformance/suite.ts';

const SUCCESS: Check = { id: 'one', status: 'SUCCESS' };
const FAILURE: Check = { id: 'one', status: 'FAILURE' };
const scored: Requirements = { scored: ['scenario'], unscored: new Map() };
const unscored: Requirements = { scored: [], unscored: new Map([['scenario', 'extension']]) };

/** What the runs reported for the one scenario (nothing: it crashed), and the verdicts in order. */
const cases: [string, Requirements, Check[] | undefined, Check[] | undefined, string[]][] = [
  ['the same success', scored, [SUCCESS], [SUCCESS], ['same']],
  ['a success that became a failure', scored, [SUCCESS], [FAILURE], ['different']],
  ['a failure that became a success', scored, [FAILURE], [SUCCESS], ['different']],
  ['the same failure of a scored scenario', scored, [FAILURE], [FAILURE], ['failing']],
  ['the same failure of an unscored scenario', unscored, [FAILURE], [FAILURE], ['same']],
  ['a difference in an unscored scenario', unscored, [FAILURE], [SUCCESS], ['different']],
  ['a check that went missing', scored, [SUCCESS, { id: 'two', status: 'SUCCESS' }], [SUCCESS], ['same', 'different']],
  [
    'a check that only one run has',
    scored,
    [SUCCESS],
    [SUCCESS, { id: 'two', status: 'SUCCESS' }],
    ['same', 'different'],
  ],
  ['the second of two checks with one id', scored, [SUCCESS, SUCCESS], [SUCCESS, FAILURE], ['same', 'different']],
  ['a scored scenario that crashed in both runs', scored, undefined, undefined, ['failing']],
  ['an unscored scenario that crashed in both runs', unscored, undefined, undefined, ['same']],
];

for (const [name, requirements, direct, through, verdicts] of cases) {
  test(name, () => {
    const run = (checks: Check[] | undefined) => new Map(checks && [['scenario', checks]]);
    const comparisons = compareRuns(requirements, run(direct), run(through));
    assert.deepEqual(
      comparisons.map(({ verdict }) => verdict),
      verdicts,
    );
  });
}

test('a scenario that crashed in one run differs, and says in which', () => {
  const comparisons = compareRuns(scored, new Map([['scenario', [SUCCESS]]]), new Map());
  const lost = comparisons.find(({ check }) => check === 'one');
  assert.deepEqual([lost?.direct, lost?.through, lost?.verdict], ['SUCCESS', ABSENT, 'different']);
});
