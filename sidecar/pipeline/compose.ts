/**
 * Stacks the stages of the pipeline, outermost first.
 *
 * Each stage says what it needs of an exchange (`In`) and what it has added when it calls on (`Out`); a stack in which
 * a stage is missing or out of order does not compile. A stage answers `undefined` when the exchange was served, and
 * a {@link Reason} when it was not: it never writes a refusal itself (the `rescue` stage does).
 */
import type { Reason } from './reason.ts';

export type Outcome = Reason | undefined;
export type Next<E> = (exchange: E) => Outcome | Promise<Outcome>;
export type Stage<In, Out> = (exchange: In, next: Next<Out>) => Outcome | Promise<Outcome>;

export interface Stack<In, Out> {
  readonly names: readonly string[];
  /** Adds a stage inside all those before it. */
  push<More>(name: string, stage: Stage<Out, More>): Stack<In, More>;
  /** The whole pipeline as one function. What the innermost stage calls on to is nothing. */
  build(): Next<In>;
}

export function stack<In>(): Stack<In, In> {
  return stackOf<In, In>([], (inner) => inner);
}

function stackOf<In, Out>(names: readonly string[], wrap: (inner: Next<Out>) => Next<In>): Stack<In, Out> {
  return {
    names,
    push: <More>(name: string, stage: Stage<Out, More>) =>
      stackOf<In, More>([...names, name], (inner) => wrap((exchange) => stage(exchange, inner))),
    build: () => wrap(() => undefined),
  };
}
