/**
 * The first look at a JSON text, by its bytes, before `JSON.parse` builds anything of it.
 *
 * One pass bounds the depth (a million nested arrays parse, and then break every recursive reader behind us), counts
 * and bounds the members of all objects, cuts a batch into its elements, and finds the places that a splice touches. Linear in the
 * bytes; memory is the layout and at most `batchMax` ranges.
 *
 * It does not check the grammar: what it reports is only meaningful for a text that `JSON.parse` accepts as well.
 * Keys are understood when they are written with escapes too: `"p\u0061rams"` is `params`, as it is for every parser.
 */
import { isUtf8 } from 'node:buffer';
import { err, ok, type Result } from '../../policies/result.ts';
import {
  BACKSLASH,
  CLOSE_BRACE,
  CLOSE_BRACKET,
  COLON,
  COMMA,
  OPEN_BRACE,
  OPEN_BRACKET,
  QUOTE,
  skipSpace,
  skipString,
  trimEnd,
} from './json-bytes.ts';
import type { ByteRange, Layout, MalformedReason } from './message.ts';

export interface ScanLimits {
  /** Levels of `{` and `[`; the message itself is level 1. */
  readonly depthMax: number;
  /** Elements of a root array. */
  readonly batchMax: number;
}

export interface Scan {
  readonly layout: Layout;
  /** Some object may have a key twice: for `findDuplicate` to say. Where this is false no key is repeated. */
  readonly mayRepeatKeys: boolean;
  /** The elements of a root array; `undefined` when the root is anything else. */
  readonly elements: readonly ByteRange[] | undefined;
}

/** Members of all objects of one text: what is built of them, and walked, costs a hundred times their bytes. */
export const MEMBERS_MAX = 50_000;

/** Keys of one object that are held against each other by hash; an object with more is for `findDuplicate`. */
const HASHED_KEYS_MAX = 32;

const ROOT_KEYS = ['id', 'params'].map((key) => Buffer.from(key));
const PARAMS_KEYS = ['_meta', 'arguments'].map((key) => Buffer.from(key));
const META_KEYS = ['traceparent', 'tracestate'].map((key) => Buffer.from(key));

export function scan(bytes: Buffer, { depthMax, batchMax }: ScanLimits): Result<Scan, MalformedReason> {
  // RFC 8259 section 8.1: UTF-8, no byte order mark. A parser that replaced bad bytes would read another text than the server.
  if (!isUtf8(bytes)) return err({ kind: 'notJson', detail: 'the body is not UTF-8' });
  if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf)
    return err({ kind: 'notJson', detail: 'the body starts with a byte order mark' });

  const length = bytes.length;
  let depth = 0;
  let memberCount = 0;
  // Whether a key is repeated is told by the bytes alone, and never by what an engine's parser made of the object.
  let mayRepeatKeys = false;
  const hashes: number[] = [];
  const objectStarts: number[] = [];
  let stringStart = 0;
  let stringEnd = 0;

  let root = { inside: 0, empty: true };
  let params: Layout['params'];
  let meta: Layout['meta'];
  let id: ByteRange | undefined;
  let args: ByteRange | undefined;
  let traceparent: ByteRange | undefined;
  let tracestate: ByteRange | undefined;
  let elements: ByteRange[] | undefined;
  let elementStart = 0;

  // Whose value is being read at levels 1 to 3 (1 + index into the key table; 0: a key of no interest), and where it starts.
  // Each colon of the level sets it anew.
  let rootKey = 0;
  let paramsKey = 0;
  let metaKey = 0;
  let rootValue = 0;
  let paramsValue = 0;
  let metaValue = 0;
  let inParams = false;
  let inMeta = false;

  for (let at = 0; at < length; at++) {
    switch (bytes[at]) {
      case QUOTE:
        stringStart = at;
        stringEnd = skipString(bytes, at);
        at = stringEnd - 1;
        break;
      case COLON:
        if (++memberCount > MEMBERS_MAX) return err({ kind: 'tooManyMembers', membersMax: MEMBERS_MAX });
        if (!mayRepeatKeys)
          mayRepeatKeys = !isNewKey(bytes, stringStart, stringEnd, hashes, objectStarts[depth - 1] ?? 0);
        if (depth === 1) {
          rootKey = keyIndex(bytes, stringStart, stringEnd, ROOT_KEYS);
          if (rootKey !== 0) rootValue = skipSpace(bytes, at + 1);
        } else if (depth === 2 && inParams) {
          paramsKey = keyIndex(bytes, stringStart, stringEnd, PARAMS_KEYS);
          if (paramsKey !== 0) paramsValue = skipSpace(bytes, at + 1);
        } else if (depth === 3 && inMeta) {
          metaKey = keyIndex(bytes, stringStart, stringEnd, META_KEYS);
          if (metaKey !== 0) metaValue = skipSpace(bytes, at + 1);
        }
        break;
      case OPEN_BRACE:
      case OPEN_BRACKET: {
        objectStarts[depth] = hashes.length;
        if (++depth > depthMax) return err({ kind: 'tooDeep', depthMax });
        if (depth > 3) break;
        const isObject = bytes[at] === OPEN_BRACE;
        if (depth === 1) {
          if (isObject) {
            root = openObject(bytes, at);
          } else {
            elements = [];
            elementStart = skipSpace(bytes, at + 1);
          }
        } else if (depth === 2) {
          inParams = isObject && rootKey === 2;
          if (inParams) params = openObject(bytes, at);
        } else {
          inMeta = isObject && inParams && paramsKey === 1;
          if (inMeta) meta = openObject(bytes, at);
        }
        break;
      }
      case COMMA:
      case CLOSE_BRACE:
      case CLOSE_BRACKET:
        if (depth === 1) {
          if (elements !== undefined && elementStart < at) {
            if (elements.length === batchMax)
              return err({ kind: 'batchRefused', detail: `a batch of more than ${batchMax} messages` });
            elements.push({ start: elementStart, end: trimEnd(bytes, at) });
            elementStart = skipSpace(bytes, at + 1);
          }
          if (rootKey === 1) id = { start: rootValue, end: trimEnd(bytes, at) };
        } else if (depth === 2 && inParams) {
          if (paramsKey === 2) args = { start: paramsValue, end: trimEnd(bytes, at) };
        } else if (depth === 3 && inMeta) {
          if (metaKey === 1) traceparent = { start: metaValue, end: trimEnd(bytes, at) };
          else if (metaKey === 2) tracestate = { start: metaValue, end: trimEnd(bytes, at) };
        }
        if (bytes[at] !== COMMA && depth > 0) hashes.length = objectStarts[--depth]!;
        break;
    }
  }
  return ok({ layout: { root, id, params, meta, traceparent, tracestate, arguments: args }, mayRepeatKeys, elements });
}

/** Notes a key of the innermost object, whose hashes begin at `from`. False: it may have been there, or it is too dear to tell. */
function isNewKey(bytes: Buffer, start: number, end: number, hashes: number[], from: number): boolean {
  if (hashes.length - from === HASHED_KEYS_MAX) return false;
  let hash = 0;
  for (let at = start + 1; at < end - 1; at++) {
    const byte = bytes[at]!;
    if (byte === BACKSLASH) return false; // Another spelling of some other key, perhaps.
    hash = (Math.imul(hash, 31) + byte) | 0;
  }
  for (let index = from; index < hashes.length; index++) if (hashes[index] === hash) return false;
  hashes.push(hash);
  return true;
}

function openObject(bytes: Buffer, at: number): { inside: number; empty: boolean } {
  return { inside: at + 1, empty: bytes[skipSpace(bytes, at + 1)] === CLOSE_BRACE };
}

/** 1 + the index in `keys` of the key whose quotes stand at `start` and before `end`; 0 for any other key. */
function keyIndex(bytes: Buffer, start: number, end: number, keys: readonly Buffer[]): number {
  for (let index = 0; index < keys.length; index++) {
    if (isSame(bytes, start + 1, end - 1, keys[index]!)) return index + 1;
  }
  if (end - start > ESCAPED_KEY_MAX) return 0;
  for (let at = start; at < end; at++) if (bytes[at] === BACKSLASH) return escapedKeyIndex(bytes, start, end, keys);
  return 0;
}

/** The longest of our keys with every character as `\uXXXX`, and its quotes. */
const ESCAPED_KEY_MAX = 2 + 6 * 'traceparent'.length;

function isSame(bytes: Buffer, start: number, end: number, key: Buffer): boolean {
  if (end - start !== key.length) return false;
  for (let offset = 0; offset < key.length; offset++) {
    if (bytes[start + offset] !== key[offset]) return false;
  }
  return true;
}

function escapedKeyIndex(bytes: Buffer, start: number, end: number, keys: readonly Buffer[]): number {
  let key: unknown;
  try {
    key = JSON.parse(bytes.toString('utf8', start, end));
  } catch {
    return 0; // Not JSON: the parser that comes next says so.
  }
  return keys.findIndex((known) => known.toString() === key) + 1;
}

/** Path of the first repeated key of valid JSON, for the message; `undefined` where there is none. Exact, and linear in the bytes. */
export function findDuplicate(bytes: Buffer): string | undefined {
  // One entry an open object or array; an array has no keys.
  const open: { readonly keys: Set<string> | undefined; key: string }[] = [];
  let string = { start: 0, end: 0 };
  for (let at = 0; at < bytes.length; at++) {
    const top = open.at(-1);
    switch (bytes[at]) {
      case QUOTE:
        string = { start: at, end: skipString(bytes, at) };
        at = string.end - 1;
        break;
      case OPEN_BRACE:
        open.push({ keys: new Set(), key: '' });
        break;
      case OPEN_BRACKET:
        open.push({ keys: undefined, key: '0' });
        break;
      case CLOSE_BRACE:
      case CLOSE_BRACKET:
        open.pop();
        break;
      case COMMA:
        if (top?.keys === undefined) top!.key = String(Number(top!.key) + 1);
        break;
      case COLON:
        top!.key = JSON.parse(bytes.toString('utf8', string.start, string.end)) as string;
        if (top!.keys!.has(top!.key)) return open.map(({ key }) => key.slice(0, PATH_KEY_MAX)).join('.');
        top!.keys!.add(top!.key);
        break;
    }
  }
  return undefined;
}

/** Characters of one key in a path that is shown. */
const PATH_KEY_MAX = 64;
