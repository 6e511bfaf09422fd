/**
 * `sidecar.lock`: the tools of each server as somebody has reviewed them.
 *
 * JSON under a line of comment, one tool a block, everything sorted, no time in it: the same tools are the same bytes,
 * and a diff shows what changed. Hidden characters stand in it as escapes. What is read must be what `renderLock` writes,
 * byte for byte: so no key stands there twice, and no definition was edited beside its fingerprint.
 */
import { createHash } from 'node:crypto';
import { rename, rm, writeFile } from 'node:fs/promises';
import { escapeHiddenInJson } from '../../policies/hidden-characters.ts';
import { err, ok, type Result } from '../../policies/result.ts';
import { type Defined, definitionOf, type ToolDefinition } from '../../policies/tool-definition.ts';
import { type DocumentProblem, type Problem, wholeFile } from './problem.ts';
import type { Config } from './schema.ts';
import { readTextIfThere } from './text-file.ts';

export interface PinnedTool {
  /** {@link fingerprintOf}. */
  readonly sha256: string;
  readonly definition: ToolDefinition;
}

/** By server, by the name of the tool. A server without an entry is not pinned. */
export type Lock = ReadonlyMap<string, ReadonlyMap<string, PinnedTool>>;

const LOCK_MEBIBYTES_MAX = 8;
const VERSION = 1;
const HEADER = '# Made by `sidecar pin`: the tools as they were reviewed. Review a change of this file like code.';

/** Of the canonical text: SHA-256, hexadecimal. */
export function fingerprintOf({ canonical }: Defined): string {
  return createHash('sha256').update(canonical).digest('hex');
}

export function pin(defined: Defined): PinnedTool {
  return { sha256: fingerprintOf(defined), definition: defined.definition };
}

/** The whole text of the file. */
export function renderLock(lock: Lock): string {
  const servers = Object.fromEntries([...lock].map(([server, tools]) => [server, Object.fromEntries(tools)]));
  const json = JSON.stringify(sortMembers({ servers, version: VERSION }), undefined, 2);
  return `${HEADER}\n${escapeHiddenInJson(json)}\n`;
}

/** Replaces the file at once, so that nobody reads half of it. The error is a sentence. */
export async function writeLock(file: string, lock: Lock): Promise<Result<void, string>> {
  const text = renderLock(lock);
  if (Buffer.byteLength(text) > LOCK_MEBIBYTES_MAX * 1024 * 1024)
    return err(`${file} would be larger than ${LOCK_MEBIBYTES_MAX} MiB: pin fewer servers, with --server`);
  const temporary = `${file}.${process.pid}.tmp`;
  try {
    await writeFile(temporary, text);
    await rename(temporary, file);
    return ok(undefined);
  } catch (error) {
    await rm(temporary, { force: true });
    return err(`${file} cannot be written (${(error as NodeJS.ErrnoException).code})`);
  }
}

/**
 * The lock that a configuration leads to. `undefined` where there is none and none is asked for: `sidecar.lock` beside
 * sidecar.yaml is used when it is there, and one that `pins` speaks of has to be there.
 *
 * @param locate Gives a problem of the configuration its place.
 */
export async function readLock(
  { file, isRequired }: Config['pins'],
  locate: (problem: DocumentProblem) => Problem,
): Promise<Result<Lock | undefined, Problem[]>> {
  const text = await readTextIfThere(file, LOCK_MEBIBYTES_MAX);
  if (!text.ok) return err([wholeFile(file, text.error)]);
  if (text.value !== undefined) return parseLock(text.value, file);
  if (!isRequired) return ok(undefined);
  return err([locate({ path: ['pins'], at: 'value', message: `${file} does not exist: sidecar pin writes it` })]);
}

export function parseLock(text: string, file: string): Result<Lock, Problem[]> {
  const written = text.replaceAll('\r\n', '\n');
  let value: unknown;
  try {
    value = JSON.parse(written.replace(/^(?:#.*\n)*/, ''));
  } catch {
    return err([wholeFile(file, `is not JSON below its first line: ${ANEW}`)]);
  }
  const { version, servers } = Object(value) as { version?: unknown; servers?: unknown };
  if (typeof version === 'number' && version !== VERSION)
    return err([wholeFile(file, `is of version ${version}, and this sidecar reads version ${VERSION}`)]);
  const lock = new Map<string, ReadonlyMap<string, PinnedTool>>();
  for (const [server, tools] of Object.entries(Object(servers))) {
    const pinned = new Map<string, PinnedTool>();
    for (const tool of Object.values(Object(tools))) {
      const defined = definitionOf((tool as { definition?: unknown } | null)?.definition);
      if (defined.ok) pinned.set(defined.value.definition.name, pin(defined.value));
    }
    lock.set(server, pinned);
  }
  const line = firstDifference(written, renderLock(lock));
  if (line === undefined) return ok(lock);
  return err([
    { file, line, column: 1, path: '', message: `from here on it is not as sidecar pin writes it: ${ANEW}` },
  ]);
}

const ANEW = 'take it back as it was, or delete it and run sidecar pin';

/** The number of the first line that differs. */
function firstDifference(text: string, other: string): number | undefined {
  if (text === other) return undefined;
  const lines = other.split('\n');
  const differs = text.split('\n').findIndex((line, index) => line !== lines[index]);
  return differs === -1 ? lines.length : differs + 1;
}

/** fromEntries defines members: assigning to one called `__proto__` would set the prototype instead. */
function sortMembers(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(sortMembers);
  const members = Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1));
  return Object.fromEntries(members.map(([key, inner]) => [key, sortMembers(inner)]));
}
