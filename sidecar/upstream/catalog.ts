/**
 * What is known of each server's tools: learned from the lists that pass through, in bounded memory, and asked for where
 * a decision needs a tool that has not passed yet. Policy judges by a tool's annotations, and `route` retries only what
 * is annotated safe; an unknown tool is judged as the worst case.
 */
import type { Result } from '../../policies/result.ts';
import type { Log } from '../telemetry/log.ts';

export interface KnownTool {
  readonly annotations: Readonly<Record<string, unknown>>;
  /** Of a server's first {@link SCHEMAS_MAX} tools, and of those that declare an `x-mcp-header`. */
  readonly inputSchema: unknown;
  /** The generation of its server's tools in which it was learned. */
  readonly generation: number;
}

/**
 * `known`: listed since the last change, or by the last answer that could be had. `absent`: all tools are known as of
 * the last change, and it is none of them. `unknown`: neither.
 */
export type ToolState = 'known' | 'absent' | 'unknown';

export interface CatalogPorts {
  /** All tools of a server. Never throws; the error is a sentence about the server, without its name. */
  readonly list: (server: string) => Promise<Result<readonly unknown[], string>>;
  /** Monotonic clock, milliseconds. */
  readonly now: () => number;
  readonly log: Log;
}

/** Tools remembered per server. */
const TOOLS_MAX = 10_000;
const SCHEMAS_MAX = 500;
/** A server that could not be asked is not asked again for this long. */
const FAILURE_REMEMBERED_MS = 30_000;

interface ServerTools {
  readonly byName: Map<string, KnownTool>;
  /** Raised when the server says that its tools changed: what was learned before holds until something newer is. */
  generation: number;
  /** The generation in which all tools were asked for; -1 for never. */
  completeGeneration: number;
  listing: Promise<void> | undefined;
  /** The last question had no answer. */
  hasFailed: boolean;
  askAgainAt: number;
}

export class Catalog {
  readonly #ports: CatalogPorts;
  readonly #servers = new Map<string, ServerTools>();

  constructor(ports: CatalogPorts) {
    this.#ports = ports;
  }

  /** One item of a `tools/list` result, as the server sent it. */
  learn(server: string, item: unknown): void {
    const tools = this.#toolsOf(server);
    keep(tools.byName, item, tools.generation);
  }

  /** `notifications/tools/list_changed`. */
  changed(server: string): void {
    this.#toolsOf(server).generation += 1;
  }

  /**
   * Asks the server for its tools, unless this one is known as of the last change or the whole list is. One question
   * at a time for each server, and none for 30 s after one that failed.
   *
   * @returns `undefined` when there is nothing to wait for. Resolves whether or not the tool is known then.
   */
  ensureKnown(server: string, tool: string): Promise<void> | undefined {
    const tools = this.#toolsOf(server);
    const { generation } = tools;
    if (tools.completeGeneration === generation || tools.byName.get(tool)?.generation === generation) return undefined;
    if (tools.listing === undefined && this.#ports.now() >= tools.askAgainAt)
      tools.listing = this.#list(server, tools).finally(() => {
        tools.listing = undefined;
      });
    return tools.listing;
  }

  /** The server has listed a tool of this name. */
  knows(server: string, tool: string): boolean {
    return this.#servers.get(server)?.byName.has(tool) === true;
  }

  stateOf(server: string, tool: string): ToolState {
    const { byName, generation, completeGeneration, hasFailed } = this.#toolsOf(server);
    const known = byName.get(tool);
    // One that was announced to have changed while the server answered is asked for again before the next call.
    if (known !== undefined && (known.generation === generation || !hasFailed)) return 'known';
    return completeGeneration === generation ? 'absent' : 'unknown';
  }

  annotationsOf(server: string, tool: string): KnownTool['annotations'] | undefined {
    return this.#servers.get(server)?.byName.get(tool)?.annotations;
  }

  /** `undefined` also for a schema that declares no `x-mcp-header`. */
  inputSchemaOf(server: string, tool: string): unknown {
    return this.#servers.get(server)?.byName.get(tool)?.inputSchema;
  }

  async #list(server: string, tools: ServerTools): Promise<void> {
    // A change that is announced while the server answers may not be in the answer.
    const { generation } = tools;
    const listed = await this.#ports.list(server);
    tools.hasFailed = !listed.ok;
    if (!listed.ok) {
      tools.askAgainAt = this.#ports.now() + FAILURE_REMEMBERED_MS;
      this.#ports.log.warn(
        `the tools of ${server} are not known, and those that policy judges by their annotations are taken for the worst: it ${listed.error}`,
        { server },
      );
      return;
    }
    for (const [name, known] of tools.byName) if (known.generation < generation) tools.byName.delete(name);
    for (const item of listed.value) keep(tools.byName, item, generation);
    tools.completeGeneration = generation;
  }

  #toolsOf(server: string): ServerTools {
    let tools = this.#servers.get(server);
    if (tools === undefined) {
      tools = {
        byName: new Map(),
        generation: 0,
        completeGeneration: -1,
        listing: undefined,
        hasFailed: false,
        askAgainAt: Number.NEGATIVE_INFINITY,
      };
      this.#servers.set(server, tools);
    }
    return tools;
  }
}

function keep(byName: Map<string, KnownTool>, item: unknown, generation: number): void {
  const tool = item as { name?: unknown; annotations?: unknown; inputSchema?: unknown } | null;
  if (typeof tool?.name !== 'string') return;
  const known = byName.get(tool.name);
  if (known === undefined ? byName.size >= TOOLS_MAX : known.generation > generation) return;
  const annotations = typeof tool.annotations === 'object' && tool.annotations !== null ? tool.annotations : {};
  byName.set(tool.name, {
    annotations: annotations as KnownTool['annotations'],
    inputSchema: byName.size < SCHEMAS_MAX || declaresHeader(tool.inputSchema) ? tool.inputSchema : undefined,
    generation,
  });
}

/** Whether `x-mcp-header` stands anywhere in it. No recursion: nobody has bounded how deep a server nests. */
function declaresHeader(schema: unknown): boolean {
  const open: unknown[] = [schema];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    if (typeof next !== 'object' || next === null) continue;
    if (Object.hasOwn(next, 'x-mcp-header')) return true;
    for (const value of Object.values(next)) if (typeof value === 'object' && value !== null) open.push(value);
  }
  return false;
}
