/**
 * The injector's manifests as helm and kubectl render them, and where the API server keeps each object.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { isRaw, type Raw, rawAt, textAt } from '../../injector/raw-object.ts';

const INJECTOR = join(import.meta.dirname, '../../injector');
const CHART = join(INJECTOR, 'chart');

/** The kustomize in kubectl of before 1.27 does not know the patches that the overlays have. */
const KUBECTL_MINOR = 27;

/** Why what needs these programs cannot run here; `undefined` where it can. */
export function whyMissing(...programs: readonly ('helm' | 'kubectl')[]): string | undefined {
  const reasons = programs.flatMap((program) => {
    const { error, stdout } = spawnSync(program, ['version', '--client', '--output=json'], { encoding: 'utf8' });
    if (error !== undefined) return [`there is no ${program}`];
    const minor = program === 'kubectl' ? /"minor": "(\d+)/.exec(stdout)?.[1] : undefined;
    return minor !== undefined && Number(minor) < KUBECTL_MINOR ? [`kubectl 1.${minor} is too old`] : [];
  });
  return reasons.length === 0 ? undefined : reasons.join(', and ');
}

/** @param folder Below injector/kustomize. */
export function kustomize(folder: string): readonly Raw[] {
  return objectsOf(spawnSync('kubectl', ['kustomize', join(INJECTOR, 'kustomize', folder)], { encoding: 'utf8' }));
}

/** Runs helm with the chart's folder as last argument. */
export function helm(...args: readonly string[]): { readonly status: number | null; readonly said: string } {
  const { status, stdout, stderr } = spawnSync('helm', [...args, CHART], { encoding: 'utf8' });
  return { status, said: stdout + stderr };
}

export const TEMPLATE = ['template', 'injector', '--namespace', 'mcp-sidecar'] as const;

export function helmTemplate(...args: readonly string[]): readonly Raw[] {
  return objectsOf(spawnSync('helm', [...TEMPLATE, ...args, CHART], { encoding: 'utf8' }));
}

/** A file of the chart's. */
export function inChart(name: string): string {
  return join(CHART, name);
}

/** The collection that an object belongs to. */
export function collectionOf({ apiVersion, kind, metadata }: Raw): string {
  const group = apiVersion === 'v1' ? '/api/v1' : `/apis/${String(apiVersion)}`;
  const namespace = textAt(isRaw(metadata) ? metadata : {}, 'namespace');
  const plural = String(kind).toLowerCase().replace(/y$/, 'ie').concat('s');
  return namespace === undefined ? `${group}/${plural}` : `${group}/namespaces/${namespace}/${plural}`;
}

export function pathOf(object: Raw): string {
  return `${collectionOf(object)}/${String(rawAt(object, 'metadata').name)}`;
}

function objectsOf({ status, stdout, stderr }: { status: number | null; stdout: string; stderr: string }) {
  if (status !== 0) throw new Error(stderr);
  return parseAllDocuments(stdout)
    .map((document) => document.toJS() as unknown)
    .filter(isRaw);
}
