/**
 * The sidecar's own look at a server's tools, over real sockets: both eras, both framings, pages, credentials, and
 * servers that mean harm.
 */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, type TestContext, test } from 'node:test';
import { ok } from '../../policies/result.ts';
import type { Credential } from '../../sidecar/credentials/credential.ts';
import { createHttpUpstream } from '../../sidecar/upstream/http.ts';
import { listTools } from '../../sidecar/upstream/list-tools.ts';
import type { Upstream } from '../../sidecar/upstream/upstream.ts';
import { type ScriptedUpstream, sendJson, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { startUpstream } from '../support/stdio-harness.ts';
import { methodsSeen, toolServer } from '../support/tool-server.ts';

const TOOLS = ['one', 'two', 'three', 'four', 'five'].map((name) => ({ name, inputSchema: { type: 'object' } }));

let server: ScriptedUpstream;
let upstream: Upstream;
before(async () => {
  server = await startScriptedUpstream();
  upstream = createHttpUpstream({
    name: 'main',
    url: new URL(server.url),
    tls: undefined,
    timeouts: { connectMs: 5_000, headersMs: 20_000, idleMs: 20_000, totalMs: 20_000 },
  });
});
after(async () => {
  await upstream.close(0);
  await server.close();
});
beforeEach(() => {
  server.seen.length = 0;
});

/** What comes back, as a sentence or as a list; fails when it throws or takes longer than it may. */
async function look(credential?: Credential, signal?: AbortSignal) {
  const listed = await listTools(upstream, credential, signal);
  return listed.ok ? listed.value : listed.error;
}

describe('a server of', () => {
  for (const stream of [false, true]) {
    for (const pageSize of [5, 2]) {
      const how = `${stream ? 'event streams' : 'JSON'}, ${pageSize} tools a page`;
      test(`2026-07-28, ${how}`, async () => {
        server.answer = toolServer({ era: 'modern', tools: TOOLS, pageSize, stream });
        assert.deepEqual(await look(), {
          era: 'modern',
          protocolVersion: '2026-07-28',
          serverInfo: { name: 'tool-server', version: '1.2.3' },
          tools: TOOLS,
        });
        assert.deepEqual(methodsSeen(server), Array(Math.ceil(5 / pageSize)).fill('tools/list'));
        const { params } = server.seen[0]!.json;
        assert.equal(params._meta['io.modelcontextprotocol/clientInfo'].name, 'mcp-sidecar');
      });

      test(`2025, ${how}: a whole session, which is ended`, async () => {
        server.answer = toolServer({ era: 'legacy', tools: TOOLS, pageSize, stream });
        assert.deepEqual(await look(), {
          era: 'legacy',
          protocolVersion: '2025-06-18',
          serverInfo: { name: 'tool-server', version: '1.2.3' },
          tools: TOOLS,
        });
        assert.deepEqual(methodsSeen(server), [
          'tools/list',
          'initialize',
          'notifications/initialized',
          ...Array(Math.ceil(5 / pageSize)).fill('tools/list'),
          'DELETE',
        ]);
        assert.equal(server.seen[1]!.json.params.protocolVersion, '2025-11-25');
        assert.equal(server.seen[1]!.json.params._meta, undefined);
      });
    }
  }

  test('2025 that answers before initialize all the same', async () => {
    const legacy = toolServer({ era: 'legacy', tools: TOOLS });
    server.answer = (seen, response, request) => {
      if (server.seen.length > 1) legacy(seen, response, request);
      else sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: { tools: [] } });
    };
    const listed = await look();
    assert.equal(typeof listed === 'string' ? listed : listed.era, 'legacy');
  });

  test('2026-07-28 that also speaks an older one, and wants that', async () => {
    const legacy = toolServer({ era: 'legacy', tools: TOOLS });
    server.answer = (seen, response, request) => {
      if (server.seen.length > 1) return legacy(seen, response, request);
      const error = { code: -32022, message: 'no', data: { supported: ['2027-01-01', '2025-06-18'] } };
      sendJson(response, { jsonrpc: '2.0', id: seen.json.id, error }, 400);
    };
    const listed = await look();
    assert.equal(typeof listed === 'string' ? listed : listed.era, 'legacy');
  });

  for (const era of ['modern', 'legacy'] as const) {
    test(`${era} without tools has none, which is no failure`, async () => {
      server.answer = ({ json }, response) => {
        const { id, method } = json ?? {};
        if (method === 'notifications/initialized') return sendJson(response, undefined);
        if (method === 'initialize' && era === 'legacy')
          return sendJson(response, {
            jsonrpc: '2.0',
            id,
            result: { protocolVersion: '2025-11-25', capabilities: {} },
          });
        if (method === 'server/discover' && era === 'modern')
          return sendJson(response, { jsonrpc: '2.0', id, result: { resultType: 'complete', capabilities: {} } });
        sendJson(response, { jsonrpc: '2.0', id, error: { code: -32601, message: 'Method not found' } }, 404);
      };
      const listed = await look();
      assert.deepEqual(typeof listed === 'string' ? listed : [listed.era, listed.tools], [era, []]);
    });
  }

  test('2025 over stdio that dies of the probe', async (context: TestContext) => {
    const { upstream: child } = startUpstream(context, { flags: ['--die-on-discover'] });
    const listed = await listTools(child, undefined);
    assert.ok(listed.ok, listed.ok ? '' : listed.error);
    assert.equal(listed.value.era, 'legacy');
  });
});

describe('the credential', () => {
  function credentialOf(...tokens: string[]) {
    const challenges: unknown[] = [];
    const credential: Credential = {
      headers: () => ok({ authorization: `Bearer ${tokens[0]}` }),
      rejected: (_used, challenge) => {
        challenges.push(challenge);
        tokens.shift();
        return tokens.length > 0;
      },
      close() {},
    };
    return { credential, challenges };
  }

  beforeEach(() => {
    const modern = toolServer({ era: 'modern', tools: TOOLS });
    server.answer = (seen, response, request) => {
      if (seen.headers.authorization === 'Bearer good') return modern(seen, response, request);
      sendJson(response, { secret: 'canary' }, 401, { 'www-authenticate': 'Bearer scope="tools"' });
    };
  });

  test('that is refused is had anew, once', async () => {
    const { credential, challenges } = credentialOf('old', 'good');
    const listed = await look(credential);
    assert.deepEqual(typeof listed === 'string' ? listed : listed.tools, TOOLS);
    assert.deepEqual(challenges, ['Bearer scope="tools"']);
  });

  test('that stays refused is a sentence', async () => {
    const { credential } = credentialOf('old', 'older', 'oldest', 'good');
    assert.equal(await look(credential), 'refuses the credential (HTTP status 401)');
    assert.equal(server.seen.length, 2);
  });

  test('that cannot change is not tried again', async () => {
    assert.equal(await look(credentialOf('fixed').credential), 'refuses the credential (HTTP status 401)');
    assert.equal(server.seen.length, 1);
  });

  test('that is missing is a sentence', async () => {
    assert.equal(await look(), 'wants a credential (HTTP status 401), and none is configured');
  });

  test('that nobody gives ends with the time', async () => {
    const never: Credential = { headers: () => new Promise(() => {}), rejected: () => false, close() {} };
    assert.equal(await look(never, AbortSignal.timeout(100)), 'does not answer in time');
    assert.equal(server.seen.length, 0);
  });
});

describe('a server that', () => {
  /** Every modern request gets this result. */
  const answering = (resultOf: (seen: ScriptedUpstream['seen'][number]) => object): ScriptedUpstream['answer'] => {
    return (seen, response) =>
      sendJson(response, { jsonrpc: '2.0', id: seen.json.id, result: { resultType: 'complete', ...resultOf(seen) } });
  };

  test('has no last page', async () => {
    server.answer = answering(() => ({ tools: [], nextCursor: 'again' }));
    assert.equal(await look(), 'lists its tools on more than 100 pages');
    assert.equal(server.seen.length, 100);
  });

  test('has more tools than anybody needs', async () => {
    const tools = Array(6_000).fill(1);
    server.answer = answering(() => ({ tools, nextCursor: 'again' }));
    assert.equal(await look(), 'lists more than 10000 tools');
  });

  for (const type of ['application/json', 'text/event-stream']) {
    test(`never stops sending ${type}`, async () => {
      server.answer = (_seen, response) => {
        response.writeHead(200, { 'content-type': type });
        const chunk = Buffer.from(`:${' '.repeat(256 * 1024)}\n\n`);
        const more = () => {
          while (!response.destroyed && response.write(chunk));
        };
        response.on('drain', more);
        more();
      };
      assert.equal(await look(), 'answers with more than 16777216 bytes');
    });
  }

  test('is silent', async () => {
    server.answer = () => {};
    assert.equal(await look(undefined, AbortSignal.timeout(100)), 'does not answer in time');
  });

  test('is silent after its first words', async () => {
    server.answer = (_seen, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write('data: {"jsonrpc":"2.0"');
    };
    assert.equal(await look(undefined, AbortSignal.timeout(200)), 'does not answer in time');
  });

  test('is silent inside a session: the session is ended all the same', async () => {
    const legacy = toolServer({ era: 'legacy', tools: TOOLS });
    server.answer = (seen, response, request) => {
      if (server.seen.length !== 4) legacy(seen, response, request);
    };
    assert.equal(await look(undefined, AbortSignal.timeout(500)), 'does not answer in time');
    assert.deepEqual(methodsSeen(server).slice(-2), ['tools/list', 'DELETE']);
  });

  test('speaks only a revision of the future', async () => {
    server.answer = ({ json }, response) => {
      const error = { code: -32022, message: 'canary', data: { supported: ['2099-01-01'] } };
      sendJson(response, { jsonrpc: '2.0', id: json.id, error }, 400);
    };
    assert.equal(await look(), 'speaks no revision that the sidecar knows');
  });

  test('gives a cursor that is no text one can send', async () => {
    server.answer = answering(() => ({ tools: [], nextCursor: '\ud800"\u0000' }));
    assert.equal(typeof (await look()), 'string');
  });

  const LIST = '{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","tools":[]}}';
  const GARBAGE: readonly (readonly [string, string, Parameters<typeof sendJson>[2], Record<string, string>])[] = [
    ['not JSON', '{canary', 200, {}],
    ['an empty body', '', 200, {}],
    ['a list of numbers', '[1,2]', 200, {}],
    ['null', 'null', 200, {}],
    ['the answer to another', LIST.replace(':1,', ':"canary",'), 200, {}],
    ['a result that is text', '{"jsonrpc":"2.0","id":1,"result":"canary"}', 200, {}],
    ['tools that are no list', '{"jsonrpc":"2.0","id":1,"result":{"resultType":"canary","tools":{"a":1}}}', 200, {}],
    ['a page of HTML', '<h1>canary</h1>', 200, { 'content-type': 'text/html' }],
    ['a redirect', LIST, 302, { location: 'http://127.0.0.1:1/canary' }],
    ['502', 'canary', 502, {}],
    ['429', 'canary', 429, {}],
    ['403', 'canary', 403, {}],
    ['compressed', LIST, 200, { 'content-encoding': 'gzip' }],
    ['an error whose code is text', '{"jsonrpc":"2.0","id":1,"error":{"code":"canary"}}', 200, {}],
    ['deep nesting', `{"jsonrpc":"2.0","id":1,"result":${'['.repeat(100_000)}${']'.repeat(100_000)}}`, 200, {}],
  ];
  for (const [what, body, status, headers] of GARBAGE) {
    for (const type of ['application/json', 'text/event-stream']) {
      test(`answers with ${what}, as ${type}: a sentence that quotes nothing of it`, async () => {
        server.answer = (_seen, response) => {
          response.writeHead(status ?? 200, { 'content-type': type, ...headers });
          response.end(type === 'text/event-stream' ? `data: ${body}\n\n` : body);
        };
        const listed = await look();
        assert.ok(typeof listed === 'string', JSON.stringify(listed));
        assert.match(listed, /^[a-z][\x20-\x7e]{10,150}$/);
        assert.doesNotMatch(listed, /canary/);
      });
    }
  }

  test('hangs up', async () => {
    server.answer = (_seen, response) => response.destroy();
    assert.match(String(await look()), /^cannot be reached \(\w+\)$/);
  });

  test('hangs up in the middle', async () => {
    server.answer = (_seen, response) => {
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': '1000' });
      response.write('{');
      setImmediate(() => response.destroy());
    };
    assert.match(String(await look()), /^cannot be reached \(\w+\)$/);
  });
});
