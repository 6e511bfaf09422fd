/**
 * Cuts the texts of an exchange that agents and servers choose, so that what waits in a queue is small. PURE.
 *
 * A name may be as long as a body. Everything that is kept beyond the exchange is cut here, once; the arguments, which
 * are not cut but kept or left out as a whole, are the caller's business.
 */
import type { FinishedExchange } from './finished.ts';

/** UTF-16 code units; a text that was cut ends in `…` beyond them. */
export const TEXT_LENGTH_MAX = 2048;

const TEXTS = [
  'method',
  'tool',
  'prompt',
  'resource',
  'user',
  'rule',
  'reason',
  'requestId',
  'protocolVersion',
] as const satisfies readonly (keyof FinishedExchange)[];

/** The same exchange where nothing is too long, which is the rule. */
export function cutTexts(exchange: FinishedExchange): FinishedExchange {
  if (TEXTS.every((name) => (exchange[name]?.length ?? 0) <= TEXT_LENGTH_MAX)) return exchange;
  const cut: { -readonly [Name in keyof FinishedExchange]: FinishedExchange[Name] } = { ...exchange };
  for (const name of TEXTS) {
    const text = cut[name];
    if (text !== undefined) cut[name] = cutText(text);
  }
  return cut;
}

/** UTF-16 code units of all these texts together. */
export function textLengths(exchange: FinishedExchange): number {
  let length = 0;
  for (const name of TEXTS) length += exchange[name]?.length ?? 0;
  for (const uri of exchange.resources ?? []) length += uri.length;
  return length;
}

export function cutText(text: string): string {
  if (text.length <= TEXT_LENGTH_MAX) return text;
  // Copied, since V8 keeps the whole of a text alive for a slice of it.
  return `${Buffer.from(text.slice(0, TEXT_LENGTH_MAX), 'utf16le').toString('utf16le')}…`;
}
