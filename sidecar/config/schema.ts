/**
 * The shape of sidecar.yaml, and the frozen configuration that comes out of it.
 *
 * Guarantees: an unknown key is refused; every number is bounded; every duration and size has a unit and comes out in
 * milliseconds or bytes; every relative path comes out absolute; a secret is a reference, never a value. Only keys
 * that have an effect today are accepted. Reads nothing: that referenced files exist is checked by assemble.ts.
 */
import { resolve } from 'node:path';
import * as z from 'zod';
import type { DocumentProblem } from './problem.ts';
import {
  ADDRESS_PATTERN,
  DURATION_PATTERN,
  isLoopback,
  parseAddress,
  parseDuration,
  parseSize,
  SIZE_PATTERN,
  showAddress,
  type TcpAddress,
} from './quantity.ts';

/** Where a secret is read from. A file is read again when it changes. */
export type SecretReference = { readonly file: string } | { readonly env: string };

/** Variables that a child process gets from the sidecar's own environment unless `inheritEnv` says otherwise. None of them holds a credential. */
const INHERITED_VARIABLES: readonly string[] = [
  'PATH',
  'HOME',
  'USER',
  'LOGNAME',
  'SHELL',
  'LANG',
  'LC_ALL',
  'TZ',
  'TERM',
  'TMPDIR',
  // Windows finds programs and folders by these.
  'SYSTEMROOT',
  'PATHEXT',
  'APPDATA',
  'LOCALAPPDATA',
  'USERPROFILE',
  'TEMP',
  'TMP',
];

/** Keys of a coming version: refused like any unknown key, with a word that nobody has mistyped. */
export const KEYS_OF_LATER: ReadonlySet<string> = new Set(['endpoints', 'balance', 'health']);

export const DEFAULT_MCP_ADDRESSES = ['127.0.0.1:4180', '[::1]:4180'];
const DEFAULT_ADMIN_ADDRESS = '127.0.0.1:4181';

const NO_POLICY =
  'is missing, and without a policy nothing may be allowed: name one (policy: ./policy.yaml; sidecar init writes it), write it here (policy: { version: 1, rules: [ { name: reading, allow: [ { tools: ["list_*", "get_*"] } ] } ] }), or start with policy: library/observe, which allows everything and records what happens';

const POLICY_URL = 'must be https (or http to loopback): only from there a signed bundle is taken';
const UNSIGNED =
  'is a URL, and what comes from there must be signed: write beside it whose signature counts, bundle: { keys: [./policy-key.pub.pem] } (sidecar policy bundle signs)';

const SECRET = 'must be { file: path } or { env: NAME }: a secret is never written here itself';

/** Header names that an `auth: { type: headers }` may not set: they frame the message or belong to the protocol. */
const RESERVED_HEADERS = new Set(
  'accept connection content-encoding content-length content-type host keep-alive last-event-id te trailer transfer-encoding upgrade'.split(
    ' ',
  ),
);

function duration(min: string, max: string, standard: string, description: string) {
  const [least, most] = [parseDuration(min)!, parseDuration(max)!];
  return z
    .string({ error: 'must be a duration with its unit, such as 500ms, 30s, 5m or 1h' })
    .regex(DURATION_PATTERN, 'must be a duration with its unit, such as 500ms, 30s, 5m or 1h')
    .transform((text) => parseDuration(text)!)
    .refine((value) => value >= least && value <= most, `must lie between ${min} and ${max}`)
    .prefault(standard)
    .describe(`${description} Default ${standard}, from ${min} to ${max}.`);
}

function size(min: string, max: string, standard: string, description: string) {
  const [least, most] = [parseSize(min)!, parseSize(max)!];
  return z
    .string({ error: 'must be a size with its unit, such as 64KiB, 1MiB or 1MB' })
    .regex(SIZE_PATTERN, 'must be a size with its unit, such as 64KiB, 1MiB or 1MB')
    .transform((text) => parseSize(text)!)
    .refine((value) => value >= least && value <= most, `must lie between ${min} and ${max}`)
    .prefault(standard)
    .describe(`${description} Default ${standard}, from ${min} to ${max}.`);
}

function count(min: number, max: number, standard: number, description: string) {
  return z
    .int({ error: 'must be a whole number' })
    .min(min, `must lie between ${min} and ${max}`)
    .max(max, `must lie between ${min} and ${max}`)
    .default(standard)
    .describe(`${description} Default ${standard}, from ${min} to ${max}.`);
}

/** For a union told apart by its `type`: whether that, or the whole, is not what it should be. */
function typed(code: string, types: string): string {
  return code === 'invalid_union' ? `must be one of ${types}` : `must be a mapping with a type: one of ${types}`;
}

const ADDRESS = 'must be an IP address and a port, such as 127.0.0.1:4180 or [::1]:4180';

const HEALTH_ADDRESS = 'must be an address and a port, such as 10.0.0.1:4182, or *:4182 for every address';
const HEALTH_PATTERN = new RegExp(`${ADDRESS_PATTERN.source}|^\\*:\\d{1,5}$`);

const tcpAddress = z
  .string({ error: ADDRESS })
  .regex(ADDRESS_PATTERN, ADDRESS)
  .transform((text, context): TcpAddress => {
    const address = parseAddress(text);
    if (address !== undefined) return address;
    context.issues.push({ code: 'custom', message: ADDRESS, input: text });
    return z.NEVER;
  });

const environmentName = z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/);
const agentName = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/,
    'must be an agent name: letters, digits, dot, dash, underscore, at most 63',
  );
const serverName = z
  .string()
  .max(63)
  .regex(/^[a-z0-9][a-z0-9-]*$/, 'is not a server name: lower-case letters, digits and dashes, at most 63');

const WEB_URL = 'must be an http or https URL';

function isWebUrl(text: string): boolean {
  return /^https?:$/.test(URL.parse(text)?.protocol ?? '');
}

function hasUser(text: string): boolean {
  const url = URL.parse(text);
  return url !== null && (url.username !== '' || url.password !== '');
}

const REDIS_URL = 'must be redis://host:6379/0 or rediss://host:6379/0';

/** A host, a port and a number of a database: what else could stand there would have no effect, or be a secret. */
function isBareRedisUrl(text: string): boolean {
  const url = URL.parse(text);
  return url === null || (url.hostname !== '' && /^(?:\/\d{0,4})?$/.test(url.pathname) && url.search + url.hash === '');
}

function webUrl() {
  return z
    .string({ error: WEB_URL })
    .refine(isWebUrl, WEB_URL)
    .refine((text) => !hasUser(text), 'must not carry a user name or password: use auth')
    .refine((text) => (URL.parse(text)?.hash ?? '') === '', 'must not have a fragment (#…)');
}

/** Whether a `policy` is a URL rather than a path. */
export function isUrl(text: string): boolean {
  return /^[a-z]{2,}:\/\//i.test(text);
}

/** The URL keeps what travels over it from third parties: https, or http that stays on this machine. */
function isPrivate(text: string): boolean {
  const url = URL.parse(text);
  return url === null || url.protocol === 'https:' || isLoopback(url.hostname);
}

function authorizationServerUrl() {
  return webUrl().refine(isPrivate, 'must be https (or http to loopback): the client secret is sent there');
}

/** The schema. `folder` is what relative paths are relative to: the folder of the file. */
export function sidecarYaml(folder: string) {
  const path = z
    .string({ error: 'must be a path' })
    .min(1, 'must be a path')
    .transform((text) => resolve(folder, text));

  const secret: z.ZodType<SecretReference, SecretReference> = z
    .union([z.strictObject({ file: path }), z.strictObject({ env: environmentName })], { error: () => SECRET })
    .describe(
      'A secret by reference: { file: path } is read again when it changes, { env: NAME } is a variable of the sidecar.',
    );

  const listenerTls = z
    .strictObject({
      cert: path.describe('PEM certificate chain.'),
      key: path.describe('PEM private key.'),
      clientCa: path.optional().describe('PEM authorities; when set, callers must show a certificate of one of them.'),
    })
    .describe('These files are read at start: restart the sidecar after they change.');

  const listenerText = z
    .string({ error: ADDRESS })
    .regex(new RegExp(`${ADDRESS_PATTERN.source}|^unix:.+$`), `${ADDRESS}, or unix:/path`)
    .transform((text, context) => {
      if (text.startsWith('unix:')) return { kind: 'unix' as const, path: resolve(folder, text.slice('unix:'.length)) };
      const address = parseAddress(text);
      if (address !== undefined) return { kind: 'tcp' as const, ...address, tls: undefined };
      context.issues.push({ code: 'custom', message: ADDRESS, input: text });
      return z.NEVER;
    });
  const listener = z.union([
    listenerText,
    z
      .strictObject({ address: tcpAddress, tls: listenerTls })
      .transform(({ address, tls }) => ({ kind: 'tcp' as const, ...address, tls })),
  ]);

  const listen = z.strictObject({
    mcp: z
      .union([listener.transform((one) => [one]), z.array(listener).min(1).max(16)])
      .prefault(DEFAULT_MCP_ADDRESSES)
      .describe('Where agents connect: address, unix:/path, { address, tls }, or a list of these.'),
    admin: tcpAddress
      .refine(({ host }) => isLoopback(host), 'must be a loopback address: probes and metrics stay on this machine')
      .prefault(DEFAULT_ADMIN_ADDRESS)
      .describe('Probes and metrics. Default 127.0.0.1:4181.'),
    health: z
      .string()
      .regex(HEALTH_PATTERN, HEALTH_ADDRESS)
      .transform((text, context): TcpAddress => {
        const address = parseAddress(text.replace(/^\*/, '[::]'));
        if (address !== undefined) return address;
        context.issues.push({ code: 'custom', message: HEALTH_ADDRESS, input: text });
        return z.NEVER;
      })
      .optional()
      .describe(
        'Probes and metrics once more, for the kubelet and the scraper of a pod: an address, or *:4182 for all of them. ' +
          'No MCP and no page. Absent: off.',
      ),
    allowedHosts: z
      .array(z.string().min(1).max(255))
      .max(64)
      .optional()
      .describe(
        'Host names that requests may name (Host, against DNS rebinding), beside loopback and the addresses listened ' +
          'on. A port is ignored: a name counts with every port.',
      ),
    allowedOrigins: z
      .array(z.string().min(1).max(255))
      .max(64)
      .optional()
      .describe(
        'Origins of web pages that may call, such as https://app.example. Requests without Origin pass, and so do pages ' +
          'of loopback (http://localhost:3000), which always may.',
      ),
  });

  const SOCKET_MODE = 'must be "0600", "0660" or "0666", in quotes';
  const agentSocket = z
    .union([
      path.transform((text) => ({ path: text, mode: undefined })),
      z
        .strictObject({ path, mode: z.enum(['0600', '0660', '0666'], { error: SOCKET_MODE }) })
        .transform((socket) => ({ path: socket.path, mode: Number.parseInt(socket.mode, 8) })),
    ])
    .describe(
      'Path of the socket: whoever may write to the file, and enter its folder, is that agent. Its mode is what the ' +
        'umask of the sidecar leaves (022: its own user alone); { path, mode: "0660" } lets a group in, "0666" all ' +
        'who may enter the folder.',
    );

  const identify = z.discriminatedUnion(
    'type',
    [
      z.strictObject({
        type: z.literal('uid').describe('Linux: the owner of the loopback connection, by the kernel.'),
        agents: z.record(z.string().regex(/^\d{1,10}$/, 'is not a user id (a number)'), agentName),
      }),
      z.strictObject({
        type: z.literal('socket').describe('One unix socket for each agent.'),
        agents: z.record(agentName, agentSocket),
      }),
      z.strictObject({
        type: z.literal('apiKey').describe('`Authorization: Bearer <key>` or `X-Api-Key: <key>`.'),
        agents: z.record(agentName, secret),
      }),
    ],
    {
      error: ({ code, input }) => {
        const { type } = Object(input) as { type?: unknown };
        const isLater = type === 'jwt' || type === 'introspection';
        return isLater ? `${type} is not supported yet: use uid, socket or apiKey` : typed(code, 'uid, socket, apiKey');
      },
    },
  );

  const auth = z.discriminatedUnion(
    'type',
    [
      z
        .strictObject({
          type: z.literal('client_credentials').describe('OAuth 2.1 client credentials (RFC 6749, section 4.4).'),
          clientId: z.string().min(1).max(512),
          clientSecret: secret.optional(),
          privateKey: secret.optional().describe('PEM (PKCS#8) or JWK, for private_key_jwt (RFC 7523).'),
          keyId: z.string().min(1).max(512).optional().describe('`kid` of the client assertion.'),
          algorithm: z
            .enum(['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA'])
            .optional()
            .describe('`alg` of the client assertion. Default: what the key says, RS256 for RSA.'),
          authMethod: z.enum(['client_secret_basic', 'client_secret_post', 'private_key_jwt']).optional(),
          issuer: authorizationServerUrl()
            .optional()
            .describe('The only authorization server that may be used. Default: discovered (RFC 9728).'),
          tokenEndpoint: authorizationServerUrl()
            .optional()
            .describe('Default: discovered from the issuer (RFC 8414, OIDC).'),
          scopes: z
            .array(z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]+$/, 'is not a scope (RFC 6749, section 3.3)'))
            .max(64)
            .optional(),
          resource: webUrl().optional().describe('RFC 8707 resource. Default: the URL of the server.'),
        })
        .superRefine((value, context) => {
          const refuse = (key: string, message: string) => context.addIssue({ code: 'custom', path: [key], message });
          if (value.clientSecret === undefined && value.privateKey === undefined)
            refuse('clientId', 'needs clientSecret or privateKey beside it');
          if (value.clientSecret !== undefined && value.privateKey !== undefined)
            refuse('privateKey', 'stands beside clientSecret: use one of the two');
          if (value.privateKey === undefined) {
            if (value.keyId !== undefined) refuse('keyId', 'has no effect without privateKey');
            if (value.algorithm !== undefined) refuse('algorithm', 'has no effect without privateKey');
          }
          const byKey = value.authMethod === 'private_key_jwt';
          if (value.authMethod !== undefined && byKey !== (value.privateKey !== undefined))
            refuse('authMethod', `${value.authMethod} needs ${byKey ? 'privateKey' : 'clientSecret'}`);
        }),
      z.strictObject({ type: z.literal('bearer').describe('A fixed bearer token.'), token: secret }),
      z.strictObject({
        type: z.literal('headers').describe('Fixed headers, for servers with API keys.'),
        headers: z
          .record(
            z
              .string()
              .regex(/^[A-Za-z0-9!#$%&'*+.^`|~-]{1,128}$/, 'is not a header name')
              .refine(
                (header) => !RESERVED_HEADERS.has(header.toLowerCase()) && !/^mcp-/i.test(header),
                'is a header that the sidecar sets itself',
              ),
            secret,
          )
          .refine((headers) => Object.keys(headers).length > 0, 'must name at least one header'),
      }),
      z.strictObject({ type: z.literal('none') }),
    ],
    { error: ({ code }) => typed(code, 'client_credentials, bearer, headers, none') },
  );

  const httpServer = z
    .strictObject({
      url: webUrl().describe('The MCP endpoint (Streamable HTTP).'),
      auth: auth.prefault({ type: 'none' }),
      tls: z
        .strictObject({
          ca: path.optional().describe('PEM authorities to trust instead of the public ones.'),
          cert: path.optional().describe('PEM client certificate chain, for mutual TLS.'),
          key: path.optional().describe('PEM private key of `cert`.'),
        })
        .refine(({ cert, key }) => (cert === undefined) === (key === undefined), 'needs cert and key together')
        .optional()
        .describe('These files are read at start: restart the sidecar after they change.'),
      dangerouslyAllowHttp: z
        .boolean()
        .default(false)
        .describe('Send the credential over plain http beyond loopback. Whoever sees the network then has it.'),
    })
    .superRefine(({ url, auth, tls, dangerouslyAllowHttp }, context) => {
      if (auth.type !== 'none' && !isPrivate(url) && !dangerouslyAllowHttp)
        context.addIssue({
          code: 'custom',
          path: ['url'],
          message:
            'must be https: a credential is only sent over https, or over http to loopback (dangerouslyAllowHttp: true lets it through)',
        });
      if (tls !== undefined && URL.parse(url)?.protocol === 'http:')
        context.addIssue({ code: 'custom', path: ['tls'], message: 'has no effect with an http URL' });
    })
    .transform((server) => ({ kind: 'http' as const, ...server }));

  const word = z.string().max(8192);
  const stdioServer = z
    .strictObject({
      command: z
        .union([
          word.regex(/^\S+$/, 'must be a list when it has arguments: [npx, -y, some-server]').transform((one) => [one]),
          z.array(word).min(1, 'must name a program').max(256),
        ])
        .refine(([program]) => program !== '', 'must name a program')
        .describe('Program and arguments. No shell is involved.'),
      env: z
        .record(
          environmentName,
          z.union([z.string(), secret], { error: () => `must be text or a secret by reference, which ${SECRET}` }),
        )
        .default({})
        .describe('Variables of the child: text, or a secret by reference, which is read for each child that starts.'),
      cwd: path.prefault('.').describe('Working folder. Default: the folder of this file.'),
      inheritEnv: z
        .array(environmentName)
        .max(256)
        .default([...INHERITED_VARIABLES])
        .describe('Variables that the child gets from the sidecar’s own environment.'),
    })
    .transform((server) => ({ kind: 'stdio' as const, ...server }));

  const server = z.union([httpServer, stdioServer], {
    error: ({ input }) => {
      if (typeof input !== 'object' || input === null) return 'must be { url: … } or { command: [ … ] }';
      if ('endpoints' in input) return 'endpoints is not supported yet: name one url';
      if (!('url' in input) && !('command' in input)) return 'needs a url (Streamable HTTP) or a command (stdio)';
      return undefined;
    },
  });

  const redis = z
    .strictObject({
      redis: z
        .string({ error: REDIS_URL })
        .refine((text) => /^rediss?:$/.test(URL.parse(text)?.protocol ?? ''), REDIS_URL)
        .refine((text) => !hasUser(text), 'must not carry a user name or password: use username and password')
        .refine(isBareRedisUrl, REDIS_URL)
        .describe('redis://host:6379/0, or rediss:// for TLS. Redis or Valkey.'),
      username: z.string().min(1).max(256).optional().describe('ACL user. Default: the default user.'),
      password: secret.optional().describe('Read for each connection.'),
      prefix: z
        .string()
        .regex(/^[\w.:/-]{1,64}$/, 'must be letters, digits and . : / - _, at most 64')
        .default('mcp-sidecar:')
        .describe('Keys begin with it and {<group>}:. Default mcp-sidecar:.'),
      lease: z
        .string()
        .regex(/^(?:[1-9]|[1-4]\d|50)%$/, 'must be a share of each limit from 1% to 50%, for example 5%')
        .optional()
        .describe('Share of each limit that is taken at once and spent here. Absent: Redis is asked for every call.'),
      onStoreFailure: z
        .enum(['refuse', 'local'])
        .default('refuse')
        .describe('While Redis is away: refuse calls under a quota, or let each sidecar count by itself.'),
      timeout: duration('10ms', '10s', '250ms', 'How long Redis may take to answer; beyond that it is away.'),
      dangerouslyAllowPlaintext: z
        .boolean()
        .default(false)
        .describe('Send the password without TLS beyond loopback. Whoever sees the network then has it.'),
    })
    .refine(
      ({ redis, password, dangerouslyAllowPlaintext: isAllowed }) =>
        password === undefined || isAllowed || redis.startsWith('rediss:') || isLoopback(URL.parse(redis)!.hostname),
      {
        path: ['redis'],
        error:
          'must be rediss: a password is only sent over TLS, or to loopback (dangerouslyAllowPlaintext: true lets it through)',
      },
    );
  const quotaStore = z.union([z.literal('memory'), redis], {
    error: ({ input }) =>
      Object.hasOwn(Object(input), 'redis') ? undefined : 'must be memory or { redis: redis://… }',
  });

  return z.strictObject({
    group: z
      .string()
      .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'must be lower-case letters, digits and dashes, at most 63')
      .default('default')
      .describe('The name of this group of agents in policy, audit and traces.'),
    listen: listen.prefault({}),
    identify: z
      .array(identify)
      .max(8)
      .default([])
      .describe('Ways to know the caller, tried in order. None: everyone on loopback is the group.'),
    servers: z
      .record(serverName, server, {
        error: ({ input }) => (input === undefined ? 'is missing: name at least one MCP server' : undefined),
      })
      .refine((servers) => Object.keys(servers).length > 0, 'must name at least one MCP server')
      .refine((servers) => Object.keys(servers).length <= 256, 'must not name more than 256 servers'),
    policy: z
      .union(
        [
          z
            .string()
            .min(1)
            .refine((text) => !isUrl(text) || (isWebUrl(text) && isPrivate(text)), POLICY_URL)
            .refine((text) => !isUrl(text) || !hasUser(text), 'must not carry a user name or password'),
          z.record(z.string(), z.unknown()),
        ],
        {
          error: ({ input }) =>
            input === undefined || input === null ? NO_POLICY : 'must be a path, library/<name>, or the policy itself',
        },
      )
      .describe(
        'A file, a folder of *.yaml, library/<name>, the https URL of a signed bundle (see bundle), or the policy itself.',
      ),
    bundle: z
      .strictObject({
        keys: z
          .array(path)
          .min(1, 'must name at least one public key')
          .max(16, 'must not name more than 16 keys')
          .describe(
            'Files of public keys, PEM or JWK. A bundle must be signed by one of them; several, while they are rotated.',
          ),
        poll: duration('10s', '24h', '1m', 'How often the URL is asked for a newer one.'),
        ca: path.optional().describe('PEM authorities to trust at the URL instead of the public ones.'),
      })
      .optional()
      .describe('For a policy by URL: who signs it. All of these files are read again for each bundle.'),
    pins: z
      .strictObject({
        file: path.optional().describe('Written by sidecar pin. Default ./sidecar.lock.'),
        onDrift: z
          .enum(['block', 'flag'])
          .default('block')
          .describe(
            'A tool that is new or not as it was pinned: take it from the lists and refuse its calls, or only say so.',
          ),
        hiddenCharacters: z
          .enum(['flag', 'refuse'])
          .default('flag')
          .describe(
            'A tool whose definition holds characters that people do not see: only say so, or do not let it through.',
          ),
      })
      .optional()
      .transform((pins) => ({
        file: pins?.file ?? resolve(folder, 'sidecar.lock'),
        onDrift: pins?.onDrift ?? ('block' as const),
        hiddenCharacters: pins?.hiddenCharacters ?? ('flag' as const),
        isRequired: pins !== undefined,
      }))
      .describe('Tools as they were reviewed. Absent: sidecar.lock beside this file is used when it is there.'),
    telemetry: z
      .strictObject({
        otlp: webUrl().describe('OTLP over gRPC, such as http://127.0.0.1:4317.'),
        sampleRatio: z.number().min(0, 'must lie between 0 and 1').max(1, 'must lie between 0 and 1').default(1),
        metrics: z.boolean().default(false).describe('Send metrics there too, beside /metrics.'),
      })
      .optional()
      .describe('Traces. Absent: off, and nothing of OpenTelemetry is loaded.'),
    audit: z
      .strictObject({
        path: path.prefault('./audit.jsonl').describe('One JSON line for each request. Default ./audit.jsonl.'),
        onFailure: z
          .enum(['refuse', 'continue'])
          .default('continue')
          .describe('When the log cannot be written: refuse requests, or continue without (and say so).'),
        flush: duration('10ms', '1m', '250ms', 'How long a line may wait to be written.'),
      })
      .prefault({}),
    timeouts: z
      .strictObject({
        connect: duration('10ms', '5m', '5s', 'Until the connection to the server stands.'),
        headers: duration('10ms', '24h', '2m', 'From the request until the head of the answer.'),
        idle: duration('10ms', '24h', '5m', 'Between two chunks of an answer; the only one for streams.'),
        total: duration(
          '10ms',
          '24h',
          '15m',
          'Whole exchange, except streams; and how long a request of the 2025 eras runs on when its agent has gone.',
        ),
      })
      .prefault({}),
    limits: z
      .strictObject({
        body: size('1KiB', '256MiB', '4MiB', 'Bytes of one request.'),
        depth: count(8, 512, 64, 'Nesting of one request.'),
        batch: count(1, 1000, 50, 'Messages in one batch (2025-03-26).'),
        headersBytes: size('4KiB', '256KiB', '16KiB', 'Bytes of the headers of one request.'),
        connections: count(1, 100_000, 1024, 'Open connections of agents.'),
        inFlight: count(1, 100_000, 512, 'Requests under way at a time, each message of a batch one.'),
        streams: count(1, 100_000, 1024, 'Open event streams.'),
        event: size('1KiB', '256MiB', '4MiB', 'Bytes of one event of a stream.'),
        response: size('1KiB', '1GiB', '16MiB', 'Bytes of one answer that must be read as a whole, such as a list.'),
        childrenPerServer: count(1, 1024, 32, 'Child processes of one stdio server.'),
        sessionIdle: duration('1s', '24h', '30m', 'After which an unused session and its child end.'),
      })
      .prefault({}),
    breaker: z
      .strictObject({
        failures: count(1, 1000, 5, 'Failures in a row that trip the breaker of a server.'),
        open: duration(
          '100ms',
          '1h',
          '5s',
          'How long it stays tripped the first time; doubles with each further trip.',
        ),
        openMax: duration('100ms', '24h', '60s', 'The longest that it stays tripped.'),
      })
      .refine(({ open, openMax }) => open <= openMax, { path: ['openMax'], error: 'must not be shorter than open' })
      .prefault({}),
    cache: z
      .strictObject({
        entries: count(0, 1_000_000, 1000, 'Answers kept; 0 turns the cache off.'),
        bytes: size('0B', '4GiB', '16MiB', 'Bytes of the answers kept; 0B turns the cache off.'),
      })
      .prefault({}),
    drain: z
      .strictObject({
        grace: duration('0s', '1h', '20s', 'How long requests under way may take to finish after SIGTERM.'),
      })
      .prefault({}),
    quotaStore: quotaStore.default('memory').describe('Where spent quota is kept: here, or in Redis for all replicas.'),
    state: path
      .prefault('./.mcp-sidecar')
      .describe('A folder for what survives a restart. Made when there is something to keep. Default ./.mcp-sidecar.'),
    log: z.strictObject({ level: z.enum(['debug', 'info', 'warn', 'error']).default('info') }).prefault({}),
  });
}

type Parsed = z.output<ReturnType<typeof sidecarYaml>>;

type Frozen<T> = T extends (infer Item)[]
  ? readonly Frozen<Item>[]
  : T extends object
    ? { readonly [Key in keyof T]: Frozen<T[Key]> }
    : T;

/** What the rest of the sidecar reads. Durations are milliseconds, sizes bytes, paths absolute. */
export type Config = Frozen<Parsed>;
export type McpListener = Config['listen']['mcp'][number];
export type IdentifyConfig = Config['identify'][number];
export type ServerConfig = Config['servers'][string];
export type HttpServerConfig = Extract<ServerConfig, { kind: 'http' }>;
export type StdioServerConfig = Extract<ServerConfig, { kind: 'stdio' }>;
export type AuthConfig = HttpServerConfig['auth'];

/** What is wrong between sections that are right by themselves. */
export function findConflicts({ listen, identify }: Pick<Config, 'listen' | 'identify'>): DocumentProblem[] {
  const problems: DocumentProblem[] = [];
  const seen = new Set([showAddress(listen.admin)]);
  for (const [index, listener] of listen.mcp.entries()) {
    if (listener.kind === 'unix') continue;
    const refuse = (message: string) => problems.push({ path: ['listen', 'mcp', index], at: 'value', message });
    if (listener.port !== 0 && seen.has(showAddress(listener))) refuse('this address is in use by another listener');
    seen.add(showAddress(listener));
    if (isLoopback(listener.host)) continue;
    if (listener.tls === undefined) refuse('listens beyond loopback, which needs TLS: { address, tls: { cert, key } }');
    if (identify.length === 0) refuse('listens beyond loopback, where anybody may call: say with identify who may');
  }
  return problems;
}

/** A policy that comes over the network is one that somebody vouches for, and only such a one is. */
export function findBundleConflicts({ policy, bundle }: Pick<Config, 'policy' | 'bundle'>): DocumentProblem[] {
  const isRemote = typeof policy === 'string' && isUrl(policy);
  if (isRemote && bundle === undefined) return [{ path: ['policy'], at: 'value', message: UNSIGNED }];
  if (!isRemote && bundle !== undefined)
    return [{ path: ['bundle'], at: 'key', message: 'has no effect: policy is not the URL of a bundle' }];
  return [];
}
