/**
 * Asks the servers of a configuration for their tools, each with its credential, as agents' calls would go. Nothing of
 * it stays: children and sockets are gone when it resolves.
 */
import { ok, type Result } from '../../policies/result.ts';
import type { Loaded } from '../config/assemble.ts';
import { createLogger } from '../telemetry/log.ts';
import { createUpstreams } from '../upstream/create.ts';
import { listTools, type ToolList } from '../upstream/list-tools.ts';

export interface ListedServer {
  readonly server: string;
  /** The error is a sentence about the server, without its name. */
  readonly listed: Result<ToolList, string>;
}

const CHILDREN_GRACE_MS = 2_000;

/**
 * @param isWanted Default: every server.
 * @returns the servers in the order of the configuration; the error is one of configuration.
 */
export async function listServers(
  { config, environment }: Loaded,
  isWanted: (server: string) => boolean = () => true,
): Promise<Result<readonly ListedServer[], string>> {
  const log = createLogger({
    level: 'error',
    json: false,
    write: (line) => process.stderr.write(line),
    now: Date.now,
  });
  const upstreams = await createUpstreams(config, environment, { log, now: () => performance.now() });
  if (!upstreams.ok) return upstreams;
  const { byName, credentials, close } = upstreams.value;
  try {
    const wanted = [...byName].filter(([server]) => isWanted(server));
    return ok(
      await Promise.all(
        wanted.map(async ([server, upstream]) => ({
          server,
          listed: await listTools(upstream, credentials.get(server)),
        })),
      ),
    );
  } finally {
    await close(CHILDREN_GRACE_MS);
  }
}
