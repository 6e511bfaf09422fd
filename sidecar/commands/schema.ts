/** `sidecar schema`: the JSON Schema of sidecar.yaml or policy.yaml on stdout, for editors. */
import * as z from 'zod';
import { writeJson } from './output.ts';

export async function schema(options: { policy: boolean }): Promise<number> {
  writeJson(await jsonSchema(options));
  return 0;
}

/** JSON Schema 2020-12 of what people write (before defaults and units are applied). */
export async function jsonSchema({ policy }: { policy: boolean }): Promise<z.core.JSONSchema.BaseSchema> {
  const shape = policy
    ? (await import('../../policies/schema.ts')).policyFileSchema
    : (await import('../config/schema.ts')).sidecarYaml('/');
  return { title: policy ? 'policy.yaml' : 'sidecar.yaml', ...z.toJSONSchema(shape, { io: 'input' }) };
}
