/**
 * A pod's annotations → the settings of its sidecar. PURE. A value that is not understood, or an annotation of ours that
 * does not exist, is a problem in one sentence: the pod's author must not believe in a limit that nobody set.
 */

import { nearestOf } from '../policies/nearest.ts';
import { err, ok, type Result } from '../policies/result.ts';
import { type Amounts, overLimit, type Resource, type Side, wantedInstead } from './amounts.ts';
import { bareName, CLIENT_CONFIG, EXCLUDE_CONTAINERS, GROUP, INJECT, isOurs, STATUS, settingName } from './names.ts';
import type { InjectorOptions } from './options.ts';
import type { Raw } from './raw-object.ts';

export interface Settings {
  /** `undefined`: the service account's. */
  readonly group: string | undefined;
  readonly image: string;
  readonly requests: Amounts;
  readonly limits: Amounts;
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error' | undefined;
  /** MCP, on loopback only. The admin port is the next one. */
  readonly port: number;
  /** Probes and metrics, on the pod's address. */
  readonly healthPort: number;
  readonly excluded: readonly string[];
}

const SETTINGS = [
  'image',
  'cpu-request',
  'cpu-limit',
  'memory-request',
  'memory-limit',
  'log-level',
  'port',
  'health-port',
] as const;
type Setting = (typeof SETTINGS)[number];
const KNOWN = new Set([INJECT, GROUP, EXCLUDE_CONTAINERS, STATUS, CLIENT_CONFIG, ...SETTINGS.map(settingName)]);

const DEFAULT_PORT = 4180;
const DEFAULT_HEALTH_PORT = 4182;
const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;
/** Each is looked for among all containers, and a review is anybody's text. */
const EXCLUDED_MAX = 100;
/** RFC 1123 label. */
const LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

export function readSettings(annotations: Raw, options: InjectorOptions): Result<Settings, string> {
  const [stranger] = unknownIn(annotations);
  if (stranger !== undefined) return err(`the annotation ${stranger} is not known; there are ${known().join(', ')}`);

  const problems: string[] = [];
  const refuse = (setting: string, value: string, wanted: string): undefined => {
    problems.push(`the annotation ${setting} is ${JSON.stringify(value.slice(0, 100))}: it must be ${wanted}`);
  };
  const read = <T>(setting: Setting, parse: (text: string) => T | undefined, wanted: string, standard: T): T => {
    const name = settingName(setting);
    const value = textOf(annotations, name);
    if (value === undefined) return standard;
    return parse(value) ?? refuse(name, value, wanted) ?? standard;
  };
  const amount = (resource: Resource, side: Side, standard: string): string => {
    const name = settingName(`${resource}-${side}`);
    const value = textOf(annotations, name);
    if (value === undefined) return standard;
    const wanted = wantedInstead(resource, side, value);
    return wanted === undefined ? value : (refuse(name, value, wanted) ?? standard);
  };

  const group = textOf(annotations, GROUP);
  if (group !== undefined && !LABEL.test(group))
    refuse(GROUP, group, 'the name of a group: lower-case letters, digits and dashes, at most 63');
  const image = read(
    'image',
    (text) => (text === options.image || options.allowedImages.includes(text) ? text : undefined),
    'an image that the operator of the injector allows',
    options.image,
  );
  const settings: Settings = {
    group,
    image,
    requests: {
      cpu: amount('cpu', 'request', options.requests.cpu),
      memory: amount('memory', 'request', options.requests.memory),
    },
    limits: {
      cpu: amount('cpu', 'limit', options.limits.cpu),
      memory: amount('memory', 'limit', options.limits.memory),
    },
    logLevel: read('log-level', (text) => LOG_LEVELS.find((level) => level === text), LOG_LEVELS.join(', '), undefined),
    port: read('port', portOf, 'a port from 1024 to 65534', DEFAULT_PORT),
    healthPort: read('health-port', portOf, 'a port from 1024 to 65534', DEFAULT_HEALTH_PORT),
    excluded: (textOf(annotations, EXCLUDE_CONTAINERS) ?? '')
      .split(',')
      .map((name) => name.trim())
      .filter(Boolean),
  };
  if (settings.excluded.length > EXCLUDED_MAX)
    problems.push(`the annotation ${EXCLUDE_CONTAINERS} names more than ${EXCLUDED_MAX} containers`);
  const misnamed = settings.excluded.find((name) => !LABEL.test(name));
  if (misnamed !== undefined) refuse(EXCLUDE_CONTAINERS, misnamed, 'names of containers with commas between them');
  for (const kind of overLimit(settings.requests, settings.limits))
    problems.push(
      `the sidecar's ${kind} request (${settings.requests[kind]}) is more than its limit (${settings.limits[kind]})`,
    );
  if (settings.healthPort === settings.port || settings.healthPort === settings.port + 1)
    problems.push(`${settingName('health-port')} must be neither ${settingName('port')} nor the one behind it`);
  return problems.length > 0 ? err(problems.join('; ')) : ok(settings);
}

/** Warnings for a pod that does not ask, but has an annotation of ours that does not exist: a misspelt wish, most likely. */
export function misspeltIn(annotations: Raw): readonly string[] {
  return unknownIn(annotations).map((name) => {
    const nearest = nearestOf(bareName(name), known().map(bareName));
    return `the annotation ${name} is not known; ${nearest === undefined ? `there are ${known().join(', ')}` : `did you mean ${settingName(nearest)}?`}`;
  });
}

function unknownIn(annotations: Raw): readonly string[] {
  return Object.keys(annotations).filter((name) => isOurs(name) && !KNOWN.has(name));
}

function known(): readonly string[] {
  return [INJECT, GROUP, EXCLUDE_CONTAINERS, ...SETTINGS.map(settingName)];
}

function textOf(annotations: Raw, name: string): string | undefined {
  const value = Object.hasOwn(annotations, name) ? annotations[name] : undefined;
  return typeof value === 'string' ? value : undefined;
}

/** Below 1024 the sidecar's user may not listen. */
function portOf(text: string): number | undefined {
  const port = /^\d{4,5}$/.test(text) ? Number(text) : 0;
  return port >= 1024 && port <= 65_534 ? port : undefined;
}
