/**
 * `sidecar pin`: asks the servers for their tools and writes sidecar.lock, or says with `--diff` what it would change.
 *
 * A server that cannot be asked keeps its pins, and the exit code is 1. With `--diff` it is 1 whenever `sidecar pin`
 * would write another lock.
 */
import { existsSync } from 'node:fs';
import { err, ok, type Result } from '../../policies/result.ts';
import type { Loaded } from '../config/assemble.ts';
import { discoverConfig } from '../config/discover.ts';
import { type Lock, renderLock, writeLock } from '../config/lock-file.ts';
import { type Problem, showFile, wholeFile } from '../config/problem.ts';
import { listServers } from './list-servers.ts';
import { plural, problemOf, tellProblems, tellSentence, writeJson, writeLines } from './output.ts';
import { findChanges, type PinChanges, type ServerChanges } from './pin-changes.ts';
import { printable } from './printable.ts';

export interface PinOptions {
  readonly config?: string;
  /** Only these servers; the pins of the others are kept. Default: all. */
  readonly server: readonly string[];
  /** Write nothing. */
  readonly diff: boolean;
  readonly json: boolean;
}

export async function pinCommand({ config, server: chosen, diff, json }: PinOptions): Promise<number> {
  const loaded = await discoverConfig(config);
  if (!loaded.ok) return tellProblems(loaded.error, json);
  if (loaded.value.origin.kind === 'demo')
    return tellSentence('no sidecar.yaml and no .mcp.json here: nothing to pin (sidecar init writes one)', json);
  const { file } = loaded.value.config.pins;
  const before = lockBefore(loaded.value, chosen, diff);
  if (!before.ok) return tellProblems(before.error, json);
  const isChosen = (server: string) => chosen.length === 0 || chosen.includes(server);
  const listings = await listServers(loaded.value, isChosen);
  if (!listings.ok) return tellSentence(listings.error, json);

  const found = findChanges(before.value ?? new Map(), listings.value, isChosen);
  const isSame = before.value !== undefined && renderLock(before.value) === renderLock(found.lock);
  if (!diff && !isSame) {
    const written = await writeLock(file, found.lock);
    if (!written.ok) return tellSentence(written.error, json);
  }
  const isWhole = found.servers.every((one) => one.ok && one.problems.length === 0);
  const isOk = isWhole && (!diff || isSame);
  const { servers, dropped } = found;
  if (json) writeJson({ ok: isOk, file, ...(diff ? { same: isSame } : { written: !isSame }), servers, dropped });
  else writeLines(describe(found, showFile(file), diff, isSame));
  return isOk ? 0 : 1;
}

/** A lock that is not right is not written over: what it was meant to keep would be lost. */
function lockBefore(
  { config, lock }: Loaded,
  chosen: readonly string[],
  diff: boolean,
): Result<Lock | undefined, Problem[]> {
  const strangers = chosen.filter((server) => !Object.hasOwn(config.servers, server));
  if (strangers.length > 0) {
    const known = Object.keys(config.servers).join(', ');
    return err(strangers.map((server) => problemOf(`server ${server} is not configured; there are: ${known}`)));
  }
  const { file } = config.pins;
  const isThere = existsSync(file);
  if (isThere) return lock;
  return diff ? err([wholeFile(file, 'does not exist: sidecar pin writes it')]) : ok(undefined);
}

function describe({ servers, dropped, lock }: PinChanges, file: string, diff: boolean, isSame: boolean): string[] {
  const tools = [...lock.values()].reduce((sum, { size }) => sum + size, 0);
  const total = `${plural(tools, 'tool')} of ${plural(lock.size, 'server')}`;
  const lines = [
    ...servers.flatMap((one) => describeServer(one, diff)),
    ...dropped.map(
      (server) => `${printable(server)} is pinned and no longer configured${diff ? '' : ': its pins are gone'}`,
    ),
  ];
  if (!diff) lines.push(isSame ? `${file} is as it was: ${total}` : `wrote ${file}: ${total}; review it like code`);
  else if (isSame) lines.push(`nothing that is listed differs from ${file}: ${total}`);
  return lines;
}

function describeServer(one: ServerChanges, diff: boolean): string[] {
  const { server } = one;
  if (!one.ok) {
    const pins = plural(one.kept, 'pin');
    return [`${server} ${one.problem}; ${diff ? `nothing to compare its ${pins} with` : `kept its ${pins}`}`];
  }
  const { tools, wasPinned, changes, hidden, problems } = one;
  const first = diff
    ? `${server} is not pinned (${plural(tools, 'tool')})`
    : `${server}: ${plural(tools, 'tool')}, pinned for the first time`;
  return [
    ...(wasPinned ? [] : [first]),
    ...changes.map(
      ({ tool, kind, changes: words }) =>
        `${server}.${printable(tool)}: ${kind === 'changed' ? words.join('; ') : kind}`,
    ),
    ...problems.map((problem) => `${server}: ${problem}`),
    ...hidden.map(
      ({ tool, places }) => `mind ${server}.${printable(tool)}, which has hidden characters: ${places.join('; ')}`,
    ),
  ];
}
