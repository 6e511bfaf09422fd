/**
 * Quantities of Kubernetes (`250m`, `1.5`, `64Mi`, `1e3`), as far as cpu and memory need them. PURE.
 *
 * Source: apimachinery, pkg/api/resource/quantity.go.
 */
const SYNTAX = /^(\d{1,12}(?:\.\d{1,9})?|\.\d{1,9})(?:(m|k|M|G|T|Ki|Mi|Gi|Ti)|[eE]([+-]?\d{1,2}))?$/;
const FACTOR: Readonly<Record<string, number>> = {
  m: 1e-3,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
};

/** In cores or bytes; `undefined` for what is no quantity. */
export function parseQuantity(text: string): number | undefined {
  const [, digits, suffix, exponent] = SYNTAX.exec(text) ?? [];
  if (digits === undefined) return undefined;
  return Number(digits) * (suffix === undefined ? 10 ** Number(exponent ?? 0) : FACTOR[suffix]!);
}
