/**
 * Values of `Mcp-Name` and `Mcp-Param-*` (2026-07-28, basic/transports/streamable-http, Value Encoding).
 */
import { isUtf8 } from 'node:buffer';

const PREFIX = '=?base64?';
const SUFFIX = '?=';

/** Without the optional white space around a field value (RFC 9110 section 5.5). */
export function trimHeader(value: string): string {
  let start = 0;
  let end = value.length;
  while (start < end && isSpace(value.charCodeAt(start))) start++;
  while (start < end && isSpace(value.charCodeAt(end - 1))) end--;
  return value.slice(start, end);
}

function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x09;
}

/**
 * The text that a header value stands for. A value in `=?base64?…?=` is decoded, any other stands for itself.
 *
 * @returns `undefined` when the encoding is not canonical base64 with padding, or not UTF-8 underneath.
 */
export function decodeHeader(value: string): string | undefined {
  if (!value.startsWith(PREFIX) || !value.endsWith(SUFFIX) || value.length < PREFIX.length + SUFFIX.length)
    return value;
  const encoded = value.slice(PREFIX.length, -SUFFIX.length);
  const decoded = Buffer.from(encoded, 'base64');
  // Buffer skips what is not base64; only what encodes back to itself was all there was.
  return decoded.toString('base64') === encoded && isUtf8(decoded) ? decoded.toString() : undefined;
}

/** The header value that stands for the text: the text itself where that is safe. */
export function encodeHeader(text: string): string {
  const isPlain = /^(?:[!-~](?:[\t -~]*[!-~])?)?$/.test(text) && !(text.startsWith(PREFIX) && text.endsWith(SUFFIX));
  return isPlain ? text : `${PREFIX}${Buffer.from(text).toString('base64')}${SUFFIX}`;
}
