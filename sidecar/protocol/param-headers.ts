/**
 * `Mcp-Param-*`: arguments of a tool that its schema wants repeated as headers (2026-07-28, server/tools, x-mcp-header).
 *
 * Pure. Where an agent's arguments go on as they came, a header that no declaration asks for is none of our business.
 */
import { err, ok, type Result } from '../../policies/result.ts';
import { decodeHeader, encodeHeader, trimHeader } from './header-value.ts';
import type { JsonObject, MalformedReason } from './message.ts';

interface Declaration {
  readonly path: readonly string[];
  readonly header: string;
  readonly isNumber: boolean;
}

const PASSED = ok(undefined);

/**
 * Refuses a call whose headers do not say what its arguments say: missing, different, not decodable, or there for an
 * argument that is absent, null or no primitive, which needs none. A schema whose declarations are themselves wrong is not
 * enforced: the server that wrote it answers for it.
 *
 * @param inputSchema As `tools/list` gave it; `undefined` when the tool is not known.
 * @param headers Lower-case names.
 */
export function checkParamHeaders(
  inputSchema: unknown,
  args: JsonObject | undefined,
  headers: Readonly<Record<string, string | string[] | undefined>>,
): Result<void, MalformedReason> {
  for (const { path, header, isNumber } of findDeclarations(inputSchema) ?? []) {
    const value = valueAt(args, path);
    const text = textOf(value);
    const sent = headers[nameOf(header)];
    if (text === undefined && sent === undefined) continue;
    if (typeof sent !== 'string') return refuse(`the header Mcp-Param-${header} is missing or repeated`);
    const decoded = decodeHeader(trimHeader(sent));
    if (decoded === undefined) return refuse(`Mcp-Param-${header} is not valid base64 of UTF-8`);
    // 42.0 is 42; but `0x2a`, `4.2e1` and ` 42` are not what a client may send.
    const isSame =
      isNumber && typeof value === 'number' && DECIMAL.test(decoded) ? Number(decoded) === value : decoded === text;
    if (!isSame) return refuse(`Mcp-Param-${header} is not what params.arguments.${path.join('.')} says`);
  }
  return PASSED;
}

/**
 * All the headers of a call with these arguments: for arguments that are not what the agent has sent, whose own headers
 * say what was removed or replaced.
 *
 * @returns lower-case names, without arguments that need no header.
 */
export function paramHeadersOf(inputSchema: unknown, args: JsonObject | undefined): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const { path, header } of findDeclarations(inputSchema) ?? []) {
    const text = textOf(valueAt(args, path));
    if (text !== undefined) headers[nameOf(header)] = encodeHeader(text);
  }
  return headers;
}

export const PARAM_PREFIX = 'mcp-param-';

function nameOf(header: string): string {
  return `${PARAM_PREFIX}${header.toLowerCase()}`;
}

function valueAt(args: JsonObject | undefined, path: readonly string[]): unknown {
  return path.reduce<unknown>(
    (node, key) => (isObject(node) && Object.hasOwn(node, key) ? node[key] : undefined),
    args,
  );
}

/** Declarations reachable by `properties` alone; `undefined` when one of them is not as the specification wants it. */
function findDeclarations(inputSchema: unknown): Declaration[] | undefined {
  const declarations: Declaration[] = [];
  const seen = new Set<string>();
  const open: { readonly schema: unknown; readonly path: readonly string[] }[] = [{ schema: inputSchema, path: [] }];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const { schema, path } = next;
    if (!isObject(schema)) continue;
    if (Object.hasOwn(schema, 'x-mcp-header')) {
      const header = schema['x-mcp-header'];
      const type = schema.type;
      if (
        path.length === 0 ||
        typeof header !== 'string' ||
        !TOKEN.test(header) ||
        !TYPES.has(type) ||
        seen.has(header.toLowerCase())
      )
        return undefined;
      seen.add(header.toLowerCase());
      declarations.push({ path, header, isNumber: type === 'integer' || type === 'number' });
    }
    const { properties } = schema;
    if (path.length < DEPTH_MAX && isObject(properties)) {
      for (const key of Object.keys(properties)) open.push({ schema: properties[key], path: [...path, key] });
    }
  }
  return declarations;
}

/** `number` is not in the specification, but in its conformance suite. */
const TYPES: ReadonlySet<unknown> = new Set(['string', 'integer', 'boolean', 'number']);
/** RFC 9110 section 5.6.2. */
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const DECIMAL = /^-?\d+(\.\d+)?$/;
/** Levels of `properties` looked at: a server's schema must not cost more than its tool's arguments may. */
const DEPTH_MAX = 64;

function textOf(value: unknown): string | undefined {
  switch (typeof value) {
    case 'string':
      return value;
    case 'boolean':
      return String(value);
    case 'number':
      return Number.isInteger(value) && !Number.isSafeInteger(value) ? undefined : String(value);
    default:
      return undefined;
  }
}

function refuse(detail: string): Result<never, MalformedReason> {
  return err({ kind: 'headerMismatch', detail, id: undefined });
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
