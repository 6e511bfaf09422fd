/**
 * The groups of all namespaces, kept up to date by one list and one watch: no admission waits for the API server.
 *
 * While the watch is away the last known groups go on being used: a pod that starts with yesterday's list of service
 * accounts is better than a cluster in which no agent starts. Until the first list is there, nothing is known.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Result } from '../policies/result.ts';
import { type Group, isGroupName, readGroup } from './group.ts';
import type { Kubernetes } from './kubernetes.ts';
import { type Raw, rawAt, textAt } from './raw-object.ts';

const PATH = '/api/v1/configmaps';
const RETRY_MS = 1_000;
const RETRY_MAX_MS = 30_000;
/** The server ends a watch after so many seconds, and the next one begins where it stood. */
const WATCH_SECONDS = 290;

export interface GroupWatchPorts {
  readonly warn: (message: string) => void;
}

/** By namespace, then by the ConfigMap's name. */
type Groups = Map<string, Map<string, Result<Group, string>>>;

export class GroupWatch {
  readonly #kubernetes: Kubernetes;
  readonly #ports: GroupWatchPorts;
  readonly #abort = new AbortController();
  /** `undefined` until the first list. */
  #groups: Groups | undefined;
  #done: Promise<void> = Promise.resolve();

  constructor(kubernetes: Kubernetes, ports: GroupWatchPorts) {
    this.#kubernetes = kubernetes;
    this.#ports = ports;
  }

  start(): void {
    this.#done = this.#run();
  }

  async close(): Promise<void> {
    this.#abort.abort();
    await this.#done;
  }

  get isReady(): boolean {
    return this.#groups !== undefined;
  }

  groupsIn(namespace: string): readonly Result<Group, string>[] | undefined {
    if (this.#groups === undefined) return undefined;
    return [...(this.#groups.get(namespace)?.values() ?? [])];
  }

  async #run(): Promise<void> {
    const { signal } = this.#abort;
    let retryMs = RETRY_MS;
    while (!signal.aborted) {
      try {
        let version: string | undefined = await this.#list();
        retryMs = RETRY_MS;
        while (!signal.aborted && version !== undefined) version = await this.#follow(version, signal);
      } catch (error) {
        if (signal.aborted) return;
        const why = error instanceof Error ? error.message : 'no answer';
        this.#ports.warn(`the groups cannot be read: ${why}; tried again in ${retryMs / 1000} s`);
        await delay(retryMs, undefined, { signal }).catch(() => {});
        retryMs = Math.min(2 * retryMs, RETRY_MAX_MS);
      }
    }
  }

  /** @returns the version from which to watch. */
  async #list(): Promise<string> {
    const groups: Groups = new Map();
    const listed = await this.#kubernetes.list(PATH, (configMap) => put(groups, configMap));
    if (!listed.ok) throw new Error(listed.error.message);
    this.#groups = groups;
    return listed.value;
  }

  /** Follows until the server ends the watch. @returns where to go on; `undefined`: list anew. */
  async #follow(from: string, signal: AbortSignal): Promise<string | undefined> {
    let version = from;
    const query = `watch=1&allowWatchBookmarks=true&timeoutSeconds=${WATCH_SECONDS}&resourceVersion=${encodeURIComponent(from)}`;
    for await (const { type, object } of this.#kubernetes.watch(`${PATH}?${query}`, signal)) {
      if (type === 'ERROR') return undefined;
      version = textAt(rawAt(object, 'metadata'), 'resourceVersion') ?? version;
      if (type === 'DELETED') remove(this.#groups!, object);
      else if (type === 'ADDED' || type === 'MODIFIED') put(this.#groups!, object);
    }
    return version;
  }
}

function put(groups: Groups, configMap: Raw): void {
  const { namespace, name } = identityOf(configMap);
  if (!isGroupName(name)) return;
  let inNamespace = groups.get(namespace);
  if (inNamespace === undefined) {
    inNamespace = new Map();
    groups.set(namespace, inNamespace);
  }
  inNamespace.set(name, readGroup(configMap));
}

function remove(groups: Groups, configMap: Raw): void {
  const { namespace, name } = identityOf(configMap);
  groups.get(namespace)?.delete(name);
}

function identityOf(configMap: Raw): { readonly namespace: string; readonly name: string } {
  const metadata = rawAt(configMap, 'metadata');
  return { namespace: textAt(metadata, 'namespace') ?? '', name: textAt(metadata, 'name') ?? '' };
}
