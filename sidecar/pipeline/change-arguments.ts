/**
 * Carries out what policy does to the arguments of a call: the message that is judged, recorded and sent from then on.
 */
import type { ArgumentPlan, ArgumentProblem } from '../../policies/arguments.ts';
import { err, ok, type Result } from '../../policies/result.ts';
import { removeMember, setMember } from '../protocol/edit-json.ts';
import { applyEdits } from '../protocol/json-bytes.ts';
import type { Message } from '../protocol/message.ts';
import { parseBody } from '../protocol/parse.ts';

/** What was bounded when it came is not bounded anew: policy's constants are. */
const LIMITS = { depthMax: 1024, batchMax: 1 };

/** @returns the same message where nothing changes. */
export function changeArguments(message: Message, plan: ArgumentPlan): Result<Message, ArgumentProblem> {
  const { layout, bytes } = message;
  const given = layout.arguments && bytes.subarray(layout.arguments.start, layout.arguments.end);
  if (given !== undefined && given[0] !== OPEN_BRACE)
    return err({ rule: plan.sets[0]?.rule ?? 'arguments', detail: 'params.arguments is no object' });
  let args = given ?? Buffer.from('{}');
  for (const pointer of plan.removes) args = removeMember(args, pointer);
  for (const { pointer, value, rule } of plan.sets) {
    const set = setMember(args, pointer, JSON.stringify(value));
    if (!set.ok) return err({ rule, detail: `${rule} cannot put its constant in place: ${set.error}` });
    args = set.value;
  }
  if (given === undefined ? plan.sets.length === 0 : args.equals(given)) return ok(message);
  const parsed = parseBody(put(message, args), LIMITS);
  if (!parsed.ok || parsed.value.kind !== 'single')
    return err({ rule: plan.sets[0]?.rule ?? 'arguments', detail: 'the changed arguments cannot be read' });
  return ok(parsed.value.message);
}

const OPEN_BRACE = 0x7b;

function put({ bytes, layout }: Message, args: Buffer): Buffer {
  const text = args.toString();
  if (layout.arguments !== undefined) return applyEdits(bytes, [{ ...layout.arguments, text }]);
  const { inside, empty } = layout.params!;
  return applyEdits(bytes, [{ start: inside, end: inside, text: `"arguments":${text}${empty ? '' : ','}` }]);
}
