/**
 * What is known of each server's tools: learned from the lists that pass through, in bounded memory. Policy judges by a
 * tool's annotations, and `route` retries only what is annotated safe; an unknown tool is judged as the worst case.
 */
export interface KnownTool {
  readonly annotations: Readonly<Record<string, unknown>>;
  readonly inputSchema: unknown;
}

/** Tools remembered per server. */
const TOOLS_MAX = 10_000;

export class Catalog {
  readonly #servers = new Map<string, Map<string, KnownTool>>();

  /** One item of a `tools/list` result, as the server sent it. */
  learn(server: string, item: unknown): void {
    const tool = item as { name?: unknown; annotations?: unknown; inputSchema?: unknown } | null;
    if (typeof tool?.name !== 'string') return;
    let tools = this.#servers.get(server);
    if (tools === undefined) {
      tools = new Map();
      this.#servers.set(server, tools);
    }
    if (tools.size >= TOOLS_MAX && !tools.has(tool.name)) return;
    const annotations = typeof tool.annotations === 'object' && tool.annotations !== null ? tool.annotations : {};
    tools.set(tool.name, { annotations: annotations as KnownTool['annotations'], inputSchema: tool.inputSchema });
  }

  annotationsOf(server: string, tool: string): KnownTool['annotations'] | undefined {
    return this.#servers.get(server)?.get(tool)?.annotations;
  }

  inputSchemaOf(server: string, tool: string): unknown {
    return this.#servers.get(server)?.get(tool)?.inputSchema;
  }
}
