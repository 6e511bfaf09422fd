/**
 * The kernel's table of TCP sockets (`/proc/net/tcp`, `/proc/net/tcp6`; proc_net_tcp(5)): which user owns the other
 * end of a loopback connection.
 *
 * Pure: takes addresses and lines, gives words and numbers; reading the files is `uid.ts`. Judges loopback alone
 * (127.0.0.0/8, ::1 and 127.0.0.0/8 mapped into IPv6), since no other peer has a socket in this machine's table.
 */

export type Table = 'tcp' | 'tcp6';

/** A row to look for: the two ends as the *caller's* socket sees them, in the table's own notation. */
export interface Row {
  readonly table: Table;
  readonly local: string;
  readonly remote: string;
}

/** One accepted connection, as Node's `net.Socket` tells it. */
export interface Ends {
  readonly callerAddress: string;
  readonly callerPort: number;
  readonly ourAddress: string;
  readonly ourPort: number;
}

/** `TCP_ESTABLISHED` of the kernel's include/net/tcp_states.h. */
const ESTABLISHED = '01';

/**
 * Where the caller's own socket may stand. Our end of the same connection is a row too, with the ends swapped and our
 * own uid, and must not be taken for it.
 *
 * An IPv4 caller stands in `tcp`, or in `tcp6` with mapped addresses when its program opened an IPv6 socket.
 * `undefined`: not a loopback connection.
 */
export function rowsOf(ends: Ends, littleEndian: boolean): readonly Row[] | undefined {
  const local = parseLoopback(ends.callerAddress);
  const remote = parseLoopback(ends.ourAddress);
  if (local === undefined || remote === undefined || local.length !== remote.length) return undefined;
  const row = (table: Table, prefix: readonly number[]): Row => ({
    table,
    local: words([...prefix, ...local], ends.callerPort, littleEndian),
    remote: words([...prefix, ...remote], ends.ourPort, littleEndian),
  });
  return local.length === 4 ? [row('tcp', []), row('tcp6', MAPPED_PREFIX)] : [row('tcp6', [])];
}

/**
 * The uid in `line` when it is the row looked for, and the row can be trusted.
 *
 * A socket that is closing (TIME_WAIT, FIN_WAIT) no longer belongs to a process: the kernel shows inode 0 and uid 0
 * there. Taken at its word, everybody would become root by closing at the right moment; so only a living,
 * established socket counts.
 */
export function ownerIn(line: string, row: Row): number | undefined {
  // A cheap test first: the table may have thousands of lines.
  if (!line.includes(row.local)) return undefined;
  const [, local, remote, state, , , , uid, , inode] = line.trim().split(/\s+/);
  if (local !== row.local || remote !== row.remote || state !== ESTABLISHED) return undefined;
  if (uid === undefined || !/^\d{1,10}$/.test(uid) || inode === undefined || !/^[1-9]\d*$/.test(inode))
    return undefined;
  return Number(uid);
}

const MAPPED_PREFIX = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
const IPV6_LOOPBACK = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/** The bytes of a loopback address; a mapped one gives its four IPv4 bytes. */
function parseLoopback(address: string): readonly number[] | undefined {
  if (address === '::1') return IPV6_LOOPBACK;
  const dotted = /^(?:::ffff:)?(127)\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/i.exec(address);
  if (dotted === null) return undefined;
  const bytes = dotted.slice(1).map(Number);
  return bytes.every((byte) => byte <= 255) ? bytes : undefined;
}

/** Network-order bytes → the kernel's notation: words of 32 bits printed in the machine's own byte order, then the port. */
function words(bytes: readonly number[], port: number, littleEndian: boolean): string {
  let text = '';
  for (let at = 0; at < bytes.length; at += 4) {
    const word = bytes.slice(at, at + 4);
    for (const byte of littleEndian ? word.reverse() : word) text += hex(byte, 2);
  }
  return `${text}:${hex(port, 4)}`;
}

function hex(value: number, digits: number): string {
  return value.toString(16).toUpperCase().padStart(digits, '0');
}
