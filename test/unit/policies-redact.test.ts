import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { redactArguments } from '../../policies/redact.ts';
import { policyOf } from '../support/policies.ts';

const ARGS = {
  customer: { email: 'a@b', name: 'Ann' },
  contacts: [{ phone: '1', tags: ['x'] }, { phone: '2' }],
  'a/b': { 'c~d': 'secret' },
  none: null,
};
const R = '[redacted]';

const CASES: [pointers: string[], value: unknown][] = [
  [['/customer/email'], { ...ARGS, customer: { email: R, name: 'Ann' } }],
  [['/customer'], { ...ARGS, customer: R }],
  [['/contacts/1/phone'], { ...ARGS, contacts: [ARGS.contacts[0], { phone: R }] }],
  [['/contacts/*/phone'], { ...ARGS, contacts: [{ phone: R, tags: ['x'] }, { phone: R }] }],
  [['/*/email', '/contacts/0'], { ...ARGS, customer: { email: R, name: 'Ann' }, contacts: [R, { phone: '2' }] }],
  [['/a~1b/c~0d'], { ...ARGS, 'a/b': { 'c~d': R } }],
  [['/none'], { ...ARGS, none: R }],
  [[''], R],
];

function redact(
  pointers: string[],
  args: unknown,
  { server = 'crm', tools }: { server?: string; tools?: string[] } = {},
) {
  const policy = policyOf({ redact: [{ server: 'crm*', arguments: pointers, ...(tools && { tools }) }] });
  return redactArguments(policy, server, 'update_ticket', args);
}

describe('redaction', () => {
  for (const [pointers, value] of CASES)
    it(`of ${JSON.stringify(pointers)}`, () => {
      const before = structuredClone(ARGS);
      assert.deepEqual(redact(pointers, ARGS), { value, redacted: true });
      assert.deepEqual(ARGS, before, 'the arguments themselves are not touched');
    });

  for (const pointer of [
    '/customer/phone',
    '/contacts/2',
    '/contacts/01',
    '/contacts/-',
    '/contacts/length',
    '/customer/name/length',
    '/toString',
    '/',
  ])
    it(`of ${pointer}, which leads nowhere, gives the same object back`, () => {
      const { value, redacted } = redact([pointer], ARGS);
      assert.equal(value, ARGS);
      assert.equal(redacted, false);
    });

  it('copies along the path only', () => {
    const { value } = redact(['/customer/email'], ARGS);
    assert.equal((value as typeof ARGS).contacts, ARGS.contacts);
  });

  it('is for its servers and tools', () => {
    assert.equal(redact(['/customer'], ARGS, { server: 'github' }).redacted, false);
    assert.equal(redact(['/customer'], ARGS, { tools: ['get_*'] }).redacted, false);
    assert.equal(redact(['/customer'], ARGS, { tools: ['get_*', 'update_*'] }).redacted, true);
  });

  it('has nothing to do where a call has no arguments', () => {
    assert.deepEqual(redact([''], undefined), { value: undefined, redacted: false });
  });

  it('reaches a key named __proto__ and sets no prototype', () => {
    const { value } = redact(['/__proto__/token'], JSON.parse('{"__proto__":{"token":"t"},"x":1}'));
    assert.equal(JSON.stringify(value), '{"__proto__":{"token":"[redacted]"},"x":1}');
  });
});
