/**
 * One MCP server as a child process: spawned without a shell in a process group of its own, with the environment it is
 * given and nothing else; its stdout cut into messages, its stderr sent to the log.
 *
 * Knows nothing of sessions or of who waits for what. Tells exactly once that the child is down, after its last
 * message.
 */
import { isUtf8 } from 'node:buffer';
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';
import type { JsonObject } from '../protocol/message.ts';
import type { ChildLog } from './child-log.ts';
import { endGroup, trackGroup } from './process-group.ts';
import { LineSplitter, withoutLineBreaks } from './stdio-line.ts';
import type { UpstreamFailure } from './upstream.ts';

export interface ChildCommand {
  /** Program and arguments. */
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  /** A longer line on stdout ends the child; more than this waiting for its stdin refuses the next message. */
  readonly messageBytesMax: number;
}

/** One line of the child. */
export interface ChildMessage {
  readonly kind: 'request' | 'notification' | 'response';
  readonly body: JsonObject;
  /** As the child wrote it, without line breaks. */
  readonly bytes: Buffer;
}

export interface ChildHandlers {
  onMessage(message: ChildMessage): void;
  /** `crashed`: it went of its own accord after it had started. */
  onDown(failure: UpstreamFailure, crashed: boolean): void;
}

export interface StdioChild {
  /** Sends one line. False when the child does not read and too much is waiting already. */
  write(line: Buffer): boolean;
  /** Ends the child and all it has started. The reason is for whoever still waits for an answer. */
  end(reason: string, graceMs?: number): void;
  /** It is down, or going there. */
  readonly down: boolean;
  /** Nothing of the process group is left. */
  readonly gone: Promise<void>;
}

const GRACE_MS = 2000;
/** What a child wrote before it went may still be in the pipe; a grandchild may hold that pipe open for ever. */
const LAST_WORDS_MS = 500;

export function spawnChild(command: ChildCommand, log: ChildLog, handlers: ChildHandlers): StdioChild {
  const gone = Promise.withResolvers<void>();
  let down = false;
  let graceMs = GRACE_MS;

  const started = start(command);
  if (typeof started === 'string') {
    // Told later, as every other failure is, so that the caller knows the child by then.
    setImmediate(() => {
      handlers.onDown({ kind: 'unreachable', detail: started, sent: false }, false);
      gone.resolve();
    });
    return { write: () => true, end: () => undefined, down: true, gone: gone.promise };
  }
  const { stdin, stdout, stderr } = started;

  function goDown(failure: UpstreamFailure, crashed: boolean): void {
    if (down) return;
    down = true;
    clearTimeout(lastWords);
    handlers.onDown(failure, crashed);
    stdin.destroy();
    const { pid } = started as { pid?: number };
    // Also after the child itself has gone: what it started may still be there.
    const ended = pid === undefined ? Promise.resolve() : endGroup(pid, graceMs);
    void ended.then(() => {
      stdout.destroy();
      stderr.destroy();
      gone.resolve();
    });
  }

  let lastWords: NodeJS.Timeout | undefined;
  let ending = 'closed its stdout';
  const goDownSoon = (): void => {
    lastWords ??= setTimeout(() => goDown(unreachable(`the server ${ending}`), true), LAST_WORDS_MS);
  };

  started.on('error', (error: NodeJS.ErrnoException) => {
    if (started.pid === undefined)
      goDown({ kind: 'unreachable', detail: whyNotStarted(command, error), sent: false }, false);
  });
  started.once('exit', (code, signal) => {
    ending = signal === null ? `exited with code ${code}` : `was killed by ${signal}`;
    goDownSoon();
  });
  started.once('close', () => goDown(unreachable(`the server ${ending}`), true));
  stdout.once('end', goDownSoon);
  // A broken pipe means that the child is going; its exit says so.
  for (const stream of [stdin, stdout, stderr]) stream.on('error', () => undefined);

  const { messageBytesMax } = command;
  const splitter = new LineSplitter(
    messageBytesMax,
    (line) => {
      if (down || line.every(isBlank)) return;
      const message = parseLine(line);
      if (message === undefined) log.strayOutput(line);
      else handlers.onMessage(message);
    },
    () =>
      goDown(
        { kind: 'garbage', detail: `the server wrote a line of more than ${messageBytesMax} bytes`, sent: true },
        false,
      ),
  );
  stdout.on('data', (chunk: Buffer) => splitter.push(chunk));
  stderr.on('data', (chunk: Buffer) => log.write(chunk));
  if (started.pid !== undefined) trackGroup(started.pid);

  return {
    write(line) {
      if (stdin.writableLength > messageBytesMax) return false;
      if (!down) stdin.write(line);
      return true;
    },
    end(reason, grace = GRACE_MS) {
      graceMs = grace;
      goDown(unreachable(reason), false);
    },
    get down() {
      return down;
    },
    gone: gone.promise,
  };
}

type Started = ChildProcessByStdio<Writable, Readable, Readable>;

/** A sentence where the system refuses at once (a NUL in an argument, arguments too long). */
function start({ command, env, cwd }: ChildCommand): Started | string {
  try {
    return spawn(command[0] ?? '', command.slice(1), {
      cwd,
      env,
      shell: false,
      stdio: 'pipe',
      detached: process.platform !== 'win32',
      windowsHide: true,
    });
  } catch (error) {
    return whyNotStarted({ command, cwd }, error as NodeJS.ErrnoException);
  }
}

function whyNotStarted({ command, cwd }: Pick<ChildCommand, 'command' | 'cwd'>, error: NodeJS.ErrnoException): string {
  const program = command[0];
  if (!existsSync(cwd))
    return `the working folder ${cwd} of the command ${program} does not exist: create it or set cwd`;
  switch (error.code) {
    case 'ENOENT':
      return `the command ${program} was not found: install it, write its full path, or add its folder to PATH`;
    case 'EACCES':
      return `the command ${program} may not be executed: check its permissions (chmod +x)`;
    default:
      return `the command ${program} could not be started (${error.code ?? error.message})`;
  }
}

function unreachable(detail: string): UpstreamFailure {
  return { kind: 'unreachable', detail, sent: true };
}

function parseLine(line: Buffer): ChildMessage | undefined {
  if (!isUtf8(line)) return undefined;
  let body: JsonObject;
  try {
    body = JSON.parse(line.toString('utf8'));
  } catch {
    return undefined;
  }
  if (typeof body !== 'object' || body === null || body.jsonrpc !== '2.0') return undefined;
  const kind = kindOf(body);
  // A carriage return is white space in JSON, and ends a line in an event stream.
  return kind === undefined ? undefined : { kind, body, bytes: withoutLineBreaks(line) };
}

function kindOf(body: JsonObject): ChildMessage['kind'] | undefined {
  const { id, method } = body;
  const hasId = typeof id === 'string' || typeof id === 'number';
  if (typeof method === 'string') return hasId ? 'request' : 'notification';
  return hasId && ('result' in body || 'error' in body) ? 'response' : undefined;
}

function isBlank(byte: number): boolean {
  return byte === 0x20 || byte === 0x09 || byte === 0x0d;
}
