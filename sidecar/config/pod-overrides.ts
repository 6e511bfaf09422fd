/**
 * What only the pod knows, put over its group's sidecar.yaml: the variable MCP_SIDECAR_POD, which the injector sets.
 *
 * `listen` and `state` are the pod's alone. Agents by user id count where sidecar.yaml has no `identify` of its own, and
 * the audit goes to standard output where it names no file: a pod's own file system is read-only and ends with it.
 */
import * as z from 'zod';
import { err, ok, type Result } from '../../policies/result.ts';
import type { Problem } from './problem.ts';

export const POD_VARIABLE = 'MCP_SIDECAR_POD';

const podOverrides = z.strictObject({
  listen: z.strictObject({ mcp: z.array(z.string()), admin: z.string(), health: z.string() }),
  state: z.string(),
  identify: z.array(z.unknown()).optional(),
});

/** @param value sidecar.yaml as parsed. Whatever is put over it is judged with it, as if it stood there. */
export function applyPodOverrides(value: unknown, text: string): Result<unknown, Problem[]> {
  let read: unknown;
  try {
    read = JSON.parse(text);
  } catch {
    return refuse('is not JSON');
  }
  const overrides = podOverrides.safeParse(read);
  if (!overrides.success) return refuse('is not what the injector writes');
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return ok(value);
  const { listen, state, identify } = overrides.data;
  const document = value as Readonly<Record<string, unknown>>;
  return ok({
    audit: { path: '/dev/stdout' },
    ...(identify === undefined ? {} : { identify }),
    ...document,
    listen: { ...(document.listen as object | undefined), ...listen },
    state,
  });
}

function refuse(message: string): Result<never, Problem[]> {
  return err([{ file: undefined, line: undefined, column: undefined, path: POD_VARIABLE, message }]);
}
