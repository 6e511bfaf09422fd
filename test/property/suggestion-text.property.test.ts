/**
 * Names that agents and servers choose, in a suggested policy: whatever they are, the text says what the policy says,
 * loads as it is written, and its cases hold.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, it } from 'node:test';
import { parse } from 'yaml';
import { runCase } from '../../policies/cases.ts';
import { hiddenIn } from '../../policies/hidden-characters.ts';
import { Needs } from '../../policies/needs.ts';
import type { RecordedRequest } from '../../policies/recorded.ts';
import { documentOf, suggest } from '../../policies/suggest.ts';
import { casesFor } from '../../policies/suggest-cases.ts';
import { loadCases } from '../../sidecar/config/cases-file.ts';
import { formatProblems } from '../../sidecar/config/problem.ts';
import { casesText, policyText } from '../../sidecar/config/suggestion-text.ts';
import fc from '../support/fast-check.ts';
import { recorded } from '../support/recorded.ts';

const folder = mkdtempSync(join(tmpdir(), 'suggestion-'));
after(() => rmSync(folder, { recursive: true }));

const sharp = fc.constantFrom(
  ...[
    '\n',
    '\r',
    '\u2028',
    '\u0085',
    '\u001b',
    '\u202e',
    ': ',
    ' #',
    '- ',
    '"',
    "'",
    '{',
    '}',
    '[',
    ',',
    '&a',
    '*a',
    '!',
    '|',
    '>',
    '%',
    '@',
    '`',
  ],
  ...['null', 'true', '1', '~', '<<', '---', '...', '\ud800', '😀', '\ufeff', '\t', '\\', 'roles:', 'allow'],
);
const hostile = fc.oneof(
  fc.array(fc.oneof(sharp, fc.string({ maxLength: 3 })), { minLength: 1, maxLength: 6 }).map((parts) => parts.join('')),
  fc.string({ unit: 'binary', minLength: 1, maxLength: 8 }),
);
const call: fc.Arbitrary<Partial<RecordedRequest>> = fc.oneof(
  fc.record({ tool: hostile, agent: hostile, args: fc.dictionary(hostile, hostile, { maxKeys: 2 }) }),
  fc.record({ method: fc.constant('prompts/get'), tool: fc.constant(undefined), prompt: hostile }),
  fc.record({
    method: fc.constant('resources/read'),
    tool: fc.constant(undefined),
    resources: hostile.map((text) => [`x:${text}`]),
  }),
  fc.record({ method: hostile.map((text) => `v/${text}`), tool: fc.constant(undefined), wasLetThrough: fc.boolean() }),
);

it('property: the text of a suggestion is the suggestion, and loads', async () => {
  const property = fc.asyncProperty(fc.array(call, { maxLength: 6 }), hostile, async (calls, fileName) => {
    const needs = new Needs();
    for (const change of calls)
      for (let time = 0; time < 20; time++) needs.add(recorded({ user: 'kim', ...change }), fileName);
    const suggestion = suggest(needs);
    const policy = policyText(suggestion, needs, ['About.']);
    assert.deepEqual(parse(policy), JSON.parse(JSON.stringify(documentOf(suggestion))));
    const all = casesFor(suggestion, needs.all);
    assert.deepEqual([hiddenIn(policy), hiddenIn(casesText('./suggested.yaml', all))], [[], []]);
    if (all.length === 0) return;
    writeFileSync(join(folder, 'suggested.yaml'), policy);
    writeFileSync(join(folder, 'suggested.cases.yaml'), casesText('./suggested.yaml', all));
    const loaded = await loadCases(join(folder, 'suggested.cases.yaml'));
    assert.ok(loaded.ok, loaded.ok ? '' : `${formatProblems(loaded.error)}\n${policy}`);
    for (const one of loaded.value.cases) assert.deepEqual(runCase(loaded.value.policy.policy, one).differences, []);
  });
  const found: [Partial<RecordedRequest>[], string] = [[{ tool: 'roles:\n!', agent: '\u0000', args: {} }], 'a.jsonl'];
  await fc.assert(property, { numRuns: 200, examples: [found] });
});
