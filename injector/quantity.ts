/**
 * Quantities of Kubernetes (`250m`, `1.5`, `64Mi`, `1e3`) as exact whole numbers. PURE.
 *
 * Source: apimachinery, pkg/api/resource/quantity.go (syntax, rounding up to a billionth, the largest amount), and
 * kubernetes, pkg/apis/core/v1/defaults.go (what a pod asks for is rounded up to a thousandth).
 */
/** More digits than this say nothing that a quantity keeps. */
const SYNTAX = /^\+?(?=\.?\d)(\d{0,20})(?:\.(\d{0,20}))?(?:(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)|[eE]([+-]?\d{1,2}))?$/;
const DECIMAL: Readonly<Record<string, number>> = { n: -9, u: -6, m: -3, k: 3, M: 6, G: 9, T: 12, P: 15, E: 18 };
const BINARY: Readonly<Record<string, bigint>> = { Ki: 10n, Mi: 20n, Gi: 30n, Ti: 40n, Pi: 50n, Ei: 60n };

const PER_UNIT = 1_000_000_000n;
const PER_THOUSANDTH = PER_UNIT / 1_000n;
/** 2^63-1 units, whatever is written. */
const LARGEST = (2n ** 63n - 1n) * PER_UNIT;

/** In billionths of a core or byte; `undefined` for what is no quantity, or one below zero. */
export function parseQuantity(text: string): bigint | undefined {
  const found = SYNTAX.exec(text);
  if (found === null) return undefined;
  const [, whole = '', fraction = '', suffix = '', exponent] = found;
  const power = Number(exponent ?? DECIMAL[suffix] ?? 0) + 9 - fraction.length;
  const digits = BigInt(whole + fraction) << (BINARY[suffix] ?? 0n);
  const amount = power < 0 ? dividedUp(digits, 10n ** BigInt(-power)) : digits * 10n ** BigInt(power);
  return amount < LARGEST ? amount : LARGEST;
}

/** In thousandths, as the API server keeps it in a container: two spellings that it takes for one are the same. */
export function keptQuantity(text: string): bigint | undefined {
  const amount = parseQuantity(text);
  return amount === undefined ? undefined : dividedUp(amount, PER_THOUSANDTH);
}

function dividedUp(amount: bigint, by: bigint): bigint {
  return (amount + by - 1n) / by;
}
