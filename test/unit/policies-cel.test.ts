import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { compileCondition, EXPRESSION_MAX } from '../../policies/cel.ts';
import { variablesOf } from '../../policies/cel-variables.ts';
import type { Call, Subject, Target } from '../../policies/decision.ts';
import { agent, callOf, tool } from '../support/policies.ts';

const ARGS = {
  query: 'select 1',
  n: 3,
  ratio: 0.5,
  flag: true,
  nothing: null,
  paths: ['/srv/a', '/srv/b'],
  rows: [{ tags: ['x', 'y'] }, { tags: ['x'] }],
  nested: { deep: { secret: 'hunter2' } },
};
const CALL = callOf('run_sql_query', ARGS);
const SUBJECT: Subject = {
  ...agent('triage', { roles: ['reader'], claims: { team: 'blue' } }),
  user: { sub: 'ann', claims: { level: 4 } },
};

function evaluate(
  expression: string,
  {
    subject = SUBJECT,
    target = tool('run_sql_query'),
    call = CALL,
  }: { subject?: Subject; target?: Target; call?: Call } = {},
): boolean | string {
  const condition = compileCondition(expression);
  if (!condition.ok) return `load: ${condition.error}`;
  const variables = variablesOf(subject, subject.agent.roles, target, { STAGE: 'test' }, call);
  for (const part of [condition.value.stable, condition.value.perCall]) {
    const verdict = part?.(variables);
    if (verdict?.ok === false) return verdict.error;
    if (verdict?.value === false) return false;
  }
  return true;
}

const CASES: [expression: string, result: boolean][] = [
  ['true', true],
  ['body.method == "tools/call" && body.params.name == "run_sql_query"', true],
  ['size(args.query) < 4000 && agent.name == "triage"', true],
  ['args.n < 5', true],
  ['args.n == 3 && args.n != 4 && args.n >= 3 && 4 > args.n', true],
  ['args.n in [1, 2, 3]', true],
  ['args.ratio < 1', true],
  ['int(args.n) + 1 == 4', true],
  ['args.flag', true],
  ['args.nothing == null', true],
  ['args.query == 5', false],
  ['has(args.query) && !has(args.limit)', true],
  ['"limit" in args || "query" in args', true],
  ['args.limit == 1 || agent.name == "triage"', true],
  ['agent.name == "triage" || args.limit == 1', true],
  ['args.limit == 1 && agent.name == "other"', false],
  ['"reader" in agent.roles && agent.group == "support" && agent.claims.team == "blue"', true],
  ['user.sub == "ann" && user.claims.level > 3', true],
  ['server.name == "github" && tool.name == "run_sql_query" && method == "tools/call"', true],
  ['session.id == "s1" && env.STAGE == "test"', true],
  ['now.getHours() == 12 && now.getFullYear() == 1970', true],
  ['now.getHours("Asia/Tokyo") == 21', true],
  ['now < timestamp("2026-01-01T00:00:00Z")', true],
  ['args.paths.all(p, p.startsWith("/srv/"))', true],
  ['args.paths.all(p, p.glob("/srv/?"))', true],
  ['args.paths.exists(p, p.contains(".."))', false],
  ['args.rows.all(row, row.tags.exists(tag, tag == "x"))', true],
  ['["a", "triage"].exists(name, name == agent.name)', true],
  ['["/etc", "/root"].exists(root, args.query.startsWith(root))', false],
  ['agent.roles.exists(role, role == args.query)', false],
  ['args.flag // a comment && false', true],
  ['(agent.name == "triage" && args.n < 5) && (args.flag)', true],
  ['tool.annotations.destructiveHint && tool.annotations.openWorldHint', true],
  ['tool.annotations.readOnlyHint || tool.annotations.idempotentHint', false],
];

describe('a condition', () => {
  for (const [expression, result] of CASES)
    it(`${expression} is ${result}`, () => assert.equal(evaluate(expression), result));

  const FAILING: [expression: string, error: RegExp][] = [
    ['args.limit == 1', /^no such key at args\.limit$/],
    ['!(args.limit == 1)', /no such key/],
    ['args.limit != 1', /no such key/],
    ['agent.claims.missing == 1', /no such key at agent\.claims\.missing/],
    ['env.HOME == "x"', /no such key/],
    ['args.n + 1 < 5', /no such overload/],
    ['args.query', /^not true or false at args\.query$/],
    ['args.paths[5] == "x"', /index out of bounds/],
    ['args["constructor"] == 1', /no such key/],
    ['args["__proto__"] == 1', /no such key/],
    ['bytes(args.query).json().a == 1', /cannot be evaluated/],
    ['now.getHours("Mars/Base") == 1', /cannot be evaluated/],
  ];
  for (const [expression, error] of FAILING)
    it(`${expression} cannot be judged`, () => assert.match(String(evaluate(expression)), error));

  it('tells no value of the message in an error', () => {
    for (const expression of [
      'bool(args.nested.deep.secret)',
      'env[args.nested.deep.secret] == ""',
      'args.paths[args.nested.deep.secret] == ""',
      'agent.claims[args.nested.deep.secret] == 1',
      'timestamp(args.nested.deep.secret) < now',
    ]) {
      const error = evaluate(expression);
      assert.equal(typeof error, 'string', expression);
      assert.doesNotMatch(String(error), /hunter2|load:/, expression);
    }
  });

  it('cannot judge what only a user or a session would tell when there is none', () => {
    const without = { subject: agent('triage'), call: { ...CALL, sessionId: undefined } };
    assert.match(String(evaluate('user.sub != "ann"', without)), /no such key/);
    assert.match(String(evaluate('session.id != "s1"', without)), /no such key/);
    assert.equal(evaluate('has(user.sub) || has(session.id)', without), false);
  });

  it('finds no argument where a call has none', () => {
    assert.equal(evaluate('has(args.query)', { call: { ...CALL, args: undefined } }), false);
  });

  it('refuses arguments that are made to confuse it', () => {
    const call = callOf('x', JSON.parse('{"constructor":"x","query":"y","__proto__":{"admin":true}}'));
    for (const expression of ['args.query == "y"', 'args.admin == true', '"admin" in args'])
      assert.notEqual(evaluate(expression, { call }), true, expression);
  });

  const HINTS: [given: Record<string, unknown> | undefined, expression: string][] = [
    [undefined, '!tool.annotations.readOnlyHint && tool.annotations.destructiveHint'],
    [{ readOnlyHint: true }, 'tool.annotations.readOnlyHint && tool.annotations.openWorldHint'],
    [{ readOnlyHint: 'yes', destructiveHint: 0 }, '!tool.annotations.readOnlyHint && tool.annotations.destructiveHint'],
    [{ destructiveHint: false, title: 'T' }, '!tool.annotations.destructiveHint && tool.annotations.title == "T"'],
  ];
  for (const [given, expression] of HINTS)
    it(`sees hints ${JSON.stringify(given)} as ${expression}`, () =>
      assert.equal(evaluate(expression, { target: tool('t', 's', given) }), true));

  it('has an empty tool name where the target is no tool', () => {
    assert.equal(evaluate('tool.name == ""', { target: { kind: 'prompt', server: 's', name: 'p' } }), true);
  });
});

/** As they stand in the literature and in other gateways' documentation, in terms of the variables here. */
describe('an expression of the literature', () => {
  const subject: Subject = {
    ...agent('triage', {
      roles: ['reader'],
      claims: {
        roles: ['admin'],
        groups: ['sre'],
        scope: 'repo:read issues:write',
        nested: { key: 'value' },
        exp: 1_900_000_000,
        'https://acme.example/role': 'owner',
      },
    }),
    user: { sub: 'ann', claims: { email: 'ann@acme.example' } },
  };
  const args = { query: 'select 1', path: '/srv/a', mode: 'public', amount: 10, tags: ['a', 'b'] };
  const call = callOf('run_sql_query', args);
  const LITERATURE: [expression: string, result: boolean][] = [
    ['body.method == "tools/call" && body.params.name == "run_sql_query"', true],
    ["body.method == 'tools/call' && body.params.name == 'drop_table'", false],
    ['method == "tools/call" && tool.name in ["run_sql_query", "explain"]', true],
    ['body.params.arguments["mode"] == "public"', true],
    ['body["params"]["arguments"].amount <= 1000', true],
    ['size(body.params.arguments.query) < 4000 && !has(body.params._meta)', true],
    ['!body.params.arguments.query.lowerAscii().contains("drop table")', true],
    ['body.params.arguments.path.startsWith("/srv/") && !args.path.contains("..")', true],
    ['has(args.limit) ? args.limit <= 100 : true', true],
    ['args.tags.all(tag, tag in ["a", "b", "c"])', true],
    ['"admin" in agent.claims.roles', true],
    ['agent.claims.groups.exists(group, group == "sre" || group == "ops")', true],
    ['agent.claims.nested.key == "value"', true],
    ['agent.claims["https://acme.example/role"] == "owner"', true],
    ['"repo:read" in agent.claims.scope.split(" ")', true],
    ['user.sub == "ann" && tool.name == "run_sql_query"', true],
    ['user.claims.email.endsWith("@acme.example")', true],
    ['tool.name.startsWith("run_") && !(tool.name in ["run_shell"])', true],
    ['tool.annotations.readOnlyHint == true || tool.annotations.destructiveHint == false', false],
    ['timestamp(int(agent.claims.exp)) > now', true],
    ['now.getDayOfWeek() in [1, 2, 3, 4, 5] && now.getHours("Europe/Berlin") >= 8', true],
    ['now - timestamp("1970-01-01T00:00:00Z") < duration("24h")', true],
  ];
  for (const [expression, result] of LITERATURE)
    it(`${expression} is ${result}`, () => assert.equal(evaluate(expression, { subject, call }), result));

  const IMPOSSIBLE: [expression: string, error: RegExp][] = [
    ['mcp.tool.name == "echo"', /^Unknown variable: mcp \(at character 1\): write tool\.name, args/],
    ['jwt.sub == "ann" && mcp.tool.name == "add"', /^Unknown variable: jwt .*: write agent\.claims or user\.claims$/],
    ['request.headers["x-user"] == "ann"', /^Unknown variable: request .*headers and paths of HTTP are not looked at/],
    ['source.address == "10.0.0.1"', /^Unknown variable: source .*: addresses are not looked at/],
    ['params.name == "x"', /^Unknown variable: params .*: write body\.params/],
    ['tools.name == "x"', /^Unknown variable: tools .*: there are agent, user, server, tool, method/],
    ['agent.roles.contains("admin")', /list\.contains.*: write x in list$/],
    ['args.path.startWith("/srv/")', /startWith.*: text has startsWith, endsWith, contains, glob, size; lists have/],
    ['tool.annotations.destructiveHint == "true"', /^tool\.annotations\.destructiveHint is true or false: write it/],
    ['!has(args.x) && 1 != tool.annotations.readOnlyHint', /^tool\.annotations\.readOnlyHint is true or false/],
    ['method = "tools/call"', /^Unexpected.*: CEL writes && for and, .* == for equals$/],
    ['method == "x" and tool.name == "y"', /^Unexpected.*: CEL writes && for and/],
    ['args.?limit.orValue(1) == 1', /^Expected IDENTIFIER, got QUESTION \(at character 6\)$/],
    ['args.path.matches("^/srv/")', /^matches\(\) is refused.*use glob/],
    ['user.email == "x"', /^No such key: email \(at character 6\)$/],
    ['ip(args.host).isLoopback()', /^found no matching overload for 'ip\(dyn\)'/],
  ];
  for (const [expression, error] of IMPOSSIBLE)
    it(`${expression} cannot be said, and the error says what to do`, () => {
      const condition = compileCondition(expression);
      assert.match(condition.ok ? 'compiled' : condition.error, error);
    });
});

describe('an operand that is known without the library', () => {
  /** How often each argument was looked at. */
  function looksAt(expression: string): Record<string, number> {
    const looks: Record<string, number> = { n: 0, list: 0 };
    const look = (name: string, value: unknown) => {
      looks[name] = (looks[name] ?? 0) + 1;
      return value;
    };
    const args = {
      get n() {
        return look('n', 1);
      },
      get list() {
        return look('list', [1]);
      },
    };
    const condition = compileCondition(expression);
    assert.ok(condition.ok);
    const variables = variablesOf(SUBJECT, [], tool('t'), {}, callOf('t', args));
    Object.assign(looks, { n: 0, list: 0 });
    condition.value.perCall!(variables);
    return looks;
  }

  const LOOKS: [expression: string, looks: Record<string, number>][] = [
    ['args.n == 1', { n: 1, list: 0 }],
    ['args.list[0] == 1 && args.n == 2', { n: 1, list: 0 }],
    ['args.list[0] == 2 && args.n == 1', { n: 1, list: 1 }],
  ];
  for (const [expression, looks] of LOOKS)
    it(`is asked first, and alone where that settles it: ${expression}`, () =>
      assert.deepEqual(looksAt(expression), looks));
});

describe('what was compiled', () => {
  it('is kept, be it a condition or an error', () => {
    for (const expression of ['true', 'agent.name', 'args.n ==']) {
      const first = compileCondition(expression);
      compileCondition('false');
      assert.equal(compileCondition(expression), first, expression);
    }
  });

  it('is not kept where it is too long to be read', () => {
    const longest = 'true'.padEnd(EXPRESSION_MAX);
    assert.equal(compileCondition(longest), compileCondition(longest));
    assert.notEqual(compileCondition(`${longest} `), compileCondition(`${longest} `));
  });

  it('is forgotten all together once there are 20 000', () => {
    let made = 0;
    const another = () => compileCondition(`true // ${made++}`);
    const first = compileCondition('true');
    while (compileCondition('true') === first && made <= 20_000) another();
    // There are two now: the one that was too many, and this one.
    const kept = compileCondition('true');
    for (let count = 2; count < 20_000; count++) another();
    assert.equal(compileCondition('true'), kept);
    another();
    assert.notEqual(compileCondition('true'), kept);
  });
});

describe('at load', () => {
  const REFUSED: [expression: string, error: RegExp][] = [
    ['agent.name ==', /Unexpected token.*\(at character/],
    ['agent.nmae == "x"', /No such key: nmae/],
    ['agnet.name == "x"', /Unknown variable: agnet/],
    ['agent.name == 5', /no such overload/],
    ['agent.name', /must be true or false, but is a string/],
    ['size(agent.name)', /must be true or false/],
    ['args.x && agent.name', /Logical operator requires bool/],
    ['unknown(args.x)', /no matching overload/],
    ['true) || (true', /Unexpected/],
    ['stablePart(true)', /no matching overload/],
    ['args.query.matches("^a")', /matches\(\) is refused.*glob/],
    ['[1].all(x, args.query.matches("(a+)+$"))', /matches\(\) is refused/],
    ['cel.bind(a, args, a.x == 1)', /cel\.bind\(\) is refused/],
    ['args.a.all(x, args.b.exists(y, y == x))', /looks at args from inside/],
    ['args.a.all(x, x in args.b)', /looks at args/],
    ['body.params.arguments.a.map(x, body).size() > 0', /looks at body/],
    ['args.a.all(x, x.parts.all(y, y != x.name))', /looks at x/],
    ['args.a.filter(x, x > 1).all(y, y in args.b)', /looks at args/],
    ['[args].all(a, a.l.all(x, a.l.exists(y, y == x)))', /looks at a/],
    [`${'true && '.repeat(600)}true`, /must not be longer/],
    [`${'('.repeat(60)}true${')'.repeat(60)}`, /maxDepth/],
    [`[${'1,'.repeat(1100)}1].size() == 1`, /Exceeded/],
    ['!'.repeat(4000), /./],
  ];
  for (const [expression, error] of REFUSED)
    it(`refuses ${expression.slice(0, 60)}`, () => {
      const condition = compileCondition(expression);
      assert.match(condition.ok ? 'compiled' : condition.error, error);
    });

  it('takes an expression at the very limit of length, nodes and depth', () => {
    assert.equal(evaluate('true'.padEnd(4096)), true);
    assert.match(String(evaluate('true'.padEnd(4097))), /longer/);
    const atDepth = `${'('.repeat(48)}true${')'.repeat(48)}`;
    assert.equal(evaluate(atDepth), true);
    const widest = Array.from({ length: 499 }, () => 'true').join('&&');
    assert.equal(evaluate(widest), true);
  });

  const SPLIT: [expression: string, stable: boolean, perCall: boolean][] = [
    ['agent.name == "a"', true, false],
    ['args.n < 5', false, true],
    ['agent.name == "a" && args.n < 5', true, true],
    ['args.n < 5 && (server.name == "s" && now.getHours() < 6)', true, true],
    ['agent.name == "a" || args.n < 5', false, true],
    ['method == "tools/call"', false, true],
    ['session.id == "x"', false, true],
    ['has(body.id)', false, true],
    ['user.sub == "u" && tool.name == "t" && env.X == "y"', true, false],
    ['true', true, false],
  ];
  for (const [expression, stable, perCall] of SPLIT)
    it(`splits ${expression}`, () => {
      const condition = compileCondition(expression);
      assert.ok(condition.ok);
      assert.deepEqual(
        [condition.value.stable !== undefined, condition.value.perCall !== undefined],
        [stable, perCall],
      );
    });

  for (const [expression, uses] of [
    ['tool.annotations.readOnlyHint', true],
    ['agent.name == "x" && tool.annotations.readOnlyHint', true],
    ['tool.name == "x"', false],
    ['has(tool.annotations.title)', true],
    ['tool["annotations"].size() > 0', true],
    ['agent.name == "tool"', false],
  ] as const)
    it(`${expression} ${uses ? 'uses' : 'does not use'} annotations`, () => {
      const condition = compileCondition(expression);
      assert.equal(condition.ok && condition.value.usesAnnotations, uses);
    });
});
