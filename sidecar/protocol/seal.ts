/**
 * Session ids as values: what the sidecar must know of a session travels, sealed, in the id that the agent holds. No
 * table can lose it, and an id that was not sealed here opens to nothing.
 *
 * AES-256-GCM with a random nonce. That the session belongs to this agent and server is for the caller to check.
 */
import { createCipheriv, createDecipheriv } from 'node:crypto';
import type { RandomBytes } from './trace-context.ts';

export interface SealedSession {
  readonly server: string;
  readonly agent: string;
  readonly upstreamSessionId: string;
  readonly protocolVersion: string | undefined;
  /** The virtual server at whose endpoint it was opened. */
  readonly virtual: string | undefined;
}

export interface Sealer {
  /** Visible ASCII (base64url), as 2025-03-26 wants of a session id. Another text each time. */
  seal(session: SealedSession): string;
  /** `undefined` for whatever `seal` with this key did not make. */
  open(text: string): SealedSession | undefined;
}

const CIPHER = 'aes-256-gcm';
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
/** Keeps a key that is ever used for something else as well from opening the one as the other. */
const PURPOSE = Buffer.from('mcp-sidecar session 1');
/** Characters of an id that is looked at. An HTTP head is at most 16 KiB. */
const SEALED_MAX = 8192;

/**
 * @param key 32 bytes.
 * @param randomBytes Cryptographically random. 2^32 ids under one key are safe (NIST SP 800-38D section 8.3).
 */
export function createSealer(key: Buffer, randomBytes: RandomBytes): Sealer {
  return {
    seal({ server, agent, upstreamSessionId, protocolVersion, virtual }) {
      const nonce = Buffer.from(randomBytes(NONCE_BYTES));
      const cipher = createCipheriv(CIPHER, key, nonce).setAAD(PURPOSE);
      const plain = JSON.stringify([server, agent, upstreamSessionId, protocolVersion ?? null, virtual ?? null]);
      return Buffer.concat([nonce, cipher.update(plain, 'utf8'), cipher.final(), cipher.getAuthTag()]).toString(
        'base64url',
      );
    },
    open(text) {
      if (text.length > SEALED_MAX) return undefined;
      const sealed = Buffer.from(text, 'base64url');
      // The decoder skips what is not base64url and trailing bits: one session must not have two ids.
      if (sealed.length < NONCE_BYTES + TAG_BYTES || sealed.toString('base64url') !== text) return undefined;
      const decipher = createDecipheriv(CIPHER, key, sealed.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES });
      decipher.setAAD(PURPOSE).setAuthTag(sealed.subarray(-TAG_BYTES));
      const start = decipher.update(sealed.subarray(NONCE_BYTES, -TAG_BYTES));
      let end: Buffer;
      try {
        end = decipher.final();
      } catch {
        return undefined; // The tag does not fit: forged, damaged, or sealed under another key.
      }
      const [server, agent, upstreamSessionId, protocolVersion, virtual] = JSON.parse(
        Buffer.concat([start, end]).toString(),
      ) as [string, string, string, string | null, string | null];
      return {
        server,
        agent,
        upstreamSessionId,
        protocolVersion: protocolVersion ?? undefined,
        virtual: virtual ?? undefined,
      };
    },
  };
}
