/**
 * Adds a member to `result._meta` of a JSON-RPC answer, and leaves every other byte as the server wrote it.
 *
 * `_meta` is where MCP lets a proxy say something (schema, `Result`); keys are prefixed with a name of the proxy's own.
 */
import { applyEdits, CLOSE_BRACE, eachMember, OPEN_BRACE, skipSpace } from './json-bytes.ts';

/**
 * @param bytes One JSON-RPC message that `JSON.parse` accepts.
 * @param value JSON text.
 * @returns `bytes` itself where there is no result to add to, or where its `_meta` is no object.
 */
export function addToResultMeta(bytes: Buffer, key: string, value: string): Buffer {
  const root = skipSpace(bytes, 0);
  if (bytes[root] !== OPEN_BRACE) return bytes;
  let result: number | undefined;
  eachMember(bytes, root, (name, { start }) => {
    if (name === 'result') result = start;
  });
  if (result === undefined || bytes[result] !== OPEN_BRACE) return bytes;
  let meta: number | undefined;
  eachMember(bytes, result, (name, { start }) => {
    if (name === '_meta') meta = start;
  });
  const member = `${JSON.stringify(key)}:${value}`;
  if (meta === undefined) return insertFirst(bytes, result, `"_meta":{${member}}`);
  return bytes[meta] === OPEN_BRACE ? insertFirst(bytes, meta, member) : bytes;
}

function insertFirst(bytes: Buffer, object: number, member: string): Buffer {
  const isEmpty = bytes[skipSpace(bytes, object + 1)] === CLOSE_BRACE;
  return applyEdits(bytes, [{ start: object + 1, end: object + 1, text: isEmpty ? member : `${member},` }]);
}
