/**
 * What a child process says on stderr, made fit for the sidecar's log: one entry a line, without escape sequences and
 * without the values of the child's own environment, so many lines at most in so much time.
 */
import { stripVTControlCharacters } from 'node:util';
import type { Log } from '../telemetry/log.ts';
import { LineSplitter } from './stdio-line.ts';

export interface ChildLog {
  /** Bytes from stderr as they come. */
  write(chunk: Buffer): void;
  /** A line on stdout that is no message: somebody's banner. */
  strayOutput(line: Buffer): void;
}

const LINE_BYTES_MAX = 16 * 1024;
const LINE_CHARACTERS_MAX = 1000;
const WINDOW_MS = 10_000;
const LINES_PER_WINDOW = 200;

/** Shared by the children of one server, so that a crash loop does not get a new allowance with each child. */
export function createLineBudget(now: () => number): { take(): 'yes' | 'no' | 'lastOne' } {
  let windowStart = Number.NEGATIVE_INFINITY;
  let taken = 0;
  return {
    take() {
      if (now() - windowStart >= WINDOW_MS) {
        windowStart = now();
        taken = 0;
      }
      taken += 1;
      if (taken === LINES_PER_WINDOW) return 'lastOne';
      return taken < LINES_PER_WINDOW ? 'yes' : 'no';
    },
  };
}

/** @param env The child's environment: its values are what must not show. */
export function createChildLog(
  serverName: string,
  env: Readonly<Record<string, string>>,
  budget: ReturnType<typeof createLineBudget>,
  log: Log,
): ChildLog {
  const scrub = createScrubber(env);
  const say = (level: 'info' | 'warn', text: string): void => {
    const room = budget.take();
    if (room === 'no') return;
    log[level](text, { server: serverName });
    if (room === 'lastOne')
      log.warn(`says too much: the rest of ${WINDOW_MS / 1000} s is left out`, { server: serverName });
  };
  const printable = (line: Buffer): string => {
    // Scrubbed before it is cut, or the cut could leave half a secret.
    const text = stripVTControlCharacters(scrub(line.toString('utf8'))).trim();
    return text.length > LINE_CHARACTERS_MAX ? `${text.slice(0, LINE_CHARACTERS_MAX)}…` : text;
  };
  const splitter = new LineSplitter(
    LINE_BYTES_MAX,
    (line) => {
      const text = printable(line);
      if (text !== '') say('info', `stderr: ${text}`);
    },
    () => say('info', `stderr: (a line of more than ${LINE_BYTES_MAX} bytes)`),
  );
  return {
    write: (chunk) => splitter.push(chunk),
    strayOutput: (line) =>
      say('warn', `not a JSON-RPC message on stdout: ${printable(line.subarray(0, LINE_BYTES_MAX))}`),
  };
}

/** Variables whose values are no secret and stand in many paths. */
const ORDINARY = new Set(
  'PATH HOME USER LOGNAME SHELL LANG LC_ALL TZ TERM TMPDIR TEMP TMP SYSTEMROOT PATHEXT APPDATA LOCALAPPDATA USERPROFILE'.split(
    ' ',
  ),
);
/** Shorter values («true», «8080») are no secrets, and replacing them would make the log unreadable. */
const SECRET_LENGTH_MIN = 6;

/** Replaces each value of the environment by the name of its variable. A value of several lines is met line by line. */
function createScrubber(env: Readonly<Record<string, string>>): (text: string) => string {
  const secrets = Object.entries(env)
    .filter(([name]) => !ORDINARY.has(name.toUpperCase()))
    .flatMap(([name, value]) => value.split(/\r?\n/).map((line) => ({ name, value: line })))
    .filter(({ value }) => value.length >= SECRET_LENGTH_MIN)
    // The longest first: one value may hold another.
    .sort((one, other) => other.value.length - one.value.length);
  return (text) => secrets.reduce((scrubbed, { name, value }) => scrubbed.replaceAll(value, `[${name}]`), text);
}
