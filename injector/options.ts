/**
 * injector.yaml: what an operator decides once for a cluster. The webhook reads it, and so does `sidecar inject --config`,
 * so that both make the same pods. Strict: an unknown key is a problem.
 */
import * as z from 'zod';
import { err, ok, type Result } from '../policies/result.ts';
import { packageVersion } from '../sidecar/config/package-folder.ts';
import { type Problem, problemsOfIssues } from '../sidecar/config/problem.ts';
import { parseAddress, type TcpAddress } from '../sidecar/config/quantity.ts';
import { readYaml } from '../sidecar/config/yaml-document.ts';
import { type Amounts, overLimit, type Resource, type Side, wantedInstead } from './amounts.ts';

export interface InjectorOptions {
  /** The sidecar's image. */
  readonly image: string;
  /** Further images that a pod's annotation may ask for, exactly. Whoever chooses the image is given the credentials. */
  readonly allowedImages: readonly string[];
  readonly imagePullPolicy: 'Always' | 'IfNotPresent' | 'Never';
  /** User and group of the sidecar; `undefined`: whatever the cluster gives (OpenShift). */
  readonly runAsUser: number | undefined;
  readonly requests: Amounts;
  readonly limits: Amounts;
  /** Of the projected service account token. */
  readonly tokenAudience: string;
  /** 600 to 86400; the kubelet renews it at four fifths. */
  readonly tokenSeconds: number;
}

const image = z
  .string()
  .regex(/^[a-z0-9][a-z0-9._:/@-]{0,254}$/i, 'must be an image, such as registry.example/mcp-sidecar:1.0.0');
const amount = (resource: Resource, side: Side) =>
  z.string('must be a quantity such as 250m or 64Mi, in quotes').check(({ value, issues }) => {
    const wanted = wantedInstead(resource, side, value);
    if (wanted !== undefined) issues.push({ code: 'custom', message: `must be ${wanted}`, input: value });
  });
const amounts = (side: Side, { cpu, memory }: Amounts) =>
  z
    .strictObject({ cpu: amount('cpu', side).default(cpu), memory: amount('memory', side).default(memory) })
    .prefault({});
const name = z.string().regex(/^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/, 'must be a name of Kubernetes');
const ADDRESS = 'must be an address and a port, such as 10.0.0.1:8443, or *:8443 for every address';
const address = z.string().transform((text, context): TcpAddress => {
  const parsed = parseAddress(text.replace(/^\*/, '[::]'));
  if (parsed !== undefined) return parsed;
  context.issues.push({ code: 'custom', message: ADDRESS, input: text });
  return z.NEVER;
});

export const injectorYaml = z.strictObject({
  listen: address.prefault('*:8443').describe('HTTPS, for the API server.'),
  health: address.prefault('*:8081').describe('Probes and metrics.'),
  clientCa: z
    .string()
    .min(1)
    .optional()
    .describe('File of PEM authorities: the API server must show a certificate of one of them. Read at the start.'),
  tls: z
    .union(
      [
        z.strictObject({
          folder: z.string().min(1).describe('With tls.crt and tls.key: a mounted Secret, as cert-manager makes it.'),
        }),
        z.strictObject({
          selfManaged: z.strictObject({ namespace: name, secret: name, service: name, webhook: name }),
        }),
      ],
      { error: () => 'must be { folder: … } or { selfManaged: { namespace, secret, service, webhook } }' },
    )
    .prefault({ folder: '/etc/mcp-sidecar-injector/tls' }),
  mode: z
    .enum(['auto', 'native', 'classic'])
    .default('auto')
    .describe('auto: native where every kubelet is at 1.29 or later.'),
  sidecar: z
    .strictObject({
      image: image.default(`ghcr.io/mcp-sidecar/mcp-sidecar:${packageVersion()}`),
      allowedImages: z.array(image).max(100).default([]),
      imagePullPolicy: z.enum(['Always', 'IfNotPresent', 'Never']).default('IfNotPresent'),
      runAsUser: z
        .union([z.int().min(1).max(2_147_483_647), z.literal('omit')])
        .default(65532)
        .describe('User of the sidecar. omit: whatever the cluster gives, as OpenShift does.'),
      requests: amounts('request', { cpu: '50m', memory: '128Mi' }),
      limits: amounts('limit', { cpu: '1', memory: '256Mi' }),
      tokenAudience: z.string().min(1).max(253).default('mcp-sidecar'),
      tokenSeconds: z.int().min(600).max(86_400).default(3_600),
    })
    .check(({ value, issues }) => {
      for (const resource of overLimit(value.requests, value.limits))
        issues.push({
          code: 'custom',
          path: ['requests', resource],
          message: `is more than the limit: give less, or more in limits.${resource}`,
          input: value,
        });
    })
    .prefault({}),
});

export type InjectorConfig = z.output<typeof injectorYaml>;

export function optionsOf({ sidecar }: InjectorConfig): InjectorOptions {
  return { ...sidecar, runAsUser: sidecar.runAsUser === 'omit' ? undefined : sidecar.runAsUser };
}

export function defaultOptions(): InjectorOptions {
  return optionsOf(injectorYaml.parse({}));
}

export async function loadInjectorConfig(file: string): Promise<Result<InjectorConfig, Problem[]>> {
  const document = await readYaml(file);
  if (!document.ok) return document;
  const parsed = injectorYaml.safeParse(document.value.value);
  if (parsed.success) return ok(parsed.data);
  const problems = problemsOfIssues(parsed.error.issues, document.value.value, injectorYaml, new Set());
  return err(problems.map(document.value.locate));
}
