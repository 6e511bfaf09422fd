/**
 * Requests of the 2025 eras that are under way in a session, by id: so that `notifications/cancelled` ends them here
 * too. The server owes no answer to a request that was cancelled (2025-11-25, utilities/cancellation), and may leave its
 * stream open for ever; the agent that has cancelled does not read it.
 */
import type { Message } from '../protocol/message.ts';
import type { Answered, Attempted } from './exchange.ts';

export class RunningRequests {
  readonly #cancels = new Map<string, () => void>();

  /** Notes the request. Returns how to forget it; `undefined` for what cannot be cancelled this way. */
  enter(exchange: Answered): (() => void) | undefined {
    const { message, reply, answer } = exchange;
    const key = message?.kind === 'request' ? keyOf(exchange, message.id) : undefined;
    if (key === undefined) return undefined;
    const cancel = () => {
      // While the agent still reads, the server may have answered already.
      if (reply.gone) answer.cancel();
      else reply.onGone(() => answer.cancel());
    };
    this.#cancels.set(key, cancel);
    return () => {
      if (this.#cancels.get(key) === cancel) this.#cancels.delete(key);
    };
  }

  /** To be told of each message that the server has taken. */
  passed(exchange: Attempted, message: Message | undefined): void {
    if (message?.method !== 'notifications/cancelled') return;
    const key = keyOf(exchange, message.params?.requestId);
    if (key !== undefined) this.#cancels.get(key)?.();
  }
}

/** Ids are unique in a session; without one, another client's request could be meant. */
export function keyOf(
  { era, route, upstreamSessionId }: Pick<Attempted, 'era' | 'route' | 'upstreamSessionId'>,
  id: unknown,
): string | undefined {
  if (era !== 'legacy' || upstreamSessionId === undefined) return undefined;
  return JSON.stringify([route.server, upstreamSessionId, id]);
}
