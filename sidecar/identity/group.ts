/**
 * No identity configured: whoever reaches the listener is the group itself. Safe on loopback and on a socket that only
 * the group's processes can open; configuration refuses it anywhere else.
 */
import type { Identification, IdentityMethod } from './identify.ts';

export function createGroupIdentity(group: string): IdentityMethod {
  const everyone: Identification = {
    kind: 'known',
    caller: { agent: group, method: 'group', roles: [], claims: {}, user: undefined },
  };
  return { type: 'group', identify: () => everyone };
}
