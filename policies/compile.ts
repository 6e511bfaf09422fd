/**
 * A policy as written → the one compiled policy that filters lists, judges calls, picks quotas and redacts.
 *
 * All problems are reported at once, each with its path in the document. A policy with a problem compiles to nothing.
 */
import { areConflicting } from './arguments.ts';
import { compileCondition } from './cel.ts';
import { compileBudget, compiled, compilePrice, compileQuota } from './compile-quota.ts';
import { compileGlob } from './glob.ts';
import { hintOf } from './nearest.ts';
import type { CompiledPolicy, CompiledSelector, Grant, Pointer } from './policy.ts';
import { parsePointer } from './redact.ts';
import { err, ok, type Result } from './result.ts';
import { type PolicyDocument, policyFileSchema, policySchema } from './schema.ts';
import { indexGrants } from './selector-index.ts';
import { type DocumentProblem, problemsOfIssues } from './shape-problems.ts';
import { withNormalForms } from './uri.ts';
import { compileVirtualServer } from './virtual.ts';

/** @param document As parsed from YAML or JSON; it is checked against the schema here. */
export function compilePolicy(
  document: unknown,
  { env }: { readonly env: Readonly<Record<string, string | undefined>> },
): Result<CompiledPolicy, DocumentProblem[]> {
  const parsed = policySchema.safeParse(document);
  const problems = [...(parsed.success ? [] : shapeProblems(parsed.error.issues, document)), ...nameProblems(document)];
  if (parsed.success) problems.push(...constantProblems(parsed.data));
  if (!parsed.success || problems.length > 0) return err(problems);

  const policy = parsed.data;
  const grants = [...roleGrants(policy), ...policy.rules.map(ruleGrant)];
  const quotas = [...policy.quotas.map(compileQuota), ...policy.budgets.map(compileBudget)];
  const conditions = [...grants, ...quotas].map(({ condition }) => condition);
  return ok({
    audit: policy.mode === 'audit',
    allowByDefault: policy.default === 'allow',
    grants,
    index: indexGrants(grants),
    agentRoles: new Map(Object.entries(policy.agents).map(([agent, { roles }]) => [agent, roles])),
    quotas,
    prices: policy.prices.map(compilePrice),
    countsTokens:
      policy.quotas.some(({ tokens }) => tokens !== undefined) ||
      policy.prices.some(({ perThousandTokens }) => perThousandTokens > 0),
    redactions: policy.redact.map((redaction) => ({
      server: compiled(compileGlob(redaction.server)),
      tools: redaction.tools?.map((glob) => compiled(compileGlob(glob))),
      pointers: pointersOf(redaction.arguments),
      result: pointersOf(redaction.result),
    })),
    argumentRules: policy.arguments.map(({ name, server, tools, remove, set, validate }) => ({
      name,
      server: compiled(compileGlob(server)),
      tools: tools.map((glob) => compiled(compileGlob(glob))),
      remove: pointersOf(remove),
      set: Object.entries(set ?? {}).map(([pointer, value]) => ({ pointer: compiled(parsePointer(pointer)), value })),
      validate: validate === true,
    })),
    env: Object.fromEntries(Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined)),
    usesAnnotations: conditions.some((condition) => condition?.usesAnnotations),
    virtualServers: new Map(
      Object.entries(policy.virtualServers).map(([name, one]) => [name, compileVirtualServer(name, one)]),
    ),
    within: undefined,
    memo: new Map(),
    hiding: new Map(),
  });
}

function shapeProblems(issues: Parameters<typeof problemsOfIssues>[0], document: unknown): DocumentProblem[] {
  // Whoever writes a file may write `extends` too; it is gone from what is compiled, save where it has no place.
  const schema = fieldOf(document, 'extends') === undefined ? policyFileSchema : policySchema;
  return problemsOfIssues(issues, document, schema);
}

function pointersOf(texts: readonly string[] = []): Pointer[] {
  return texts.map((text) => compiled(parsePointer(text)));
}

function roleGrants({ roles }: PolicyDocument): Grant[] {
  return Object.entries(roles).flatMap(([role, sides]) =>
    (['deny', 'allow'] as const).flatMap((effect) => {
      const selectors = sides[effect];
      if (selectors === undefined) return [];
      const compiledSelectors = selectors.map(compileSelector);
      return [
        { label: `role ${role}`, role, effect, audit: false, selectors: compiledSelectors, condition: undefined },
      ];
    }),
  );
}

function ruleGrant(rule: PolicyDocument['rules'][number]): Grant {
  return {
    label: rule.name,
    role: undefined,
    effect: rule.deny === undefined ? 'allow' : 'deny',
    audit: rule.mode === 'audit',
    selectors: (rule.deny ?? rule.allow ?? []).map(compileSelector),
    condition: rule.when === undefined ? undefined : compiled(compileCondition(rule.when)),
  };
}

type Selector = NonNullable<PolicyDocument['rules'][number]['allow']>[number];

function compileSelector({
  server,
  tools = [],
  prompts = [],
  resources = [],
  methods = [],
}: Selector): CompiledSelector {
  return { server, tool: tools, prompt: prompts, resource: withNormalForms(resources), method: methods };
}

/** Constants for one place that would always refuse; those that only meet at some tool are told when they do. */
function constantProblems({ arguments: entries }: PolicyDocument): DocumentProblem[] {
  const problems: DocumentProblem[] = [];
  const constants = entries.map(({ set }) =>
    Object.entries(set ?? {}).map(([text, value]) => ({ text, pointer: compiled(parsePointer(text)), value })),
  );
  for (const [index, entry] of entries.entries())
    for (const [otherIndex, other] of entries.slice(0, index + 1).entries()) {
      const isSameEntry = otherIndex === index;
      if (!isSameEntry && !(entry.server === other.server && entry.tools.some((glob) => other.tools.includes(glob))))
        continue;
      for (const [position, one] of constants[index]!.entries()) {
        const against = isSameEntry ? constants[index]!.slice(0, position) : constants[otherIndex]!;
        const conflict = against.find((two) => areConflicting(one, two));
        if (conflict === undefined) continue;
        const message = `cannot be set beside ${conflict.text} of ${isSameEntry ? 'the same entry' : other.name}`;
        problems.push({ path: ['arguments', index, 'set', one.text], at: 'key', message });
      }
    }
  return problems;
}

/** What holds between parts. Reads the document as it came, so that it is told together with errors of shape. */
function nameProblems(document: unknown): DocumentProblem[] {
  const problems: DocumentProblem[] = [];
  // Budgets and quotas are told apart by nothing but their names.
  for (const sections of [
    ['rules', 'arguments'],
    ['quotas', 'budgets'],
  ]) {
    const seen = new Set<unknown>();
    const entries = sections.flatMap((section) =>
      entriesOf(fieldOf(document, section)).map(([index, entry]) => [section, index, entry] as const),
    );
    for (const [section, index, entry] of entries) {
      const name = fieldOf(entry, 'name');
      if (typeof name === 'string' && seen.has(name))
        problems.push({
          path: [section, Number(index), 'name'],
          at: 'value',
          message: `another entry is named ${name} too`,
        });
      seen.add(name);
    }
  }
  if (entriesOf(fieldOf(document, 'budgets')).length > 0 && entriesOf(fieldOf(document, 'prices')).length === 0)
    problems.push({ path: ['budgets'], at: 'key', message: 'count nothing without prices: say what calls cost' });
  const roles = new Set(entriesOf(fieldOf(document, 'roles')).map(([role]) => role));
  for (const [agent, entry] of entriesOf(fieldOf(document, 'agents')))
    for (const [index, role] of entriesOf(fieldOf(entry, 'roles')))
      if (typeof role === 'string' && !roles.has(role))
        problems.push({
          path: ['agents', agent, 'roles', Number(index)],
          at: 'value',
          message: `no role is named ${role}; ${hintOf(role, [...roles])}`,
        });
  return problems;
}

function entriesOf(value: unknown): [string, unknown][] {
  return typeof value === 'object' && value !== null ? Object.entries(value) : [];
}

function fieldOf(value: unknown, field: string): unknown {
  return entriesOf(value).find(([key]) => key === field)?.[1];
}
