/**
 * The sessions of the 2025 revisions: one server instance and one transport each, found by `Mcp-Session-Id`, with an
 * event log so that a broken stream can be resumed by `Last-Event-ID`.
 */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { NodeStreamableHTTPServerTransport } from '@modelcontextprotocol/node';
import {
  type EventId,
  type EventStore,
  isInitializeRequest,
  type JSONRPCMessage,
  type McpServer,
  type StreamId,
} from '@modelcontextprotocol/server';

/** How long a client whose stream broke off should wait before it resumes. Milliseconds. */
const RETRY_MS = 500;

/** The events of one session, in the order in which they were sent. Lives as long as the session. */
class EventLog implements EventStore {
  readonly #events: { readonly id: EventId; readonly streamId: StreamId; readonly message: JSONRPCMessage }[] = [];

  async storeEvent(streamId: StreamId, message: JSONRPCMessage): Promise<EventId> {
    const id = String(this.#events.length);
    this.#events.push({ id, streamId, message });
    return id;
  }

  async getStreamIdForEventId(id: EventId): Promise<StreamId | undefined> {
    return this.#events[Number(id)]?.streamId;
  }

  async replayEventsAfter(
    lastEventId: EventId,
    { send }: { send: (id: EventId, message: JSONRPCMessage) => Promise<void> },
  ): Promise<StreamId> {
    const last = this.#events[Number(lastEventId)];
    if (last === undefined) throw new Error(`No event has the id ${lastEventId}`);
    for (const { id, streamId, message } of this.#events.slice(Number(lastEventId) + 1)) {
      // The event that opens a stream carries no message; it is not repeated.
      if (streamId === last.streamId && 'jsonrpc' in message) await send(id, message);
    }
    return last.streamId;
  }
}

export class Sessions {
  readonly #createServer: () => McpServer;
  readonly #transports = new Map<string, NodeStreamableHTTPServerTransport>();

  constructor(createServer: () => McpServer) {
    this.#createServer = createServer;
  }

  /** Serves one HTTP request of a legacy client. `body` is the parsed body of a POST. */
  async serve(request: IncomingMessage, response: ServerResponse, body: unknown): Promise<void> {
    const id = request.headers['mcp-session-id'];
    if (typeof id === 'string') {
      const transport = this.#transports.get(id);
      if (transport === undefined) return refuse(response, 404, 'This session does not exist (any more)');
      return transport.handleRequest(request, response, body);
    }
    if (!isInitializeRequest(body)) return refuse(response, 400, 'Mcp-Session-Id is missing');
    const transport = await this.#open();
    return transport.handleRequest(request, response, body);
  }

  async close(): Promise<void> {
    await Promise.all([...this.#transports.values()].map((transport) => transport.close()));
  }

  async #open(): Promise<NodeStreamableHTTPServerTransport> {
    const transport = new NodeStreamableHTTPServerTransport({
      sessionIdGenerator: () => randomUUID(),
      eventStore: new EventLog(),
      retryInterval: RETRY_MS,
      onsessioninitialized: (id) => void this.#transports.set(id, transport),
      onsessionclosed: (id) => void this.#transports.delete(id),
    });
    await this.#createServer().connect(transport);
    return transport;
  }
}

function refuse(response: ServerResponse, status: number, message: string): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ jsonrpc: '2.0', id: null, error: { code: -32000, message } }));
}
