/**
 * Session ids of the 2025 eras as the agent sees them: sealed values that hold the upstream's own id, the server and
 * the agent, so that no table can lose them and none can be used by another agent or on another route.
 */
import { createHash, randomBytes } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { createSealer, type SealedSession } from '../protocol/seal.ts';

export interface Session extends SealedSession {
  /** First 16 hex digits of SHA-256 of the sealed id: names the session in the audit without giving it away. */
  readonly hash: string;
}

export interface Sessions {
  open(sealed: string): Session | undefined;
  seal(session: SealedSession): string;
}

/** Opened ids remembered, so that a busy session is decrypted once. */
const OPENED_MAX = 4096;

/** @param key 32 bytes. Ids sealed under another key (an earlier run) are unknown. */
export function createSessions(key: Buffer = randomBytes(32)): Sessions {
  const sealer = createSealer(key, randomBytes);
  const opened = new LRUCache<string, Session>({ max: OPENED_MAX });
  return {
    open(sealed) {
      const known = opened.get(sealed);
      if (known !== undefined) return known;
      const session = sealer.open(sealed);
      if (session === undefined) return undefined;
      const found = { ...session, hash: createHash('sha256').update(sealed).digest('hex').slice(0, 16) };
      opened.set(sealed, found);
      return found;
    },
    seal: (session) => sealer.seal(session),
  };
}
