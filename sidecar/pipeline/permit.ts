/**
 * Proof that policy allowed an exchange. `forward` takes a permit and sends only what the permit holds, so code that
 * skips authorization does not compile, and a permit for one message cannot carry another.
 */
import type { Message } from '../protocol/message.ts';

declare const issued: unique symbol;

/** What is left of a list for this subject; `undefined` for a reply that is not filtered. */
export type ListFilter = (kind: 'tools' | 'prompts' | 'resources' | 'resourceTemplates', item: unknown) => boolean;

export interface Permit {
  readonly [issued]: true;
  readonly server: string;
  readonly method: 'POST' | 'GET' | 'DELETE';
  readonly message: Message | undefined;
  /** Applied to every list that comes back, on whatever stream it comes. */
  readonly filter: ListFilter;
}

/** Only the `authorize` stage calls this (the structure test sees to it). */
export function issuePermit(contents: Omit<Permit, typeof issued>): Permit {
  return contents as Permit;
}
