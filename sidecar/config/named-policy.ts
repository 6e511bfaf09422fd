/**
 * The policy that a configuration names, and nothing else of it: for looking into a policy where the secrets and
 * servers that the configuration also names are not there, as in a build.
 */
import { basename, dirname, resolve } from 'node:path';
import { err, ok, type Result } from '../../policies/result.ts';
import { deliveryOf, sourceOfPolicy } from './assemble.ts';
import { findConfig } from './discover.ts';
import { type PolicySource, policyPath } from './policy-source.ts';
import { type Problem, wholeFile } from './problem.ts';
import { type Config, sidecarYaml } from './schema.ts';
import { readYaml } from './yaml-document.ts';

export interface NamedPolicy {
  readonly source: PolicySource;
  /** The group that the configuration is for. */
  readonly group: string;
  /** The servers that it has; `undefined` where that is not known. */
  readonly servers: readonly string[] | undefined;
  /** How callers are known; `undefined` where that is not known, and empty where everyone is the group. */
  readonly identify: Config['identify'] | undefined;
}

/** What is known of the rest where there is no sidecar.yaml. */
export const ANONYMOUS = { group: 'default', servers: undefined, identify: undefined };

/** `config` is the file of `--config`; without it, the one that `sidecar run` would take. */
export async function findNamedPolicy(config: string | undefined): Promise<Result<NamedPolicy, Problem[]>> {
  const file = config === undefined ? findConfig(process.cwd()) : resolve(config);
  if (file === undefined) return err([wholeFile(resolve('sidecar.yaml'), 'does not exist: name the policy itself')]);
  // What an import of one comes with.
  if (basename(file).endsWith('mcp.json'))
    return ok({ source: { kind: 'path', path: policyPath('library/observe', '.') }, ...ANONYMOUS });
  const document = await readYaml(file);
  if (!document.ok) return document;
  const { policy, group, servers, identify = [] } = Object(document.value.value) as Readonly<Record<string, unknown>>;
  const isNamed = typeof policy === 'string' || (typeof policy === 'object' && policy !== null);
  const refuse = (message: string) => err([document.value.locate({ path: ['policy'], at: 'value', message })]);
  if (!isNamed) return refuse('names no policy');
  const delivery = deliveryOf(document.value);
  const source = sourceOfPolicy(policy as string | Record<string, unknown>, delivery, dirname(file), document.value);
  if (source === undefined) return refuse('is a URL, and bundle does not say whose signature counts there');
  return ok({
    source,
    group: typeof group === 'string' ? group : 'default',
    servers: typeof servers === 'object' && servers !== null ? Object.keys(servers) : undefined,
    identify: sidecarYaml(dirname(file)).pick({ identify: true }).safeParse({ identify }).data?.identify,
  });
}
