/**
 * The sidecar's own log: what it did and what went wrong, for the people who run it. One line an entry, as text for a
 * terminal or as JSON for a collector.
 *
 * Guarantees: never throws; a value can neither break the line nor steer a terminal (control characters and
 * bidirectional overrides are cut) nor flood the log (length is bounded). It does not know which values are secret:
 * callers pass none. What agents did is not here but in the audit log.
 */

export type LogLevel = 'error' | 'warn' | 'info' | 'debug';

/** Named values beside the message. `undefined` is left out; what is neither text, number nor boolean becomes JSON. */
export type LogFields = { readonly [name: string]: unknown };

export interface Log {
  error(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
}

export interface LoggerOptions {
  /** The least important level that is written. */
  readonly level: LogLevel;
  /** JSON lines rather than text. */
  readonly json: boolean;
  /** Takes one whole line, its line feed included. */
  readonly write: (line: string) => void;
  /** Wall clock, milliseconds since the epoch. */
  readonly now: () => number;
}

const IMPORTANCE: Readonly<Record<LogLevel, number>> = { error: 0, warn: 1, info: 2, debug: 3 };

const TEXT_LENGTH_MAX = 4096;

/** C0, DEL and C1 controls, line and paragraph separators, and the marks that reorder text on a screen. */
const UNPRINTABLE = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+/g;

export function createLogger(options: LoggerOptions): Log {
  const format = options.json ? formatJson : formatText;
  const at = (level: LogLevel) => {
    if (IMPORTANCE[level] > IMPORTANCE[options.level]) return () => {};
    return (message: string, fields: LogFields = {}) => {
      try {
        options.write(`${format(new Date(options.now()).toISOString(), level, message, fields)}\n`);
      } catch {
        // A log that cannot be written is no reason to fail whatever was being done.
      }
    };
  };
  return { error: at('error'), warn: at('warn'), info: at('info'), debug: at('debug') };
}

/** Makes any text safe to show: one line, nothing that steers a terminal, well-formed, at most 4096 characters. */
export function scrub(text: string): string {
  const whole = text.length <= TEXT_LENGTH_MAX;
  return (whole ? text : `${text.slice(0, TEXT_LENGTH_MAX)}…`).replace(UNPRINTABLE, ' ').toWellFormed();
}

function scrubValue(value: unknown): string | number | boolean {
  if (typeof value === 'number' || typeof value === 'boolean') return value;
  if (typeof value === 'string') return scrub(value);
  if (value instanceof Error) return scrub(`${value.name}: ${value.message}`);
  return scrub(typeof value === 'object' ? toJson(value) : String(value));
}

function toJson(value: object | null): string {
  try {
    return JSON.stringify(value);
  } catch {
    return 'not representable';
  }
}

function formatJson(time: string, level: LogLevel, message: string, fields: LogFields): string {
  const entry: Record<string, unknown> = { time, level, message: scrub(message) };
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined && !(name in entry)) entry[scrub(name)] = scrubValue(value);
  }
  return JSON.stringify(entry);
}

function formatText(time: string, level: LogLevel, message: string, fields: LogFields): string {
  let line = `${time.slice(11)} ${level.padEnd(5)} ${scrub(message)}`;
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    const text = String(scrubValue(value));
    line += ` ${scrub(name)}=${/^[^\s"=]+$/.test(text) ? text : JSON.stringify(text)}`;
  }
  return line;
}
