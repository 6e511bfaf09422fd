/**
 * The result of an act that is expected to fail now and then.
 *
 * An expected failure is a value of this type; a throw is a bug. Checks are chained with
 * `if (!result.ok) return result`, so that control flow stays visible.
 */
export type Result<T, E> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: E };

export const ok = <T>(value: T): Result<T, never> => ({ ok: true, value });
export const err = <E>(error: E): Result<never, E> => ({ ok: false, error });
