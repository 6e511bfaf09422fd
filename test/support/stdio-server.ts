/**
 * A scripted MCP server over stdio. Its arguments say how it starts, and the name of the tool that is called says what
 * happens then. What takes long here lasts until the tool `go` is called, so that tests need no sleeps.
 */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

// biome-ignore lint/suspicious/noExplicitAny: a script reads messages by field
type Fields = any;

const flags = new Set(process.argv.slice(2));
const lines: string[] = [];
const received: string[] = [];
const waiting: (() => void)[] = [];
/** What to do with the answers to this server's own requests. */
const asked = new Map<unknown, (answer: Fields) => void>();
let subscription: object | undefined;

function write(line: string): void {
  process.stdout.write(`${line}\n`);
}

function say(body: object): void {
  write(JSON.stringify({ jsonrpc: '2.0', ...body }));
}

function answer(id: unknown, text: string): void {
  say({ id, result: { content: [{ type: 'text', text }] } });
}

function refuse(id: unknown, code: number): void {
  say({ id, error: { code, message: `code ${code}` } });
}

const tools: Record<string, (id: unknown, args: Fields, params: Fields) => void> = {
  echo: (id, { text }) => answer(id, text),
  pid: (id) => answer(id, String(process.pid)),
  env: (id) => answer(id, JSON.stringify(process.env)),
  /** The line as it came. */
  line: (id) => answer(id, lines.at(-1) ?? ''),
  received: (id) => answer(id, received.join(' ')),
  go: (id) => {
    for (const release of waiting.splice(0)) release();
    answer(id, 'went');
  },
  answerThenAnnounce: (id) => {
    const result = { content: [{ type: 'text', text: 'soon' }] };
    const both = [{ id, result }, { method: 'notifications/tools/list_changed' }];
    write(both.map((body) => JSON.stringify({ jsonrpc: '2.0', ...body })).join('\n'));
  },
  wait: (id, { text }) => {
    waiting.push(() => answer(id, text));
  },
  crash: () => process.exit(7),
  progress: (id, { steps, thenWait }, { _meta }) => {
    for (let progress = 1; progress <= steps; progress += 1) {
      say({ method: 'notifications/progress', params: { progressToken: _meta.progressToken, progress } });
    }
    if (thenWait) waiting.push(() => answer(id, 'done'));
    else answer(id, 'done');
  },
  /** Progress of another request. */
  step: (id, { token }) => {
    say({ method: 'notifications/progress', params: { progressToken: token, progress: 1 } });
    answer(id, 'stepped');
  },
  sample: (id) => {
    asked.set('ask-1', ({ result }) => answer(id, `the model said ${result.text}`));
    say({ id: 'ask-1', method: 'sampling/createMessage', params: {} });
  },
  bigLine: (id, { bytes }) => answer(id, 'x'.repeat(bytes)),
  flood: (id, { events, bytes }) => {
    const params = { data: 'x'.repeat(bytes) };
    for (let at = 0; at < events; at += 1) say({ method: 'notifications/message', params });
    answer(id, 'flooded');
  },
  carriageReturns: (id) => write(`{"jsonrpc":"2.0",\r"id":${JSON.stringify(id)},"result":{"n":9007199254740993}}\r`),
  /** A process that does not care about SIGTERM. */
  grandchild: (id) => {
    const code = `process.on('SIGTERM', () => {}); process.send('ready'); setInterval(() => {}, 1000)`;
    const child = spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
    child.once('message', () => answer(id, String(child.pid)));
  },
  refuse: (id, { code }) => refuse(id, code),
  change: (id) => {
    say({ method: 'notifications/tools/list_changed', params: { _meta: subscription } });
    answer(id, 'changed');
  },
  endSubscription: (id) => {
    say({ method: 'notifications/cancelled', params: { requestId: Object.values(subscription ?? {})[0] } });
    answer(id, 'ended');
  },
};

function discover(id: unknown): void {
  if (flags.has('--die-on-discover')) process.exit(1);
  const modern = () => say({ id, result: { supportedVersions: ['2026-07-28'], capabilities: {} } });
  if (flags.has('--modern')) modern();
  else if (flags.has('--slow-discover')) setTimeout(modern, 100);
  else if (!flags.has('--silent-on-discover')) refuse(id, -32601);
}

const requests: Record<string, (id: unknown, params: Fields) => void> = {
  initialize: (id, { protocolVersion }) => {
    if (flags.has('--refuse-initialize')) refuse(id, -32602);
    else say({ id, result: { protocolVersion, capabilities: {}, serverInfo: { name: 'scripted', version: '1' } } });
  },
  'server/discover': discover,
  'subscriptions/listen': (id) => {
    subscription = { 'io.modelcontextprotocol/subscriptionId': id };
    say({ method: 'notifications/subscriptions/acknowledged', params: { _meta: subscription } });
  },
  'tools/call': (id, params) => tools[params.name]?.(id, params.arguments ?? {}, params),
};

const notifications: Record<string, () => void> = {
  'notifications/announce': () => say({ method: 'notifications/tools/list_changed' }),
  'notifications/die': () => process.exit(9),
};

function receive(line: string): void {
  lines.push(line);
  const { id, method, params, ...rest } = JSON.parse(line) as Fields;
  received.push(method === 'notifications/cancelled' ? `cancelled:${params.requestId}` : method);
  if (method === undefined) asked.get(id)?.(rest);
  else if (id === undefined) notifications[method]?.();
  else (requests[method] ?? (() => refuse(id, -32601)))(id, params);
}

if (flags.has('--banner')) write('Welcome to the scripted server!\n{"hello":"world"}\n[1,2,3]\n');
if (flags.has('--secret-on-stderr')) console.error(`\u001b[31mthe token is ${process.env.SCRIPT_TOKEN}\u001b[0m`);
if (flags.has('--stubborn')) process.on('SIGTERM', () => undefined);
if (flags.has('--exit-at-start')) process.exit(3);
if (flags.has('--deaf') || flags.has('--stubborn')) setInterval(() => undefined, 1000);
if (!flags.has('--deaf')) createInterface({ input: process.stdin }).on('line', receive);
