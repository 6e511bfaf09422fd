import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { assemble } from '../../sidecar/config/assemble.ts';
import { importMcpJson } from '../../sidecar/config/mcp-json.ts';
import { formatProblems } from '../../sidecar/config/problem.ts';
import { parseYaml } from '../../sidecar/config/yaml-document.ts';
import fc from '../support/fast-check.ts';

const CANARY = 'kanarienvogel';
const FILE = join(tmpdir(), 'nowhere', 'sidecar.yaml');

const KEYS =
  'group listen mcp admin address tls cert identify type agents servers a b url auth clientId clientSecret token headers command env cwd policy version roles rules name allow telemetry otlp timeouts idle limits body breaker open openMax log level mcpServers args file'.split(
    ' ',
  );
const leaf = fc.oneof(
  fc.constantFrom(
    CANARY,
    `https://${CANARY}@x.example/`,
    `http://${CANARY}.example/#x`,
    '30s',
    '1MiB',
    '',
    'uid',
    'bearer',
  ),
  fc.constantFrom(
    '127.0.0.1:1',
    '0.0.0.0:1',
    'unix:/x',
    '[::]:1',
    'client_credentials',
    'headers',
    'stdio',
    `\${X:-y}`,
  ),
  fc.integer(),
  fc.boolean(),
  fc.constant(null),
);
const { tree } = fc.letrec<{ tree: unknown }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 6, withCrossShrink: true },
    leaf,
    fc.array(tie('tree'), { maxLength: 3 }),
    fc.dictionary(fc.constantFrom(...KEYS), tie('tree'), { maxKeys: 6 }),
  ),
}));
const whole = fc.record(
  { servers: fc.dictionary(fc.constantFrom('a', 'b'), tree), policy: tree, listen: tree, identify: tree, limits: tree },
  { requiredKeys: [] },
);

it('any document is a configuration, or problems that have a place and quote no value', async () => {
  await fc.assert(
    fc.asyncProperty(fc.oneof(whole, tree), async (value) => {
      const document = parseYaml(JSON.stringify(value), FILE);
      if (!document.ok) return;
      const loaded = await assemble(document.value, {
        environment: {},
        origin: { kind: 'sidecarYaml', file: FILE },
        notes: [],
      });
      if (loaded.ok) return;
      assert.ok(loaded.error.length > 0);
      assert.doesNotMatch(
        formatProblems(loaded.error.map((problem) => ({ ...problem, file: 'f' }))),
        new RegExp(CANARY),
      );
    }),
    { numRuns: 100 },
  );
});

it('so is any mcp.json', async () => {
  const file = fc.record({ mcpServers: fc.dictionary(fc.constantFrom('a', 'B c', 'd__e'), tree) });
  await fc.assert(
    fc.asyncProperty(file, async (value) => {
      const document = parseYaml(JSON.stringify(value), FILE);
      assert.ok(document.ok);
      const loaded = await importMcpJson(document.value, {});
      const words = loaded.ok ? loaded.value.notes.join('\n') : formatProblems(loaded.error);
      assert.doesNotMatch(words, new RegExp(CANARY));
    }),
    { numRuns: 100 },
  );
});
