/**
 * Ports for programs that cannot be told to take any free one. From below those that the kernel gives to connections and
 * to port 0 (Linux: 32768 and up), so that nobody has got one by chance before it is used.
 */
import { createServer, type Server } from 'node:net';

const FIRST = 20_000;
const LAST = 32_000;
const ATTEMPTS = 100;

/** The first of so many in a row that nobody listened on at 127.0.0.1 a moment ago. */
export async function freePort(count = 1): Promise<number> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const first = FIRST + Math.floor(Math.random() * (LAST - FIRST - count));
    const ports = Array.from({ length: count }, (_, index) => first + index);
    const servers = await Promise.all(ports.map(listen));
    await Promise.all(servers.map((server) => server && new Promise((resolve) => server.close(resolve))));
    if (servers.every((server) => server !== undefined)) return first;
  }
  throw new Error(`no ${count} free ports in a row between ${FIRST} and ${LAST}`);
}

function listen(port: number): Promise<Server | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(undefined));
    server.listen(port, '127.0.0.1', () => resolve(server));
  });
}
