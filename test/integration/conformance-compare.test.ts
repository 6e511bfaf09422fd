/**
 * The comparison behind `npm run test:conformance` on two proxies whose verdict is known: one that is transparent,
 * and one that breaks streams. A few scenarios only; the whole suite is a command of its own.
 */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { compareRuns } from '../conformance/compare.ts';
import { startConformanceServer } from '../conformance/server.ts';
import { checkServerScenarios, readServerRequirements, type ScenarioChecks } from '../conformance/suite.ts';
import { startPipe } from '../support/pipe.ts';

const REVISION = '2026-07-28';
const SCENARIOS = ['server-stateless', 'dns-rebinding-protection'];
const requirements = { scored: SCENARIOS, unscored: new Map<string, string>() };

let direct: ScenarioChecks;
let streamed: ScenarioChecks;
let buffered: ScenarioChecks;

/** One run against a server of its own, because a change that one run announces would reach the listeners of another. */
async function check(through?: 'stream' | 'buffer'): Promise<ScenarioChecks> {
  const server = await startConformanceServer();
  const pipe = through && (await startPipe(server.url, through));
  try {
    return await checkServerScenarios((pipe ?? server).url, REVISION, SCENARIOS);
  } finally {
    await pipe?.close();
    await server.close();
  }
}

before(async () => {
  [direct, streamed, buffered] = await Promise.all([check(), check('stream'), check('buffer')]);
});

test('a proxy that passes every byte on as it comes is identical, check by check', () => {
  const comparisons = compareRuns(requirements, direct, streamed);
  assert.deepEqual(
    comparisons.filter(({ verdict }) => verdict !== 'same'),
    [],
  );
  assert.ok(comparisons.length > 20, `only ${comparisons.length} checks were compared`);
  assert.ok(comparisons.every((comparison) => comparison.direct === 'SUCCESS'));
});

test('a proxy that holds answers back is found out', () => {
  const comparisons = compareRuns(requirements, direct, buffered);
  const different = comparisons.filter(({ verdict }) => verdict === 'different').map(({ check }) => check);
  assert.ok(
    different.some((check) => check.includes('subscription')),
    `differences: ${different.join(', ') || 'none'}`,
  );
});

test('the requirement sets name what is scored, and why the rest is not', async () => {
  const { scored, unscored } = await readServerRequirements(REVISION);
  assert.ok(SCENARIOS.every((scenario) => scored.includes(scenario)));
  assert.equal(unscored.get('tasks-lifecycle'), 'extension');
});
