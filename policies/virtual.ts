/**
 * Virtual servers: named subsets of what the servers offer. Pure.
 *
 * Guarantee: at a virtual server less is possible than at the servers behind it, never more. What it does not name is
 * hidden, in audit mode too, since it says what is there and not who may have it; what it names still needs an allow
 * and no deny.
 */
import type { Target } from './decision.ts';
import type { CompiledPolicy, VirtualServer } from './policy.ts';
import { splitQualified } from './request.ts';
import type { VirtualServerDocument } from './schema.ts';
import { SelectorIndex } from './selector-index.ts';
import { withNormalForms } from './uri.ts';

export function compileVirtualServer(
  name: string,
  { tools = [], prompts = [], resources = [] }: VirtualServerDocument,
): VirtualServer {
  const members = new SelectorIndex();
  const servers = new Set<string>();
  const add = (server: string, part: Partial<Record<Target['kind'], readonly string[]>>) => {
    servers.add(server);
    members.add({ server, tool: [], prompt: [], resource: [], method: [], ...part }, 0);
  };
  for (const { server, name: glob } of tools.map(splitQualified)) add(server, { tool: [glob] });
  for (const { server, name: glob } of prompts.map(splitQualified)) add(server, { prompt: [glob] });
  for (const { server, uris } of resources) add(server, { resource: withNormalForms(uris) });
  return { label: labelOfVirtual(name), members, servers };
}

/** What a decision names that hides what the virtual server does not have. */
export function labelOfVirtual(name: string): string {
  return `virtual server ${name}`;
}

/**
 * The policy as it holds at a virtual server; unchanged for `undefined`, which is a server's own endpoint.
 *
 * @returns `undefined` when the policy has no virtual server of this name.
 */
export function policyAt(policy: CompiledPolicy, virtual: string | undefined): CompiledPolicy | undefined {
  if (virtual === undefined) return policy;
  const within = policy.virtualServers.get(virtual);
  return within && { ...policy, within };
}

export function hasMember({ members }: VirtualServer, target: Target): boolean {
  return members.find(target).length > 0;
}
