/** What the catalog remembers, and when it asks. */
import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { err, ok, type Result } from '../../policies/result.ts';
import { Catalog } from '../../sidecar/upstream/catalog.ts';

type Listed = Result<readonly unknown[], string>;

let now: number;
let warnings: string[];
/** Questions under way, oldest first. */
let asked: ((listed: Listed) => void)[];
let catalog: Catalog;
beforeEach(() => {
  now = 1_000;
  warnings = [];
  asked = [];
  const nothing = () => {};
  catalog = new Catalog({
    list: () => new Promise((resolve) => asked.push(resolve)),
    now: () => now,
    log: { error: nothing, warn: (message) => warnings.push(message), info: nothing, debug: nothing },
  });
});

const tool = (name: string, readOnlyHint?: boolean) => ({ name, annotations: { readOnlyHint } });
const hintOf = (name: string, server = 'main') => catalog.annotationsOf(server, name)?.readOnlyHint;

/** Answers the only question there is, and waits until that is known. */
async function answer(waiting: Promise<void> | undefined, listed: Listed): Promise<void> {
  assert.equal(asked.length, 1);
  asked.pop()!(listed);
  await waiting;
}

describe('asking', () => {
  test('once, for all who wait and for tools that the list does not have', async () => {
    const first = catalog.ensureKnown('main', 'a');
    const second = catalog.ensureKnown('main', 'b');
    assert.ok(first !== undefined && second !== undefined);
    await answer(first, ok([tool('a', true)]));
    await second;
    assert.equal(hintOf('a'), true);
    assert.equal(catalog.ensureKnown('main', 'a'), undefined);
    assert.equal(catalog.ensureKnown('main', 'b'), undefined);
    assert.equal(catalog.ensureKnown('main', 'invented'), undefined);
  });

  test('not for a tool whose list has passed, but for another', () => {
    catalog.learn('main', tool('a'));
    assert.equal(catalog.ensureKnown('main', 'a'), undefined);
    assert.ok(catalog.ensureKnown('main', 'on-another-page'));
  });

  test('each server for itself', async () => {
    await answer(catalog.ensureKnown('main', 'a'), ok([tool('a', true)]));
    assert.ok(catalog.ensureKnown('other', 'a'));
    assert.equal(hintOf('a', 'other'), undefined);
  });

  test('a failure is remembered for 30 s, and told', async () => {
    await answer(catalog.ensureKnown('main', 'a'), err('cannot be reached (ECONNREFUSED)'));
    assert.equal(warnings.length, 1);
    assert.match(warnings[0]!, /main.*cannot be reached/);
    now += 29_999;
    assert.equal(catalog.ensureKnown('main', 'a'), undefined);
    assert.equal(hintOf('a'), undefined);
    now += 1;
    await answer(catalog.ensureKnown('main', 'a'), ok([tool('a', true)]));
    assert.equal(hintOf('a'), true);
  });
});

describe('a server whose tools changed', () => {
  beforeEach(() => answer(catalog.ensureKnown('main', 'x'), ok([tool('stays', true), tool('goes', true)])));

  test('is judged by what was known until the new list is there', async () => {
    catalog.changed('main');
    const waiting = catalog.ensureKnown('main', 'stays');
    assert.equal(hintOf('stays'), true);
    await answer(waiting, ok([tool('stays', false)]));
    assert.equal(hintOf('stays'), false);
    assert.equal(hintOf('goes'), undefined);
    assert.equal(catalog.ensureKnown('main', 'goes'), undefined);
  });

  test('and that cannot be asked is judged by what was known', async () => {
    catalog.changed('main');
    await answer(catalog.ensureKnown('main', 'stays'), err('does not answer in time'));
    assert.equal(hintOf('stays'), true);
    assert.equal(hintOf('goes'), true);
    assert.equal(catalog.ensureKnown('main', 'stays'), undefined);
  });

  test('is not asked for a tool that has passed since', () => {
    catalog.changed('main');
    catalog.learn('main', tool('stays', false));
    assert.equal(catalog.ensureKnown('main', 'stays'), undefined);
    assert.ok(catalog.ensureKnown('main', 'goes'));
  });

  test('while it is being asked, is asked again, and what passed since is not overwritten', async () => {
    catalog.changed('main');
    const waiting = catalog.ensureKnown('main', 'stays');
    catalog.changed('main');
    catalog.learn('main', tool('stays', false));
    await answer(waiting, ok([tool('stays', true), tool('new', true)]));
    assert.equal(hintOf('stays'), false);
    assert.equal(hintOf('new'), true);
    assert.ok(catalog.ensureKnown('main', 'new'));
  });
});

describe('remembering', () => {
  test('the schemas of the first tools, and of further ones where they declare a header, at any depth', () => {
    for (let index = 0; index < 500; index++) catalog.learn('main', { name: `tool ${index}`, inputSchema: {} });
    assert.deepEqual(catalog.inputSchemaOf('main', 'tool 499'), {});
    const schema = { properties: { a: { properties: { b: { type: 'string', 'x-mcp-header': 'B' } } } } };
    catalog.learn('main', { name: 'with', inputSchema: schema });
    catalog.learn('main', { name: 'without', inputSchema: { properties: { a: { description: 'x-mcp-header' } } } });
    assert.equal(catalog.inputSchemaOf('main', 'with'), schema);
    assert.equal(catalog.inputSchemaOf('main', 'without'), undefined);
    catalog.learn('main', { name: 'with', inputSchema: {} });
    assert.equal(catalog.inputSchemaOf('main', 'with'), undefined);
  });

  test('a schema nested without end is only walked', () => {
    const inputSchema = JSON.parse(`${'{"a":'.repeat(200_000)}{"x-mcp-header":"X"}${'}'.repeat(200_000)}`);
    catalog.learn('main', { name: 'deep', inputSchema });
    assert.equal(catalog.inputSchemaOf('main', 'deep'), inputSchema);
  });

  test('10,000 tools of a server, and what is no tool not at all', () => {
    for (const item of [null, 1, 'text', [], {}, { name: 1 }]) catalog.learn('main', item);
    for (let index = 0; index <= 10_000; index++) catalog.learn('main', tool(`tool-${index}`, true));
    assert.equal(hintOf('tool-9999'), true);
    assert.equal(hintOf('tool-10000'), undefined);
    catalog.learn('main', tool('tool-0', false));
    assert.equal(hintOf('tool-0'), false);
  });
});

describe('the state of a tool', () => {
  const state = (name: string) => catalog.stateOf('main', name);

  test('is unknown, known from a page, and absent only from the whole list', async () => {
    assert.equal(state('a'), 'unknown');
    catalog.learn('main', tool('a'));
    assert.deepEqual([state('a'), state('b')], ['known', 'unknown']);
    await answer(catalog.ensureKnown('main', 'b'), ok([tool('a')]));
    assert.deepEqual([state('a'), state('b')], ['known', 'absent']);
  });

  test('is unknown again when a changed list cannot be had, until the tool passes', async () => {
    await answer(catalog.ensureKnown('main', 'a'), ok([tool('a'), tool('b')]));
    catalog.changed('main');
    await answer(catalog.ensureKnown('main', 'a'), err('does not answer in time'));
    assert.deepEqual([state('a'), state('c')], ['unknown', 'unknown']);
    catalog.learn('main', tool('a'));
    assert.deepEqual([state('a'), state('b')], ['known', 'unknown']);
  });

  test('is known from the last answer while changes are announced faster than they can be asked for', async () => {
    const waiting = catalog.ensureKnown('main', 'a');
    catalog.changed('main');
    await answer(waiting, ok([tool('a')]));
    assert.deepEqual([state('a'), state('b')], ['known', 'unknown']);
  });
});
