/**
 * The kernel's word for who is calling: the user who owns the other end of the loopback connection.
 *
 * Linux only. Looked up once for each connection and remembered with the socket, so that a kept-alive connection pays
 * once. Anything that is not a clear answer refuses: no row after one more look, a row that is closing, a user who is
 * not configured, a table that cannot be read. Knows nothing of a connection over a unix socket or from another
 * machine, and leaves those to the next method.
 *
 * The uid is that of the process which *opened* the socket, seen from this process's user namespace.
 *
 * A row is found by addresses and ports, and those can change hands: a caller resets its connection, and somebody else
 * connects from the same port while the table is read. Then the row is the other's, while the request is the caller's.
 * Node does not tell: it sees a reset only when it reads, and a caller can make it stop reading by sending more than is
 * taken. So after the look the kernel is asked whether our own end is still connected. As long as it is, the kernel
 * cannot have let another connection between the same two ends come about, so the row read before was this caller's.
 */
import { type FileHandle, open } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { endianness, platform } from 'node:os';
import { err, ok, type Result } from '../../policies/result.ts';
import type { Identification, IdentityMethod } from './identify.ts';
import { ownerIn, type Row, rowsOf, type Table } from './proc-net-tcp.ts';

/** Answers the owner's uid, `undefined` where no row says, or a sentence on why it could not look. */
export type OwnerLookup = (rows: readonly Row[]) => Promise<Result<number | undefined, string>>;

export interface UidIdentityOptions {
  /** uid → the agent's name. */
  readonly agents: Readonly<Record<number, string>>;
  /** Default: the kernel's tables. */
  readonly lookUpOwner?: OwnerLookup;
}

/** An error, as a sentence, where the kernel has no such tables. */
export function createUidIdentity(options: UidIdentityOptions): Result<IdentityMethod, string> {
  if (platform() !== 'linux') {
    return err(`identify type uid needs Linux and this is ${platform()}: use type socket or apiKey instead`);
  }
  const agents = new Map(Object.entries(options.agents).map(([uid, agent]) => [Number(uid), agent]));
  const lookUpOwner = options.lookUpOwner ?? lookUpInKernel;
  const known = new WeakMap<Socket, Identification | Promise<Identification>>();

  return ok({
    type: 'uid',
    identify({ socket }: IncomingMessage) {
      const remembered = known.get(socket);
      if (remembered !== undefined) return remembered;
      const found = identifySocket(socket, agents, lookUpOwner).then((identification) => {
        // From now on without a promise.
        known.set(socket, identification);
        return identification;
      });
      // Requests that follow on the same connection while the table is being read wait for the same look.
      known.set(socket, found);
      return found;
    },
  });
}

async function identifySocket(
  socket: Socket,
  agents: ReadonlyMap<number, string>,
  lookUpOwner: OwnerLookup,
): Promise<Identification> {
  const { remoteAddress, remotePort, localAddress, localPort } = socket;
  if (
    remoteAddress === undefined ||
    remotePort === undefined ||
    localAddress === undefined ||
    localPort === undefined
  ) {
    // Neither end has an address: a unix socket, or a connection that has ended, for which no other method speaks either.
    return { kind: 'absent' };
  }
  const ends = { callerAddress: remoteAddress, callerPort: remotePort, ourAddress: localAddress, ourPort: localPort };
  const rows = rowsOf(ends, endianness() === 'LE');
  if (rows === undefined) return { kind: 'absent' };

  let owner = await lookUpOwner(rows);
  // The kernel gives the table in pieces; a row can slip between two of them while others come and go.
  if (owner.ok && owner.value === undefined) owner = await lookUpOwner(rows);

  if (!owner.ok) return refused(owner.error);
  if (owner.value === undefined)
    return refused(`no established socket for ${remoteAddress}:${remotePort} in the kernel's table`);
  // Nothing may be awaited from here on: what holds now must hold for the row.
  if (!isConnected(socket)) return refused('the connection ended while its owner was looked up');
  const agent = agents.get(owner.value);
  if (agent === undefined) return refused(`uid ${owner.value} is not configured`);
  return { kind: 'known', caller: { agent, method: 'uid', roles: [], claims: {}, user: undefined } };
}

/** What Node keeps inside a socket; a socket over TLS passes the question on to the one below. */
interface KernelSocket {
  readonly _handle?: { getpeername?(into: object): number | undefined } | null;
}

/**
 * Asks the kernel with getpeername(2), which fails with ENOTCONN once a reset has arrived, read or not. Node's public
 * `remoteAddress` only repeats an earlier answer. A Node that has no such question to ask identifies nobody.
 */
function isConnected(socket: Socket): boolean {
  return !socket.destroyed && (socket as unknown as KernelSocket)._handle?.getpeername?.({}) === 0;
}

function refused(detail: string): Identification {
  return { kind: 'refused', detail };
}

/** At about 150 bytes a row this is more sockets than a machine has loopback ports for. */
const TABLE_BYTES_MAX = 16 * 1024 * 1024;
const CHUNK_BYTES = 64 * 1024;

async function lookUpInKernel(rows: readonly Row[]): Promise<Result<number | undefined, string>> {
  for (const row of rows) {
    const owner = await scanTable(row);
    if (!owner.ok || owner.value !== undefined) return owner;
  }
  return ok(undefined);
}

/** Reads piece by piece and stops at the row, so that memory is bounded whatever the table's length. */
async function scanTable(row: Row): Promise<Result<number | undefined, string>> {
  const path = TABLE_PATHS[row.table];
  let file: FileHandle | undefined;
  try {
    file = await open(path, 'r');
    const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
    let rest = '';
    for (let total = 0; total < TABLE_BYTES_MAX; ) {
      const { bytesRead } = await file.read(chunk, 0, CHUNK_BYTES, null);
      if (bytesRead === 0) return ok(undefined);
      total += bytesRead;
      const lines = (rest + chunk.toString('latin1', 0, bytesRead)).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const uid = ownerIn(line, row);
        if (uid !== undefined) return ok(uid);
      }
    }
    return err(`${path} is longer than ${TABLE_BYTES_MAX} bytes`);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown error';
    // A kernel without IPv6 has no tcp6: then nobody calls over it.
    if (code === 'ENOENT' && row.table === 'tcp6') return ok(undefined);
    return err(`${path} cannot be read (${code}): without it no caller can be told from another`);
  } finally {
    await file?.close();
  }
}

const TABLE_PATHS: Readonly<Record<Table, string>> = { tcp: '/proc/net/tcp', tcp6: '/proc/net/tcp6' };
