/**
 * The shape of policy.yaml. Strict: an unknown key is an error, and so is a glob, rate, pointer or condition that does
 * not compile, each at its own path. What holds between parts (names, roles) is checked by compile.ts.
 *
 * The only file here with zod schemas.
 */
import * as z from 'zod';
import { COST, parseCost } from './budget.ts';
import { compileCondition, compileValue, EXPRESSION_MAX } from './cel.ts';
import { GLOB_MAX, globProblem } from './glob.ts';
import { parseRate, RATE, RATE_FORM } from './rate.ts';
import { parsePointer } from './redact.ts';
import { splitQualified } from './request.ts';

const name = z.string().min(1).max(100);

/** Of a server, and of a virtual one: both stand in a path. */
const serverName = z
  .string()
  .max(63)
  .regex(/^[a-z0-9][a-z0-9-]*$/, 'is not a server name: lower-case letters, digits and dashes, at most 63');

const glob = z.string().min(1).max(GLOB_MAX).superRefine(report(globProblem));
const globs = z.array(glob, list('[list_*]')).min(1).max(1000);

const condition = z
  .string()
  .min(1)
  .max(EXPRESSION_MAX)
  .superRefine(report((text) => problemOf(compileCondition(text))))
  .describe('A CEL expression that must be true for the entry to apply.');

const rate = z
  .string()
  .regex(RATE, RATE_FORM)
  .superRefine(report((text) => (RATE.test(text) ? problemOf(parseRate(text)) : undefined)));

const selector = z
  .strictObject({
    server: glob.default('*'),
    tools: globs.optional(),
    prompts: globs.optional(),
    resources: globs.optional().describe('Globs over the URI.'),
    methods: globs.optional().describe('Methods that are neither of the above nor the protocol’s own.'),
  })
  .refine(({ tools, prompts, resources, methods }) => tools ?? prompts ?? resources ?? methods, {
    message: 'needs at least one of tools, prompts, resources and methods',
  });
const selectors = z.array(selector, list('[{ tools: [list_*] }]')).min(1).max(1000);

const mode = z.enum(['enforce', 'audit']).describe('audit: decide and record, but let through.');

const role = z.strictObject({ allow: selectors.optional(), deny: selectors.optional() });

const rule = z
  .strictObject({
    name,
    allow: selectors.optional(),
    deny: selectors.optional(),
    when: condition.optional(),
    mode: mode.optional(),
  })
  .refine(({ allow, deny }) => (allow === undefined) !== (deny === undefined), {
    message: 'needs exactly one of allow and deny',
  });

const KEY_PARTS = ['agent', 'user', 'group', 'session', 'server', 'tool'] as const;
const keyPart = z.union(
  [
    z.enum(KEY_PARTS),
    z.strictObject({
      cel: z
        .string()
        .min(1)
        .max(EXPRESSION_MAX)
        .superRefine(report((text) => problemOf(compileValue(text))))
        .describe('A CEL expression: each value has a counter of its own.'),
    }),
  ],
  {
    error: ({ input }) =>
      typeof input === 'string' ? `must be one of ${KEY_PARTS.join(', ')}, or { cel: <expression> }` : undefined,
  },
);

/** What quotas and budgets have in common. */
const counted = {
  name,
  when: condition.optional(),
  key: z.array(keyPart, list('[agent]')).min(1).max(16).describe('What each has a counter of its own.'),
  onLimit: z
    .enum(['refuse', 'toolError'])
    .default('refuse')
    .describe('refuse: HTTP 429. toolError: a tool result with isError, so that the model reads it.'),
  hard: z.boolean().default(false).describe('An answer that turns out to be too much is withheld, or cut off.'),
  warnAt: z
    .string()
    .regex(/^(?:[1-9]\d?|100)%$/, 'must be a share of the limit from 1% to 100%, for example 80%')
    .default('80%')
    .describe('When the audit is warned. Default 80%.'),
};

const quota = z
  .strictObject({
    ...counted,
    calls: rate.optional(),
    tokens: rate.optional(),
    burst: rate.optional().describe('A second, shorter bound on the calls, or on the tokens when calls is not given.'),
    concurrent: z.int().min(1).max(100_000).optional().describe('Calls under way at a time, in this sidecar.'),
  })
  .refine(({ calls, tokens, concurrent }) => calls ?? tokens ?? concurrent, {
    message: 'needs calls, tokens or concurrent',
  })
  .refine(({ calls, tokens, burst }) => burst === undefined || (calls ?? tokens) !== undefined, {
    path: ['burst'],
    message: 'is a second bound on calls or tokens, and neither is given',
  });

const budget = z.strictObject({
  ...counted,
  cost: z
    .string()
    .regex(COST, 'must be <amount>/day or <amount>/month, for example 5/day or 2.50/day')
    .superRefine(report((text) => (COST.test(text) ? problemOf(parseCost(text)) : undefined)))
    .describe('Money for each day or month of UTC, in the unit of the prices: 5/day, 100.50/month.'),
});

const money = z.number().min(0).max(1_000_000);
const price = z
  .strictObject({
    server: glob.default('*'),
    tools: globs.default(['*']),
    perCall: money.default(0),
    perThousandTokens: money.default(0).describe('Of the arguments and the result together.'),
  })
  .refine(({ perCall, perThousandTokens }) => perCall > 0 || perThousandTokens > 0, {
    message: 'needs perCall or perThousandTokens',
  });

const pointer = z
  .string()
  .max(1024)
  .superRefine(report((text) => problemOf(parsePointer(text))));
const pointers = z.array(pointer, list('[/customer/email]')).min(1).max(1000);

const redaction = z
  .strictObject({
    server: glob,
    tools: globs.optional(),
    arguments: pointers
      .optional()
      .describe(
        'JSON Pointers (RFC 6901) into the arguments; * matches every index or key, ** any depth. For the audit.',
      ),
    result: pointers.optional().describe('The same into the result of a tool call, which the agent then does not see.'),
  })
  .refine(({ arguments: args, result }) => args ?? result, { message: 'needs arguments or result' });

const place = z
  .string()
  .max(1024)
  .superRefine(
    report((text) => {
      const parsed = parsePointer(text);
      if (!parsed.ok) return parsed.error;
      if (parsed.value.length === 0 || parsed.value.includes('*') || parsed.value.includes('**'))
        return 'must name one place, for example /options/limit';
      return undefined;
    }),
  );

/** Constants of policy, as JSON has them. */
const constant: z.ZodType<unknown> = z
  .unknown()
  .refine((value) => (JSON.stringify(value) ?? '').length <= 16_384, {
    message: 'must be JSON of at most 16384 characters',
    abort: true,
  })
  .refine(hasExactNumbers, 'has a number that JSON cannot carry exactly; write it as text, if the tool takes that');

/** Else the server would get another number than is written. */
function hasExactNumbers(value: unknown): boolean {
  if (typeof value === 'number')
    return Number.isFinite(value) && (!Number.isInteger(value) || Number.isSafeInteger(value));
  return typeof value !== 'object' || value === null || Object.values(value).every(hasExactNumbers);
}

const argumentRule = z
  .strictObject({
    name,
    server: glob.default('*'),
    tools: globs,
    remove: z
      .array(place, list('[/options/limit]'))
      .min(1)
      .max(100)
      .optional()
      .describe('Places in the arguments whose members the server never gets.'),
    set: z
      .record(place, constant)
      .refine((set) => Object.keys(set).length <= 100, 'must not have more than 100 places')
      .optional()
      .describe('Constants by their place in the arguments, whatever the agent wrote there.'),
    validate: z.literal(true).optional().describe('Enforce the tool’s own input schema.'),
  })
  .refine(({ remove, set, validate }) => remove ?? set ?? validate, { message: 'needs remove, set or validate' });

const qualifiedGlob = z
  .string()
  .max(GLOB_MAX + 64)
  .superRefine(
    report((text) => {
      const { server, name: glob } = splitQualified(text);
      return server === '' ? 'must be <server>.<glob>, for example github.list_*' : globProblem(glob);
    }),
  );
const qualifiedGlobs = z.array(qualifiedGlob, list('[github.list_*]')).min(1).max(1000);

const virtualServer = z
  .strictObject({
    tools: qualifiedGlobs.optional().describe('<server>.<glob>'),
    prompts: qualifiedGlobs.optional().describe('<server>.<glob>'),
    resources: z
      .array(z.strictObject({ server: serverName, uris: globs.describe('Globs over the URI.') }))
      .min(1)
      .max(1000)
      .optional(),
  })
  .refine(({ tools, prompts, resources }) => tools ?? prompts ?? resources, {
    message: 'needs at least one of tools, prompts and resources',
  });
export type VirtualServerDocument = z.output<typeof virtualServer>;

/** Of the policy language. */
export const VERSION = 1;

export const policySchema = z.strictObject({
  version: z.literal(VERSION, { error: 'must be 1, the version of the policy language' }),
  default: z.enum(['deny', 'allow']).default('deny'),
  mode: mode.default('enforce'),
  roles: z.record(name, role).default({}),
  agents: z
    .record(name, z.strictObject({ roles: z.array(name, list('[reader]')).max(1000) }))
    .default({})
    .describe('Roles by agent name; "*" gives roles to every agent.'),
  rules: z.array(rule).max(100_000).default([]),
  virtualServers: z
    .record(serverName, virtualServer)
    .default({})
    .describe('Subsets of the servers, each with an endpoint of its own: /virtual/<name>/mcp.'),
  quotas: z.array(quota).max(1000).default([]),
  budgets: z.array(budget).max(1000).default([]),
  prices: z.array(price).max(1000).default([]).describe('All that match a call add up.'),
  redact: z.array(redaction).max(1000).default([]),
  arguments: z
    .array(argumentRule)
    .max(1000)
    .default([])
    .describe(
      'What is done to arguments before the call is judged. All entries that match count; all removals come first.',
    ),
});

const EXTENDS_MAX = 32;
const extended = z
  .string()
  .min(1)
  .max(4096)
  .regex(/^(?![a-z][a-z0-9+.-]*:\/\/)/i);

/** What `extends` names: policies whose roles, rules, quotas, … are part of this one too. */
export const extendsSchema = z
  .union([extended, z.array(extended).min(1).max(EXTENDS_MAX)])
  .describe(
    'Policies of which this one takes over everything: library/<name> or paths of files. Names must not be repeated; default and mode are those written here.',
  );
export const EXTENDS_PROBLEM = `must be library/<name>, the path of a policy file or folder, or a list of at most ${EXTENDS_MAX} of these`;

/** policy.yaml as people write it. The compiler is handed what `extends` has led to, and knows no such key. */
export const policyFileSchema = policySchema.extend({ extends: extendsSchema.optional() });

/** A policy as the compiler takes it: checked, defaults filled in. */
export type PolicyDocument = z.output<typeof policySchema>;

/** What to write where something else than a list stands. */
function list(example: string): { error: z.core.$ZodErrorMap<z.core.$ZodIssueInvalidType> } {
  return { error: ({ input }) => (input === undefined ? undefined : `must be a list, such as ${example}`) };
}

function report(problemIn: (text: string) => string | undefined) {
  return (text: string, context: z.RefinementCtx<string>): void => {
    const message = problemIn(text);
    if (message !== undefined) context.addIssue({ code: 'custom', message });
  };
}

function problemOf(result: { readonly ok: true } | { readonly ok: false; readonly error: string }): string | undefined {
  return result.ok ? undefined : result.error;
}
