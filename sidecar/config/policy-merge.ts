/**
 * Several documents → one policy that still knows where each of its parts was written: the files of a folder, and what
 * a policy `extends`.
 *
 * Lists are joined and mappings united. What stands in two documents under one name is refused with both places: which
 * of the two was meant cannot be guessed. `default` and `mode` are the extending policy's own; where it does not say,
 * those of what it extends, which then have to agree. `version` is always its own, and the same everywhere.
 *
 * Merging only: reading, and what `extends` leads to, is policy-source.ts.
 */
import { err, ok, type Result } from '../../policies/result.ts';
import { VERSION } from '../../policies/schema.ts';
import { type DocumentProblem, type Problem, showFile } from './problem.ts';

/** A part of a policy as written. */
export interface PolicyText {
  /** Absolute path; `undefined` for a policy written into sidecar.yaml. */
  readonly file: string | undefined;
  /** Where the relative paths of its `extends` start. */
  readonly folder: string;
  readonly value: unknown;
  locate(problem: DocumentProblem): Problem;
}

/** One policy: its text, or the texts of its folder, and the policies that these extend. */
export interface Layer {
  readonly texts: readonly PolicyText[];
  readonly bases: readonly Layer[];
}

export interface MergedPolicy {
  /** Without `extends`. */
  readonly value: unknown;
  locate(problem: DocumentProblem): Problem;
}

interface Origin {
  readonly text: PolicyText;
  readonly path: readonly (string | number)[];
}

/** What holds where a policy does not say; policies/schema.ts fills in the same. */
const UNSAID: ReadonlyMap<string, unknown> = new Map([
  ['default', 'deny'],
  ['mode', 'enforce'],
]);

/** @param layers The policy itself comes last, and each of the others after what it extends. */
export function mergeLayers(layers: readonly Layer[]): Result<MergedPolicy, Problem[]> {
  const problems: Problem[] = [];
  const own = layers.at(-1)!;
  const texts = textsOf(layers).filter((text) => {
    if (isMapping(text.value)) return true;
    problems.push(text.locate({ path: [], at: 'value', message: 'must be a mapping' }));
    return false;
  });
  const said = new Map<Layer, Scalars>();
  for (const layer of layers) said.set(layer, mergeScalars(layer, said, problems));
  const { sections, origins } = mergeSections(texts, problems);
  for (const [key, { value, origin }] of said.get(own)!) {
    if (sections.has(key)) problems.push(problemAt(origin, DIFFERS));
    sections.set(key, value);
    origins.set(JSON.stringify([key]), origin);
  }
  if (problems.length > 0) return err(problems);

  const locate = ({ path, at, message }: DocumentProblem): Problem => {
    for (const depth of [2, 1]) {
      const origin = origins.get(JSON.stringify(path.slice(0, depth)));
      if (origin !== undefined)
        return origin.text.locate({ path: [...origin.path, ...path.slice(depth)], at, message });
    }
    return own.texts[0]!.locate({ path, at, message });
  };
  return ok({ value: Object.fromEntries(sections), locate });
}

const DIFFERS = 'differs from what another file says';

/** Each file once, also when a folder and something else lead to it. */
function textsOf(layers: readonly Layer[]): readonly PolicyText[] {
  const texts = layers.flatMap((layer) => layer.texts);
  return texts.filter(({ file }, index) => file === undefined || texts.findIndex((one) => one.file === file) === index);
}

function mergeSections(texts: readonly PolicyText[], problems: Problem[]) {
  const sections = new Map<string, unknown>();
  const origins = new Map<string, Origin>();

  /** Remembers where a part came from; false (and a problem) when another text has it already. */
  const claim = (mergedPath: readonly (string | number)[], origin: Origin): boolean => {
    const earlier = origins.get(JSON.stringify(mergedPath));
    if (earlier === undefined) origins.set(JSON.stringify(mergedPath), origin);
    else problems.push(problemAt(origin, `stands in ${placeOf(earlier)} too`));
    return earlier === undefined;
  };

  for (const text of texts)
    for (const [section, value] of Object.entries(text.value as object)) {
      if (section === 'extends' || isScalar(value)) continue;
      const held = sections.get(section);
      const origin = { text, path: [section] };
      if (Array.isArray(value) && (held === undefined || Array.isArray(held))) {
        const items: unknown[] = held ?? [];
        for (const [index, item] of value.entries()) {
          const name = isMapping(item) && typeof item.name === 'string' ? item.name : undefined;
          const from = { text, path: [section, index] };
          if (name !== undefined && !claim([section, 'named', name], from)) continue;
          origins.set(JSON.stringify([section, items.length]), from);
          items.push(item);
        }
        sections.set(section, items);
      } else if (isMapping(value) && (held === undefined || isMapping(held))) {
        const entries = Object.entries(value).filter(([name]) =>
          claim([section, name], { text, path: [section, name] }),
        );
        sections.set(section, { ...held, ...Object.fromEntries(entries) });
      } else problems.push(problemAt(origin, DIFFERS));
    }
  return { sections, origins };
}

type Scalars = ReadonlyMap<string, { readonly value: unknown; readonly origin: Origin }>;

/** What is neither list nor mapping: a policy's own word goes before that of what it extends. */
function mergeScalars(layer: Layer, said: ReadonlyMap<Layer, Scalars>, problems: Problem[]): Scalars {
  const own = new Map<string, { readonly value: unknown; readonly origin: Origin }>();
  for (const text of layer.texts)
    for (const [key, value] of Object.entries(isMapping(text.value) ? text.value : {})) {
      if (key === 'extends' || !isScalar(value)) continue;
      const origin = { text, path: [key] };
      const earlier = own.get(key);
      if (earlier === undefined) own.set(key, { value, origin });
      else if (earlier.value !== value) problems.push(problemAt(origin, DIFFERS));
    }

  const bases = layer.bases.map((base) => said.get(base)!);
  // An own version that is none is told at its own place, by the compiler.
  for (const version of bases.flatMap((base) => base.get('version') ?? []))
    if (own.get('version')?.value === VERSION && version.value !== VERSION)
      problems.push(problemAt(version.origin, 'must be that of the policy which extends this one'));
  for (const key of new Set(bases.flatMap((base) => [...base.keys()]))) {
    if (key === 'version' || own.has(key)) continue;
    const values = new Set(bases.map((base) => base.get(key)?.value ?? UNSAID.get(key)));
    if (values.size > 1)
      problems.push(problemAt(originOfExtends(layer), `what is extended differs in ${key}: write here which it is`));
    else own.set(key, bases.find((base) => base.has(key))!.get(key)!);
  }
  return own;
}

function originOfExtends({ texts }: Layer): Origin {
  return { text: texts.find(({ value }) => isMapping(value) && 'extends' in value) ?? texts[0]!, path: ['extends'] };
}

function problemAt({ text, path }: Origin, message: string): Problem {
  return text.locate({ path, at: 'key', message });
}

function placeOf({ text, path }: Origin): string {
  const { file, line } = text.locate({ path, at: 'key', message: '' });
  return [file === undefined ? 'another policy' : showFile(file), line].filter((part) => part !== undefined).join(':');
}

function isScalar(value: unknown): boolean {
  return typeof value !== 'object' || value === null;
}

function isMapping(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
