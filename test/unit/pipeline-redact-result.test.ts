/**
 * What is taken out of a result, as text against text: every byte that is not named stays.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parsePointer, REDACTED } from '../../policies/redact.ts';
import { type ResultPlace, redactResult } from '../../sidecar/pipeline/redact-result.ts';

function redact(text: string, pointers: readonly string[], place?: ResultPlace): string {
  const parsed = pointers.map((pointer) => {
    const one = parsePointer(pointer);
    assert.ok(one.ok);
    return one.value;
  });
  return redactResult(Buffer.from(text), parsed, place).toString();
}

/** A message whose result has these texts in its content. */
const withTexts = (...texts: string[]) => `{"id":1,"result":{"content":[${texts.map(itemOf).join(',')}]}}`;
const itemOf = (text: string) => `{"type":"text","text":${JSON.stringify(text)}}`;

interface Case {
  readonly before: string;
  readonly pointers?: readonly string[];
  readonly place?: ResultPlace;
  readonly after: string;
}

const EMAIL = ['/structuredContent/email'];
const cases: Record<string, Case> = {
  'white space and large numbers stay': {
    before: '{ "id":1, "result" : { "structuredContent":{ "n" : 12345678901234567890 , "email" : "a@b" } } }',
    after: '{ "id":1, "result" : { "structuredContent":{ "n" : 12345678901234567890 , "email" : "[redacted]" } } }',
  },
  'in the text that mirrors it too': {
    before: withTexts('{ "n": 12345678901234567890, "email": "a@b" }'),
    after: withTexts('{ "n": 12345678901234567890, "email": "[redacted]" }'),
  },
  'a key that is written with escapes is the same key': {
    before: '{"id":1,"result":{"structuredContent":{"em\\u0061il":"a@b"}}}',
    after: '{"id":1,"result":{"structuredContent":{"em\\u0061il":"[redacted]"}}}',
  },
  'a repeated key hides nothing': {
    before:
      '{"id":1,"result":{"structuredContent":{"email":"a","email":"b"}},"result":{"structuredContent":{"email":"c"}}}',
    after:
      '{"id":1,"result":{"structuredContent":{"email":"[redacted]","email":"[redacted]"}},"result":{"structuredContent":{"email":"[redacted]"}}}',
  },
  'a repeated key in a text hides nothing': {
    before: withTexts('{"email":"a","email":1}'),
    after: withTexts('{"email":"[redacted]","email":"[redacted]"}'),
  },
  'text that is no JSON is not searched': {
    before: withTexts('email: a@b', '[a](b) {"email":1}', '"email"', ''),
    after: withTexts('email: a@b', '[a](b) {"email":1}', '"email"', ''),
  },
  'text that begins like an object and is none goes as a whole': {
    before: withTexts(' {"email":', "{'email': 'a@b'}", '{"email":"a@b"} and more', '{"n":NaN}'),
    after: withTexts('[redacted]', '[redacted]', '[redacted]', '[redacted]'),
  },
  'text that begins like an object stays where nothing could mirror it': {
    before: withTexts('{"email":'),
    pointers: ['/content/7'],
    after: withTexts('{"email":'),
  },
  'lines of JSON, and a line of it in other text': {
    before: withTexts('{"email":1}\r\n{"n":2}\n\n{"email":3}\n', 'found:\n{"email":1}\n{broken\n[{"email":2}]'),
    after: withTexts(
      '{"email":"[redacted]"}\r\n{"n":2}\n\n{"email":"[redacted]"}\n',
      'found:\n{"email":"[redacted]"}\n{broken\n[{"email":2}]',
    ),
  },
  'behind a byte order mark': {
    before: withTexts('\ufeff{"email":1}', '\ufeff{"n":1}'),
    after: withTexts('{"email":"[redacted]"}', '\ufeff{"n":1}'),
  },
  'a value that is no object is mirrored as such': {
    before:
      '{"result":{"structuredContent":"a@b","content":[{"type":"text","text":"\\"a@b\\""},{"text":"7"},{"text":"a@b"}]}}',
    pointers: ['/structuredContent'],
    after:
      '{"result":{"structuredContent":"[redacted]","content":[{"type":"text","text":"\\"[redacted]\\""},{"text":"\\"[redacted]\\""},{"text":"a@b"}]}}',
  },
  'the text of an embedded resource is': {
    before: '{"id":1,"result":{"content":[{"type":"resource","resource":{"uri":"a:b","text":"{\\"email\\":1}"}}]}}',
    after:
      '{"id":1,"result":{"content":[{"type":"resource","resource":{"uri":"a:b","text":"{\\"email\\":\\"[redacted]\\"}"}}]}}',
  },
  'a text that is taken out itself is gone, and those beside it are looked into': {
    before: withTexts('{"email":1}', '{"email":2}', 'x'),
    pointers: ['/content/0/text', ...EMAIL, '/content/2'],
    after: `{"id":1,"result":{"content":[{"type":"text","text":"[redacted]"},${itemOf('{"email":"[redacted]"}')},"[redacted]"]}}`,
  },
  'objects and lists go whole': {
    before: '{"id":1,"result":{"structuredContent":{"email":{"a":[1,{}]},"b":2}}}',
    after: '{"id":1,"result":{"structuredContent":{"email":"[redacted]","b":2}}}',
  },
  'any depth, by name and by position': {
    before: '{"id":1,"result":{"a":[{"phone":1,"p":[7,8]},[[{"phone":2}]]],"phone":3}}',
    pointers: ['/**/phone', '/a/0/p/1'],
    after:
      '{"id":1,"result":{"a":[{"phone":"[redacted]","p":[7,"[redacted]"]},[[{"phone":"[redacted]"}]]],"phone":"[redacted]"}}',
  },
  'any depth reaches into texts': {
    before: withTexts('[{"a":{"phone":1}}]'),
    pointers: ['/**/phone'],
    after: withTexts('[{"a":{"phone":"[redacted]"}}]'),
  },
  'other members of the message stay': {
    before:
      '{"id":"structuredContent","error":{"data":{"email":1}},"params":{"result":{"structuredContent":{"email":1}}}}',
    after:
      '{"id":"structuredContent","error":{"data":{"email":1}},"params":{"result":{"structuredContent":{"email":1}}}}',
  },
  'the result that a task carries': {
    before: '{"id":1,"result":{"status":"completed","result":{"structuredContent":{"email":1}}}}',
    place: 'taskResult',
    after: '{"id":1,"result":{"status":"completed","result":{"structuredContent":{"email":"[redacted]"}}}}',
  },
  'the result that the notice of a task carries': {
    before: '{"method":"notifications/tasks","params":{"result":{"structuredContent":{"email":1}}}}',
    place: 'noticeResult',
    after: '{"method":"notifications/tasks","params":{"result":{"structuredContent":{"email":"[redacted]"}}}}',
  },
};

describe('a result is redacted by its bytes', () => {
  for (const [name, { before, pointers = EMAIL, place, after }] of Object.entries(cases))
    it(name, () => assert.equal(redact(before, pointers, place), after));

  it('what is nested deeper than is looked at goes as a whole', () => {
    const deep = `${'{"a":'.repeat(200)}{"phone":"555"}${'}'.repeat(200)}`;
    const after = redact(`{"id":1,"result":${deep}}`, ['/**/phone']);
    assert.equal(after.includes('555'), false);
    assert.ok(after.includes(`"${REDACTED}"`));
  });

  it('many ways to the same place are gone once', () => {
    const deep = `${'{"a":'.repeat(60)}1${'}'.repeat(60)}`;
    const before = `{"id":1,"result":${deep}}`;
    assert.equal(redact(before, [`${'/**/*'.repeat(30)}/none`, `${'/**'.repeat(100)}/none`]), before);
  });

  it('texts and places by the ten thousand', () => {
    const rows = 10_000;
    const before = JSON.stringify({
      id: 1,
      result: {
        content: Array.from({ length: rows }, (_, row) => ({ type: 'text', text: `{"row":${row},"phone":"555"}` })),
        rows: Array.from({ length: rows }, () => ({ phone: '555' })),
      },
    });
    const { result } = JSON.parse(redact(before, ['/**/phone']));
    assert.equal(result.content.at(-1).text, `{"row":${rows - 1},"phone":"[redacted]"}`);
    assert.equal(result.rows.filter(({ phone }: { phone: string }) => phone === REDACTED).length, rows);
  });
});
