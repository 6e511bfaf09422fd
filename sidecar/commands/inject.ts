/**
 * `sidecar inject` and `sidecar uninject`: what the webhook does to pods, done to manifests.
 *
 * Manifests go to standard output, what was done to standard error. An input with a problem is not printed, so that
 * `sidecar inject -f x | kubectl apply -f -` never applies half of it.
 */

import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { createTwoFilesPatch } from 'diff';
import type { Mode } from '../../injector/container.ts';
import {
  groupsInManifest,
  injectManifest,
  type ManifestGroup,
  type ManifestNote,
  type ManifestProblem,
  type Rewritten,
  uninjectManifest,
} from '../../injector/manifest.ts';
import { parsePart, partsOf } from '../../injector/manifest-text.ts';
import { defaultOptions, loadInjectorConfig, optionsOf } from '../../injector/options.ts';
import { showHidden } from '../../policies/hidden-characters.ts';
import { err, ok, type Result } from '../../policies/result.ts';
import { readText } from '../config/text-file.ts';
import { problemOf, tellLines, tellProblems } from './output.ts';

export interface UninjectOptions {
  readonly file: readonly string[];
  readonly diff: boolean;
  readonly check: boolean;
  readonly output: 'yaml' | 'json';
}

export interface InjectOptions extends UninjectOptions {
  readonly groups?: readonly string[];
  readonly mode: Mode;
  readonly config: string | undefined;
}

/** What a chart with all its definitions renders to, and room. */
const MEBIBYTES_MAX = 16;

interface Input {
  readonly name: string;
  readonly text: string;
}

export async function injectCommand(options: InjectOptions): Promise<number> {
  const [inputs, groupFiles] = await Promise.all([readInputs(options.file), readInputs(options.groups ?? [])]);
  if (!inputs.ok || !groupFiles.ok) return tellAll([inputs, groupFiles]);
  const groups: readonly ManifestGroup[] = [...inputs.value, ...groupFiles.value].flatMap((one) =>
    groupsInManifest(one.text),
  );
  if (groups.length === 0) tellLines(['no group is in these manifests: name those with the ConfigMaps by --groups']);
  const config = options.config === undefined ? undefined : await loadInjectorConfig(options.config);
  if (config?.ok === false) return tellProblems(config.error, false);
  return rewriteAll(inputs.value, options, (input) =>
    injectManifest(input.name, input.text, {
      options: config === undefined ? defaultOptions() : optionsOf(config.value),
      mode: options.mode,
      groups,
    }),
  );
}

export async function uninjectCommand(options: UninjectOptions): Promise<number> {
  const inputs = await readInputs(options.file);
  if (!inputs.ok) return tellAll([inputs]);
  return rewriteAll(inputs.value, options, (input) => uninjectManifest(input.name, input.text));
}

function tellAll(read: readonly Result<unknown, string>[]): number {
  return tellProblems(
    read.flatMap((one) => (one.ok ? [] : [problemOf(one.error)])),
    false,
  );
}

function rewriteAll(
  inputs: readonly Input[],
  { diff, check, output }: UninjectOptions,
  rewrite: (input: Input) => Result<Rewritten, ManifestProblem[]>,
): number {
  let exitCode = 0;
  const outputs: string[] = [];
  for (const input of inputs) {
    const rewritten = rewrite(input);
    if (!rewritten.ok) {
      exitCode = 1;
      tellLines(rewritten.error.map(problemLine));
      continue;
    }
    const isDone = !diff && !check;
    tellLines(rewritten.value.notes.flatMap((note) => noteLines(note, isDone)));
    const isChanged = rewritten.value.text !== input.text;
    if (check && isChanged) exitCode = Math.max(exitCode, 1);
    if (diff && isChanged)
      outputs.push(showHidden(createTwoFilesPatch(input.name, input.name, input.text, rewritten.value.text)));
    else if (isDone) outputs.push(rewritten.value.text);
  }
  const text = diff ? outputs.join('') : joinStreams(outputs);
  process.stdout.write(output === 'json' && !diff ? asJson(text) : text);
  return exitCode;
}

function problemLine({ file, line, message }: ManifestProblem): string {
  return `${file}${line === undefined ? '' : `:${line}`}: ${message}`;
}

/** What is only shown or asked about. */
const WORDS_BEFORE: Partial<Readonly<Record<ManifestNote['kind'], string>>> = {
  injected: 'would be injected',
  updated: 'its sidecar would be told anew who is which agent',
  removed: 'its sidecar would be removed',
};
const WORDS: Readonly<Record<ManifestNote['kind'], string>> = {
  injected: 'injected',
  updated: 'its sidecar is told anew who is which agent',
  present: 'has its sidecar already',
  skipped: 'skipped',
  notAsked: 'left as it is',
  removed: 'sidecar removed',
};

function noteLines({ file, object, kind, warnings }: ManifestNote, isDone: boolean): string[] {
  const words = (isDone ? undefined : WORDS_BEFORE[kind]) ?? WORDS[kind];
  return [`${file}: ${object}: ${words}`, ...warnings.map((warning) => `  ${warning}`)];
}

/** Streams behind each other are one stream when each but the first begins with its `---`. */
function joinStreams(streams: readonly string[]): string {
  let joined = '';
  for (const stream of streams) {
    if (joined !== '' && !joined.endsWith('\n')) joined += '\n';
    joined += joined === '' || stream.startsWith('---') ? stream : `---\n${stream}`;
  }
  return joined;
}

/** As kubectl prints several objects: a List. */
function asJson(stream: string): string {
  const items = partsOf(stream)
    .map(parsePart)
    .flatMap((part) => (part.ok ? [part.value.value] : []))
    .filter((object) => object !== null && object !== undefined);
  const whole = items.length === 1 ? items[0] : { apiVersion: 'v1', kind: 'List', items };
  return items.length === 0 ? '' : `${JSON.stringify(whole, undefined, 2)}\n`;
}

/** Files, the manifests below folders, and `-` for standard input. */
async function readInputs(paths: readonly string[]): Promise<Result<readonly Input[], string>> {
  const inputs: Input[] = [];
  for (const path of paths) {
    if (path === '-') {
      const read = await readStdin();
      if (!read.ok) return read;
      inputs.push({ name: 'stdin', text: read.value });
      continue;
    }
    const status = await stat(path).catch(() => undefined);
    if (status === undefined) return err(`${path} does not exist`);
    for (const file of status.isDirectory() ? await manifestsBelow(path) : [path]) {
      const read = await readText(file, MEBIBYTES_MAX);
      if (!read.ok) return err(`${file} ${read.error}`);
      inputs.push({ name: file, text: read.value });
    }
  }
  return ok(inputs);
}

async function readStdin(): Promise<Result<string, string>> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > MEBIBYTES_MAX * 1024 * 1024) return err(`stdin is larger than ${MEBIBYTES_MAX} MiB`);
    chunks.push(chunk);
  }
  try {
    return ok(new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks)));
  } catch {
    return err('stdin is not UTF-8 text');
  }
}

async function manifestsBelow(folder: string): Promise<string[]> {
  const names = await readdir(folder, { recursive: true });
  return names
    .filter((name) => /\.(?:ya?ml|json)$/.test(name))
    .sort()
    .map((name) => join(folder, name));
}
