/**
 * The small grammars of sidecar.yaml: durations, sizes and addresses. Pure.
 *
 * A unit is always required: `30` could be seconds or milliseconds, and a wrong guess in a timeout is found in
 * production.
 */

const MILLISECONDS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
const BYTES: Readonly<Record<string, number>> = {
  B: 1,
  kB: 1000,
  KB: 1000,
  MB: 1000 ** 2,
  GB: 1000 ** 3,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
};

export const DURATION_PATTERN = /^(\d{1,9})(ms|s|m|h)$/;
export const SIZE_PATTERN = /^(\d{1,9})(B|kB|KB|MB|GB|KiB|MiB|GiB)$/;

/** `30s` → 30000. Milliseconds; `undefined` when the text is not a duration. */
export function parseDuration(text: string): number | undefined {
  return parseQuantity(text, DURATION_PATTERN, MILLISECONDS);
}

/** `64KiB` → 65536, `1MB` → 1000000. Bytes; `undefined` when the text is not a size. */
export function parseSize(text: string): number | undefined {
  return parseQuantity(text, SIZE_PATTERN, BYTES);
}

function parseQuantity(text: string, pattern: RegExp, units: Readonly<Record<string, number>>): number | undefined {
  const [, digits, unit] = pattern.exec(text) ?? [];
  if (digits === undefined || unit === undefined) return undefined;
  return Number(digits) * units[unit]!;
}

export interface TcpAddress {
  /** An IP literal without brackets. */
  readonly host: string;
  /** 0 lets the system choose. */
  readonly port: number;
}

/** IPv4, `[IPv6]` or `localhost`, and a port. Names are not taken: whether a name is loopback is up to a resolver. */
export const ADDRESS_PATTERN = /^(?:\[([0-9A-Fa-f:.]+)\]|(\d{1,3}(?:\.\d{1,3}){3}|localhost)):(\d{1,5})$/;

/** `127.0.0.1:4180`, `[::1]:4180`, `localhost:4180` (that is 127.0.0.1). */
export function parseAddress(text: string): TcpAddress | undefined {
  const [, six, four, digits] = ADDRESS_PATTERN.exec(text) ?? [];
  const port = Number(digits);
  if (digits === undefined || port > 65_535) return undefined;
  if (six !== undefined) return URL.canParse(`http://[${six}]/`) ? { host: six.toLowerCase(), port } : undefined;
  if (four === 'localhost') return { host: '127.0.0.1', port };
  if (four === undefined || four.split('.').some((part) => Number(part) > 255)) return undefined;
  return { host: four, port };
}

/** The inverse of {@link parseAddress}. */
export function showAddress({ host, port }: TcpAddress): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Whether an address or the host of a URL stays on this machine: 127.0.0.0/8, ::1, `localhost` and its subdomains (RFC 6761, section 6.3). */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, '').toLowerCase();
  if (bare === 'localhost' || bare.endsWith('.localhost')) return true;
  if (/^127(?:\.\d{1,3}){3}$/.test(bare)) return true;
  return URL.canParse(`http://[${bare}]/`) && new URL(`http://[${bare}]/`).hostname === '[::1]';
}
