/** The policies that the sidecar, and deciding alone, are measured with. */

export const servers = ['github', 'crm', 'search', 'billing', 'wiki', 'calendar', 'mail', 'tickets'];

/**
 * Policy of a group as it might be: twenty rules, a third of them with CEL on arguments. Quotas are counted for
 * every call and never reached.
 */
export function policy(): object {
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

/** Twenty rules beside three roles: a third by name alone, the others by agent, user, arguments, hints and time. */
export function twentyRules(): object {
  const everywhere = [{ tools: ['*'] }];
  const deny = (name: string, when: string, tools = ['*']) => ({ name, deny: [{ tools }], when });
  return {
    version: 1,
    roles: {
      reader: { allow: [{ tools: ['list_*', 'get_*', 'find_*'] }] },
      writer: {
        allow: [
          { server: 'wiki', tools: ['update_*'] },
          { server: 'tickets', tools: ['update_*'] },
        ],
      },
      maintainer: {
        allow: [{ server: 'github', tools: ['push_*', 'update_*'] }],
        deny: [{ server: 'billing', tools: ['*'] }],
      },
    },
    agents: { '*': { roles: ['reader'] }, writer: { roles: ['writer'] } },
    rules: [
      ...servers.slice(0, 6).map((server) => ({
        name: `never delete in ${server}`,
        deny: [{ server, tools: ['delete_*', '*_purge'] }],
      })),
      { name: 'calendar', allow: [{ server: 'calendar', tools: ['update_event', 'push_event'] }] },
      { name: 'tickets of triage', allow: [{ server: 'tickets', tools: ['*'] }], when: 'agent.name == "triage"' },
      { name: 'the blue team', allow: [{ server: 'crm', tools: ['update_*'] }], when: 'agent.claims.team == "blue"' },
      { name: 'what only reads', allow: everywhere, when: 'tool.annotations.readOnlyHint' },
      deny('nothing as root', 'agent.name == "root"'),
      deny('nothing destructive', 'tool.annotations.destructiveHint && !("maintainer" in agent.roles)', [
        'delete_*',
        'push_*',
      ]),
      deny('no huge queries', 'has(args.query) && size(args.query) > 8000'),
      deny('no huge pages', 'has(args.limit) && args.limit > 500', ['list_*', 'find_*']),
      deny('no secrets', 'has(args.query) && args.query.contains("BEGIN PRIVATE KEY")'),
      deny('known languages', 'has(args.language) && !(args.language in ["en", "de", "fr"])', ['find_*']),
      deny('one organisation', 'has(args.owner) && args.owner != "acme"'),
      deny('our files', 'has(args.path) && !args.path.glob("/srv/*")'),
      deny('few tags', 'has(args.tags) && (size(args.tags) > 10 || args.tags.exists(tag, tag == "secret"))', [
        'list_*',
      ]),
      deny('no pushes at night', 'now.getHours() < 6', ['push_*']),
    ],
  };
}

/**
 * Rules of every kind, evenly: exact names, globs by their beginning, end and both, resources, and conditions.
 *
 * @param round Makes the conditions other ones.
 */
export function manyRules(count: number, round: number): object {
  const rule = (index: number): object => {
    const server = servers[index % servers.length]!;
    const name = `rule ${index}`;
    const allow = (...tools: string[]) => ({ name, allow: [{ server, tools }] });
    const deny = (...tools: string[]) => ({ name, deny: [{ server, tools }] });
    switch (index % 10) {
      case 0:
      case 1:
      case 2:
        return allow(`tool_${index}`, `other_${index}`);
      case 3:
      case 4:
        return allow(`area${index}_*`);
      case 5:
        return deny(`delete_${index}_*`, `*_purge_${index}`);
      case 6:
        return {
          ...deny(`tool_${index - 6}`, 'list_*'),
          when: `has(args.limit) && args.limit > ${100_000 + index + round}`,
        };
      case 7:
        return { ...allow(`tool_${index - 7}`), when: `agent.name == "agent-${index % 50}-${round}"` };
      case 8:
        return { name, allow: [{ server, resources: [`file:///srv/${index}/*`] }] };
      default:
        return allow(`get_*_${index}`);
    }
  };
  return {
    version: 1,
    roles: { reader: { allow: [{ tools: ['list_?'] }] } },
    agents: { '*': { roles: ['reader'] } },
    rules: Array.from({ length: count }, (_, index) => rule(index)),
  };
}
