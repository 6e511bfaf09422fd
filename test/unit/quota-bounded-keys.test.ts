import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Charge } from '../../policies/charge.ts';
import { chargesOf } from '../../policies/charges.ts';
import { KEY_LENGTH_MAX, withBoundedKeys } from '../../sidecar/quota/bounded-keys.ts';
import { agent, callOf, policyOf, tool } from '../support/policies.ts';

const policy = policyOf({
  quotas: [
    { name: 'tools', key: ['agent', 'tool'], calls: '5/min', burst: '2/s' },
    { name: 'owners', key: [{ cel: 'args.owner' }], tokens: '5/min' },
    { name: 'sessions', key: ['session'], concurrent: 3 },
  ],
});
const long = 'x'.repeat(1_000_000);

function keysOf(name: string, owner = '', sessionId = ''): string[] {
  const call = callOf(name, { owner }, { sessionId });
  return withBoundedKeys(chargesOf(policy, agent('triage'), tool(name), call, 7)).map(({ key }) => key);
}

describe('the keys of counters', () => {
  it('are as they were where they are short', () => {
    const charges = chargesOf(policy, agent('triage'), tool('t'), callOf('t', { owner: 'o' }), 7);
    assert.equal(withBoundedKeys(charges), charges);
  });

  it('are bounded where what the agent has named is long, and stay apart', () => {
    const keys = [
      keysOf('t'),
      keysOf(`${long}1`, `${long}1`, `${long}1`),
      keysOf(`${long}2`, `${long}2`, `${long}2`),
      // Halves of a character that would be the same in UTF-8.
      keysOf(`${long}\ud800`, `${long}\ud800`, `${long}\ud800`),
      keysOf(`${long}\udc00`, `${long}\udc00`, `${long}\udc00`),
    ].flat();
    assert.equal(new Set(keys).size, keys.length);
    for (const key of keys) assert.ok(key.length <= KEY_LENGTH_MAX, `${key.length}`);
  });

  it('are the same each time', () => assert.deepEqual(keysOf(long, long, long), keysOf(long, long, long)));

  it('are no name of an agent in disguise: a digest is no key as it is written', () => {
    const digest = keysOf(long)[0]!;
    assert.ok(digest.startsWith('sha256:'));
    for (const key of [...keysOf(digest), ...keysOf('t', digest, digest)]) assert.ok(key.startsWith('['), key);
  });

  it('are digests at more than 256 characters, and all else of the charge is as it was', () => {
    const [charge] = chargesOf(policy, agent('triage'), tool('t'), callOf('t', { owner: 'o' }), 7) as [Charge];
    for (const [length, isSame] of [
      [KEY_LENGTH_MAX, true],
      [KEY_LENGTH_MAX + 1, false],
    ] as const) {
      const key = `[${'x'.repeat(length - 1)}`;
      const [bounded] = withBoundedKeys([{ ...charge, key }]) as [Charge];
      assert.equal(bounded.key === key, isSame);
      assert.deepEqual({ ...bounded, key }, { ...charge, key });
    }
  });
});
