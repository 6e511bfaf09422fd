/**
 * The paths at which agents find servers and virtual servers, the hosts and origins that may ask there, and what a caller
 * who is not identified is told of it (RFC 9728).
 */
import type { IncomingMessage } from 'node:http';
import type { CompiledPolicy } from '../../policies/policy.ts';
import { showAddress } from '../config/quantity.ts';
import type { Config } from '../config/schema.ts';
import { serverBehind } from '../config/virtual-endpoint.ts';
import type { Upstream } from '../upstream/upstream.ts';
import type { Route } from './exchange.ts';
import { type GuardPorts, hostNameOf } from './stages/guard.ts';

export interface EndpointPorts {
  readonly config: Pick<Config, 'listen' | 'identify'>;
  readonly upstreams: ReadonlyMap<string, Upstream>;
  /** In force at this moment. */
  readonly policy: () => CompiledPolicy;
}

export function guardPorts({ config, upstreams, policy }: EndpointPorts): GuardPorts {
  const names = [...upstreams.keys()];
  const servers = names.map((name) => `/servers/${name}/mcp`).join(', ');
  const routes = new Map<string, Route>(
    names.map((server) => [`/servers/${server}/mcp`, { server, virtual: undefined, upstream: upstreams.get(server)! }]),
  );
  if (names.length === 1) routes.set('/mcp', routes.get(`/servers/${names[0]}/mcp`)!);
  const routeOfVirtual = (name: string): Route | string => {
    const virtual = policy().virtualServers.get(name);
    if (virtual === undefined) return 'No such endpoint';
    const server = serverBehind(name, virtual, (one) => upstreams.has(one));
    if (!server.ok) return server.error;
    return { server: server.value, virtual: name, upstream: upstreams.get(server.value)! };
  };
  const listened = config.listen.mcp.flatMap((target) => (target.kind === 'tcp' ? [showAddress(target)] : []));
  return {
    routeOf: (pathname) => {
      const route = routes.get(pathname);
      if (route !== undefined) return route;
      if (pathname === '/mcp') return `Several servers are configured, each with its own path: ${servers}`;
      // By the policy of this moment: a reload may bring a virtual server, or take it away.
      const [, virtual] = VIRTUAL_PATH.exec(pathname) ?? [];
      return virtual === undefined ? 'No such endpoint' : routeOfVirtual(virtual);
    },
    allowedHosts: new Set(
      ['localhost', '127.0.0.1', '[::1]', ...listened, ...(config.listen.allowedHosts ?? [])].map(hostNameOf),
    ),
    allowedOrigins: new Set((config.listen.allowedOrigins ?? []).map((origin) => origin.toLowerCase())),
    resourceMetadata: presentsToken(config) ? resourceMetadata : undefined,
  };
}

const VIRTUAL_PATH = /^\/virtual\/([a-z0-9-]{1,63})\/mcp$/;

/** Callers show something in a header, so that they must be told how (RFC 9728). */
function presentsToken({ identify }: Pick<Config, 'identify'>): boolean {
  return identify.some(({ type }) => type === 'apiKey');
}

/** RFC 9728 section 2. No authorization server: keys are handed out by whoever configures the sidecar. */
function resourceMetadata(request: IncomingMessage, resourcePath: string): string {
  return JSON.stringify({
    resource: `${originOf(request)}${resourcePath}`,
    bearer_methods_supported: ['header'],
    resource_name: 'MCP sidecar',
  });
}

/** RFC 6750 section 3, RFC 9728 section 5.1. */
export function challengeFor(config: Pick<Config, 'identify'>): (request: IncomingMessage) => string {
  if (!presentsToken(config)) return () => 'Bearer realm="mcp-sidecar"';
  return (request) =>
    `Bearer realm="mcp-sidecar", resource_metadata="${originOf(request)}/.well-known/oauth-protected-resource${pathOf(request)}"`;
}

/** The guard has let only known hosts and paths through, so what is quoted here is one of ours. */
function originOf({ headers, socket }: IncomingMessage): string {
  return `${'encrypted' in socket ? 'https' : 'http'}://${headers.host}`;
}

function pathOf({ url = '' }: IncomingMessage): string {
  return url.split('?', 1)[0]!;
}
