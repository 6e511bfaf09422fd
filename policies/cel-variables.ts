/** What conditions can name, from who asks, what is asked for and the call. */
import type { Call, Subject, Target } from './decision.ts';

export class Agent {
  readonly name: string;
  readonly group: string;
  readonly roles: readonly string[];
  readonly claims: Readonly<Record<string, unknown>>;
  constructor({ name, group, claims }: Subject['agent'], roles: readonly string[]) {
    this.name = name;
    this.group = group;
    this.roles = roles;
    this.claims = claims;
  }
}

export class User {
  readonly sub: string | undefined;
  readonly claims: Readonly<Record<string, unknown>>;
  constructor(user: Subject['user']) {
    this.sub = user?.sub;
    this.claims = user?.claims ?? {};
  }
}

export class Server {
  readonly name: string;
  constructor(name: string) {
    this.name = name;
  }
}

export class Tool {
  readonly name: string;
  readonly #given: Readonly<Record<string, unknown>> | undefined;
  constructor(target: Target) {
    this.name = target.kind === 'tool' ? target.name : '';
    this.#given = target.kind === 'tool' ? target.annotations : undefined;
  }
  get annotations(): Readonly<Record<string, unknown>> {
    return withDefaultHints(this.#given);
  }
}

export class Session {
  readonly id: string | undefined;
  constructor(id: string | undefined) {
    this.id = id;
  }
}

/** What an expression can name. The last five are `undefined` where there is no call. */
export interface Variables {
  readonly agent: Agent;
  readonly user: User;
  readonly server: Server;
  readonly tool: Tool;
  readonly env: Readonly<Record<string, string>>;
  readonly method: string | undefined;
  readonly args: Readonly<Record<string, unknown>> | undefined;
  readonly body: Readonly<Record<string, unknown>> | undefined;
  readonly session: Session | undefined;
  readonly now: Date | undefined;
}

/**
 * @param roles All of the agent's roles, the policy's included.
 * @param call  `undefined` for a list filter. A call without arguments has `args` empty, so that `has(args.x)` is false.
 */
export function variablesOf(
  subject: Subject,
  roles: readonly string[],
  target: Target,
  env: Readonly<Record<string, string>>,
  call: Call | undefined,
): Variables {
  return {
    agent: new Agent(subject.agent, roles),
    user: new User(subject.user),
    server: new Server(target.server),
    tool: new Tool(target),
    env,
    method: call?.method,
    args: call && (call.args ?? {}),
    body: call?.body,
    session: call && new Session(call.sessionId),
    now: call && new Date(call.now),
  };
}

/**
 * MCP's own defaults for a hint that is missing or is no boolean (schema 2026-07-28, `ToolAnnotations`): a tool that
 * says nothing, or is not known, may write, destroy, repeat badly and reach out.
 */
function withDefaultHints(given: Readonly<Record<string, unknown>> | undefined): Readonly<Record<string, unknown>> {
  const hint = (name: string, byDefault: boolean): boolean => {
    const value = given?.[name];
    return typeof value === 'boolean' ? value : byDefault;
  };
  return {
    ...given,
    readOnlyHint: hint('readOnlyHint', false),
    destructiveHint: hint('destructiveHint', true),
    idempotentHint: hint('idempotentHint', false),
    openWorldHint: hint('openWorldHint', true),
  };
}
