/**
 * What one audit record looks like: a JSON object on one line. PURE.
 *
 * Guarantees: valid JSON and well-formed Unicode for every input; never a raw line break nor a character that steers a
 * terminal, so a record can neither split nor forge another; `time` and `sequence` come first, so that the last
 * sequence is found without parsing. A field that does not apply is left out. Every field but the arguments, which the
 * limits on the body bound, is at most 2048 characters: a text is cut, a list or an object is left out, and `rolesBytes`
 * or `annotationsBytes` tells its length.
 */
import { cutText, TEXT_LENGTH_MAX } from './cut-texts.ts';
import type { FinishedExchange } from './finished.ts';

/** Something worth a record that is not an exchange, such as `policy.reloaded`. */
export interface AuditEvent {
  readonly event: string;
  readonly [field: string]: string | number | boolean | undefined;
}

const WORDS_MAX = 1024;
/** Longer ones are not remembered: agents choose some of them. */
const WORD_LENGTH_MAX = 128;
const EPOCH = new Date(0).toISOString();

/** Raw line breaks can only lie between the tokens of JSON; the others only inside its strings, where escapes mean the same. */
const UNSAFE = /[\n\r\u007f-\u009f\u2028\u2029\ud800-\udfff]/;
const UNSAFE_ALL =
  /[\n\r]+|[\u007f-\u009f\u2028\u2029]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** What stands for arguments that there was no room for: of their JSON text, redacted as ever, in UTF-8. */
export interface OmittedArguments {
  readonly bytes: number;
  /** Hexadecimal. */
  readonly sha256: string;
}

export function formatExchange(exchange: FinishedExchange, sequence: number, omitted?: OmittedArguments): string {
  const { upstream } = exchange;
  const line =
    `${head(exchange.startedAt, sequence)},"group":${quoteWord(exchange.group)}` +
    word('agent', exchange.agent) +
    word('identifiedBy', exchange.identifiedBy) +
    (exchange.roles.length === 0 ? '' : shared('roles', exchange.roles)) +
    text('user', exchange.user) +
    word('server', exchange.server) +
    word('virtual', exchange.virtual) +
    word('method', exchange.method) +
    word('tool', exchange.tool) +
    word('prompt', exchange.prompt) +
    text('resource', exchange.resource) +
    shared('resources', exchange.resources) +
    number('resourcesOmitted', exchange.resourcesOmitted) +
    shared('annotations', exchange.annotations) +
    (exchange.argumentsJson === undefined ? '' : `,"arguments":${seal(exchange.argumentsJson)}`) +
    (omitted === undefined ? '' : number('argumentsBytes', omitted.bytes) + text('argumentsSha256', omitted.sha256)) +
    flag('argumentsChanged', exchange.argumentsChanged) +
    `,"decision":"${exchange.decision}"` +
    word('rule', exchange.rule) +
    word('reasonKind', exchange.reasonKind) +
    text('reason', exchange.reason) +
    number('status', exchange.httpStatus) +
    number('rpcCode', exchange.rpcCode) +
    flag('toolError', exchange.toolError) +
    text('errorId', exchange.errorId) +
    number('latencyMs', exchange.durationMs) +
    (upstream === undefined ? '' : number('upstreamMs', upstream.durationMs) + number('attempts', upstream.attempts)) +
    number('tokensIn', exchange.tokensIn) +
    number('tokensOut', exchange.tokensOut) +
    word('tokensBy', exchange.tokensBy) +
    exactNumber('cost', exchange.cost) +
    number('bytesIn', exchange.bytesIn) +
    number('bytesOut', exchange.bytesOut) +
    flag('aborted', exchange.aborted) +
    flag('cached', exchange.cached) +
    word('era', exchange.era) +
    word('protocolVersion', exchange.protocolVersion) +
    text('requestId', exchange.requestId) +
    text('session', exchange.sessionHash) +
    text('traceId', exchange.traceId) +
    word('policy', exchange.policyVersion);
  return `${line}}\n`;
}

export function formatEvent(time: number, event: AuditEvent, sequence: number): string {
  let line = head(time, sequence);
  for (const [name, value] of Object.entries(event)) {
    if (name === 'time' || name === 'sequence') continue;
    if (typeof value === 'string') line += `,${quote(name)}:${quote(value)}`;
    else if (typeof value === 'number') line += `,${quote(name)}:${rounded(value)}`;
    else if (value !== undefined) line += `,${quote(name)}:${value}`;
  }
  return `${line}}\n`;
}

/** The sequence of the last record in `tail`, the end of an audit file (a torn last line counts where its head is whole). */
export function lastSequence(tail: string): number | undefined {
  let last: number | undefined;
  for (const match of tail.matchAll(/(?:^|\n)\{"time":"[0-9T:.+Z-]{20,32}","sequence":(\d{1,15}),/g))
    last = Number(match[1]);
  return last;
}

function head(time: number, sequence: number): string {
  return `{"time":"${formatTime(time)}","sequence":${sequence}`;
}

let second = Number.NaN;
let secondText = '';

/** RFC 3339 with milliseconds. The part down to the second is kept: making it costs as much as the rest of a line. */
function formatTime(time: number): string {
  const milliseconds = Math.floor(time);
  const seconds = Math.floor(milliseconds / 1000);
  if (seconds !== second) {
    const date = new Date(seconds * 1000);
    // A broken clock must not keep every later record from being written.
    if (Number.isNaN(date.getTime())) return EPOCH;
    secondText = date.toISOString().slice(0, -4);
    second = seconds;
  }
  return `${secondText}${String(milliseconds - seconds * 1000).padStart(3, '0')}Z`;
}

function text(name: string, value: string | undefined): string {
  return value === undefined ? '' : `,"${name}":${quote(value)}`;
}

function number(name: string, value: number | undefined): string {
  return value === undefined ? '' : `,"${name}":${rounded(value)}`;
}

/** Money: sums of it must come out, so nothing is rounded. */
function exactNumber(name: string, value: number | undefined): string {
  return value === undefined ? '' : `,"${name}":${value}`;
}

function flag(name: string, value: boolean): string {
  return value ? `,"${name}":true` : '';
}

/** For fields with few different values. */
function word(name: string, value: string | undefined): string {
  return value === undefined ? '' : `,"${name}":${quoteWord(value)}`;
}

const fragments = new WeakMap<object, string>();

/**
 * For lists and objects of which many exchanges have the very same one: remembered by identity. One that is too long is
 * left out as a whole, and its length is told, as that of arguments is.
 */
function shared(name: string, value: object | undefined): string {
  if (value === undefined) return '';
  let fragment = fragments.get(value);
  if (fragment === undefined) {
    const json = seal(JSON.stringify(value));
    fragment = json.length <= TEXT_LENGTH_MAX ? `,"${name}":${json}` : number(`${name}Bytes`, Buffer.byteLength(json));
    fragments.set(value, fragment);
  }
  return fragment;
}

const words = new Map<string, string>();

/** {@link quote} that remembers: a map is asked in a third of the time. */
function quoteWord(value: string): string {
  if (value.length > WORD_LENGTH_MAX) return quote(value);
  let quoted = words.get(value);
  if (quoted === undefined) {
    quoted = quote(value);
    if (words.size >= WORDS_MAX) words.clear();
    words.set(value, quoted);
  }
  return quoted;
}

function quote(value: string): string {
  return seal(JSON.stringify(cutText(value)));
}

/** Microseconds are precise enough. JSON has no NaN. */
function rounded(value: number): number | null {
  return Number.isInteger(value) ? value : Number.isFinite(value) ? Math.round(value * 1000) / 1000 : null;
}

/** Makes JSON text fit for a line. */
function seal(json: string): string {
  if (!UNSAFE.test(json)) return json;
  return json.replace(UNSAFE_ALL, (found) =>
    found[0] === '\n' || found[0] === '\r' ? ' ' : `\\u${found.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
