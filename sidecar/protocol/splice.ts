/**
 * Puts trace context into `params._meta` (SEP-414) and leaves every other byte as the agent sent it, in its place.
 *
 * `baggage` that is there passes untouched. One allocation.
 */
import { applyEdits, CLOSE_BRACE, COMMA, type Edit, QUOTE, skipSpace, trimEnd } from './json-bytes.ts';
import type { ByteRange, Message } from './message.ts';

export interface SplicedTrace {
  /** W3C `traceparent`. */
  readonly traceparent: string;
  /** W3C `baggage` to add; only for a message whose `_meta` has none of its own. */
  readonly baggage?: string | undefined;
  /** W3C `tracestate`; `undefined` takes the agent's own out, since it would belong to another parent. */
  readonly tracestate: string | undefined;
}

/** The message's bytes with the trace context in place. Not for responses, which have no params. */
export function spliceTrace({ bytes, layout }: Message, { traceparent, tracestate, baggage }: SplicedTrace): Buffer {
  const parent =
    baggage === undefined
      ? JSON.stringify(traceparent)
      : `${JSON.stringify(traceparent)},"baggage":${JSON.stringify(baggage)}`;
  const state = tracestate === undefined ? undefined : JSON.stringify(tracestate);
  const parentMember = `"traceparent":${parent}`;
  const members = state === undefined ? parentMember : `${parentMember},"tracestate":${state}`;

  if (layout.params === undefined) return insert(bytes, layout.root, `"params":{"_meta":{${members}}}`);
  if (layout.meta === undefined) return insert(bytes, layout.params, `"_meta":{${members}}`);
  const { traceparent: oldParent, tracestate: oldState } = layout;
  if (oldParent === undefined && oldState === undefined) return insert(bytes, layout.meta, members);
  // What is not there yet goes behind what is.
  if (oldState === undefined)
    return applyEdits(bytes, [
      { ...oldParent!, text: state === undefined ? parent : `${parent},"tracestate":${state}` },
    ]);
  if (oldParent === undefined) {
    const start = state === undefined ? memberStart(bytes, oldState) : oldState.start;
    return applyEdits(bytes, [
      { start, end: oldState.end, text: state === undefined ? parentMember : `${state},${parentMember}` },
    ]);
  }
  const edits: Edit[] = [
    { ...oldParent, text: parent },
    state === undefined ? { ...withComma(bytes, oldState), text: '' } : { ...oldState, text: state },
  ];
  return applyEdits(bytes, oldParent.start < oldState.start ? edits : edits.reverse());
}

function insert(
  bytes: Buffer,
  { inside, empty }: { readonly inside: number; readonly empty: boolean },
  text: string,
): Buffer {
  return applyEdits(bytes, [{ start: inside, end: inside, text: empty ? text : `${text},` }]);
}

/** The opening quote of the key whose value is given. The key is a plain word, escaped or not, so it holds no quote. */
function memberStart(bytes: Buffer, value: ByteRange): number {
  const keyEnd = bytes.lastIndexOf(QUOTE, value.start - 1);
  return bytes.lastIndexOf(QUOTE, keyEnd - 1);
}

/** A member that is not the only one of its object, with the comma that separates it. */
function withComma(bytes: Buffer, value: ByteRange): ByteRange {
  const start = memberStart(bytes, value);
  const before = trimEnd(bytes, start) - 1;
  if (bytes[before] === COMMA) return { start: before, end: value.end };
  const behind = skipSpace(bytes, value.end);
  return { start, end: bytes[behind] === CLOSE_BRACE ? behind : behind + 1 };
}
