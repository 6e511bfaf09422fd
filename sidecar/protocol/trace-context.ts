/**
 * W3C Trace Context (https://www.w3.org/TR/trace-context/): reading, writing and making ids. Pure: randomness is given.
 */

export interface TraceParent {
  /** 32 lower-case hexadecimal digits, not all zero. */
  readonly traceId: string;
  /** 16 lower-case hexadecimal digits, not all zero. Called `parent-id` in the specification. */
  readonly spanId: string;
  readonly sampled: boolean;
}

const TRACEPARENT = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;
const NO_TRACE = '0'.repeat(32);
const NO_SPAN = '0'.repeat(16);

/** Characters of a `tracestate` that are passed on (section 3.3.1.5: at least 512). */
const TRACESTATE_MAX = 512;

/**
 * Reads a `traceparent`, strictly. Of a version later than 00 the known fields are read and the rest is ignored
 * (section 4.3); version ff and all-zero ids are invalid.
 *
 * @returns `undefined` for anything else: the trace starts anew.
 */
export function parseTraceparent(text: string): TraceParent | undefined {
  const match = TRACEPARENT.exec(text);
  if (match === null) return undefined;
  const [, version, traceId, spanId, flags, rest] = match as unknown as [
    string,
    string,
    string,
    string,
    string,
    string | undefined,
  ];
  if (version === 'ff' || (version === '00' && rest !== undefined)) return undefined;
  if (traceId === NO_TRACE || spanId === NO_SPAN) return undefined;
  return { traceId, spanId, sampled: (Number.parseInt(flags, 16) & 1) === 1 };
}

/** Writes version 00. Of the flags only `sampled` is ours to vouch for. */
export function formatTraceparent({ traceId, spanId, sampled }: TraceParent): string {
  return `00-${traceId}-${spanId}-${sampled ? '01' : '00'}`;
}

/** A `tracestate` worth passing on; `undefined` for one that is empty, too long, or not visible ASCII: it is dropped whole. */
export function boundTracestate(text: string | undefined): string | undefined {
  return text !== undefined && text.length <= TRACESTATE_MAX && /^[\x20-\x7e\t]*[\x21-\x7e][\x20-\x7e\t]*$/.test(text)
    ? text
    : undefined;
}

/** Characters of a `baggage` header that is taken over (W3C Baggage section 3.3.2). */
const BAGGAGE_MAX = 8192;

/** A `baggage` header worth passing on; `undefined` for one that is empty, too long, or not visible ASCII. */
export function boundBaggage(text: string | undefined): string | undefined {
  return text !== undefined && text.length <= BAGGAGE_MAX && /^[\x20-\x7e\t]*[\x21-\x7e][\x20-\x7e\t]*$/.test(text)
    ? text
    : undefined;
}

/** Gives `count` random bytes; they are read before the next call. */
export type RandomBytes = (count: number) => Buffer;

export function makeTraceId(randomBytes: RandomBytes): string {
  return makeId(randomBytes(16));
}

export function makeSpanId(randomBytes: RandomBytes): string {
  return makeId(randomBytes(8));
}

/** All zero means "no id"; 2^-64 is not never. */
function makeId(bytes: Buffer): string {
  const id = bytes.toString('hex');
  return /^0+$/.test(id) ? `${id.slice(1)}1` : id;
}
