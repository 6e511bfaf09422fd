/**
 * A file of cases (`<policy>.cases.yaml`) → cases with the policy that they are about, or every problem with its place.
 *
 * Nothing of the machine comes in: `env` holds what the file says, and a case that names no time has a fixed one, so
 * that a case which holds today holds tomorrow.
 */
import { access, readdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import * as z from 'zod';
import type { Case, Expectation } from '../../policies/cases.ts';
import type { Subject } from '../../policies/decision.ts';
import { messageOf, QUALIFIED_NAME } from '../../policies/request.ts';
import { err, ok, type Result } from '../../policies/result.ts';
import {
  isInLibrary,
  type LoadedPolicy,
  loadPolicy,
  notInLibrary,
  type PolicySource,
  policyPath,
} from './policy-source.ts';
import { type DocumentProblem, type Problem, problemsOfIssues, showFile } from './problem.ts';
import { readYaml, type YamlDocument } from './yaml-document.ts';

/** A Wednesday noon, UTC. */
const AT_BY_DEFAULT = Date.UTC(2026, 0, 7, 12);

const name = z.string().min(1).max(200);
const mapping = z.record(z.string(), z.unknown());
const qualified = z.string().max(300).regex(QUALIFIED_NAME, 'must be <server>.<name>, for example github.list_issues');

const agent = z.union([
  name,
  z.strictObject({
    name,
    group: name.optional(),
    roles: z.array(name).max(100).optional(),
    claims: mapping.optional(),
  }),
]);
const user = z.union([name, z.strictObject({ sub: name, claims: mapping.optional() })]);

const request = z.union([
  z.strictObject({ tool: qualified, args: mapping.optional() }),
  z.strictObject({ prompt: qualified, args: mapping.optional() }),
  z.strictObject({ resource: z.strictObject({ server: name, uri: z.string().min(1).max(4096) }) }),
  z.strictObject({ method: name, server: name, params: mapping.optional() }),
  z.strictObject({ body: mapping, server: name }),
]);

const verdict = z.enum(['allow', 'refuse', 'hide']);
const expectation = z.union([
  verdict,
  z.strictObject({
    verdict,
    rule: name.optional().describe('The rule or "role <name>" that decides.'),
    wouldBe: z.enum(['refuse', 'hide']).optional().describe('In audit mode: what enforcing would do.'),
    quotas: z.array(name).max(1000).optional().describe('All the quotas and budgets by which the call is counted.'),
    recorded: z.unknown().optional().describe('The arguments as the audit shows them.'),
  }),
]);

const casesSchema = z.strictObject({
  policy: z
    .union([z.string().min(1).max(4096), mapping])
    .optional()
    .describe('A path, library/<name>, or a policy itself. Default: the policy of the same name beside this file.'),
  env: z.record(z.string(), z.string()).default({}).describe('The variable env of conditions.'),
  tools: z
    .record(name, z.record(name, z.strictObject({ annotations: mapping })))
    .default({})
    .describe('By server and tool: the hints that the server gives for it.'),
  cases: z
    .array(
      z.strictObject({
        name,
        agent,
        user: user.optional(),
        session: name.optional().describe('The variable session.id of conditions. Default: none.'),
        at: z.iso
          .datetime({ offset: true, error: 'must be a time such as 2026-03-01T12:00:00Z' })
          .optional()
          .describe('Default: a Wednesday noon.'),
        virtual: name.optional().describe('The virtual server at whose endpoint it comes.'),
        request,
        expect: expectation,
      }),
    )
    .min(1)
    .max(10_000),
});

export interface LoadedCases {
  readonly file: string;
  /** Of the policy that they are about: this very file, where it stands in it. */
  readonly policyPath: string;
  readonly policy: LoadedPolicy;
  readonly cases: readonly (Case & { readonly line: number | undefined })[];
}

export async function loadCases(file: string): Promise<Result<LoadedCases, Problem[]>> {
  const document = await readYaml(file);
  if (!document.ok) return document;
  const { value, locate } = document.value;
  const parsed = casesSchema.safeParse(value);
  if (!parsed.success) return err(problemsOfIssues(parsed.error.issues, value, casesSchema).map(locate));
  const source = await findPolicy(document.value, parsed.data.policy);
  if (!source.ok) return source;
  const policy = await loadPolicy(source.value, parsed.data.env);
  if (!policy.ok) return policy;
  const unknown = parsed.data.cases.flatMap(({ virtual }, index) =>
    virtual === undefined || policy.value.policy.virtualServers.has(virtual)
      ? []
      : [
          locate({
            path: ['cases', index, 'virtual'],
            at: 'value',
            message: 'the policy has no virtual server of this name',
          }),
        ],
  );
  if (unknown.length > 0) return err(unknown);
  const cases = parsed.data.cases.map((one, index) => ({
    ...caseOf(one, parsed.data.tools),
    line: locate({ path: ['cases', index], at: 'value', message: '' }).line,
  }));
  const policyPath = source.value.kind === 'path' ? source.value.path : file;
  return ok({ file, policyPath, policy: policy.value, cases });
}

async function findPolicy(
  { file, locate }: YamlDocument,
  policy: string | Readonly<Record<string, unknown>> | undefined,
): Promise<Result<PolicySource, Problem[]>> {
  const folder = dirname(file);
  if (typeof policy === 'object') {
    const inside = (problem: DocumentProblem) => locate({ ...problem, path: ['policy', ...problem.path] });
    return ok({ kind: 'inline', value: policy, folder, locate: inside });
  }
  const path = policy === undefined ? file.replace(/\.cases(\.ya?ml)$/, '$1') : policyPath(policy, folder);
  if (path !== file && (await isThere(path))) return ok({ kind: 'path', path });
  const message =
    policy === undefined
      ? `there is no ${basename(path)} beside this file: write policy: <the path of a file or folder, or library/<name>>`
      : 'does not exist';
  return err([locate({ path: ['policy'], at: 'value', message })]);
}

type CaseDocument = z.output<typeof casesSchema>['cases'][number];

function caseOf(document: CaseDocument, tools: z.output<typeof casesSchema>['tools']): Case {
  const { server, body } = messageOf(document.request);
  const expected: Expectation = typeof document.expect === 'string' ? { verdict: document.expect } : document.expect;
  return {
    name: document.name,
    virtual: document.virtual,
    question: {
      subject: subjectOf(document),
      server,
      body,
      sessionId: document.session,
      now: document.at === undefined ? AT_BY_DEFAULT : Date.parse(document.at),
      annotationsOf: (tool) => tools[server]?.[tool]?.annotations,
    },
    expected,
  };
}

function subjectOf({ agent, user }: Pick<CaseDocument, 'agent' | 'user'>): Subject {
  const { name, group = 'default', roles = [], claims = {} } = typeof agent === 'string' ? { name: agent } : agent;
  const { sub, claims: userClaims = {} } = typeof user === 'string' ? { sub: user } : (user ?? { sub: undefined });
  return {
    agent: { name, group, roles, claims },
    user: sub === undefined ? undefined : { sub, claims: userClaims },
  };
}

const CASES_FILE = /\.cases\.ya?ml$/;

/**
 * The files of cases that a path leads to: itself, those in the folder, or the one beside a policy of the same name. The
 * error is a sentence.
 */
export async function findCasesFiles(path: string): Promise<Result<readonly string[], string>> {
  if (CASES_FILE.test(path)) return ok([path]);
  const names = await readdir(path).catch(() => undefined);
  if (names === undefined) {
    const file = path.replace(/(\.ya?ml)$/, '.cases$1');
    if (file !== path && (await isThere(file))) return ok([file]);
    if (isInLibrary(path)) return err(`${showFile(path)} ${await notInLibrary()}`);
    return err(
      `${showFile(path)} has no cases: write them to ${showFile(file === path ? `${path}.cases.yaml` : file)}`,
    );
  }
  const found = names.filter((name) => CASES_FILE.test(name)).sort();
  return found.length > 0 ? ok(found.map((name) => join(path, name))) : err(`${showFile(path)} holds no *.cases.yaml`);
}

function isThere(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
