/**
 * What a policy does to the arguments of a call before it is judged: members taken away, constants put in their place,
 * and whether the tool's own schema is enforced. Pure; who carries it out is sidecar/protocol/edit-json.ts.
 *
 * What is judged, recorded and sent is the same: the arguments as they are after this.
 */
import type { CompiledPolicy, Pointer } from './policy.ts';
import { err, ok, type Result } from './result.ts';

export interface ArgumentPlan {
  readonly removes: readonly Pointer[];
  readonly sets: readonly { readonly pointer: Pointer; readonly value: unknown; readonly rule: string }[];
  /** The entry that wants the tool's schema enforced. */
  readonly validatedBy: string | undefined;
}

/** Why a plan cannot be carried out; `rule` is told, `detail` is for the audit. */
export interface ArgumentProblem {
  readonly rule: string;
  readonly detail: string;
}

/**
 * All entries that concern the tool, taken together: their order never matters. All removals come before all constants.
 *
 * @returns `undefined` when none does; an error when two put different constants at one place, or one inside another's.
 */
export function argumentPlanFor(
  policy: CompiledPolicy,
  server: string,
  tool: string,
): Result<ArgumentPlan | undefined, ArgumentProblem> {
  const removes: Pointer[] = [];
  const sets: { readonly pointer: Pointer; readonly value: unknown; readonly rule: string }[] = [];
  let validatedBy: string | undefined;
  let isConcerned = false;
  for (const entry of policy.argumentRules) {
    if (!entry.server(server) || !entry.tools.some((matches) => matches(tool))) continue;
    isConcerned = true;
    removes.push(...entry.remove);
    if (entry.validate) validatedBy ??= entry.name;
    for (const { pointer, value } of entry.set) {
      const other = sets.find((one) => overlaps(one.pointer, pointer));
      if (other === undefined) sets.push({ pointer, value, rule: entry.name });
      else if (other.pointer.length !== pointer.length || JSON.stringify(other.value) !== JSON.stringify(value))
        return err({
          rule: entry.name,
          detail: `${entry.name} and ${other.rule} put different constants at /${pointer.join('/')}`,
        });
    }
  }
  return ok(isConcerned ? { removes, sets, validatedBy } : undefined);
}

/** One leads to the other's place, or through it. */
function overlaps(one: Pointer, other: Pointer): boolean {
  const length = Math.min(one.length, other.length);
  return one.slice(0, length).every((segment, index) => segment === other[index]);
}
