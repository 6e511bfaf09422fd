import assert from 'node:assert/strict';
import { test } from 'node:test';
import { processTokenResponse } from '../../sidecar/credentials/token-response.ts';

const CANARY = 'canary-7f3a';
const valid = { access_token: 'abc.def', token_type: 'Bearer', expires_in: 3600 };
const respond = (body: unknown, status = 200, retryAfterMs = 0) =>
  processTokenResponse({
    status,
    retryAfterMs,
    etag: undefined,
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });

test('takes a valid answer', () => {
  assert.deepEqual(respond(valid), { ok: true, value: { accessToken: 'abc.def', lifetimeMs: 3_600_000 } });
});

const taken: readonly [why: string, change: object, lifetimeMs: number][] = [
  ['token_type in any case', { token_type: 'bEARER' }, 3_600_000],
  ['expires_in as text', { expires_in: '120' }, 120_000],
  ['no expires_in: a minute', { expires_in: undefined }, 60_000],
  ['expires_in null: a minute', { expires_in: null }, 60_000],
  ['a year: a day', { expires_in: 31_536_000 }, 86_400_000],
];
for (const [why, change, lifetimeMs] of taken)
  test(`takes ${why}`, () => {
    const result = respond({ ...valid, ...change });
    assert.equal(result.ok && result.value.lifetimeMs, lifetimeMs);
  });

const refused: readonly [why: string, body: unknown][] = [
  ['no access_token', { ...valid, access_token: undefined }],
  ['an empty access_token', { ...valid, access_token: '' }],
  ['an access_token that is no text', { ...valid, access_token: 1 }],
  ['an access_token with a line break', { ...valid, access_token: `${CANARY}\r\nx: y` }],
  ['an access_token beyond ASCII', { ...valid, access_token: `${CANARY}ä` }],
  ['an access_token of 20 kB', { ...valid, access_token: CANARY.repeat(2000) }],
  ['a token of another type', { ...valid, token_type: 'DPoP' }],
  ['no token_type', { ...valid, token_type: undefined }],
  ['expires_in 0', { ...valid, expires_in: 0 }],
  ['expires_in negative', { ...valid, expires_in: -1 }],
  ['expires_in that is no number', { ...valid, expires_in: 'soon' }],
  ['an array', [valid]],
  ['a number', 1],
  ['null', null],
  ['HTML', `<html>${CANARY}`],
  ['nothing', ''],
];
for (const [why, body] of refused)
  test(`refuses ${why}`, () => {
    const result = respond(body);
    assert.ok(!result.ok);
    assert.equal(result.error.kind, 'tokenEndpoint');
    assert.ok(!result.error.detail.includes(CANARY));
  });

const errors: readonly [status: number, code: unknown, kind: string, detail: RegExp][] = [
  [401, 'invalid_client', 'refused', /^answered 401 invalid_client: check/],
  [400, 'invalid_scope', 'insufficientScope', /invalid_scope/],
  [400, 'invalid_target', 'refused', /check resource/],
  [503, 'temporarily_unavailable', 'tokenEndpoint', /503/],
  [400, CANARY, 'tokenEndpoint', /^answered 400$/],
  [400, 'constructor', 'tokenEndpoint', /^answered 400$/],
  [400, { [CANARY]: 1 }, 'tokenEndpoint', /^answered 400$/],
  [302, undefined, 'tokenEndpoint', /redirect/],
  [201, undefined, 'tokenEndpoint', /^answered 201$/],
];
for (const [status, error, kind, detail] of errors)
  test(`status ${status} with error ${JSON.stringify(error)} is ${kind}`, () => {
    const result = respond({ error, error_description: CANARY, error_uri: CANARY }, status, 7000);
    assert.ok(!result.ok);
    assert.equal(result.error.kind, kind);
    assert.match(result.error.detail, detail);
    assert.ok(!JSON.stringify(result).includes(CANARY));
    assert.equal(result.error.retryAfterMs, 7000);
  });
