/**
 * One set of manifests through both doors: the command line's text, and the webhook's reviews over TLS. Both must say
 * what the golden file says.
 *
 * `UPDATE_GOLDENS=1 npm test -- golden/injector` writes the golden files anew: read the difference before it is committed.
 */
import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { suite, type TestContext, test } from 'node:test';
import { parseAllDocuments } from 'yaml';
import type { Mode } from '../../injector/container.ts';
import { applyPatch } from '../../injector/json-patch.ts';
import { groupsInManifest, injectManifest, uninjectManifest } from '../../injector/manifest.ts';
import { defaultOptions } from '../../injector/options.ts';
import { isRaw, type Raw, rawAt } from '../../injector/raw-object.ts';
import { schemaFaults } from '../support/injector.ts';
import { openWebhook } from '../support/webhook.ts';

const folder = join(import.meta.dirname, 'injector');
const read = (name: string) => readFileSync(join(folder, name), 'utf8');
// An image that does not change with each release.
const options = { ...defaultOptions(), image: 'registry.example/mcp-sidecar:1' };
const groups = groupsInManifest(read('groups.yaml'));
const inputs = globSync('*.yaml', { cwd: folder }).filter(
  (name) => !/\.(?:native|classic)\.yaml$|^groups\.yaml$/.test(name),
);

interface Workload {
  readonly kind: string;
  readonly template: Raw;
}

/** The pods of a stream, by a reader that shares nothing with the one that is tested. */
function workloadsOf(text: string): Workload[] {
  const objects = (parseAllDocuments(text, { version: '1.1' }) as { toJS(): unknown }[]).map((document) =>
    document.toJS(),
  );
  return objects
    .flatMap((object) => (isRaw(object) && object.kind === 'List' ? (object.items as unknown[]) : [object]))
    .filter(isRaw)
    .flatMap((object) => {
      const kind = String(object.kind);
      if (kind === 'Pod') return [{ kind, template: { metadata: object.metadata, spec: object.spec } }];
      const template =
        kind === 'CronJob'
          ? rawAt(object, 'spec', 'jobTemplate', 'spec', 'template')
          : rawAt(object, 'spec', 'template');
      return isRaw(template.spec) ? [{ kind, template }] : [];
    });
}

suite('one result through both doors', () => {
  for (const name of inputs.sort())
    for (const mode of ['native', 'classic'] as const) {
      const hasJob = /kind: (?:Job|CronJob)/.test(read(name));
      if (mode === 'classic' && hasJob) continue;
      const golden = `${basename(name, '.yaml')}.${mode}.yaml`;
      test(golden, async (context) => {
        const written = injectManifest(name, read(name), { options, mode, groups });
        assert.ok(written.ok, written.ok ? '' : JSON.stringify(written.error));
        if (process.env.UPDATE_GOLDENS === '1') writeFileSync(join(folder, golden), written.value.text);
        assert.ok(existsSync(join(folder, golden)), `there is no ${golden}`);
        assert.equal(written.value.text, read(golden));
        await sameByWebhook(context, name, mode, workloadsOf(written.value.text));

        const back = uninjectManifest(golden, written.value.text);
        assert.ok(back.ok);
        assert.deepEqual(workloadsOf(back.value.text), workloadsOf(read(name)));
      });
    }

  test('a Job with a classic sidecar is refused through both', async (context) => {
    const written = injectManifest('cronjob.yaml', read('cronjob.yaml'), { options, mode: 'classic', groups });
    assert.ok(!written.ok);
    assert.match(written.error[0]!.message, /Job would never complete/);
    assert.equal(written.error[0]!.line, 12);
    const webhook = await openWebhook({ options, mode: 'classic', groups: groups.map(({ group }) => group) });
    context.after(() => webhook.close());
    const [{ template }] = workloadsOf(read('cronjob.yaml')) as [Workload];
    const reply = await webhook.review(podOf(template, 'CronJob'));
    assert.equal(reply.allowed, false);
    assert.match(reply.status!.message, /Job would never complete/);
  });
});

async function sameByWebhook(
  context: TestContext,
  name: string,
  mode: Mode,
  wanted: readonly Workload[],
): Promise<void> {
  const webhook = await openWebhook({ options, mode, groups: groups.map(({ group }) => group) });
  context.after(() => webhook.close());
  for (const [index, { kind, template }] of workloadsOf(read(name)).entries()) {
    const pod = podOf(template, kind);
    const reply = await webhook.review(pod);
    assert.equal(reply.allowed, true, reply.status?.message ?? '');
    const operations = JSON.parse(Buffer.from(reply.patch!, 'base64').toString());
    const { metadata, spec } = applyPatch(pod, operations);
    // What the controller has put there.
    const { ownerReferences: _, generateName: __, ...own } = metadata as Raw;
    assert.deepEqual({ metadata: own, spec }, wanted[index]!.template, `${kind} of ${name}`);
    const { futureField: ___, ...known } = spec as Raw;
    assert.deepEqual(schemaFaults({ ...pod, metadata, spec: known }), []);
  }
}

/** The pod that the controller of a workload makes of its template. */
function podOf(template: Raw, kind: string): Raw {
  const owner = { CronJob: 'Job', Deployment: 'ReplicaSet' }[kind] ?? kind;
  const metadata =
    kind === 'Pod'
      ? template.metadata
      : {
          ...(template.metadata as Raw),
          generateName: 'x-',
          ownerReferences: [{ apiVersion: 'v1', kind: owner, name: 'x', uid: '1', controller: true }],
        };
  return { apiVersion: 'v1', kind: 'Pod', ...template, metadata };
}
