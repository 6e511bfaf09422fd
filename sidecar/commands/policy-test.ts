/**
 * `sidecar policy test`: runs the cases that lie beside a policy, and tells which of its rules no case has decided.
 * Starts nothing, connects to nothing, and needs no secret.
 */
import { dirname } from 'node:path';
import { type CaseResult, type Coverable, coverageOf, runCase } from '../../policies/cases.ts';
import { ok, type Result } from '../../policies/result.ts';
import { findCasesFiles, type LoadedCases, loadCases } from '../config/cases-file.ts';
import { findNamedPolicy } from '../config/named-policy.ts';
import { isInLibrary, type LoadedPolicy, policyPath } from '../config/policy-source.ts';
import { type Problem, showFile } from '../config/problem.ts';
import { showPolicyFile } from './configuration-summary.ts';
import { problemOf, tellProblems, writeJson, writeLines } from './output.ts';
import { describeDecision, describePart, finderOf, havingPart, placeOf } from './policy-text.ts';

export interface PolicyTestOptions {
  readonly config?: string;
  /** Least share of roles, rules and quotas that cases have to cover, in percent. */
  readonly coverage?: number;
  readonly json: boolean;
}

export async function policyTest(paths: readonly string[], options: PolicyTestOptions): Promise<number> {
  const files = await filesOf(paths, options.config);
  if (!files.ok) return tellProblems([files.error].flat(), options.json);
  const loaded = await Promise.all(files.value.map(loadCases));
  const problems = loaded.flatMap((one) => (one.ok ? [] : one.error));
  if (problems.length > 0) return tellProblems(problems, options.json);
  const tested = loaded.flatMap((one) => (one.ok ? [one.value] : []));
  const withoutCases = await findUntested(paths, options.config, tested);
  const report = { ...reportOn(tested), withoutCases };
  const isEnough = report.coverage.percent >= (options.coverage ?? 0);
  const isOk = report.failed === 0 && isEnough;
  if (options.json) writeJson({ ok: isOk, ...report });
  else writeLines(describe(report, options.coverage));
  return isOk ? 0 : 1;
}

async function filesOf(
  paths: readonly string[],
  config: string | undefined,
): Promise<Result<readonly string[], Problem[]>> {
  const start =
    paths.length > 0 ? ok(paths.map((path) => policyPath(path, process.cwd()))) : await defaultPaths(config);
  if (!start.ok) return start;
  const found = await Promise.all(start.value.map(findCasesFiles));
  const problems = found.flatMap((one) => (one.ok ? [] : [problemOf(one.error)]));
  if (problems.length > 0) return { ok: false, error: problems };
  return ok([...new Set(found.flatMap((one) => (one.ok ? one.value : [])))]);
}

/** The policy that the configuration names, where it was to be tested and no file of cases is about it. */
async function findUntested(
  paths: readonly string[],
  config: string | undefined,
  tested: readonly LoadedCases[],
): Promise<string | undefined> {
  const named = await findNamedPolicy(config);
  if (!named.ok || named.value.source.kind !== 'path') return undefined;
  const { path } = named.value.source;
  const starts = paths.map((one) => policyPath(one, process.cwd()));
  const isAsked = paths.length === 0 || starts.some((start) => start === path || start === dirname(path));
  return isAsked && !tested.some(({ policyPath }) => policyPath === path) ? showPolicyFile(path) : undefined;
}

/** All cases beside the policy that the configuration names; of the library, those of that policy alone. */
async function defaultPaths(config: string | undefined): Promise<Result<readonly string[], Problem[]>> {
  const named = await findNamedPolicy(config);
  if (!named.ok) return named;
  const { source } = named.value;
  if (source.kind !== 'path')
    return { ok: false, error: [problemOf('only a policy in a file or folder has cases beside it: name the files')] };
  const isAlone = isInLibrary(source.path) || !/\.ya?ml$/.test(source.path);
  return ok([isAlone ? source.path : dirname(source.path)]);
}

interface FailedCase {
  readonly file: string;
  readonly line: number | undefined;
  readonly name: string;
  readonly differences: CaseResult['differences'];
  readonly decision: string;
  /** What each rule that has a part in it does. */
  readonly parts: readonly string[];
}

interface Report {
  readonly files: readonly { readonly cases: string; readonly policy: string }[];
  readonly passed: number;
  readonly failed: number;
  readonly failures: readonly FailedCase[];
  readonly coverage: {
    readonly percent: number;
    readonly missing: readonly { readonly kind: Coverable['kind']; readonly name: string; readonly place: string }[];
  };
}

function reportOn(files: readonly LoadedCases[]): Report {
  const ran = files.map((file) => ({ file, results: file.cases.map((one) => runCase(file.policy.policy, one)) }));
  const failures = ran.flatMap(({ file, results }) =>
    results.flatMap((result, index) =>
      result.differences.length === 0 ? [] : [failureOf(file, result, file.cases[index]!.line)],
    ),
  );
  const total = ran.reduce((sum, { results }) => sum + results.length, 0);
  return {
    files: files.map(({ file, policyPath }) => ({ cases: showPolicyFile(file), policy: showPolicyFile(policyPath) })),
    passed: total - failures.length,
    failed: failures.length,
    failures,
    coverage: coverageIn(ran),
  };
}

function failureOf({ file, policy }: LoadedCases, result: CaseResult, line: number | undefined): FailedCase {
  const { name, differences, explanation } = result;
  const parts = havingPart(explanation.targets.flatMap((target) => target.parts));
  const find = finderOf(policy);
  return {
    file: showFile(file),
    line,
    name,
    differences,
    decision: describeDecision(explanation.decision),
    parts: parts.flatMap((part) => describePart(part, find)),
  };
}

/** Several files may be about one policy: together they cover it. What it takes over from the library is tested there. */
function coverageIn(ran: readonly { readonly file: LoadedCases; readonly results: readonly CaseResult[] }[]) {
  const byPolicy = Map.groupBy(ran, ({ file }) => file.policyPath);
  const all = [...byPolicy].flatMap(([path, group]) => {
    const { policy } = group[0]!.file;
    const isOwn = ownPartsOf(policy, path);
    return coverageOf(
      policy.policy,
      group.flatMap(({ results }) => results),
    ).flatMap((one) => {
      const at = pathOf(one, policy);
      return isOwn(at) ? [{ ...one, place: placeOf(policy.locate, at) }] : [];
    });
  });
  const missing = all.filter(({ covered }) => !covered).map(({ kind, name, place }) => ({ kind, name, place }));
  const percent = all.length === 0 ? 100 : Math.floor((100 * (all.length - missing.length)) / all.length);
  return { percent, missing };
}

function ownPartsOf({ locate }: LoadedPolicy, policyFile: string) {
  return (path: readonly (string | number)[]): boolean =>
    isInLibrary(policyFile) || !isInLibrary(locate({ path, at: 'key', message: '' }).file ?? '');
}

function pathOf({ kind, name }: Coverable, { document }: LoadedPolicy): readonly (string | number)[] {
  if (kind === 'role') return ['roles', name];
  const section = `${kind}s`;
  const entries = Object(document)[section] as readonly { readonly name: string }[];
  return [section, entries.findIndex((one) => one.name === name)];
}

function describe(
  { files, passed, failed, failures, coverage, withoutCases }: Report & { readonly withoutCases: string | undefined },
  minimum: number | undefined,
): string[] {
  const { percent, missing } = coverage;
  const wanted = minimum !== undefined && percent < minimum ? `, and ${minimum} % is wanted` : '';
  return [
    ...files.map(({ cases, policy }) => (cases === policy ? `tests ${cases}` : `tests ${policy} by ${cases}`)),
    ...(withoutCases === undefined ? [] : [`${withoutCases}, which the configuration names, has no cases`]),
    '',
    ...failures.flatMap((failure) => [
      `FAIL ${failure.file}:${failure.line}  ${failure.name}`,
      ...failure.differences.flatMap(({ of, expected, got }) => [`  - ${of} ${expected}`, `  + ${of} ${got}`]),
      `  ${failure.decision}`,
      ...failure.parts.map((part) => `    ${part}`),
      '',
    ]),
    `${passed} passed, ${failed} failed`,
    `coverage ${percent} %${wanted}${missing.length === 0 ? '' : '; no case covers'}`,
    ...missing.map(({ kind, name, place }) => `  ${kind} ${name} (${place})`),
  ];
}
