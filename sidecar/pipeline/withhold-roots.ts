/**
 * Roots: the folders to which an agent says that a server may keep. Some servers take them in place of those that they
 * were started with, so that policy may deny `methods: [roots/list]`: then the server is not told that the agent has any,
 * nor that they changed, and has no reason to ask.
 */
import type { Target } from '../../policies/decision.ts';
import { removeMember } from '../protocol/edit-json.ts';
import { CAPABILITIES_KEY } from '../protocol/eras.ts';
import type { JsonObject, Message } from '../protocol/message.ts';
import { parseBody } from '../protocol/parse.ts';

/** What came within its bounds is within them without a member. */
const LIMITS = { depthMax: 1024, batchMax: 1 };

/** What a rule is asked about. */
export function rootsOf(server: string): Target {
  return { kind: 'method', server, name: 'roots/list' };
}

export function tellsOfRoots(message: Message): boolean {
  return message.method === 'notifications/roots/list_changed' || placeOf(message) !== undefined;
}

/** The message of an agent that has no roots; `undefined` for the one that says that they changed. */
export function withoutRoots(message: Message): Message | undefined {
  let bytes: Buffer | undefined;
  let rest = message;
  for (let place = placeOf(rest); place !== undefined; place = placeOf(rest)) {
    bytes = removeMember(rest.bytes, place);
    const parsed = parseBody(bytes, LIMITS);
    if (!parsed.ok || parsed.value.kind !== 'single') throw new Error('a message without a member cannot be read');
    rest = parsed.value.message;
  }
  return bytes === undefined ? undefined : rest;
}

/** The 2025 eras say once what the agent can do, 2026-07-28 with each request. */
function placeOf({ method, params }: Message): readonly string[] | undefined {
  if (method === 'initialize') {
    const key = keyOfRoots(params?.capabilities);
    if (key !== undefined) return ['params', 'capabilities', key];
  }
  const meta = params?._meta as JsonObject | undefined;
  const key = keyOfRoots(meta?.[CAPABILITIES_KEY]);
  return key === undefined ? undefined : ['params', '_meta', CAPABILITIES_KEY, key];
}

/** Some servers do not look at the case of a key. */
function keyOfRoots(capabilities: unknown): string | undefined {
  if (typeof capabilities !== 'object' || capabilities === null) return undefined;
  return Object.keys(capabilities).find((key) => key.toLowerCase() === 'roots');
}
