/**
 * `sidecar policy suggest`: the least privilege that the traffic in an audit needs, as a policy with comments and cases.
 * Reads the files twice: to gather, and to judge every request again by what is suggested. 1 when that would change
 * something, which is told. Starts nothing, connects to nothing, and overwrites nothing.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parse } from 'yaml';
import { Comparing, type Comparison } from '../../policies/comparison.ts';
import { compilePolicy } from '../../policies/compile.ts';
import { Needs } from '../../policies/needs.ts';
import { rejudgeBy } from '../../policies/replay.ts';
import { err, ok, type Result } from '../../policies/result.ts';
import { documentOf, type Suggestion, suggest } from '../../policies/suggest.ts';
import { casesFor } from '../../policies/suggest-cases.ts';
import { widen } from '../../policies/suggest-hints.ts';
import { casesText, policyText, takeOver } from '../config/suggestion-text.ts';
import type { AuditReading } from '../telemetry/audit-reader.ts';
import { recordedRequest } from '../telemetry/recorded-request.ts';
import { describeReading, readAuditFiles } from './audit-files.ts';
import { plural, tellLines, tellSentence, writeJson } from './output.ts';
import { describeComparison } from './policy-replay.ts';
import { printable } from './printable.ts';

export interface PolicySuggestOptions {
  readonly audit: readonly string[];
  /** A folder to write the files into, made where it is not there; without it the policy is printed. */
  readonly out?: string;
  /** Of the files: `<name>.yaml` and `<name>.cases.yaml`. */
  readonly name: string;
  /** Put globs in place of many resources in one folder. */
  readonly widen: boolean;
  readonly json: boolean;
}

export async function policySuggest(options: PolicySuggestOptions): Promise<number> {
  const { audit, json } = options;
  if (audit.includes('-'))
    return tellSentence('the audit is read twice, which stdin cannot be: write it to a file', json);
  if (!/^[\w-]{1,100}$/.test(options.name)) return tellSentence('--name takes letters, digits, - and _ alone', json);
  const gathered = await gather(audit);
  if (!gathered.ok) return tellSentence(gathered.error, json);
  const { needs, reading } = gathered.value;
  if (needs.requests === 0)
    return tellSentence(`no request that a policy has judged is in there (${describeReading(reading)})`, json);
  const exact = suggest(needs);
  const suggestion = options.widen ? widen(exact) : exact;
  const texts = textsOf(suggestion, needs, options);
  const compared = await compare(audit, texts.policy);
  if (!compared.ok) return tellSentence(compared.error, json);
  const written = options.out === undefined ? ok(undefined) : await write(options.out, options.name, texts);
  if (!written.ok) return tellSentence(written.error, json);
  tell(options, suggestion, needs, texts, compared.value, reading);
  return compared.value.changed === 0 ? 0 : 1;
}

async function gather(
  audit: readonly string[],
): Promise<Result<{ readonly needs: Needs; readonly reading: AuditReading }, string>> {
  const needs = new Needs();
  const read = await readAuditFiles(audit, (record, file) => {
    const request = recordedRequest(record);
    if (request !== undefined) needs.add(request, file);
  });
  if (!read.ok) return read;
  if (needs.isOverfull)
    return err(
      'the audit names more different things than can be kept: take less of it, or leave out agents that invent names',
    );
  return ok({ needs, reading: read.value });
}

interface Texts {
  readonly policy: string;
  readonly cases: string;
}

function textsOf(suggestion: Suggestion, needs: Needs, { audit, name }: PolicySuggestOptions): Texts {
  const about = [
    `What ${plural(needs.requests, 'request')} in ${audit.map((file) => printable(file)).join(', ')} needed.`,
  ];
  return {
    policy: policyText(suggestion, needs, about),
    cases: casesText(`./${name}.yaml`, casesFor(suggestion, needs.all)),
  };
}

/** By the text, so that what is told holds for what is written. */
async function compare(audit: readonly string[], policy: string): Promise<Result<Comparison, string>> {
  const compiled = compilePolicy(parse(policy), { env: {} });
  if (!compiled.ok) throw new Error(`a suggested policy does not compile: ${JSON.stringify(compiled.error)}`);
  const comparing = new Comparing(rejudgeBy(compiled.value));
  const read = await readAuditFiles(audit, (record, file) => {
    const request = recordedRequest(record);
    if (request !== undefined) comparing.add(request, file);
  });
  return read.ok ? ok(comparing.result) : read;
}

async function write(folder: string, name: string, { policy, cases }: Texts): Promise<Result<void, string>> {
  const files = { [`${name}.yaml`]: policy, [`${name}.cases.yaml`]: cases };
  try {
    await mkdir(folder, { recursive: true });
  } catch (error) {
    return err(`${folder} cannot be made a folder (${(error as NodeJS.ErrnoException).code})`);
  }
  for (const [file, text] of Object.entries(files)) {
    try {
      await writeFile(join(folder, file), text, { flag: 'wx' });
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      const why = code === 'EEXIST' ? 'is there already: choose another --name' : `cannot be written (${code})`;
      return err(`${join(folder, file)} ${why}`);
    }
  }
  return ok(undefined);
}

function tell(
  { out, name, json }: PolicySuggestOptions,
  suggestion: Suggestion,
  needs: Needs,
  { policy }: Texts,
  comparison: Comparison,
  reading: AuditReading,
): void {
  const leftOut = suggestion.leftOut.map(({ need: { agent, server, matter }, why }) => ({
    agent,
    server,
    ...matter,
    why,
  }));
  if (json) {
    writeJson({
      ok: comparison.changed === 0,
      policy: documentOf(suggestion),
      leftOut,
      argumentsTouched: needs.touchedTools,
      comparison,
      read: reading,
    });
    return;
  }
  if (out === undefined) process.stdout.write(policy);
  tellLines([
    ...(out === undefined ? [] : [`wrote ${join(out, `${name}.yaml`)} and ${join(out, `${name}.cases.yaml`)}`]),
    ...leftOut.map(
      (one) => `left out: ${printable(one.agent)} ${printable(one.server)}.${printable(one.name)}: ${one.why}`,
    ),
    ...takeOver(suggestion, needs),
    ...(needs.unknown === 0
      ? []
      : [`${plural(needs.unknown, 'request')} passed over, whose record does not say all that was asked`]),
    ...describeComparison(comparison),
    describeReading(reading),
  ]);
}
