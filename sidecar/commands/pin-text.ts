/**
 * What is pinned and what is not, for people: nothing where there is no lock.
 */
import type { Loaded } from '../config/assemble.ts';
import { showFile } from '../config/problem.ts';
import { plural } from './output.ts';
import { printable } from './printable.ts';

export function describePins({ config, lock }: Pick<Loaded, 'config' | 'lock'>): string[] {
  if (!lock.ok || lock.value === undefined) return [];
  const { file, onDrift, hiddenCharacters } = config.pins;
  const pinned = lock.value;
  const tools = [...pinned.values()].reduce((sum, { size }) => sum + size, 0);
  const drift = `a tool that is new or changed is ${onDrift === 'block' ? 'blocked' : 'told'}`;
  const hidden = `hidden characters are ${hiddenCharacters === 'refuse' ? 'refused' : 'told'}`;
  const servers = Object.keys(config.servers);
  return [
    `${showFile(file)}: ${plural(tools, 'tool')} of ${plural(pinned.size, 'server')}; ${drift}, ${hidden}`,
    ...servers.filter((server) => !pinned.has(server)).map((server) => `${server} is not pinned`),
    ...[...pinned.keys()]
      .filter((server) => !servers.includes(server))
      .map((server) => `${printable(server)} is pinned and not configured`),
  ];
}
