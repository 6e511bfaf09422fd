/**
 * A configuration file of either format → what the sidecar runs on, or every problem at once with its place.
 */
import { basename, resolve } from 'node:path';
import type { Result } from '../../policies/result.ts';
import { assemble, type Loaded } from './assemble.ts';
import type { Environment } from './policy-source.ts';
import type { Problem } from './problem.ts';
import { readYaml } from './yaml-document.ts';

/** Loads `path`: sidecar.yaml, or a file named `….mcp.json` / `mcp.json` in the format of MCP clients. */
export async function loadConfig(
  path: string,
  environment: Environment = process.env,
): Promise<Result<Loaded, Problem[]>> {
  const file = resolve(path);
  const document = await readYaml(file);
  if (!document.ok) return document;
  if (basename(file).endsWith('mcp.json')) {
    const { importMcpJson } = await import('./mcp-json.ts');
    return importMcpJson(document.value, environment);
  }
  return assemble(document.value, { environment, origin: { kind: 'sidecarYaml', file }, notes: [] });
}
