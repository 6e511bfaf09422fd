/**
 * The connections of a listener: as many as there may be, and none that keeps others out.
 *
 * A new connection takes the place of the one on which nothing has happened for longest, since whoever opens as many as
 * there may be, and says nothing, would otherwise be the last whom the listener hears.
 */
import type { Server, Socket } from 'node:net';

type Peer = Pick<Socket, 'remoteAddress' | 'remotePort'>;

export class Connections {
  readonly #max: number;
  /** By the address and port of the peer: that of a TLS socket is that of the socket below it. The longest unused first. */
  readonly #open = new Map<string, Socket>();

  constructor(server: Server, max: number) {
    this.#max = max;
    server.on('connection', (socket) => this.#add(socket));
  }

  /** Something happens on it: a request begins, or has been answered. */
  touch(peer: Peer): void {
    const key = keyOf(peer);
    const socket = this.#open.get(key);
    if (socket === undefined) return;
    this.#open.delete(key);
    this.#open.set(key, socket);
  }

  #add(socket: Socket): void {
    if (this.#open.size >= this.#max)
      for (const [key, unused] of this.#open) {
        this.#open.delete(key);
        unused.destroy();
        break;
      }
    const key = keyOf(socket);
    this.#open.set(key, socket);
    socket.once('close', () => {
      if (this.#open.get(key) === socket) this.#open.delete(key);
    });
  }
}

function keyOf({ remoteAddress, remotePort }: Peer): string {
  return `${remoteAddress} ${remotePort}`;
}
