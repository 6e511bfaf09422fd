/**
 * Carries out what policy does to the arguments of a call: the message that is judged, recorded and sent from then on.
 */
import { type ArgumentPlan, type ArgumentProblem, changeArguments } from '../../policies/arguments.ts';
import { err, ok, type Result } from '../../policies/result.ts';
import { removeMember, setMember } from '../protocol/edit-json.ts';
import { applyEdits } from '../protocol/json-bytes.ts';
import { findLookalike, KeyFolds } from '../protocol/lookalike.ts';
import type { Message } from '../protocol/message.ts';
import { parseBody } from '../protocol/parse.ts';

/** What was bounded when it came is not bounded anew: policy's constants are. */
const LIMITS = { depthMax: 1024, batchMax: 1 };

/** @returns the same message where nothing changes. */
export function changeMessage(message: Message, plan: ArgumentPlan): Result<Message, ArgumentProblem> {
  const { layout, bytes, params } = message;
  const places = [...plan.removes, ...plan.sets];
  if (places.length === 0) return ok(message);
  const changed = changeArguments(params?.arguments, plan);
  if (!changed.ok) return changed;
  // Another parser would find there what was to be gone, or something else than the constant.
  const folds = new KeyFolds();
  for (const { pointer, rule } of places) {
    const key = findLookalike(params?.arguments, pointer, folds);
    if (key !== undefined)
      return err({ rule, detail: `the arguments have ${key}, which looks like ${pointer.at(-1)}` });
  }
  const given = layout.arguments && bytes.subarray(layout.arguments.start, layout.arguments.end);
  if (given === undefined && plan.sets.length === 0) return ok(message);
  let args = given ?? Buffer.from('{}');
  for (const { pointer } of plan.removes) args = removeMember(args, pointer);
  for (const { pointer, value } of plan.sets) args = setMember(args, pointer, JSON.stringify(value));
  if (given?.equals(args)) return ok(message);
  const parsed = parseBody(put(message, args), LIMITS);
  if (!parsed.ok || parsed.value.kind !== 'single')
    return err({ rule: places[0]!.rule, detail: 'the changed arguments cannot be read' });
  return ok(parsed.value.message);
}

function put({ bytes, layout }: Message, args: Buffer): Buffer {
  const text = args.toString();
  if (layout.arguments !== undefined) return applyEdits(bytes, [{ ...layout.arguments, text }]);
  const { inside, empty } = layout.params!;
  return applyEdits(bytes, [{ start: inside, end: inside, text: `"arguments":${text}${empty ? '' : ','}` }]);
}
