/**
 * Which of MCP's methods name something that policy governs, as a table of every revision from 2025-03-26 to
 * 2026-07-28 and of the tasks extension.
 *
 * A method that is not in the table is a target of kind `method`: refused unless a selector's `methods` allows it. So are
 * the tasks methods (`tasks/get`, `tasks/result`, …), deliberately: agents of a group share its credential, hence the
 * server lets each of them read and cancel the tasks of all.
 */
import type { Target } from './decision.ts';
import { err, ok, type Result } from './result.ts';
import { normaliseUri, uriProblem } from './uri.ts';

type Params = Readonly<Record<string, unknown>>;
export type AnnotationsOf = (tool: string) => Readonly<Record<string, unknown>> | undefined;

/** What a method's params name. `nothing`: the protocol's own, always let through. */
type Names = 'nothing' | 'tool' | 'prompt' | 'resource' | 'completion' | 'subscriptions';

const METHODS: ReadonlyMap<string, Names> = new Map([
  // A response to the server's own request (roots, sampling, elicitation) has no method.
  ['', 'nothing'],
  // Life cycle. 2025-03-26 … 2025-11-25; server/discover: 2026-07-28.
  ['initialize', 'nothing'],
  ['ping', 'nothing'],
  ['logging/setLevel', 'nothing'],
  ['server/discover', 'nothing'],
  // Lists: let through, and filtered item by item in the answer.
  ['tools/list', 'nothing'],
  ['prompts/list', 'nothing'],
  ['resources/list', 'nothing'],
  ['resources/templates/list', 'nothing'],
  // What carries data.
  ['tools/call', 'tool'],
  ['prompts/get', 'prompt'],
  ['resources/read', 'resource'],
  ['resources/subscribe', 'resource'],
  ['resources/unsubscribe', 'resource'],
  ['completion/complete', 'completion'],
  // 2026-07-28.
  ['subscriptions/listen', 'subscriptions'],
]);

/**
 * The protocol's notifications, of both directions and every revision, of subscriptions (2026-07-28) and of the tasks
 * extension: let through. One with an id is none.
 */
const NOTIFICATIONS: ReadonlySet<string> = new Set(
  [
    'initialized',
    'cancelled',
    'progress',
    'message',
    'roots/list_changed',
    'tools/list_changed',
    'prompts/list_changed',
    'resources/list_changed',
    'resources/updated',
    'subscriptions/acknowledged',
    'elicitation/complete',
    'tasks',
    'tasks/status',
  ].map((name) => `notifications/${name}`),
);

/** Subscriptions of one subscriptions/listen. Each is judged alone. */
const SUBSCRIPTIONS_MAX = 1000;

/** A message, by what of it is looked at here. */
export interface Asking {
  readonly kind: 'request' | 'notification' | 'response';
  readonly method: string;
  readonly params: Params | undefined;
}

/** What a selector's globs are held against: the name, and of a resource its URI. */
export function idOf(target: Target): string {
  return target.kind === 'resource' ? target.uri : target.name;
}

/**
 * What a message asks for; empty for the protocol's own. Every target has to be allowed: a URI that can be written in
 * several ways is two, as it came and in its normal form.
 *
 * @param annotationsOf The tool's hints as its server listed them; `undefined` when not known.
 * @returns an error when params do not name what the method needs, or name it unclearly: the message is malformed, and
 * goes nowhere.
 */
export function targetsOf(
  server: string,
  { kind, method, params }: Asking,
  annotationsOf: AnnotationsOf,
): Result<Target[], string> {
  const isNotification = kind === 'notification' && NOTIFICATIONS.has(method);
  const names = METHODS.get(method) ?? (isNotification ? 'nothing' : undefined);
  switch (names) {
    case undefined:
      return ok([{ kind: 'method', server, name: method }]);
    case 'nothing':
      return ok([]);
    case 'tool': {
      const name = params?.name;
      if (typeof name !== 'string') return err(`${method} needs params.name`);
      if (!mayBeArguments(params?.arguments)) return err(NO_ARGUMENTS);
      return ok([{ kind: 'tool', server, name, annotations: annotationsOf(name) }]);
    }
    case 'prompt': {
      const name = params?.name;
      if (typeof name !== 'string') return err(`${method} needs params.name`);
      return mayBeArguments(params?.arguments) ? ok([{ kind: 'prompt', server, name }]) : err(NO_ARGUMENTS);
    }
    case 'resource': {
      const uri = params?.uri;
      return typeof uri === 'string' ? resourceTargets(server, [uri]) : err(`${method} needs params.uri`);
    }
    case 'completion':
      return completionTarget(server, params?.ref);
    case 'subscriptions':
      return subscriptionTargets(server, params?.notifications);
  }
}

const NO_ARGUMENTS = 'params.arguments must be an object';

/** A lenient server could read something in what is none, and rules would have looked at nothing. `null` is absent. */
function mayBeArguments(value: unknown): boolean {
  return value === undefined || (typeof value === 'object' && !Array.isArray(value));
}

function resourceTargets(server: string, uris: readonly string[]): Result<Target[], string> {
  const targets: Target[] = [];
  for (const uri of uris) {
    const problem = uriProblem(uri);
    if (problem !== undefined) return err(`the URI of a resource ${problem}`);
    targets.push({ kind: 'resource', server, uri });
    const normal = normaliseUri(uri);
    if (normal !== uri) targets.push({ kind: 'resource', server, uri: normal });
  }
  return ok(targets);
}

function completionTarget(server: string, ref: unknown): Result<Target[], string> {
  const { type, name, uri } = (ref ?? {}) as { type?: unknown; name?: unknown; uri?: unknown };
  if (type === 'ref/prompt' && typeof name === 'string') return ok([{ kind: 'prompt', server, name }]);
  if (type === 'ref/resource' && typeof uri === 'string') return resourceTargets(server, [uri]);
  return err('completion/complete needs params.ref of type ref/prompt with a name or ref/resource with a uri');
}

function subscriptionTargets(server: string, notifications: unknown): Result<Target[], string> {
  const uris = (notifications as Params | null | undefined)?.resourceSubscriptions ?? [];
  if (!Array.isArray(uris) || !uris.every((uri) => typeof uri === 'string'))
    return err('subscriptions/listen needs params.notifications.resourceSubscriptions to be a list of URIs');
  if (uris.length > SUBSCRIPTIONS_MAX)
    return err(`subscriptions/listen takes at most ${SUBSCRIPTIONS_MAX} resourceSubscriptions`);
  return resourceTargets(server, uris);
}

/** How a list's answer is filtered: `result[kind][n][idField]` names an item. */
export interface ListKind {
  readonly kind: 'tools' | 'prompts' | 'resources' | 'resourceTemplates';
  readonly idField: 'name' | 'uri' | 'uriTemplate';
}

const LISTS: ReadonlyMap<string, ListKind> = new Map<string, ListKind>([
  ['tools/list', { kind: 'tools', idField: 'name' }],
  ['prompts/list', { kind: 'prompts', idField: 'name' }],
  ['resources/list', { kind: 'resources', idField: 'uri' }],
  ['resources/templates/list', { kind: 'resourceTemplates', idField: 'uriTemplate' }],
]);

export function listKindOf(method: string): ListKind | undefined {
  return LISTS.get(method);
}

/**
 * The target that an item of a list stands for; `undefined` when it does not name itself, and then it is not shown.
 *
 * A resource template stands for the resource whose URI is the template's own text: `file:///srv/{path}` is listed
 * where the glob `file:///srv/*` is allowed. Whatever the agent then makes of it is judged as the URI it reads.
 */
export function listedTarget(server: string, list: ListKind, item: unknown): Target | undefined {
  const fields = item as Params | null | undefined;
  const id = fields?.[list.idField];
  if (typeof id !== 'string') return undefined;
  switch (list.kind) {
    case 'tools': {
      const annotations = fields?.annotations;
      const known = typeof annotations === 'object' && annotations !== null ? (annotations as Params) : undefined;
      return { kind: 'tool', server, name: id, annotations: known };
    }
    case 'prompts':
      return { kind: 'prompt', server, name: id };
    case 'resources':
    case 'resourceTemplates':
      // It could not be read.
      if (uriProblem(id) !== undefined) return undefined;
      return { kind: 'resource', server, uri: id };
  }
}
