/**
 * A request in the words of people (`tool: github.list_issues`) → the JSON-RPC message that an agent would send. For
 * cases of a policy and for explaining one.
 */

type Params = Readonly<Record<string, unknown>>;

/** A tool and a prompt are written with their server in front: the name of a server has no dot. */
export type Request =
  | { readonly tool: string; readonly args?: Params | undefined }
  | { readonly prompt: string; readonly args?: Params | undefined }
  | { readonly resource: { readonly server: string; readonly uri: string } }
  | { readonly method: string; readonly server: string; readonly params?: Params | undefined }
  /** A whole message. */
  | { readonly body: Params; readonly server: string };

/** `<server>.<name>`. */
export const QUALIFIED_NAME = /^[a-z0-9][a-z0-9-]*\../;

export function messageOf(request: Request): { readonly server: string; readonly body: Params } {
  if ('body' in request) return { server: request.server, body: request.body };
  if ('tool' in request) return named('tools/call', request.tool, request.args ?? {});
  if ('prompt' in request) return named('prompts/get', request.prompt, request.args ?? {});
  if ('resource' in request)
    return { server: request.resource.server, body: bodyOf('resources/read', { uri: request.resource.uri }) };
  return { server: request.server, body: bodyOf(request.method, request.params ?? {}) };
}

function named(method: string, qualified: string, args: Params) {
  const { server, name } = splitQualified(qualified);
  return { server, body: bodyOf(method, { name, arguments: args }) };
}

/** The server is empty when it is not as {@link QUALIFIED_NAME}. */
export function splitQualified(qualified: string): { readonly server: string; readonly name: string } {
  const dot = QUALIFIED_NAME.test(qualified) ? qualified.indexOf('.') : 0;
  return { server: qualified.slice(0, dot), name: qualified.slice(dot + 1) };
}

function bodyOf(method: string, params: Params): Params {
  return { jsonrpc: '2.0', id: 1, method, params };
}
