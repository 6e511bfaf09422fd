/**
 * What `sidecar` starts with when nobody says: sidecar.yaml, then .mcp.json, then mcp.json of the working folder,
 * and otherwise the bundled demo.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Result } from '../../policies/result.ts';
import { assemble, type Loaded } from './assemble.ts';
import { loadConfig } from './load.ts';
import { packageFolder } from './package-folder.ts';
import type { Environment } from './policy-source.ts';
import type { Problem } from './problem.ts';

const CONFIG_NAMES = ['sidecar.yaml', '.mcp.json', 'mcp.json'] as const;

/** The first of {@link CONFIG_NAMES} in `folder`. */
export function findConfig(folder: string): string | undefined {
  return CONFIG_NAMES.map((name) => join(folder, name)).find((file) => existsSync(file));
}

/** `explicit` is the file of `--config`, which alone counts when it is given. */
export async function discoverConfig(
  explicit: string | undefined,
  { folder = process.cwd(), environment = process.env }: { folder?: string; environment?: Environment } = {},
): Promise<Result<Loaded, Problem[]>> {
  const file = explicit ?? findConfig(folder);
  return file === undefined ? loadDemo(folder, environment) : loadConfig(file, environment);
}

/** A notebook as a stdio child, under a policy in audit mode. The audit log is written to `folder`. */
async function loadDemo(folder: string, environment: Environment = process.env): Promise<Result<Loaded, Problem[]>> {
  // Compiled, the demo server lies in dist; from source, Node runs the TypeScript itself.
  const isSource = import.meta.url.endsWith('.ts');
  const server = join(packageFolder(), ...(isSource ? ['examples/demo/server.ts'] : ['dist/examples/demo/server.js']));
  const value = {
    group: 'demo',
    servers: { notebook: { command: [process.execPath, server] } },
    policy: join(packageFolder(), 'examples', 'demo', 'policy.yaml'),
  };
  const file = join(folder, 'sidecar.yaml');
  const document = {
    file,
    value,
    locate: ({ path, message }: { path: readonly (string | number)[]; message: string }) => ({
      file: undefined,
      line: undefined,
      column: undefined,
      path: `demo.${path.join('.')}`,
      message,
    }),
  };
  return assemble(document, {
    environment,
    origin: { kind: 'demo', file: undefined },
    notes: ['no sidecar.yaml and no .mcp.json here: this is the bundled demo (npx sidecar init writes a sidecar.yaml)'],
  });
}
