/**
 * A configuration file of either format → what the sidecar runs on, or every problem at once with its place.
 */
import { basename, resolve } from 'node:path';
import { ok, type Result } from '../../policies/result.ts';
import { assemble, type Loaded } from './assemble.ts';
import { applyPodOverrides, POD_VARIABLE } from './pod-overrides.ts';
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
  const pod = environment[POD_VARIABLE];
  const value = pod === undefined ? ok(document.value.value) : applyPodOverrides(document.value.value, pod);
  if (!value.ok) return value;
  return assemble(
    { ...document.value, value: value.value },
    { environment, origin: { kind: 'sidecarYaml', file }, notes: [] },
  );
}
