/**
 * A key of its own for each agent: `Authorization: Bearer <key>` (RFC 6750 section 2.1) or `X-Api-Key: <key>`.
 *
 * Keys are compared by their SHA-256 digests in constant time and against every agent, so that the time taken tells
 * neither how much of a key was right nor whose it is. A key file that changes is picked up with the next request. A
 * present but wrong key is refused; no key at all is left to the next method. Never names a key in a text.
 */
import { hash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { err, ok, type Result } from '../../policies/result.ts';
import type { Caller, Identification, IdentityMethod } from './identify.ts';

/** Reads an agent's key as it is now, or says what is wrong. Called at start and with each request that carries a key. */
export type KeyReader = () => Result<string, string>;

interface KeyHolder {
  readonly caller: Caller;
  readonly read: KeyReader;
  key: string;
  digest: Buffer;
}

/** What a connection has shown. */
interface Shown {
  readonly authorization: string | undefined;
  readonly header: string | string[] | undefined;
  readonly identification: Identification;
  readonly until: number;
}

/** For so long a connection that shows the same key again is not looked up again: a key that is withdrawn works this much longer. */
const REMEMBER_MS = 1_000;

/**
 * An error, as a sentence, when a key cannot be read or two agents have the same.
 *
 * @param now Monotonic clock, milliseconds. Default: the process's own.
 */
export function createApiKeyIdentity(
  readers: Readonly<Record<string, KeyReader>>,
  now: () => number = () => performance.now(),
): Result<IdentityMethod, string> {
  const holders: KeyHolder[] = [];
  for (const [agent, read] of Object.entries(readers)) {
    const key = read();
    if (!key.ok) return err(`the API key of agent ${agent}: ${key.error}`);
    if (key.value === '') return err(`the API key of agent ${agent} is empty`);
    const digest = sha256(key.value);
    const other = holders.find((holder) => holder.digest.equals(digest));
    if (other !== undefined) {
      return err(`agents ${other.caller.agent} and ${agent} have the same API key: give each agent a key of its own`);
    }
    const caller: Caller = { agent, method: 'apiKey', roles: [], claims: {}, user: undefined };
    holders.push({ caller, read, key: key.value, digest });
  }
  const shown = new WeakMap<Socket, Shown>();
  return ok({
    type: 'apiKey',
    identify(request) {
      const { authorization, 'x-api-key': header } = request.headers;
      const before = shown.get(request.socket);
      // Comparing a key with what the same connection has shown before tells its caller nothing about anybody's key.
      if (
        before !== undefined &&
        now() < before.until &&
        before.authorization === authorization &&
        before.header === header
      ) {
        return before.identification;
      }
      const identification = identifyByKey(request, holders);
      if (identification.kind === 'known') {
        shown.set(request.socket, { authorization, header, identification, until: now() + REMEMBER_MS });
      }
      return identification;
    },
  });
}

function identifyByKey({ headers }: IncomingMessage, holders: readonly KeyHolder[]): Identification {
  const bearer = bearerOf(headers.authorization);
  const header = headers['x-api-key'];
  if (bearer === undefined && header === undefined) return { kind: 'absent' };
  // Two keys could name two agents: which one acts must not depend on which header is looked at first.
  if (bearer !== undefined && header !== undefined && bearer !== header) {
    return { kind: 'refused', detail: 'Authorization and X-Api-Key carry different keys' };
  }
  const presented = sha256(bearer ?? String(header));
  let found: Caller | undefined;
  let matches = 0;
  let unreadable = '';
  for (const holder of holders) {
    const key = refresh(holder);
    const same = timingSafeEqual(presented, holder.digest);
    if (!key.ok) unreadable = `; the key of agent ${holder.caller.agent} cannot be read: ${key.error}`;
    else if (same) {
      found = holder.caller;
      matches += 1;
    }
  }
  if (matches > 1) return { kind: 'refused', detail: 'more than one agent now has this key' };
  if (found === undefined) return { kind: 'refused', detail: `the key is nobody's${unreadable}` };
  return { kind: 'known', caller: found };
}

/** Hashes again only when the key is another. (Comparing the key with its own past tells a caller nothing.) */
function refresh(holder: KeyHolder): Result<string, string> {
  const key = holder.read();
  if (key.ok && key.value !== holder.key) {
    holder.key = key.value;
    holder.digest = sha256(key.value);
  }
  return key;
}

/** The scheme is case-insensitive (RFC 9110 section 11.1). Other schemes are not ours to judge. */
function bearerOf(authorization: string | undefined): string | undefined {
  if (authorization === undefined) return undefined;
  const match = /^bearer(?: +|$)/i.exec(authorization);
  return match === null ? undefined : authorization.slice(match[0].length);
}

function sha256(text: string): Buffer {
  return hash('sha256', text, 'buffer');
}
