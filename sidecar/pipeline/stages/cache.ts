/**
 * Stage 9. Answers from memory what the server itself allows to be kept: lists, `server/discover` and `resources/read`
 * of 2026-07-28 with a `ttlMs`. After `quota`, since the agent pays for what it is given; before `route`, so that a
 * kept answer needs no server.
 */
import { hash } from 'node:crypto';
import { estimateTokens } from '../../quota/tokens.ts';
import type { AnswerCache } from '../answer-cache.ts';
import type { Outcome, Stage } from '../compose.ts';
import type { Permitted } from '../exchange.ts';

/** 2026-07-28, Caching: the methods whose results carry `ttlMs`. */
const CACHEABLE = new Set([
  'server/discover',
  'tools/list',
  'prompts/list',
  'resources/list',
  'resources/templates/list',
  'resources/read',
]);

export function cache(answers: AnswerCache): Stage<Permitted, Permitted> {
  return (exchange, next): Outcome | Promise<Outcome> => {
    const { message, era, reply } = exchange;
    if (era !== 'modern' || message?.id === undefined || !CACHEABLE.has(message.method)) return next(exchange);
    // A retry of a multi round-trip request belongs to its round trip.
    if (message.params?.inputResponses !== undefined || message.params?.requestState !== undefined)
      return next(exchange);

    // Hashed: the agent chooses how long its params are, and the cache counts answers only.
    const key = answers.keyOf(exchange.route.server, hash('sha256', keyPartsOf(exchange, message)));
    const kept = answers.find(key, message.id);
    if (kept === undefined) {
      exchange.keepAnswer = (answer) => answers.keep(key, answer);
      return next(exchange);
    }
    exchange.cached = true;
    exchange.tokensOut = estimateTokens(kept.length);
    exchange.answerBytes = kept;
    const spent = exchange.spend?.(exchange.tokensOut);
    if (spent !== undefined) return spent;
    reply.head(200, { 'content-type': 'application/json', 'content-length': String(kept.length) });
    reply.end(kept);
    return undefined;
  };
}

/** Everything that may change the answer: for whom, at which endpoint, under which policy, what was asked, and what the client can take. */
function keyPartsOf(
  { subject, route, policyVersion, protocolVersion }: Permitted,
  message: NonNullable<Permitted['message']>,
): string {
  const { _meta: _, ...params } = message.params ?? {};
  return JSON.stringify([
    subject,
    route.virtual,
    policyVersion,
    protocolVersion,
    message.method,
    params,
    message.meta?.['io.modelcontextprotocol/clientCapabilities'],
  ]);
}
