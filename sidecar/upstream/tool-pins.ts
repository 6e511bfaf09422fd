/**
 * The tools as they were pinned, held against the tools that pass: every item of every list is judged by itself,
 * whoever asked for the list, and a call by what its tool last was.
 *
 * Guarantees: with `onDrift: block` no definition that is new or changed reaches an agent, and no call goes to a tool
 * whose definition was not seen to be the pinned one since the server last said that its tools changed. With
 * `hiddenCharacters: refuse` the same holds for what people do not see, on servers that are not pinned as well. A change
 * is told once. It does not notice a change before the server lists the tool again, nor what a tool does.
 */
import { createHash } from 'node:crypto';
import { describeDrift } from '../../policies/drift.ts';
import { showHidden } from '../../policies/hidden-characters.ts';
import { err, type Result } from '../../policies/result.ts';
import { type Defined, definitionOf, hiddenCharactersOf } from '../../policies/tool-definition.ts';
import { fingerprintOf, type Lock, type PinnedTool } from '../config/lock-file.ts';
import type { Config } from '../config/schema.ts';
import { findDuplicate } from '../protocol/scan.ts';
import type { AuditEvent } from '../telemetry/audit-line.ts';
import type { Log } from '../telemetry/log.ts';
import type { ToolState } from './catalog.ts';

export interface ToolPinsPorts {
  readonly settings: Pick<Config['pins'], 'onDrift' | 'hiddenCharacters'>;
  readonly record: (event: AuditEvent) => void;
  readonly log: Pick<Log, 'warn'>;
}

/** Tools remembered per server, as many as the catalog remembers. */
const TOOLS_MAX = 10_000;
/** Findings of one kind that are told of one server until the lock changes: a server can make up any number. */
const TOLD_MAX = 100;

type Kind = 'changed' | 'new' | 'hidden' | 'gone';

interface Verdict {
  /** SHA-256 of the item's text, where it is known: the same bytes have the same verdict. */
  readonly bytesHash: string | undefined;
  /** Why the tool is not let through; `undefined` when it is. */
  readonly refusal: string | undefined;
}

/** One definition, before it is held against anything. */
interface Looked {
  readonly server: string;
  readonly tool: string;
  /** The error completes «the tool …». */
  readonly defined: Result<Defined, string>;
  /** Of what is wrong, where that is no definition. */
  readonly fingerprint: string;
}

interface ServerTools {
  readonly verdicts: Map<string, Verdict>;
  /** By kind, so that made-up tools do not use up what is kept for pinned ones. */
  readonly told: Readonly<Record<Kind, Set<string>>>;
  readonly figures: Record<Kind, number>;
}

export class ToolPins {
  readonly #ports: ToolPinsPorts;
  readonly #servers = new Map<string, ServerTools>();
  readonly #listeners: (() => void)[] = [];
  #lock: Lock | undefined;

  /** Without a lock nothing is judged. */
  constructor(lock: Lock | undefined, ports: ToolPinsPorts) {
    this.#lock = lock;
    this.#ports = ports;
  }

  get lock(): Lock | undefined {
    return this.#lock;
  }

  /** What was judged by the last lock is forgotten: `listener`s see to it that the tools are asked for again. */
  replace(lock: Lock): void {
    this.#lock = lock;
    for (const { verdicts, told } of this.#servers.values()) {
      verdicts.clear();
      for (const findings of Object.values(told)) findings.clear();
    }
    for (const listener of this.#listeners) listener();
  }

  onReplaced(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /** Whether a call of this server's tools waits until they are known. */
  needsTools(server: string): boolean {
    if (this.#lock === undefined) return false;
    return this.#refusesHidden() || this.#blocks(server);
  }

  /**
   * One item of a `tools/list` result. A tool without a name is nobody's to judge: no list shows it.
   *
   * @param text The item as its server wrote it, where that is what an agent would get.
   * @returns whether it may be shown.
   */
  judge(server: string, item: unknown, text?: string): boolean {
    const name = (item as { name?: unknown } | null)?.name;
    if (this.#lock === undefined || typeof name !== 'string') return true;
    const tools = this.#toolsOf(server);
    const bytesHash = text === undefined ? undefined : createHash('sha256').update(text).digest('base64');
    const known = tools.verdicts.get(name);
    if (known !== undefined && bytesHash !== undefined && known.bytesHash === bytesHash)
      return known.refusal === undefined;
    const refusal = this.#examine(server, name, item, text);
    if (known !== undefined || tools.verdicts.size < TOOLS_MAX) tools.verdicts.set(name, { bytesHash, refusal });
    return refusal === undefined;
  }

  /** Why a call is refused, of a server that `needsTools`. `state` is what the catalog has of the tool, after it was asked. */
  refusalOf(server: string, tool: string, state: ToolState): string | undefined {
    const blocks = this.#blocks(server);
    const verdict = state === 'known' ? this.#servers.get(server)?.verdicts.get(tool) : undefined;
    if (verdict !== undefined) return verdict.refusal;
    if (state === 'absent')
      return blocks ? 'the server does not list the tool, so that it cannot be held against sidecar.lock' : undefined;
    return `the server's tools could not be listed, so that the tool cannot be ${blocks ? 'held against sidecar.lock' : 'searched for hidden characters'}`;
  }

  /** The names of all the tools of a server, when a whole list has passed. */
  listed(server: string, names: ReadonlySet<unknown>): void {
    for (const tool of this.#lock?.get(server)?.keys() ?? [])
      if (!names.has(tool) && this.#isNews(server, 'gone', tool, ''))
        this.#tell(`${server} no longer has the tool ${tool}, which is pinned`, { event: 'tool.gone', server, tool });
  }

  /** What was found since the start, by server and kind. */
  *figures(): Iterable<readonly [server: string, kind: string, total: number]> {
    for (const [server, { figures }] of this.#servers)
      for (const [kind, total] of Object.entries(figures)) yield [server, kind, total];
  }

  /** Looks at a definition that has not been seen, tells what is to be told, and says why it is not let through. */
  #examine(server: string, tool: string, item: unknown, text: string | undefined): string | undefined {
    const looked = lookAt(server, tool, item, text);
    const pinned = this.#lock!.get(server)?.get(tool);
    const isPinned = pinned !== undefined && pinned.sha256 === looked.fingerprint;
    const drift = isPinned || !this.#lock!.has(server) ? undefined : this.#noteDrift(looked, pinned);
    // `sidecar pin` has shown what is hidden to whoever reviewed the lock.
    const hidden = isPinned && !this.#refusesHidden() ? undefined : this.#noteHidden(looked);
    return drift ?? hidden;
  }

  #noteDrift(looked: Looked, pinned: PinnedTool | undefined): string | undefined {
    const { server, tool, defined } = looked;
    const blocks = this.#blocks(server);
    const effect = blocks ? 'blocked' : 'flagged';
    if (this.#isNews(server, pinned === undefined ? 'new' : 'changed', tool, looked.fingerprint)) {
      const change = !defined.ok
        ? defined.error
        : pinned === undefined
          ? 'is new'
          : describeDrift(pinned.definition, defined.value.definition).join('; ');
      this.#tell(`the tool ${tool} of ${server} is not as sidecar.lock has it, and is ${effect}: ${change}`, {
        event: 'tool.drifted',
        server,
        tool,
        change,
        effect,
      });
    }
    if (!blocks) return undefined;
    return pinned === undefined ? 'the tool is not in sidecar.lock' : 'the tool is not as sidecar.lock has it';
  }

  #noteHidden({ server, tool, defined, fingerprint }: Looked): string | undefined {
    const refuses = this.#refusesHidden();
    const places = defined.ok ? hiddenCharactersOf(defined.value.definition) : refuses ? [defined.error] : [];
    if (places.length === 0) return undefined;
    const effect = refuses ? 'blocked' : 'flagged';
    if (this.#isNews(server, 'hidden', tool, fingerprint)) {
      const where = places.join('; ');
      this.#tell(`the tool ${tool} of ${server} may hide something, and is ${effect}: ${where}`, {
        event: 'tool.hiddenCharacters',
        server,
        tool,
        where,
        effect,
      });
    }
    return refuses ? 'the definition of the tool has hidden characters' : undefined;
  }

  #refusesHidden(): boolean {
    return this.#ports.settings.hiddenCharacters === 'refuse';
  }

  #blocks(server: string): boolean {
    return this.#ports.settings.onDrift === 'block' && this.#lock?.get(server) !== undefined;
  }

  /** Counts a finding, and says whether it is to be told. */
  #isNews(server: string, kind: Kind, tool: string, fingerprint: string): boolean {
    const { told: all, figures } = this.#toolsOf(server);
    const told = all[kind];
    const finding = `${fingerprint} ${tool}`;
    if (told.has(finding) || told.size > TOLD_MAX) return false;
    told.add(finding);
    figures[kind] += 1;
    if (told.size <= TOLD_MAX) return true;
    this.#tell(`too many tools of ${server} are not as sidecar.lock has them (${kind}): the rest is not told`, {
      event: 'tool.driftsUntold',
      server,
      kind,
    });
    return false;
  }

  #tell(message: string, event: AuditEvent): void {
    this.#ports.record(event);
    this.#ports.log.warn(message);
  }

  #toolsOf(server: string): ServerTools {
    let tools = this.#servers.get(server);
    if (tools === undefined) {
      tools = {
        verdicts: new Map(),
        told: { changed: new Set(), new: new Set(), hidden: new Set(), gone: new Set() },
        figures: { changed: 0, new: 0, hidden: 0, gone: 0 },
      };
      this.#servers.set(server, tools);
    }
    return tools;
  }
}

/** What is read in two ways, or not to its end, is neither as it was pinned nor free of anything. */
function lookAt(server: string, tool: string, item: unknown, text: string | undefined): Looked {
  const repeated = text === undefined ? undefined : findDuplicate(Buffer.from(text));
  const defined =
    repeated === undefined ? definitionOf(item) : err(`has the key ${showHidden(repeated)} twice in its definition`);
  return { server, tool, defined, fingerprint: defined.ok ? fingerprintOf(defined.value) : defined.error };
}
