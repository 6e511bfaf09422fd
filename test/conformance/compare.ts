/**
 * Two runs of the suite, check by check. Pure.
 *
 * Totals would hide what matters: a scenario that fails early reports fewer checks. So every check of either run is
 * one comparison, found by its scenario, its id and, as ids repeat, its turn among those of the same id.
 */
import type { Check, Requirements, ScenarioChecks } from './suite.ts';

/** Stands for a check that one of the runs does not have. */
export const ABSENT = 'ABSENT';

export interface Comparison {
  readonly scenario: string;
  readonly check: string;
  /** Counts for conformance, by the suite's own word. */
  readonly scored: boolean;
  readonly direct: string;
  readonly through: string;
  /** `different`: the proxy changed the verdict. `failing`: the server itself fails what the suite counts. */
  readonly verdict: 'same' | 'different' | 'failing';
}

/** Compares `direct` with `through` for all scenarios of `requirements`. One that ran in neither run is failing. */
export function compareRuns(
  { scored, unscored }: Requirements,
  direct: ScenarioChecks,
  through: ScenarioChecks,
): Comparison[] {
  return [...scored, ...unscored.keys()].flatMap((scenario) => {
    const left = numberChecks(direct.get(scenario));
    const right = numberChecks(through.get(scenario));
    const isScored = !unscored.has(scenario);
    return [...new Set([...left.keys(), ...right.keys()])].map((check): Comparison => {
      const statuses = { direct: left.get(check) ?? ABSENT, through: right.get(check) ?? ABSENT };
      return { scenario, check, scored: isScored, ...statuses, verdict: judge(statuses, isScored) };
    });
  });
}

function judge({ direct, through }: { direct: string; through: string }, isScored: boolean): Comparison['verdict'] {
  if (direct !== through) return 'different';
  return isScored && (direct === 'FAILURE' || direct === ABSENT) ? 'failing' : 'same';
}

/** Status by check. A scenario without a single check is one check that is absent, so that it cannot go unnoticed. */
function numberChecks(checks: readonly Check[] = []): Map<string, string> {
  const statuses = new Map<string, string>();
  const turns = new Map<string, number>();
  for (const { id, status } of checks) {
    const turn = (turns.get(id) ?? 0) + 1;
    turns.set(id, turn);
    statuses.set(turn === 1 ? id : `${id} (${turn})`, status);
  }
  if (statuses.size === 0) statuses.set('the scenario ran', ABSENT);
  return statuses;
}
