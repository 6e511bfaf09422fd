/**
 * Arguments held against a tool's schema: what is enforced, what is told, and that nothing that a server or an agent
 * may write runs for long. What would is written here so that it never ended: a test that hangs has failed.
 */
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { ArgumentSchemas } from '../../sidecar/pipeline/argument-schema.ts';

const schemas = new ArgumentSchemas();
before(() => schemas.load());

/** `undefined` for arguments that fit. */
function problemOf(schema: unknown, args: unknown): string | undefined {
  const checked = schemas.check(schema, args);
  return checked.ok ? undefined : checked.error;
}

interface Case {
  readonly schema: unknown;
  readonly args: unknown;
  readonly problem?: string;
}

const OBJECT = { type: 'object' };
const ofX = (x: unknown) => ({ type: 'object', properties: { x } });

const enforced: Record<string, Case> = {
  fits: { schema: ofX({ type: 'integer' }), args: { x: 1 } },
  type: { schema: ofX({ type: 'integer' }), args: { x: 'secret' }, problem: '/x breaks type' },
  required: { schema: { ...OBJECT, required: ['x'] }, args: {}, problem: '/ breaks required' },
  'additional properties': {
    schema: { ...ofX({}), additionalProperties: false },
    args: { y: 1 },
    problem: '/y breaks additionalProperties',
  },
  'deep in a list': {
    schema: ofX({ items: ofX({ enum: ['a'] }) }),
    args: { x: [{ x: 'a' }, { x: 'secret' }] },
    problem: '/x/1/x breaks enum',
  },
  'a local reference': {
    schema: { ...ofX({ $ref: '#/$defs/small' }), $defs: { small: { maximum: 1 } } },
    args: { x: 2 },
    problem: '/x breaks maximum',
  },
  'what refers to itself': {
    schema: {
      $defs: { tree: { properties: { x: { $ref: '#/$defs/tree' }, n: { type: 'number' } } } },
      $ref: '#/$defs/tree',
    },
    args: { x: { x: { n: 'secret' } } },
    problem: '/x/x/n breaks type',
  },
  '2019-09, where it says so': {
    schema: {
      $schema: 'https://json-schema.org/draft/2019-09/schema',
      $recursiveAnchor: true,
      properties: { x: { $recursiveRef: '#' }, n: { type: 'number' } },
    },
    args: { x: { x: { n: 'secret' } } },
    problem: '/x/x/n breaks type',
  },
  'draft-04, where it says so': {
    schema: {
      $schema: 'http://json-schema.org/draft-04/schema#',
      ...ofX({ maximum: 1, exclusiveMaximum: true }),
    },
    args: { x: 1 },
    problem: '/x breaks maximum',
  },
  'a list of thousands': {
    schema: ofX({ items: { type: 'integer' } }),
    args: { x: Array.from({ length: 20_000 }, () => 1) },
  },
  'a long text': { schema: ofX({ maxLength: 2_000_000 }), args: { x: 'x'.repeat(1_000_000) } },
  'a short list without repetitions': {
    schema: ofX({ uniqueItems: true }),
    args: { x: [{ a: 1 }, { a: 1 }] },
    problem: '/x breaks uniqueItems',
  },
  'a key that is called like the prototype': {
    schema: { ...OBJECT, additionalProperties: { type: 'number' } },
    args: JSON.parse('{"__proto__":"secret"}'),
    problem: '/__proto__ breaks type',
  },
};

describe('arguments and the schema of their tool', () => {
  for (const [name, { schema, args, problem }] of Object.entries(enforced))
    it(name, () => assert.equal(problemOf(schema, args), problem));

  it('a place is not told at any length', () => {
    const told = problemOf({ ...OBJECT, additionalProperties: false }, { ['k'.repeat(100_000)]: 1 });
    assert.match(told!, /^\/k{199} breaks additionalProperties$/);
  });
});

/** Twenty-five letters double the time of such a pattern twenty-five times. */
const ENDLESS = '^(([a-z])+.)+[A-Z]([a-z])+$';
const LETTERS = 'a'.repeat(60);

const patterns: Record<string, Case> = {
  pattern: { schema: ofX({ pattern: ENDLESS }), args: { x: LETTERS } },
  'pattern that is a list': { schema: ofX({ pattern: [ENDLESS] }), args: { x: LETTERS } },
  'pattern beside nothing but objects': {
    schema: ofX({ pattern: [ENDLESS], not: { type: 'null' } }),
    args: { x: LETTERS },
  },
  'pattern below a keyword that nobody knows': {
    schema: { ...ofX({ $ref: '#/x-more/one' }), 'x-more': { one: { pattern: ENDLESS } } },
    args: { x: LETTERS },
  },
  'pattern of names': { schema: { ...OBJECT, propertyNames: { pattern: ENDLESS } }, args: { [LETTERS]: 1 } },
  'pattern of what depends': {
    schema: {
      $schema: 'http://json-schema.org/draft-07/schema#',
      ...OBJECT,
      dependencies: { x: ofX({ pattern: ENDLESS }) },
    },
    args: { x: LETTERS },
  },
  patternProperties: { schema: ofX({ patternProperties: { [ENDLESS]: {} } }), args: { x: { [LETTERS]: 1 } } },
  'patternProperties, and no others': {
    schema: { ...OBJECT, patternProperties: { '^x-': {} }, additionalProperties: false },
    args: { 'x-a': 1 },
  },
  format: { schema: ofX({ format: 'email' }), args: { x: 'none' } },
  'a property is called pattern': {
    schema: { properties: { pattern: { type: 'number' } } },
    args: { pattern: 'a' },
    problem: '/pattern breaks type',
  },
  'a property is called patternProperties': {
    schema: { properties: { patternProperties: { type: 'number' } }, additionalProperties: false },
    args: { patternProperties: 'a' },
    problem: '/patternProperties breaks type',
  },
  'a property is called like the keyword that counts': {
    schema: { properties: { $recursiveRef: { type: 'number' } } },
    args: { $recursiveRef: 'a' },
    problem: '/$recursiveRef breaks type',
  },
};

describe('what could run for ever in a schema is not enforced', () => {
  for (const [name, { schema, args, problem }] of Object.entries(patterns))
    it(name, () => assert.equal(problemOf(schema, args), problem));
});

const TOO_MUCH = 'the arguments take too much work to be held against the tool’s schema';
const CANNOT = 'the tool’s schema cannot be enforced';
const TOO_LARGE = 'the tool’s schema is too large to be enforced';

function doubling(levels: number): object {
  const $defs: Record<string, object> = { [`d${levels}`]: {} };
  for (let level = 0; level < levels; level++) {
    const next = { $ref: `#/$defs/d${level + 1}` };
    $defs[`d${level}`] = { allOf: [next, next] };
  }
  return { ...OBJECT, $ref: '#/$defs/d0', $defs };
}

function nested(levels: number, around: (inner: object, level: number) => object): object {
  let schema: object = {};
  for (let level = 0; level < levels; level++) schema = around(schema, level);
  return schema;
}

const numbers = (length: number) => Array.from({ length }, (_, index) => index);
const manyKeys = Object.fromEntries(numbers(20_000).map((index) => [`k${index}`, 1]));

const refused: Record<string, Case> = {
  'references that double': { schema: doubling(60), args: {}, problem: TOO_MUCH },
  'references that double with every level of the arguments': {
    schema: {
      $ref: '#/$defs/n',
      $defs: { n: { properties: { x: { allOf: [{ $ref: '#/$defs/n' }, { $ref: '#/$defs/n' }] } } } },
    },
    args: nested(50, (x) => ({ x })),
    problem: TOO_MUCH,
  },
  'an id at every level': {
    schema: nested(60, (inner, level) => ({ $id: `https://server.example/${level}`, not: inner })),
    args: {},
    problem: TOO_MUCH,
  },
  'a long list without repetitions': {
    schema: ofX({ uniqueItems: true }),
    args: { x: numbers(100_000) },
    problem: TOO_MUCH,
  },
  'many keys, looked at again and again': {
    schema: { ...OBJECT, allOf: numbers(2_000).map(() => ({ additionalProperties: true })) },
    args: manyKeys,
    problem: TOO_MUCH,
  },
  'a long text, measured again and again': {
    schema: ofX({ allOf: numbers(5_000).map(() => ({ maxLength: 2_000_000 })) }),
    args: { x: 'x'.repeat(1_000_000) },
    problem: TOO_MUCH,
  },
  'a long list of values, told again and again': {
    schema: {
      ...ofX({ anyOf: numbers(5_000).map(() => ({ $ref: '#/$defs/e' })) }),
      $defs: { e: { enum: ['v'.repeat(100_000)] } },
    },
    args: { x: 1 },
    problem: TOO_MUCH,
  },
  'a reference round and round': { schema: { $ref: '#' }, args: {}, problem: CANNOT },
  'a reference to nothing': { schema: { $ref: '#/$defs/none' }, args: {}, problem: CANNOT },
  'a reference to elsewhere': {
    schema: ofX({ $ref: 'https://server.example/schema.json' }),
    args: { x: 1 },
    problem: CANNOT,
  },
  'an id that is no URI': { schema: { $id: 'http://[' }, args: {}, problem: CANNOT },
  'a keyword of the wrong kind': { schema: { ...OBJECT, allOf: 1 }, args: {}, problem: CANNOT },
  'nested too deeply': { schema: nested(200, (not) => ({ not })), args: {}, problem: TOO_LARGE },
  'too long': { schema: { ...OBJECT, description: 'x'.repeat(300_000) }, args: {}, problem: TOO_LARGE },
  'not there': { schema: undefined, args: {}, problem: 'the tool’s schema is not known' },
  'no object': { schema: [], args: {}, problem: 'the tool’s schema is not known' },
};

describe('a schema that cannot be enforced refuses', () => {
  for (const [name, { schema, args, problem }] of Object.entries(refused))
    it(name, () => {
      assert.equal(problemOf(schema, args), problem);
      // What was found out of it is kept, and says the same again.
      assert.equal(problemOf(schema, args), problem);
    });

  it('and what one call has used up is there again for the next', () => {
    const schema = ofX({ uniqueItems: true });
    assert.equal(problemOf(schema, { x: numbers(100_000) }), TOO_MUCH);
    assert.equal(problemOf(schema, { x: [1, 2] }), undefined);
  });
});
