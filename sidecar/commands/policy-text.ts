/** The parts of a policy in a decision, as lines for people: for `policy explain`, and for a case that fails. */
import type { Decision } from '../../policies/decision.ts';
import type { Effect, Part } from '../../policies/explain.ts';
import { type PolicyDocument, policySchema } from '../../policies/schema.ts';
import type { LoadedPolicy } from '../config/policy-source.ts';
import { type Selector, showCondition, showPolicyFile, showSelector } from './configuration-summary.ts';

/** `refuse by no pushes at night: no pushes at night denies this call`. */
export function describeDecision(decision: Decision): string {
  const rule = decision.rule === undefined ? '' : ` by ${decision.rule}`;
  if (decision.effect !== 'allow') return `${decision.effect}${rule}: ${decision.reason}`;
  const { wouldBe } = decision;
  return `allow${rule}${wouldBe === undefined ? '' : `, in audit mode (enforcing: ${describeDecision(wouldBe)})`}`;
}

/** Where a part was written, and its words. */
export interface Written {
  /** `policy.yaml:12`. */
  readonly place: string;
  readonly selectors: readonly Selector[];
  readonly when: string | undefined;
}

/** Finds parts of a policy in its document. */
export function finderOf({ document, locate }: LoadedPolicy): (part: Part) => Written {
  // It has compiled, so that this cannot fail; the schema fills in the defaults.
  const policy: PolicyDocument = policySchema.parse(document);
  return ({ label, role, side }) => {
    const index = role === undefined ? policy.rules.findIndex(({ name }) => name === label) : -1;
    const written = role === undefined ? policy.rules[index] : policy.roles[role];
    const path = role === undefined ? ['rules', index] : ['roles', role];
    return {
      place: placeOf(locate, path),
      selectors: written?.[side] ?? [],
      when: policy.rules[index]?.when,
    };
  };
}

export function placeOf(locate: LoadedPolicy['locate'], path: readonly (string | number)[]): string {
  const { file, line, path: within } = locate({ path, at: 'key', message: '' });
  // In a bundle there are no lines, and the path is all there is.
  if (file === undefined) return within;
  return [showPolicyFile(file), line].filter((part) => part !== undefined).join(':');
}

const EFFECTS: Readonly<Record<Effect, string>> = {
  hides: 'denies it: it is hidden',
  refuses: 'denies this call',
  allows: 'allows this call',
  shows: 'lets it be seen, but does not allow this call',
  nothing: 'does not apply',
};

const RANKS: readonly Effect[] = ['hides', 'refuses', 'allows', 'shows', 'nothing'];

/** Those that have a part in a decision, what weighs most first. */
export function havingPart(parts: readonly Part[]): readonly Part[] {
  return parts
    .filter(({ apart }) => apart === undefined)
    .sort((one, other) => RANKS.indexOf(one.effect) - RANKS.indexOf(other.effect));
}

/** A line for the part, and one for each of its words that matter. */
export function describePart(part: Part, find: (part: Part) => Written): string[] {
  const { label, apart, audit, effect, selectors, error } = part;
  const written = find(part);
  const does =
    apart === 'roleNotHeld'
      ? 'has no part: the agent does not have this role'
      : apart === 'notSelected'
        ? 'has no part: no selector matches'
        : `${EFFECTS[effect]}${audit ? ' (recorded only)' : ''}`;
  return [
    `${label} (${written.place}) ${does}`,
    ...selectors.map((index) => `  ${part.side} ${showSelector(written.selectors[index]!)}`),
    ...(apart === undefined && written.when !== undefined
      ? [`  when ${showCondition(written.when)}: ${describeTruth(part)}`]
      : []),
    ...(error === undefined || apart !== undefined ? [] : [`  error: ${error}`]),
  ];
}

function describeTruth({ stable, perCall }: Part): string {
  return [
    ...(stable === undefined ? [] : [`${stable} by what is known without a call`]),
    ...(perCall === undefined ? [] : [`${perCall} by the call`]),
  ].join(', ');
}
