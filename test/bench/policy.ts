/** The policy that the sidecar is measured with. */

/**
 * Policy of a group as it might be: twenty rules, a third of them with CEL on arguments. Quotas are counted for
 * every call and never reached.
 */
export function policy(): object {
  const servers = ['github', 'crm', 'search', 'billing', 'wiki', 'calendar', 'mail', 'tickets'];
  const allowed = servers.map((server) => ({
    name: `read ${server}`,
    allow: [{ server, tools: ['list_*', 'get_*', 'find_*'] }],
  }));
  const denied = servers.slice(0, 5).map((server) => ({
    name: `never delete in ${server}`,
    deny: [{ server, tools: ['delete_*', '*_purge'] }],
  }));
  const any = [{ server: 'bench', tools: ['*'] }];
  return {
    version: 1,
    default: 'deny',
    roles: { reader: { allow: [{ server: 'bench', tools: ['search_*'] }] } },
    agents: { bench: { roles: ['reader'] } },
    rules: [
      ...allowed,
      ...denied,
      { name: 'no huge queries', deny: any, when: 'has(args.query) && size(args.query) > 8000' },
      { name: 'no huge pages', deny: any, when: 'has(args.limit) && args.limit > 500' },
      { name: 'no secrets', deny: any, when: 'has(args.query) && args.query.contains("BEGIN PRIVATE KEY")' },
      { name: 'known languages', deny: any, when: 'has(args.language) && !(args.language in ["en", "de", "fr"])' },
      { name: 'few tags', deny: any, when: 'has(args.tags) && size(args.tags) > 10' },
      { name: 'nothing as root', deny: any, when: 'agent.name == "root"' },
      { name: 'search', allow: [{ server: 'bench', tools: ['search_*', 'find_*'] }] },
    ],
    quotas: [
      { name: 'calls', key: ['agent'], calls: '100000000/min', burst: '10000000/10s' },
      { name: 'tokens', key: ['agent', 'server'], tokens: '100000000/s' },
    ],
  };
}
