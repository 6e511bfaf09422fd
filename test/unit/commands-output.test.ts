import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { formatExchange } from '../../sidecar/telemetry/audit-line.ts';
import { finishedExchange } from '../support/finished-exchange.ts';

const MAIN = join(import.meta.dirname, '../../sidecar/main.ts');

/** Clears the screen (as one control character and as two), turns text around, and begins a line of its own. */
const STEERING = '\u001b[2J\u009b2J\u202e\nnothing would change';
const HIDDEN = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/;

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'commands-output-'));
  const odd = {
    agent: `agent${STEERING}`,
    tool: `tool${STEERING}`,
    server: `server${STEERING}`,
    argumentsJson: JSON.stringify({ a: STEERING }),
  };
  const audit = [odd, { ...odd, server: 'github' }];
  write('audit.jsonl', audit.map((changes, index) => formatExchange(finishedExchange(changes), index + 1)).join(''));
  write(
    'deny.yaml',
    `version: 1\nrules:\n  - name: ${JSON.stringify(`no${STEERING}`)}\n    deny: [ { tools: ["*"] } ]\n`,
  );
  write(
    'deny.cases.yaml',
    `cases: [ { name: ${JSON.stringify(`case${STEERING}`)}, agent: a, request: { tool: a.b }, expect: allow } ]\n`,
  );
  const hostile = { mcpServers: { [`My Hub${STEERING}`]: { command: `run${STEERING}` } } };
  write('hostile.json', JSON.stringify(hostile));
  write('sidecar.yaml', JSON.stringify({ servers: { a: { command: [`run${STEERING}`] } }, policy: './deny.yaml' }));
});
after(() => rmSync(folder, { recursive: true }));

function write(name: string, text: string): void {
  writeFileSync(join(folder, name), text);
}

function sidecar(...args: string[]) {
  return spawnSync(process.execPath, [MAIN, ...args], { cwd: folder, encoding: 'utf8', timeout: 60_000 });
}

describe('nothing that was written elsewhere steers the terminal or makes a line of its own', () => {
  const audit = ['--audit', 'audit.jsonl'];
  const commands: readonly (readonly [args: readonly string[], shown: RegExp])[] = [
    [['policy', 'replay', ...audit, '--policy', 'deny.yaml'], /server\\u\{1b\}\[2J/],
    [['policy', 'suggest', ...audit], /left out: agent\\u\{1b\}\[2J/],
    [['audit', 'report', ...audit], /agent\\u\{1b\}\[2J/],
    [['policy', 'test', 'deny.yaml'], /case\\u\{1b\}\[2J/],
    [['policy', 'explain', '--policy', 'deny.yaml', '--tool', 'a.b', '--agent', `x${STEERING}`], /x\\u\{1b\}\[2J/],
    [['check'], /run\\u\{1b\}\[2J/],
  ];
  for (const [args, shown] of commands)
    it(args.slice(0, 2).join(' '), () => {
      const { stdout, stderr } = sidecar(...args);
      const said = stdout + stderr;
      assert.doesNotMatch(said, HIDDEN);
      assert.doesNotMatch(said, /^nothing would change/m);
      assert.match(said, shown);
      const json = sidecar(...args, '--json');
      assert.doesNotMatch(json.stdout + json.stderr, HIDDEN);
      assert.ok(JSON.stringify(JSON.parse(json.stdout)).includes('\\u001b[2J'), json.stdout);
    });

  it('audit report as CSV', () => {
    const { stdout } = sidecar('audit', 'report', ...audit, '--format', 'csv');
    assert.doesNotMatch(stdout.replaceAll('\r\n', '\n'), HIDDEN);
    assert.match(stdout, /"agent\\u\{1b\}\[2J/);
  });

  it('init, of a .mcp.json', () => {
    const { stdout, stderr } = sidecar('init', '--from', 'hostile.json');
    assert.doesNotMatch(stdout + stderr, HIDDEN);
  });
});

describe('a failure has one shape', () => {
  const wrong: readonly (readonly string[])[] = [
    ['policy', 'explain', '--policy', 'deny.yaml'],
    ['policy', 'explain', '--policy', 'nope.yaml', '--tool', 'a.b'],
    ['policy', 'test', 'audit.jsonl'],
    ['policy', 'replay', '--audit', 'nope.jsonl', '--policy', 'deny.yaml'],
    ['policy', 'suggest', '--audit', 'nope.jsonl'],
    ['policy', 'bundle', '--policy', 'deny.yaml', '--key', 'nope.pem', '--version', '1'],
    ['audit', 'report', '--audit', 'nope.jsonl'],
    ['audit', 'report', '--audit', 'audit.jsonl', '--by', 'user'],
    ['check', '-c', 'nope.yaml'],
    ['pin', '--server', 'nope'],
    ['init', '--from', 'nope.json'],
  ];
  for (const args of wrong)
    it(args.join(' '), () => {
      const text = sidecar(...args);
      assert.deepEqual([text.stdout, text.stderr.split('\n').length], ['', 2]);
      const { status, stdout, stderr } = sidecar(...args, '--json');
      assert.deepEqual([status, stderr], [text.status, '']);
      const { ok, problems } = JSON.parse(stdout);
      assert.deepEqual([ok, problems.length, problems[0].path], [false, 1, '']);
      assert.ok(text.stderr.endsWith(`${problems[0].message}\n`), text.stderr);
      assert.doesNotMatch(text.stderr, /^(?:error|sidecar): /);
    });
});

it('every command that prints data has --json', () => {
  const listed = (...args: string[]) =>
    [
      ...sidecar(...args, '--help')
        .stdout.split('Commands:')[1]!
        .matchAll(/^ {2}([a-z]+)/gm),
    ].map(([, name]) => name!);
  const groups = ['policy', 'audit'];
  const commands = [
    ...listed().filter((name) => !groups.includes(name)),
    ...groups.flatMap((group) => listed(group).map((name) => `${group} ${name}`)),
  ].filter((name) => !/\bhelp$/.test(name));
  assert.ok(commands.length >= 14, commands.join());
  const without = commands.filter((name) => !sidecar(...name.split(' '), '--help').stdout.includes('--json'));
  assert.deepEqual(without, ['injector']);
});
